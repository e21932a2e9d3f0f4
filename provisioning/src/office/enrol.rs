//! What the office checks before it takes a box into the fleet.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::PublicKeyData as _;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use thiserror::Error;

use super::authority::{AuthorityError, request_key};
use crate::enrolment::{Enrolment, EnrolmentError};

/// Why a box is not taken into the fleet. Nothing is changed then.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum EnrolError {
    /// The file is not an enrolment.
    #[error(transparent)]
    Enrolment(#[from] EnrolmentError),
    /// The certificate request is malformed, or asks for a name.
    #[error(transparent)]
    Request(#[from] AuthorityError),
    /// The recipient is not one of age.
    #[error(
        "`age_recipient` in the enrolment is damaged; take the file from the box's stick again"
    )]
    Recipient,
    /// The parts of the file are not of one box.
    #[error(
        "the enrolment was changed after its box wrote it, or has parts of two boxes: take the \
             file from the box's stick again"
    )]
    WrongProof,
    /// A key of it belongs to a box of another site.
    #[error(
        "`{part}` of this enrolment belongs to the box of the site `{site}`: a box can be at one \
             site only, so one of the two files is wrong or hostile"
    )]
    Known {
        /// Part of the file.
        part: &'static str,
        /// The other site.
        site: String,
    },
    /// Its tunnel key is that of another peer of the hubs.
    #[error(
        "`tunnel_public_key` of this enrolment is the key of {holder}: each box makes its own, so \
             the file is wrong or hostile"
    )]
    KeyOfPeer {
        /// What has the key.
        holder: String,
    },
    /// A key of it was withdrawn.
    #[error(
        "`{part}` of this enrolment was withdrawn, and is refused for ever: reset the box with \
             `edge-gateway-box wipe`, so that it makes new keys"
    )]
    Refused {
        /// Part of the file.
        part: &'static str,
    },
    /// The site has another box.
    #[error(
        "the site `{site}` has another box: if that one was replaced, write \
             `edge-provision replace {site} FILE`"
    )]
    OtherBox {
        /// The site.
        site: String,
    },
}

/// The keys of all boxes that the office knows.
#[derive(Clone, Debug, Default)]
pub struct KnownBoxes {
    /// Site by key.
    sites: BTreeMap<String, String>,
    /// Keys that are refused for ever.
    refused: BTreeSet<String>,
}

