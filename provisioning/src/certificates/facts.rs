//! What a certificate says, as far as it decides whether TLS works. Pure.

use std::net::IpAddr;

use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::X509Version;

use super::CertificateFault;

/// Object identifiers of signatures over SHA-1 and MD5, which no TLS 1.2 client should accept:
/// RSA with MD5 and SHA-1 (RFC 8017, A.2.4), DSA and ECDSA with SHA-1 (RFC 3279, 2.2).
const OUTDATED_SIGNATURES: [&str; 4] =
    ["1.2.840.113549.1.1.4", "1.2.840.113549.1.1.5", "1.2.840.10040.4.3", "1.2.840.10045.4.1"];

/// What a certificate says (RFC 5280).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateFacts {
    /// Start of its validity, in seconds since 1970.
    pub not_before: i64,
    /// End of its validity, in seconds since 1970.
    pub not_after: i64,
    /// Whether it is of version 3, the first with extensions.
    pub is_v3: bool,
    /// Whether it may issue certificates (basicConstraints CA:TRUE).
    pub is_authority: bool,
    /// Whether issuer and subject are the same.
    pub is_self_issued: bool,
    /// Whether its signature is over SHA-1 or MD5.
    pub has_outdated_signature: bool,
    /// Whether its purposes (extended key usage) exclude a client.
    pub excludes_client: bool,
    /// Length of its key in bits, for RSA.
    pub rsa_bits: Option<usize>,
    /// Host names that it is for (subjectAltName).
    pub dns_names: Vec<String>,
    /// Addresses that it is for (subjectAltName).
    pub addresses: Vec<IpAddr>,
    /// Encoding of its subject.
    pub subject: Vec<u8>,
    /// Encoding of its issuer.
    pub issuer: Vec<u8>,
    /// Issuer as text.
    pub issuer_name: String,
    /// Encoding of its public key, with the algorithm.
    pub public_key: Vec<u8>,
}

impl CertificateFacts {
    /// Returns what a certificate in DER says, or `None` if that cannot be read.
    #[must_use]
    pub fn parse(der: &[u8]) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(der).ok()?;
        let validity = certificate.validity();
        let constraints = certificate.basic_constraints().ok()?;
        let signature = certificate.signature_algorithm.algorithm.to_id_string();
        let usage = certificate.extended_key_usage().ok()?;
        let (dns_names, addresses) = alternative_names(&certificate);
        Some(Self {
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            is_v3: certificate.version() == X509Version::V3,
            is_authority: constraints.is_some_and(|constraints| constraints.value.ca),
            is_self_issued: certificate.subject().as_raw() == certificate.issuer().as_raw(),
            has_outdated_signature: OUTDATED_SIGNATURES.contains(&signature.as_str()),
            excludes_client: usage
                .is_some_and(|usage| !usage.value.client_auth && !usage.value.any),
            rsa_bits: rsa_bits(&certificate),
            dns_names,
            addresses,
            subject: certificate.subject().as_raw().to_vec(),
            issuer: certificate.issuer().as_raw().to_vec(),
            issuer_name: certificate.issuer().to_string(),
            public_key: certificate.public_key().raw.to_vec(),
        })
    }

    /// Returns the fault of a certificate in the file `path` at a time in seconds since 1970:
    /// before and after its validity.
    #[must_use]
    pub fn time_fault(&self, path: &str, now: i64) -> Option<CertificateFault> {
        let path = path.to_owned();
        if now > self.not_after {
            Some(CertificateFault::FileExpired { path, not_after: shown_date(self.not_after) })
        } else if now < self.not_before {
            let not_before = shown_date(self.not_before);
            Some(CertificateFault::FileNotYetValid { path, not_before, now: shown_date(now) })
        } else {
            None
        }
    }

    /// Returns the fault of a certificate in the file `path` that is to authenticate a client.
    #[must_use]
    pub fn purpose_fault(&self, path: &str) -> Option<CertificateFault> {
        self.excludes_client.then(|| CertificateFault::NotForClients { path: path.to_owned() })
    }
}

/// Returns a time in seconds since 1970 as people write it, to the minute, in UTC.
#[must_use]
pub fn shown_date(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn rsa_bits(certificate: &X509Certificate<'_>) -> Option<usize> {
    let Ok(PublicKey::RSA(key)) = certificate.public_key().parsed() else { return None };
    Some(key.key_size())
}

fn alternative_names(certificate: &X509Certificate<'_>) -> (Vec<String>, Vec<IpAddr>) {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return (names, addresses);
    };
    for name in &extension.value.general_names {
        if let GeneralName::DNSName(name) = name {
            names.push((*name).to_owned());
        } else if let GeneralName::IPAddress(octets) = name {
            let v4 = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
            addresses.extend(v4.or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from)));
        }
    }
    (names, addresses)
}
