//! TLS on a stream to the broker: rustls with ring.

mod diagnosis;
mod record;
mod stream;

use std::io;
use std::sync::Arc;

use provisioning::certificates::{self, Certificate, CertificateFault, ClientIdentity};
use provisioning::config::{HostPort, Tls};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;

use self::diagnosis::{HandshakeContext, explain};
use self::record::{HandshakeRecord, RecordingResolver, RecordingVerifier};
pub(super) use self::stream::BrokerTlsStream;
use super::{ByteStream, DialError};
use crate::model::UntrustedText;

/// What a handshake showed, whether or not it succeeded.
#[derive(Debug, Default)]
pub(super) struct HandshakeFindings {
    /// End of the validity of the broker's certificate, in seconds since 1970, if it sent one.
    pub(super) broker_not_after: Option<i64>,
    /// The certificate of the gateway.
    pub(super) client: Option<Certificate>,
}

/// The settings of one handshake, from the files as they are now.
struct ClientSetup {
    config: ClientConfig,
    record: Arc<HandshakeRecord>,
    client: Option<Certificate>,
}

/// Performs the TLS handshake on a stream. Reads the certificate files each time, so that a renewed
/// certificate is used from the next connection on.
pub(super) async fn handshake<S: ByteStream>(
    tls: &Tls,
    broker: &HostPort,
    stream: S,
) -> (HandshakeFindings, Result<BrokerTlsStream<S>, DialError>) {
    let (files, address) = (tls.clone(), broker.clone());
    // On a thread of its own: a slow SD card, or parsing all authorities of the system on a small
    // processor, takes seconds, in which the runtime's only thread could not poll PLCs.
    let setup = spawn_blocking(move || ClientSetup::read(&files, &address)).await;
    let setup = setup.unwrap_or_else(|error| Err(tls_failed(&error, broker)));
    let ClientSetup { config, record, client } = match setup {
        Ok(setup) => setup,
        Err(error) => return (HandshakeFindings::default(), Err(error)),
    };
    let Ok(name) = ServerName::try_from(broker.host.clone()) else {
        let error = DialError::InvalidServerName { host: broker.host.clone() };
        return (HandshakeFindings::default(), Err(error));
    };
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let findings = HandshakeFindings {
        broker_not_after: record.broker().map(|facts| facts.not_after),
        client: client.clone(),
    };
    let path = tls.client.as_ref().map(|own| own.cert_file.display().to_string());
    let client = client.map(|own| own.facts).zip(path);
    let context = HandshakeContext { broker: broker.clone(), record, client };
    let stream = match connected {
        Ok(stream) => Ok(BrokerTlsStream::new(stream, context)),
        Err(error) => Err(handshake_error(error, &context)),
    };
    (findings, stream)
}

impl ClientSetup {
    fn read(tls: &Tls, broker: &HostPort) -> Result<Self, DialError> {
        let provider = Arc::new(ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match &tls.ca_file {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for (number, one) in (1..).zip(certificates::read_authorities(path)?) {
                    let path = path.display().to_string();
                    let damaged = CertificateFault::DamagedCertificate { path, number };
                    roots.add(one.der).map_err(|_| damaged)?;
                }
                let builder = WebPkiServerVerifier::builder_with_provider(
                    Arc::new(roots),
                    Arc::clone(&provider),
                );
                builder.build().map_err(|error| tls_failed(&error, broker))?
            }
            None => {
                // It fails only if the machine has no usable certificate of an authority.
                let verifier = Verifier::new(Arc::clone(&provider));
                let missing = |_| DialError::NoAuthorities { broker: broker.to_string() };
                Arc::new(verifier.map_err(missing)?)
            }
        };
        let record = Arc::new(HandshakeRecord::default());
        let (client, key) = match &tls.client {
            Some(files) => {
                let (own, key) = certified_key(ClientIdentity::read(files)?, broker)?;
                (Some(own), Some(Arc::new(key)))
            }
            None => (None, None),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| tls_failed(&error, broker))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(RecordingVerifier::new(verifier, &record)))
            .with_client_cert_resolver(Arc::new(RecordingResolver::new(key, &record)));
        config.alpn_protocols = tls.alpn.iter().map(|name| name.clone().into_bytes()).collect();
        Ok(Self { config, record, client })
    }
}

/// Returns the identity in the form of rustls, and the certificate of the gateway itself.
fn certified_key(
    identity: ClientIdentity,
    broker: &HostPort,
) -> Result<(Certificate, CertifiedKey), DialError> {
    let own = identity.certificate().clone();
    let (chain, key) = identity.into_parts();
    let key = any_supported_type(&key).map_err(|error| tls_failed(&error, broker))?;
    Ok((own, CertifiedKey::new(chain, key)))
}

impl From<CertificateFault> for DialError {
    fn from(fault: CertificateFault) -> Self {
        Self::File(fault)
    }
}

fn tls_failed(error: &dyn std::fmt::Display, broker: &HostPort) -> DialError {
    DialError::TlsFailed { broker: broker.to_string(), cause: UntrustedText::of(error) }
}

fn handshake_error(error: io::Error, context: &HandshakeContext) -> DialError {
    match error.downcast::<rustls::Error>() {
        Ok(error) => explain(&error, context),
        Err(error) => {
            let is_end = error.kind() == io::ErrorKind::UnexpectedEof;
            context.early_end().filter(|_| is_end).unwrap_or_else(|| DialError::TlsClosed {
                broker: context.broker.to_string(),
                port: context.broker.port,
                cause: UntrustedText::of(&error),
            })
        }
    }
}
