//! What happens in a handshake, recorded for the diagnosis: the library's error alone does not say
//! which certificate the broker sent, nor that it asked for one of the gateway.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use provisioning::certificates::CertificateFacts;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

/// The record of one handshake.
#[derive(Debug, Default)]
pub(super) struct HandshakeRecord {
    presented: OnceLock<Presented>,
    is_client_asked: AtomicBool,
}

/// The certificates that the broker sent.
#[derive(Debug)]
pub(super) struct Presented {
    /// That of the broker and then the others, as far as they can be read.
    pub(super) chain: Vec<CertificateFacts>,
    /// When they were checked, in seconds since 1970.
    pub(super) at: i64,
}

impl HandshakeRecord {
    /// Returns the certificates that the broker sent.
    pub(super) fn presented(&self) -> Option<&Presented> {
        self.presented.get()
    }

    /// Returns what the certificate of the broker says.
    pub(super) fn broker(&self) -> Option<&CertificateFacts> {
        self.presented.get()?.chain.first()
    }

    /// Returns whether the broker asked for a certificate of the gateway.
    pub(super) fn is_client_asked(&self) -> bool {
        self.is_client_asked.load(Ordering::Relaxed)
    }
}

/// Records what is to be verified.
#[derive(Debug)]
pub(super) struct RecordingVerifier {
    inner: Arc<dyn ServerCertVerifier>,
    record: Arc<HandshakeRecord>,
}

impl RecordingVerifier {
    pub(super) fn new(inner: Arc<dyn ServerCertVerifier>, record: &Arc<HandshakeRecord>) -> Self {
        Self { inner, record: Arc::clone(record) }
    }
}

impl ServerCertVerifier for RecordingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let all = std::iter::once(end_entity).chain(intermediates);
        let chain = all.map_while(|der| CertificateFacts::parse(der)).collect();
        let at = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.record.presented.get_or_init(|| Presented { chain, at });
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Records that the broker asks for a certificate, and gives the one that is configured.
#[derive(Debug)]
pub(super) struct RecordingResolver {
    key: Option<Arc<CertifiedKey>>,
    record: Arc<HandshakeRecord>,
}

impl RecordingResolver {
    pub(super) fn new(key: Option<Arc<CertifiedKey>>, record: &Arc<HandshakeRecord>) -> Self {
        Self { key, record: Arc::clone(record) }
    }
}

impl ResolvesClientCert for RecordingResolver {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.record.is_client_asked.store(true, Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        self.key.is_some()
    }
}
