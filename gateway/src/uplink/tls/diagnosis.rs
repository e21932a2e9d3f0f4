//! What a failed handshake means. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use provisioning::certificates::{CertificateFacts, WRITTEN_AT, shown_date};
use provisioning::config::HostPort;
use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::record::{HandshakeRecord, Presented};
use crate::model::UntrustedText;
use crate::uplink::DialError;

/// Minimum length of an RSA key in bits that TLS accepts here (ring, RSA_PKCS1_2048_8192_SHA256).
const MIN_RSA_BITS: usize = 2048;

/// A handshake, as far as it explains a failure.
#[derive(Debug)]
pub(super) struct HandshakeContext {
    pub(super) broker: HostPort,
    pub(super) record: Arc<HandshakeRecord>,
    /// The certificate of the gateway, and the path of its file.
    pub(super) client: Option<(CertificateFacts, String)>,
}

impl HandshakeContext {
    /// Returns what it means that the broker ends the connection without a word, if it had asked
    /// for a certificate that is not configured.
    pub(super) fn early_end(&self) -> Option<DialError> {
        let is_missing = self.record.is_client_asked() && self.client.is_none();
        is_missing.then(|| DialError::ClosedWithoutCertificate { broker: self.broker.to_string() })
    }

    /// Returns when the certificates were checked, in seconds since 1970.
    fn now(&self) -> Option<i64> {
        self.record.presented().map(|presented| presented.at)
    }

    fn chain(&self) -> &[CertificateFacts] {
        self.record.presented().map_or(&[], |Presented { chain, .. }| chain)
    }

    /// Returns the subjectAltName that the broker's certificate needs.
    fn wanted_name(&self) -> String {
        let host = &self.broker.host;
        let kind = if host.parse::<IpAddr>().is_ok() { "IP" } else { "DNS" };
        format!("{kind}:{host}")
    }
}

