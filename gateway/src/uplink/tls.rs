//! TLS on a stream to the broker: rustls with ring.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::Arc;

use provisioning::config::{HostPort, Tls};
use provisioning::regular_file::{self, MAX_CERTIFICATE_BYTES};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{ByteStream, DialError};
use crate::model::ForeignText;

/// Performs the TLS handshake on a stream. Reads the certificate files each time, so that a renewed
/// certificate is used from the next connection on.
pub(super) async fn handshake<S: ByteStream>(
    tls: &Tls,
    broker: &HostPort,
    stream: S,
) -> Result<TlsStream<S>, DialError> {
    let (files, address) = (tls.clone(), broker.clone());
    // On a thread of its own: a slow SD card, or parsing all authorities of the system on a small
    // processor, takes seconds, in which the runtime's only thread could not poll PLCs.
    let config = spawn_blocking(move || client_config(&files, &address)).await;
    let config = config.unwrap_or_else(|error| {
        Err(DialError::TlsFailed { broker: broker.to_string(), cause: ForeignText::of(&error) })
    })?;
    let name = ServerName::try_from(broker.host.clone())
        .map_err(|_| DialError::InvalidServerName { host: broker.host.clone() })?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    connected.map_err(|error| handshake_error(error, broker))
}

fn client_config(tls: &Tls, broker: &HostPort) -> Result<ClientConfig, DialError> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match &tls.ca_file {
        Some(path) => WebPkiServerVerifier::builder_with_provider(
            Arc::new(load_authorities(path)?),
            Arc::clone(&provider),
        )
        .build()
        .map_err(|error| file_error(path, &error))?,
        None => {
            let verifier = Verifier::new(Arc::clone(&provider));
            Arc::new(verifier.map_err(|error| tls_error(&error, broker))?)
        }
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| tls_error(&error, broker))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some(own) = &tls.client else { return Ok(config.with_no_client_auth()) };
    let chain = load_certificates(&own.cert_file)?;
    let key = PrivateKeyDer::from_pem_slice(&read_pem(&own.key_file)?)
        .map_err(|error| file_error(&own.key_file, &error))?;
    config.with_client_auth_cert(chain, key).map_err(|error| file_error(&own.key_file, &error))
}

fn load_authorities(path: &Path) -> Result<RootCertStore, DialError> {
    let mut roots = RootCertStore::empty();
    for certificate in load_certificates(path)? {
        roots.add(certificate).map_err(|error| file_error(path, &error))?;
    }
    Ok(roots)
}

fn load_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, DialError> {
    let pem = read_pem(path)?;
    let all: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| file_error(path, &error))?;
    if all.is_empty() {
        return Err(file_error(path, &"it contains no certificate in PEM format"));
    }
    Ok(all)
}

/// Reads a PEM file. A pipe in its place would hold a thread with every attempt to connect.
fn read_pem(path: &Path) -> Result<Vec<u8>, DialError> {
    regular_file::read(path, MAX_CERTIFICATE_BYTES).map_err(|error| file_error(path, &error))
}

fn file_error(path: &Path, cause: &dyn Display) -> DialError {
    DialError::CertificateFile { path: path.display().to_string(), cause: ForeignText::of(cause) }
}

fn handshake_error(error: io::Error, broker: &HostPort) -> DialError {
    match error.downcast::<rustls::Error>() {
        Ok(error) => tls_error(&error, broker),
        Err(error) => DialError::TlsClosed {
            broker: broker.to_string(),
            port: broker.port,
            cause: ForeignText::of(&error),
        },
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library may add errors")]
fn tls_error(error: &rustls::Error, address: &HostPort) -> DialError {
    use AlertDescription as Alert;
    use CertificateError as Certificate;
    let broker = address.to_string();
    match error {
        rustls::Error::InvalidCertificate(
            Certificate::UnknownIssuer | Certificate::BadSignature,
        ) => DialError::UnknownAuthority { broker },
        rustls::Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => DialError::WrongServerName { host: address.host.clone() },
        rustls::Error::InvalidCertificate(
            Certificate::Expired | Certificate::ExpiredContext { .. },
        ) => DialError::CertificateExpired { broker },
        rustls::Error::InvalidCertificate(
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. },
        ) => DialError::CertificateNotYetValid { broker },
        rustls::Error::AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnknownCA
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::HandshakeFailure
            | Alert::AccessDenied,
        ) => DialError::ClientCertificateRejected { broker },
        rustls::Error::InvalidMessage(_) => DialError::NotTls { broker },
        other => DialError::TlsFailed { broker, cause: ForeignText::of(other) },
    }
}
