//! Certificates and keys for TLS: reads their files, and says what is wrong with them.
//!
//! The same code reads the files for `edge-gateway check` and for each connection to a broker, so
//! both find the same faults.

mod facts;
mod fault;
mod pem;
#[cfg(test)]
mod tests;

use std::path::Path;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub use facts::{CertificateFacts, shown_date};
pub use fault::CertificateFault;

use crate::config::ClientCertificate;

/// Seconds since 1970 at which this version was written, 2026-11-01: a clock that shows less has
/// not been set.
pub const WRITTEN_AT: i64 = 1_793_491_200;

/// A certificate, and what it says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    /// Its encoding.
    pub der: CertificateDer<'static>,
    /// What it says.
    pub facts: CertificateFacts,
}

/// The certificate of the gateway with its private key.
#[derive(Debug)]
pub struct ClientIdentity {
    certificate: Certificate,
    /// The others, in the order of the file.
    issuers: Vec<Certificate>,
    key: PrivateKeyDer<'static>,
}

/// Reads the certificates of authorities from a PEM file.
///
/// # Errors
/// When the file cannot be read, contains anything but readable certificates, or none of an
/// authority.
pub fn read_authorities(path: &Path) -> Result<Vec<Certificate>, CertificateFault> {
    let all = pem::read_certificates(path)?;
    // A certificate that signed itself is its own authority; one of version 1 cannot say.
    let is_other =
        |facts: &CertificateFacts| !facts.is_authority && !facts.is_self_issued && facts.is_v3;
    if all.iter().all(|one| is_other(&one.facts)) {
        return Err(CertificateFault::NoAuthority { path: path.display().to_string() });
    }
    Ok(all)
}

/// Reads all certificates of a PEM file, at least one.
///
/// # Errors
/// When the file cannot be read, or contains anything but readable certificates.
pub fn read_certificates(path: &Path) -> Result<Vec<Certificate>, CertificateFault> {
    pem::read_certificates(path)
}

impl ClientIdentity {
    /// Reads the certificate of the gateway and its key.
    ///
    /// # Errors
    /// When a file cannot be read or used, or the key is not that of the first certificate.
    pub fn read(files: &ClientCertificate) -> Result<Self, CertificateFault> {
        let mut chain = pem::read_certificates(&files.cert_file)?;
        let key = pem::read_key(&files.key_file)?;
        let shown = |path: &Path| path.display().to_string();
        let Ok(signing) = any_supported_type(&key) else {
            return Err(CertificateFault::UnsupportedKey { path: shown(&files.key_file) });
        };
        let public_key = signing.public_key();
        let has_key = |one: &Certificate| {
            public_key.as_deref().is_none_or(|public_key| public_key == one.facts.public_key)
        };
        match chain.iter().position(has_key) {
            Some(0) => {
                let certificate = chain.remove(0);
                Ok(Self { certificate, issuers: chain, key })
            }
            Some(_) => Err(CertificateFault::ChainOrder { path: shown(&files.cert_file) }),
            None => Err(CertificateFault::KeyMismatch {
                path: shown(&files.key_file),
                cert_file: shown(&files.cert_file),
            }),
        }
    }

    /// Returns the certificate of the gateway.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Returns whether each certificate is followed by that of its issuer, as some brokers require
    /// (RFC 5246, 7.4.2).
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        let all = [&self.certificate].into_iter().chain(&self.issuers);
        let mut pairs = all.zip(&self.issuers);
        pairs.all(|(one, issuer)| one.facts.issuer == issuer.facts.subject)
    }

    /// Returns the certificates, that of the gateway first, and the private key.
    #[must_use]
    pub fn into_parts(self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let all = [self.certificate].into_iter().chain(self.issuers);
        (all.map(|one| one.der).collect(), self.key)
    }
}
