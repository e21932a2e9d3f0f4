//! How a byte stream reaches the broker: a TCP connection that the gateway opens, direct or through
//! the tunnel, with TLS on top where the broker's address asks for it. [`UnixBridge`] hands the
//! stream of [`Uplink::dial`] to a client library that only opens unix sockets.

mod error;
mod route;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod unix_bridge;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use provisioning::certificates::Certificate;
use provisioning::config::{Broker, HostPort, Scheme, Tls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

pub use error::DialError;
use tls::HandshakeFindings;

pub use route::{HubChanges, Route, TunnelHandle};
pub use unix_bridge::UnixBridge;

/// A stream of bytes to the broker.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// Opens connections to brokers.
#[derive(Clone, Debug)]
pub struct Uplink {
    route: Route,
    tls: Tls,
    certificates: watch::Sender<CertificatesInUse>,
    renewals: watch::Sender<u64>,
}

/// The certificates of the last handshakes.
#[derive(Clone, Debug, Default)]
pub struct CertificatesInUse {
    /// End of the validity of each broker's certificate, in seconds since 1970, by its address in
    /// the form of `mqtt.brokers`.
    pub brokers: BTreeMap<String, i64>,
    /// The certificate of the gateway in the last handshake that succeeded.
    pub client: Option<Certificate>,
}

/// Requests for an orderly new connection.
#[derive(Clone, Debug)]
pub struct RenewalRequests(watch::Receiver<u64>);

impl RenewalRequests {
    /// Waits until a new connection is requested. Cancel safe.
    pub async fn requested(&mut self) {
        if self.0.changed().await.is_err() {
            // Nothing can request one any more.
            std::future::pending::<()>().await;
        }
    }
}

impl Uplink {
    /// Reaches every broker by `route`.
    #[must_use]
    pub fn new(route: Route, tls: Tls) -> Self {
        let certificates = watch::Sender::new(CertificatesInUse::default());
        Self { route, tls, certificates, renewals: watch::Sender::new(0) }
    }

    /// Reaches brokers as the operating system routes.
    #[must_use]
    pub fn direct(tls: Tls) -> Self {
        Self::new(Route::Direct, tls)
    }

    /// Connects to a broker, with TLS if its address says so.
    ///
    /// # Errors
    /// Fails after `limit` in total, or when no address of the broker accepted the connection; the
    /// error is that of the last address. Through a tunnel it never tries another route.
    pub async fn dial(
        &self,
        broker: &Broker,
        limit: Duration,
    ) -> Result<Box<dyn ByteStream>, DialError> {
        let address = &broker.address;
        let deadline = Instant::now() + limit;
        let stream = self.route.dial(address, deadline).await?;
        match broker.scheme {
            Scheme::Mqtt => Ok(stream),
            Scheme::Mqtts => {
                let handshake = timeout_at(deadline, tls::handshake(&self.tls, address, stream));
                let (findings, stream) = handshake.await.map_err(|_| {
                    let (broker, port) = (address.to_string(), address.port);
                    DialError::TlsTimedOut { broker, port }
                })?;
                self.record(broker, findings, stream.is_ok());
                Ok(Box::new(stream?))
            }
        }
    }

    /// Connects to a host by the same route as to a broker, without TLS.
    ///
    /// # Errors
    /// As [`Self::dial`].
    pub async fn connect(
        &self,
        host: &HostPort,
        limit: Duration,
    ) -> Result<Box<dyn ByteStream>, DialError> {
        self.route.dial(host, Instant::now() + limit).await
    }

    fn record(&self, broker: &Broker, findings: HandshakeFindings, has_succeeded: bool) {
        let HandshakeFindings { broker_not_after, client } = findings;
        self.certificates.send_modify(|in_use| {
            if let Some(not_after) = broker_not_after {
                in_use.brokers.insert(format!("mqtts://{}", broker.address), not_after);
            }
            if has_succeeded {
                in_use.client = client;
            }
        });
    }

    /// Returns a watch on the certificates of the last handshakes.
    #[must_use]
    pub fn certificates_in_use(&self) -> watch::Receiver<CertificatesInUse> {
        self.certificates.subscribe()
    }

    /// Requests that the session in progress, if there is one, is ended in order and followed by
    /// another one.
    pub fn request_renewal(&self) {
        self.renewals.send_modify(|number| *number = number.wrapping_add(1));
    }

    /// Returns the requests for an orderly new connection from now on.
    #[must_use]
    pub fn renewal_requests(&self) -> RenewalRequests {
        RenewalRequests(self.renewals.subscribe())
    }

    /// Returns the fault of the tunnel, if there is one, that explains why nothing comes back from
    /// a broker.
    #[must_use]
    pub fn fault(&self) -> Option<DialError> {
        self.route.fault()
    }

    /// Returns a watch on the hub in use, from now on. Another hub may reach other brokers, and a
    /// connection through the previous hub is dead.
    #[must_use]
    pub fn hub_changes(&self) -> HubChanges {
        self.route.hub_changes()
    }
}

impl fmt::Debug for dyn ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByteStream")
    }
}
