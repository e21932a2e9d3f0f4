//! The offer of a bundle: the retained message on `edge/ID/offer`.

use serde::{Deserialize, Serialize, Serializer};

use super::MAX_BUNDLE_BYTES;

/// What the office publishes about the newest bundle of a box. Where the bundle is fetched stands
/// in the configuration of the gateway. Serializes to
/// `{"counter":17,"size":2048,"sha256":"0af1.."}`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct BundleOffer {
    /// Counter of the bundle.
    pub counter: u64,
    /// Size of its file in bytes.
    pub size: usize,
    /// SHA-256 of its file.
    #[serde(serialize_with = "serialize_hex")]
    pub sha256: [u8; 32],
}

impl BundleOffer {
    /// Reads a message; none if it is no offer. Further members are ignored.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct OfferMessage {
            counter: u64,
            size: usize,
            sha256: String,
        }
        let OfferMessage { counter, size, sha256 } = serde_json::from_slice(payload).ok()?;
        let is_possible = counter > 0 && (1..=MAX_BUNDLE_BYTES).contains(&size);
        let sha256 = digest_of_hex(&sha256)?;
        is_possible.then_some(Self { counter, size, sha256 })
    }
}

fn serialize_hex<S: Serializer>(digest: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    serializer.serialize_str(&hex)
}

/// Returns the 32 bytes that 64 hexadecimal digits mean.
fn digest_of_hex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|[high, low]| u8::try_from(high * 16 + low).ok()).collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_offer_has_one_form() {
        let text = format!(r#"{{"counter":17,"size":2048,"sha256":"{}"}}"#, "0aF1".repeat(16));
        let offer = BundleOffer::parse(text.as_bytes()).unwrap();
        assert_eq!((offer.counter, offer.size), (17, 2048));
        assert_eq!(offer.sha256[..3], [0x0A, 0xF1, 0x0A]);
        for (from, to) in [
            ("17", "0"),
            ("17", "-1"),
            ("2048", "0"),
            ("2048", "1048577"),
            ("0aF1", "0aG1"),
            ("0aF1", ""),
            ("0aF1", "é"),
            ("counter", "count"),
            ("{", ""),
        ] {
            let parsed = BundleOffer::parse(text.replace(from, to).as_bytes());
            assert_eq!(parsed, None, "{from} {to}");
        }
        let more = text.replace('{', r#"{"url":"http://x","#);
        assert!(BundleOffer::parse(more.as_bytes()).is_some());
    }

    #[test]
    fn an_offer_is_read_as_it_is_written() {
        let offer = BundleOffer { counter: 17, size: 2048, sha256: [0xab; 32] };
        let json = serde_json::to_string(&offer).unwrap();
        let expected = format!(r#"{{"counter":17,"size":2048,"sha256":"{}"}}"#, "ab".repeat(32));
        assert_eq!(json, expected);
        assert_eq!(BundleOffer::parse(json.as_bytes()), Some(offer));
    }

    proptest! {
        #[test]
        fn any_message_is_read_without_a_panic(payload: Vec<u8>) {
            let _ = BundleOffer::parse(&payload);
        }
    }
}
