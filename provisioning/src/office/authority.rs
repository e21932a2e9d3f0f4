//! The fleet's own certificate authority: it issues the certificates of brokers and gateways, and
//! is trusted by them alone.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use thiserror::Error;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

/// How long the authority is valid. It must outlive the boxes.
const AUTHORITY_YEARS: i64 = 30;
/// How long a certificate is valid.
const CERTIFICATE_DAYS: i64 = 730;
/// A certificate is renewed this long before its end: time for a box that is off for a month.
const RENEWAL_DAYS: i64 = 60;
/// A certificate is valid from the day before, since clocks differ.
const BACKDATED_DAYS: i64 = 1;

/// The authority with its private key. `Debug` does not show the key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A new authority or a new key with its certificate, in PEM.
pub struct NewCertificate {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: Zeroizing<String>,
}

/// Why a certificate is not issued, or cannot be read.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum AuthorityError {
    /// A file holds no certificate.
    #[error("this is not a certificate in PEM")]
    NoCertificate,
    /// A file holds no private key.
    #[error("this is not a private key in PEM")]
    NoKey,
    /// A file holds no private key, or one of another authority.
    #[error(
        "this is not the private key of the authority: it is the file secrets/ca.key that \
             `edge-provision init` made"
    )]
    WrongKey,
    /// The authority ends before the certificate would.
    #[error(
        "the authority ends on {date}, and no command makes a new one: set authentication = \
             \"password\" in [broker], and give each site a password with `edge-provision rotate SITE --password`"
    )]
    AuthorityEnds {
        /// Last day of the authority.
        date: String,
    },
    /// It is not a request for a certificate.
    #[error("the certificate request is damaged, or its signature is wrong")]
    MalformedRequest,
    /// The request asks for a name.
    #[error(
        "the certificate request names a subject: a box does not choose its name, so this \
             request was edited or is hostile"
    )]
    RequestNames,
    /// The request asks for something else.
    #[error(
        "the certificate request asks for extensions: the office decides on them, so this \
             request was edited or is hostile"
    )]
    RequestAsks,
    /// The request has a key of another kind.
    #[error("the certificate request has a key that is not of ECDSA on P-256")]
    KeyKind,
    /// A name cannot stand in a certificate, or no certificate could be made.
    #[error("no certificate can be made for `{name}`")]
    NotMade {
        /// Name of the gateway or hub.
        name: String,
    },
}

impl Authority {
    /// Makes a new authority with its key, valid for 30 years.
    ///
    /// # Errors
    /// When the operating system gives no random numbers.
    pub fn create(now: Timestamp) -> Result<NewCertificate, AuthorityError> {
        let not_made = || AuthorityError::NotMade { name: "authority".to_owned() };
        let key = KeyPair::generate().map_err(|_| not_made())?;
        let end = AUTHORITY_YEARS * 365;
        let mut parameters =
            parameters("edge-gateway authority", &key, now, end).ok_or_else(not_made)?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = parameters.self_signed(&key).map_err(|_| not_made())?.pem();
        Ok(NewCertificate { certificate: unix_lines(&certificate), key: pem(&key) })
    }

