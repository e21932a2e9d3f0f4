//! A certificate authority for tests.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// An authority with a new key. Its certificate is in no trust store.
#[derive(Debug)]
pub struct CertificateAuthority(CertifiedIssuer<'static, KeyPair>);

impl CertificateAuthority {
    /// Creates an authority with a new key.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no name is a right name");
        // Without a name of its own, OpenSSL would take a signed certificate for self-signed:
        // issuer and subject would be equal.
        params.distinguished_name.push(DnType::CommonName, "an authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("there is randomness");
        Self(CertifiedIssuer::self_signed(params, key).expect("the key fits"))
    }

    /// Returns its own certificate, in PEM form.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Returns a certificate for a host name or an address, and its key, both in PEM form.
    #[must_use]
    pub fn sign(&self, name: &str) -> (String, String) {
        self.sign_params(name, CertificateParams::new(vec![name.to_owned()]).expect("a name"))
    }

    /// Returns a certificate that ends at this time, and its key, both in PEM form. It began a
    /// thousand days before.
    #[must_use]
    pub fn sign_until(&self, name: &str, end: SystemTime) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("it is a name");
        params.not_after = end.into();
        params.not_before = (end - Duration::from_secs(1000 * 86_400)).into();
        self.sign_params(name, params)
    }

    fn sign_params(&self, name: &str, mut params: CertificateParams) -> (String, String) {
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("there is randomness");
        let certificate = params.signed_by(&key, &self.0).expect("the key fits");
        (certificate.pem(), key.serialize_pem())
    }
}

impl Default for CertificateAuthority {
    fn default() -> Self {
        Self::new()
    }
}
