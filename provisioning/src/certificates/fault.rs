//! What is wrong with a file of certificates or with a key, and what to do.

use std::fmt;

use serde::Serialize;

/// Why a file with certificates or a key cannot be used. `path` is the file.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the text of each variant says what it means")]
pub enum CertificateFault {
    CertificateFile { path: String, cause: String },
    NoCertificate { path: String },
    NoKey { path: String },
    NotPem { path: String, command: String },
    Utf16 { path: String },
    DamagedPem { path: String },
    DamagedCertificate { path: String, number: usize },
    CertificateRequest { path: String },
    KeyInsteadOfCertificate { path: String },
    CertificateInsteadOfKey { path: String },
    EncryptedKey { path: String },
    UnsupportedKey { path: String },
    KeyMismatch { path: String, cert_file: String },
    ChainOrder { path: String },
    NoAuthority { path: String },
    NotForClients { path: String },
    FileExpired { path: String, not_after: String },
    FileNotYetValid { path: String, not_before: String, now: String },
}

impl CertificateFault {
    /// Returns what is wrong, as a sentence without its end.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::CertificateFile { path, cause } => format!("the file {path} {cause}"),
            Self::NoCertificate { path } => format!("the file {path} contains no certificate"),
            Self::NoKey { path } => format!("the file {path} contains no private key"),
            Self::NotPem { path, .. } => format!("the file {path} is not in PEM form"),
            Self::Utf16 { path } => format!("the file {path} is a text in UTF-16"),
            Self::DamagedPem { path } => format!("the file {path} is damaged"),
            Self::DamagedCertificate { path, number } => {
                format!("certificate number {number} in the file {path} is damaged")
            }
            Self::CertificateRequest { path } => {
                format!("the file {path} contains a certificate request, not a certificate")
            }
            Self::KeyInsteadOfCertificate { path } => {
                format!("the file {path} contains a private key and no certificate")
            }
            Self::CertificateInsteadOfKey { path } => {
                format!("the file {path} contains a certificate and no private key")
            }
            Self::EncryptedKey { path } => format!("the private key in {path} is encrypted"),
            Self::UnsupportedKey { path } => {
                format!("the private key in {path} is of a kind or length that is not supported")
            }
            Self::KeyMismatch { path, cert_file } => {
                format!("the private key in {path} is not that of the certificate in {cert_file}")
            }
            Self::ChainOrder { path } => {
                format!("the certificates in {path} are in the wrong order")
            }
            Self::NoAuthority { path } => {
                format!("the certificate in {path} is not that of an authority")
            }
            Self::NotForClients { path } => {
                format!("the certificate in {path} is for servers only")
            }
            Self::FileExpired { path, not_after } => {
                format!("the certificate in {path} expired on {not_after}")
            }
            Self::FileNotYetValid { path, not_before, now } => format!(
                "the certificate in {path} is valid from {not_before} on, and the clock of this \
                 machine shows {now}"
            ),
        }
    }

    /// Returns what to do, as a sentence without its end.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::CertificateFile { .. } => {
                "put a PEM file there that the user edge-gateway may read".to_owned()
            }
            Self::NoCertificate { .. } => {
                "put the certificate there in PEM form, which begins with \
                 -----BEGIN CERTIFICATE-----"
                    .to_owned()
            }
            Self::NoKey { .. } => "put the private key there in PEM form, with a first line like \
                 -----BEGIN PRIVATE KEY-----"
                .to_owned(),
            Self::NotPem { command, .. } => format!("convert it with: {command}"),
            Self::Utf16 { .. } => "save it as plain text (ASCII or UTF-8)".to_owned(),
            Self::DamagedPem { .. } | Self::DamagedCertificate { .. } => {
                "copy it again from where it was made, as a whole".to_owned()
            }
            Self::CertificateRequest { .. } => {
                "have an authority sign it, and put the certificate that it issues there".to_owned()
            }
            Self::KeyInsteadOfCertificate { .. } | Self::CertificateInsteadOfKey { .. } => {
                "cert_file is for the certificate, key_file for its key; they may be exchanged"
                    .to_owned()
            }
            Self::EncryptedKey { path } => {
                format!("make a plain one with: openssl pkey -in {path} -out plain.key")
            }
            Self::UnsupportedKey { .. } => {
                "use a key for RSA (2048 to 4096 bits), P-256, P-384 or Ed25519".to_owned()
            }
            Self::KeyMismatch { .. } => {
                "give the key with which this certificate was requested, or have a new certificate \
                 issued for this key"
                    .to_owned()
            }
            Self::ChainOrder { .. } => {
                "put the certificate of this gateway first, then that of the authority that issued \
                 it, and so on"
                    .to_owned()
            }
            Self::NoAuthority { .. } => {
                "ca_file is for the certificate of the authority that issued the broker's \
                 certificate"
                    .to_owned()
            }
            Self::NotForClients { .. } => {
                "have one issued with the extended key usage clientAuth".to_owned()
            }
            Self::FileExpired { .. } => "put a renewed one there".to_owned(),
            Self::FileNotYetValid { .. } => {
                "set the clock, or give it access to a time server (NTP)".to_owned()
            }
        }
    }
}

/// What is wrong and what to do, as one sentence.
impl fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.message();
        let mut letters = message.chars();
        let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
        write!(f, "{first}{}: {}.", letters.as_str(), self.help())
    }
}

impl std::error::Error for CertificateFault {}