    /// Opens an authority.
    ///
    /// # Errors
    /// When one of the texts is not in PEM, or the key belongs to another certificate.
    pub fn open(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key).map_err(|_| AuthorityError::WrongKey)?;
        if public_key(certificate)? != key.der_bytes() {
            return Err(AuthorityError::WrongKey);
        }
        let issuer = Issuer::from_ca_cert_pem(certificate, key);
        let issuer = issuer.map_err(|_| AuthorityError::NoCertificate)?;
        Ok(Self { issuer, certificate: certificate.to_owned() })
    }

    /// Returns its certificate in PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Issues the certificate of a gateway, whose name the office chose, for the key of a request.
    /// Valid for two years from the day before `now`.
    ///
    /// # Errors
    /// When the request is malformed, or asks for anything; when the authority ends first.
    pub fn issue_gateway(
        &self,
        id: &str,
        request: &str,
        now: Timestamp,
    ) -> Result<String, AuthorityError> {
        let key = request_key(request)?;
        self.issue(id, &key, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth, now)
    }

    /// Issues a certificate for the broker of a hub with a new key. Gateways know it by the name of
    /// the hub and by its address in the tunnel. Valid for two years from the day before `now`.
    ///
    /// # Errors
    /// When the name is not one of the DNS, or the authority ends first.
    pub fn issue_hub(
        &self,
        name: &str,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<NewCertificate, AuthorityError> {
        let not_made = || AuthorityError::NotMade { name: name.to_owned() };
        let key = KeyPair::generate().map_err(|_| not_made())?;
        let dns = name.try_into().map_err(|_| not_made())?;
        let names = vec![SanType::DnsName(dns), SanType::IpAddress(address)];
        let purpose = ExtendedKeyUsagePurpose::ServerAuth;
        Ok(NewCertificate {
            certificate: self.issue(name, &key, names, purpose, now)?,
            key: pem(&key),
        })
    }

    fn issue(
        &self,
        name: &str,
        key: &impl PublicKeyData,
        names: Vec<SanType>,
        purpose: ExtendedKeyUsagePurpose,
        now: Timestamp,
    ) -> Result<String, AuthorityError> {
        let not_made = || AuthorityError::NotMade { name: name.to_owned() };
        let authority_end = end(&self.certificate)?;
        if days_after(now, CERTIFICATE_DAYS).is_none_or(|end| end > authority_end) {
            let date = TimeZone::UTC.to_datetime(authority_end).date().to_string();
            return Err(AuthorityError::AuthorityEnds { date });
        }
        let mut parameters = parameters(name, key, now, CERTIFICATE_DAYS).ok_or_else(not_made)?;
        parameters.subject_alt_names = names;
        parameters.use_authority_key_identifier_extension = true;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![purpose];
        let certificate = parameters.signed_by(key, &self.issuer).map_err(|_| not_made())?;
        Ok(unix_lines(&certificate.pem()))
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for NewCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("NewCertificate");
        shown.field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Checks that a certificate request is signed by its own key and asks for nothing but a
/// certificate: no name, no extension.
///
/// # Errors
/// When it asks for more, or is malformed.
pub fn check_request(request: &str) -> Result<(), AuthorityError> {
    request_key(request).map(|_| ())
}

/// Returns the last moment of a certificate in PEM.
///
/// # Errors
/// When it is not one.
pub fn end(certificate: &str) -> Result<Timestamp, AuthorityError> {
    let seconds =
        with_certificate(certificate, |certificate| certificate.validity().not_after.timestamp())?;
    Timestamp::from_second(seconds).map_err(|_| AuthorityError::NoCertificate)
}

/// Returns whether a certificate in PEM is for this name and this address, as
/// [`Authority::issue_hub`] makes it.
///
/// # Errors
/// When it is not one.
pub fn is_for_hub(certificate: &str, name: &str, address: IpAddr) -> Result<bool, AuthorityError> {
    with_certificate(certificate, |certificate| {
        let Ok(Some(names)) = certificate.subject_alternative_name() else { return false };
        let [GeneralName::DNSName(own), GeneralName::IPAddress(bytes)] =
            names.value.general_names.as_slice()
        else {
            return false;
        };
        let is_there = match address {
            IpAddr::V4(address) => *bytes == address.octets(),
            IpAddr::V6(address) => *bytes == address.octets(),
        };
        *own == name && is_there
    })
}

/// Returns whether the key of an authority has signed a certificate. Both are in PEM.
///
/// # Errors
/// When one of them is not a certificate.
pub fn is_issued_by(certificate: &str, authority: &str) -> Result<bool, AuthorityError> {
    let key = public_key(authority)?;
    with_certificate(certificate, |certificate| {
        let signed: &[u8] = certificate.tbs_certificate.as_ref();
        let signature = &certificate.signature_value.data;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(signed, signature).is_ok()
    })
}

/// Returns the public key of a private key in PEM, as it stands in its certificate.
///
/// # Errors
/// When it is not one.
pub(crate) fn public_half(key: &str) -> Result<Vec<u8>, AuthorityError> {
    let key = KeyPair::from_pem(key).map_err(|_| AuthorityError::NoKey)?;
    Ok(key.der_bytes().to_vec())
}

/// Returns whether it is time to renew a certificate in PEM: 60 days before its end.
///
/// # Errors
/// When it is not one.
pub fn needs_renewal(certificate: &str, now: Timestamp) -> Result<bool, AuthorityError> {
    let end = end(certificate)?;
    Ok(days_after(now, RENEWAL_DAYS).is_none_or(|soon| soon >= end))
}

/// Returns the public key of a request as it stands in its certificate, and checks the request.
pub(crate) fn request_key(request: &str) -> Result<rcgen::PublicKey, AuthorityError> {
    let malformed = || AuthorityError::MalformedRequest;
    let (rest, pem) =
        x509_parser::pem::parse_x509_pem(request.as_bytes()).map_err(|_| malformed())?;
    let (trailing, parsed) =
        X509CertificationRequest::from_der(&pem.contents).map_err(|_| malformed())?;
    if !rest.iter().all(u8::is_ascii_whitespace) || !trailing.is_empty() {
        return Err(malformed());
    }
    let info = &parsed.certification_request_info;
    if info.subject.iter().next().is_some() {
        return Err(AuthorityError::RequestNames);
    }
    if !info.attributes().is_empty() {
        return Err(AuthorityError::RequestAsks);
    }
    let request = CertificateSigningRequestParams::from_pem(request).map_err(|_| malformed())?;
    let key = request.public_key;
    if *key.algorithm() == PKCS_ECDSA_P256_SHA256 { Ok(key) } else { Err(AuthorityError::KeyKind) }
}

/// Returns what all certificates have: the name, the days, and a serial number that depends on both
/// and on the key, so that a renewed certificate has another one (RFC 5280, 4.1.2.2).
fn parameters(
    name: &str,
    key: &impl PublicKeyData,
    now: Timestamp,
    days: i64,
) -> Option<CertificateParams> {
    let mut parameters = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    parameters.distinguished_name = subject;
    let start = days_after(now, -BACKDATED_DAYS)?;
    let [from, to] = [start, days_after(now, days)?].map(|at| {
        let date = TimeZone::UTC.to_datetime(at).date();
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        rcgen::date_time_ymd(i32::from(date.year()), month, day)
    });
    (parameters.not_before, parameters.not_after) = (from, to);
    let input = [name.as_bytes(), start.to_string().as_bytes(), key.der_bytes()].concat();
    let hash = digest(&SHA256, &input);
    let mut serial: [u8; 16] = *hash.as_ref().first_chunk()?;
    // Positive, and as long as all others.
    serial[0] = serial[0] & 0x7f | 0x40;
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    Some(parameters)
}

fn days_after(now: Timestamp, days: i64) -> Option<Timestamp> {
    now.checked_add(Span::new().try_hours(days.checked_mul(24)?).ok()?).ok()
}

fn unix_lines(pem: &str) -> String {
    pem.replace("\r\n", "\n")
}

fn pem(key: &KeyPair) -> Zeroizing<String> {
    let pem = Zeroizing::new(key.serialize_pem());
    Zeroizing::new(unix_lines(&pem))
}

pub(crate) fn public_key(certificate: &str) -> Result<Vec<u8>, AuthorityError> {
    with_certificate(certificate, |certificate| {
        certificate.public_key().subject_public_key.data.to_vec()
    })
}

fn with_certificate<T>(
    certificate: &str,
    read: impl FnOnce(&x509_parser::certificate::X509Certificate<'_>) -> T,
) -> Result<T, AuthorityError> {
    let der = der(certificate)?;
    let (_, parsed) = parse_x509_certificate(&der).map_err(|_| AuthorityError::NoCertificate)?;
    Ok(read(&parsed))
}

fn der(certificate: &str) -> Result<Vec<u8>, AuthorityError> {
    let pem = x509_parser::pem::parse_x509_pem(certificate.as_bytes());
    pem.map(|(_, pem)| pem.contents).map_err(|_| AuthorityError::NoCertificate)
}
