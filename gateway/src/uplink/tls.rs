//! TLS on a stream to the broker: rustls with ring.

use std::io;
use std::path::Path;
use std::sync::Arc;

use provisioning::config::{HostPort, Tls};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use thiserror::Error;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ByteStream;

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file of ours cannot be used.
    #[error("{path} cannot be used: {reason}")]
    UnusableFile {
        /// As configured.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The broker's address cannot stand in a certificate.
    #[error("{0} is not a name that a certificate can have")]
    InvalidName(String),
    /// The two ends do not agree.
    #[error("the handshake failed")]
    Handshake(#[source] rustls::Error),
    /// The connection broke meanwhile.
    #[error("the connection broke during the handshake")]
    Broken(#[source] io::Error),
    /// No answer in time.
    #[error("no answer to the handshake")]
    TimedOut,
}

/// Speaks TLS on a stream. The files are read each time, so that a renewed certificate is used
/// from the next connection on. That is done aside: a card may take seconds, a small processor as
/// long for all the authorities of a system, and PLCs want to be read on time.
pub(super) async fn handshake<S: ByteStream>(
    tls: &Tls,
    at: &HostPort,
    stream: S,
) -> Result<TlsStream<S>, TlsError> {
    let files = tls.clone();
    let config = spawn_blocking(move || client_config(&files)).await;
    // It does not panic.
    let config = config.unwrap_or_else(|error| {
        Err(TlsError::Handshake(rustls::Error::General(error.to_string())))
    })?;
    let name = ServerName::try_from(at.host.clone());
    let name = name.map_err(|_| TlsError::InvalidName(at.host.clone()))?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(handshake_error)
}

fn client_config(tls: &Tls) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match &tls.ca_file {
        Some(path) => WebPkiServerVerifier::builder_with_provider(
            Arc::new(load_authorities(path)?),
            Arc::clone(&provider),
        )
        .build()
        .map_err(|error| file_error(path, &error))?,
        None => Arc::new(Verifier::new(Arc::clone(&provider)).map_err(TlsError::Handshake)?),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Handshake)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some(own) = &tls.client else { return Ok(config.with_no_client_auth()) };
    let chain = load_certificates(&own.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&own.key_file)
        .map_err(|error| file_error(&own.key_file, &error))?;
    config.with_client_auth_cert(chain, key).map_err(|error| file_error(&own.key_file, &error))
}

fn load_authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in load_certificates(path)? {
        roots.add(certificate).map_err(|error| file_error(path, &error))?;
    }
    Ok(roots)
}

fn load_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_file_iter(path).map_err(|error| file_error(path, &error))?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(|error| file_error(path, &error))?;
    if all.is_empty() {
        return Err(file_error(path, &"it holds no certificate in PEM form"));
    }
    Ok(all)
}

fn file_error(path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::UnusableFile { path: path.display().to_string(), reason: reason.to_string() }
}

fn handshake_error(error: io::Error) -> TlsError {
    match error.downcast::<rustls::Error>() {
        Ok(error) => TlsError::Handshake(error),
        Err(error) => TlsError::Broken(error),
    }
}

impl TlsError {
    /// Tells an installer what is wrong and where to look.
    pub(super) fn sentence(&self, at: &HostPort) -> String {
        match self {
            Self::UnusableFile { path, reason } => {
                format!("the file {path} cannot be used: {reason}")
            }
            Self::InvalidName(name) => {
                format!("{name} is not a name that a broker's certificate can have")
            }
            Self::Handshake(error) => refusal(error, at),
            Self::Broken(error) => format!(
                "the broker {at} closed the connection during the TLS handshake ({error}): check \
                 that a broker with TLS listens on port {}",
                at.port
            ),
            Self::TimedOut => format!(
                "{at} takes the connection but does not answer in TLS: check that a broker with \
                 TLS listens on port {}",
                at.port
            ),
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library may add errors")]
fn refusal(error: &rustls::Error, at: &HostPort) -> String {
    use AlertDescription as Alert;
    use CertificateError as Wrong;
    match error {
        rustls::Error::InvalidCertificate(Wrong::UnknownIssuer | Wrong::BadSignature) => format!(
            "the certificate of the broker {at} does not come from an authority that this gateway \
             knows: put the authority's certificate into ca_file"
        ),
        rustls::Error::InvalidCertificate(
            Wrong::NotValidForName | Wrong::NotValidForNameContext { .. },
        ) => format!(
            "the certificate of the broker is not for {}: write the broker's name as the \
             certificate has it",
            at.host
        ),
        rustls::Error::InvalidCertificate(Wrong::Expired | Wrong::ExpiredContext { .. }) => {
            format!(
                "the certificate of the broker {at} has expired: renew it there, or check this \
             gateway's clock"
            )
        }
        rustls::Error::InvalidCertificate(
            Wrong::NotValidYet | Wrong::NotValidYetContext { .. },
        ) => format!(
            "the certificate of the broker {at} is not valid yet: check the clock of this gateway"
        ),
        rustls::Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnknownCA
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::HandshakeFailure
            | Alert::AccessDenied,
        ) => format!(
            "the broker {at} does not accept this gateway's certificate: check cert_file and \
             key_file, and that the broker knows the authority they come from"
        ),
        rustls::Error::InvalidMessage(_) => format!(
            "{at} does not speak TLS: check the port, or write mqtt:// for a broker without TLS"
        ),
        other => format!("no TLS with the broker {at}: {other}"),
    }
}
