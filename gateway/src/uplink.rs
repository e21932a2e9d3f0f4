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

use std::fmt;
use std::time::Duration;

use provisioning::config::{Broker, Scheme, Tls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

pub use error::DialError;
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
}

impl Uplink {
    /// Reaches every broker by `route`.
    #[must_use]
    pub const fn new(route: Route, tls: Tls) -> Self {
        Self { route, tls }
    }

    /// Reaches brokers as the operating system routes.
    #[must_use]
    pub const fn direct(tls: Tls) -> Self {
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
                let stream = handshake.await.unwrap_or_else(|_| {
                    let (broker, port) = (address.to_string(), address.port);
                    Err(DialError::TlsTimedOut { broker, port })
                })?;
                Ok(Box::new(stream))
            }
        }
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