/// The three public keys of a box, each with its name in the enrolment.
pub(crate) type BoxKeyTexts = [(&'static str, String); 3];

impl KnownBoxes {
    /// Adds the box of a site. Does not check the file, which was checked when it was taken in.
    pub fn add(&mut self, site: &str, enrolment: &Enrolment) {
        let keys = key_texts(enrolment).into_iter().flatten();
        self.sites.extend(keys.map(|(_, key)| (key, site.to_owned())));
    }

    /// Adds a key that is refused for ever.
    pub fn refuse(&mut self, key: &str) {
        self.refused.insert(key.to_owned());
    }

    /// Checks the enrolment of a box for a site: its form, its proof, that it names no subject, and
    /// that none of its keys is known at another site or refused.
    ///
    /// # Errors
    /// When one of the checks fails; the error says what to do.
    pub fn check(&self, site: &str, text: &str) -> Result<Enrolment, EnrolError> {
        let enrolment = Enrolment::parse(text)?;
        let request = request_key(&enrolment.certificate_request)?;
        let recipient = enrolment.age_recipient.parse::<age::x25519::Recipient>();
        recipient.map_err(|_| EnrolError::Recipient)?;
        let proof = STANDARD.decode(enrolment.proof()).map_err(|_| EnrolError::WrongProof)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, request.der_bytes())
            .verify(enrolment.proven_text().as_bytes(), &proof)
            .map_err(|_| EnrolError::WrongProof)?;
        for (part, key) in key_texts(&enrolment)? {
            if self.refused.contains(&key) {
                return Err(EnrolError::Refused { part });
            }
            if let Some(other) = self.sites.get(&key).filter(|other| *other != site) {
                return Err(EnrolError::Known { part, site: other.clone() });
            }
        }
        Ok(enrolment)
    }
}

/// Returns whether two enrolments are of the same keys. Their signatures differ each time.
///
/// # Errors
/// When a certificate request is damaged.
pub fn is_same_box(first: &Enrolment, second: &Enrolment) -> Result<bool, EnrolError> {
    Ok(key_texts(first)? == key_texts(second)?)
}

/// Returns the public keys of a box in one form each, by which they are compared.
pub(crate) fn key_texts(enrolment: &Enrolment) -> Result<BoxKeyTexts, EnrolError> {
    let request = request_key(&enrolment.certificate_request)?;
    Ok([
        ("tunnel_public_key", enrolment.tunnel_public_key.to_string()),
        // bech32 allows both cases.
        ("age_recipient", enrolment.age_recipient.to_ascii_lowercase()),
        ("certificate_request", STANDARD.encode(request.der_bytes())),
    ])
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::enrolment::BoxKeys;

    struct TestBox {
        dir: PathBuf,
        text: String,
    }

    impl TestBox {
        fn new() -> Self {
            let name = format!("edge-enrol-{}-{:08x}", std::process::id(), fastrand::u32(..));
            let dir = std::env::temp_dir().join(name);
            let text = BoxKeys::open_or_create(&dir).unwrap().enrolment().unwrap().to_string();
            Self { dir, text }
        }

        fn enrolment(&self) -> Enrolment {
            Enrolment::parse(&self.text).unwrap()
        }
    }

    impl Drop for TestBox {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }

    #[test]
    fn a_box_is_at_one_site_and_a_withdrawn_one_at_none() {
        let (first, second) = (TestBox::new(), TestBox::new());
        let mut known = KnownBoxes::default();
        known.add("amsterdam-01", &first.enrolment());

        assert_eq!(known.check("amsterdam-01", &first.text).unwrap(), first.enrolment());
        assert_eq!(known.check("rotterdam-02", &second.text).unwrap(), second.enrolment());
        let other = known.check("rotterdam-02", &first.text).unwrap_err();
        let site = "amsterdam-01".to_owned();
        assert_eq!(other, EnrolError::Known { part: "tunnel_public_key", site });
        for (part, key) in key_texts(&second.enrolment()).unwrap() {
            let mut known = KnownBoxes::default();
            known.refuse(&key);
            let refused = known.check("rotterdam-02", &second.text).unwrap_err();
            assert_eq!(refused, EnrolError::Refused { part });
        }
    }

    #[test]
    fn parts_of_two_boxes_are_refused() {
        let (own, other) = (TestBox::new(), TestBox::new());
        let (a, b) = (own.enrolment(), other.enrolment());
        let known = KnownBoxes::default();
        let parts = [
            (a.tunnel_public_key.to_string(), b.tunnel_public_key.to_string()),
            (a.age_recipient, b.age_recipient),
            (a.certificate_request, b.certificate_request),
        ];
        for (from, to) in parts {
            let mixed = own.text.replace(&from, &to);
            assert_ne!(mixed, own.text);
            assert_eq!(known.check("site", &mixed), Err(EnrolError::WrongProof));
        }
    }

    #[test]
    fn an_altered_enrolment_is_refused_at_every_byte_that_means_something() {
        let own = TestBox::new();
        let known = KnownBoxes::default();
        let bytes = own.text.as_bytes();
        for at in 0..bytes.len() {
            for to in [b'A', b'B'] {
                let mut altered = bytes.to_vec();
                altered[at] = to;
                let Ok(altered) = String::from_utf8(altered) else { continue };
                let taken = known.check("site", &altered);
                // A changed comment says nothing; a name in the request is looked for elsewhere.
                assert!(taken.is_err() || taken == Ok(own.enrolment()), "byte {at}");
            }
        }
    }
}