/// Returns what an error of the TLS library means.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library may add errors")]
pub(super) fn explain(error: &Error, context: &HandshakeContext) -> DialError {
    let broker = context.broker.to_string();
    match error {
        Error::InvalidCertificate(cause) => invalid_certificate(cause, context),
        Error::AlertReceived(alert) => received_alert(*alert, context),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => DialError::TlsTooOld { broker },
        Error::PeerIncompatible(_) => DialError::NothingInCommon { broker },
        Error::NoApplicationProtocol => DialError::AlpnRefused { broker },
        Error::InvalidMessage(_) => DialError::NotTls { broker },
        other => DialError::TlsFailed { broker, cause: UntrustedText::of(other) },
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library may add errors")]
fn invalid_certificate(cause: &CertificateError, context: &HandshakeContext) -> DialError {
    use CertificateError as Cause;
    let broker = context.broker.to_string();
    match cause {
        Cause::Expired
        | Cause::ExpiredContext { .. }
        | Cause::NotValidYet
        | Cause::NotValidYetContext { .. } => wrong_time(cause, context),
        Cause::UnknownIssuer => match context.chain().first() {
            Some(facts) if facts.is_self_issued => DialError::SelfSigned { broker },
            facts => {
                let issuer = facts.map_or("", |facts| facts.issuer_name.as_str());
                DialError::UnknownAuthority { broker, issuer: UntrustedText::new(issuer) }
            }
        },
        Cause::BadSignature => weak_key(context).unwrap_or(DialError::WrongSignature { broker }),
        Cause::UnsupportedSignatureAlgorithmContext { .. }
        | Cause::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            if context.chain().iter().any(|facts| facts.has_outdated_signature) {
                return DialError::OutdatedSignature { broker };
            }
            weak_key(context).unwrap_or(DialError::UnsupportedSignature { broker })
        }
        Cause::NotValidForName | Cause::NotValidForNameContext { .. } => wrong_name(context),
        Cause::InvalidPurpose | Cause::InvalidPurposeContext { .. } => {
            DialError::NotForServers { broker }
        }
        Cause::Revoked => DialError::Revoked { broker },
        other => unusable_certificate(other, context),
    }
}

/// Returns what is wrong with a certificate for which the library has no error of its own.
fn unusable_certificate(cause: &CertificateError, context: &HandshakeContext) -> DialError {
    let broker = context.broker.to_string();
    match context.chain() {
        [first, rest @ ..] if first.is_authority => {
            if rest.iter().any(|facts| !facts.is_authority) {
                DialError::ServerChainOrder { broker }
            } else {
                DialError::AuthorityAsServer { broker }
            }
        }
        [first, ..] if !first.is_v3 => DialError::CertificateVersion { broker },
        _ => {
            // The name of the innermost error: its other words are Rust.
            let text = format!("{cause:?}");
            let words = text.split(|c: char| !c.is_ascii_alphanumeric());
            let is_wrapper = |word: &&str| !["", "Other", "OtherError"].contains(word);
            let rule = words.into_iter().find(is_wrapper).unwrap_or_default();
            DialError::InvalidCertificate { broker, rule: UntrustedText::new(rule) }
        }
    }
}

fn weak_key(context: &HandshakeContext) -> Option<DialError> {
    let mut weak = context.chain().iter().filter_map(|facts| facts.rsa_bits);
    let bits = weak.find(|bits| *bits < MIN_RSA_BITS)?;
    Some(DialError::WeakKey { broker: context.broker.to_string(), bits })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only the errors with a time have one")]
fn wrong_time(cause: &CertificateError, context: &HandshakeContext) -> DialError {
    let seconds = |time: rustls::pki_types::UnixTime| {
        i64::try_from(time.as_secs()).map_or_else(|_| String::new(), shown_date)
    };
    let broker = context.broker.to_string();
    let now = context.now().unwrap_or_default();
    let shown_now = shown_date(now);
    if now < WRITTEN_AT {
        return DialError::ClockUnset { broker, now: shown_now };
    }
    let first = context.chain().first();
    let not_after = first.map_or(0, |facts| facts.not_after);
    let not_before = first.map_or(0, |facts| facts.not_before);
    match cause {
        CertificateError::NotValidYetContext { not_before, .. } => {
            let not_before = seconds(*not_before);
            DialError::CertificateNotYetValid { broker, not_before, now: shown_now }
        }
        CertificateError::NotValidYet => {
            let not_before = shown_date(not_before);
            DialError::CertificateNotYetValid { broker, not_before, now: shown_now }
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            let not_after = seconds(*not_after);
            DialError::CertificateExpired { broker, not_after, now: shown_now }
        }
        _ => DialError::CertificateExpired {
            broker,
            not_after: shown_date(not_after),
            now: shown_now,
        },
    }
}

/// Returns that the certificate is for other names, or for none.
fn wrong_name(context: &HandshakeContext) -> DialError {
    let wanted = context.wanted_name();
    let Some(facts) = context.chain().first() else {
        return DialError::NoServerName { wanted };
    };
    let names = facts.dns_names.iter().map(|name| format!("DNS:{name}"));
    let addresses = facts.addresses.iter().map(|address| format!("IP:{address}"));
    let names: Vec<_> = names.chain(addresses).collect();
    if names.is_empty() {
        return DialError::NoServerName { wanted };
    }
    let names = UntrustedText::new(&names.join(", "));
    DialError::WrongServerName { host: context.broker.host.clone(), names, wanted }
}

/// Returns what an alert of the broker means (RFC 8446, 6.2).
#[expect(clippy::wildcard_enum_match_arm, reason = "the library may add alerts")]
fn received_alert(alert: AlertDescription, context: &HandshakeContext) -> DialError {
    use AlertDescription as Alert;
    let broker = context.broker.to_string();
    match alert {
        Alert::ProtocolVersion => DialError::TlsTooOld { broker },
        Alert::NoApplicationProtocol => DialError::AlpnRefused { broker },
        Alert::UnrecognisedName => {
            DialError::UnknownServerName { broker, host: context.broker.host.clone() }
        }
        Alert::CertificateRequired
        | Alert::NoCertificate
        | Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied
        | Alert::DecryptError
        | Alert::HandshakeFailure
            if context.record.is_client_asked() =>
        {
            rejected_client(alert, context)
        }
        Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            DialError::NothingInCommon { broker }
        }
        other => {
            DialError::TlsFailed { broker, cause: UntrustedText::new(&format!("alert {other:?}")) }
        }
    }
}

/// Returns why the broker, which asked for a certificate of the gateway, does not go on.
#[expect(clippy::wildcard_enum_match_arm, reason = "the other alerts say no more")]
fn rejected_client(alert: AlertDescription, context: &HandshakeContext) -> DialError {
    use AlertDescription as Alert;
    let broker = context.broker.to_string();
    let Some((facts, path)) = &context.client else {
        return DialError::ClientCertificateMissing { broker };
    };
    if let Some(fault) = context.now().and_then(|now| facts.time_fault(path, now)) {
        return DialError::File(fault);
    }
    if let Some(fault) = facts.purpose_fault(path) {
        return DialError::File(fault);
    }
    match alert {
        Alert::UnknownCA => DialError::ClientAuthorityUnknown { broker },
        Alert::CertificateExpired => DialError::ClientCertificateExpired { broker },
        other => {
            let alert = UntrustedText::new(&format!("alert {other:?}"));
            DialError::ClientCertificateRejected { broker, alert }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::super::record::RecordingVerifier;
    use super::*;

    /// Returns what a broker with a certificate for the year 2027 means at this time.
    fn at(seconds: u64) -> DialError {
        let mut params = CertificateParams::new(vec!["b".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2027, 1, 1);
        params.not_after = date_time_ymd(2028, 1, 1);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let record = Arc::new(HandshakeRecord::default());
        let verifier = RecordingVerifier::new(verifier.build().unwrap(), &record);
        let name = ServerName::try_from("b").unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let error = verifier.verify_server_cert(certificate.der(), &[], &name, &[], now);
        let broker = HostPort { host: "b".to_owned(), port: 8883 };
        explain(&error.unwrap_err(), &HandshakeContext { broker, record, client: None })
    }

    #[test]
    fn a_clock_that_was_never_set_is_told_from_a_certificate_of_another_time() {
        assert_eq!(
            at(60).to_string(),
            "The certificate of the broker b:8883 cannot be checked, because the clock of this \
             gateway is not set (it shows 1970-01-01 00:01 UTC): set it, or give it access to a \
             time server (NTP)."
        );
        let december = at(1_796_083_200).to_string();
        assert!(december.contains("is not valid before 2027-01-01 00:00 UTC"), "{december}");
        assert!(december.contains("shows 2026-12-01 00:00 UTC"), "{december}");
        let late = at(1_830_384_000).to_string();
        assert!(late.contains("expired on 2028-01-01 00:00 UTC"), "{late}");
    }
}
