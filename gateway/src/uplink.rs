//! How a byte stream reaches the broker: a TCP connection of our own, direct or through the tunnel,
//! with TLS on top where the broker wants it. Whatever [`Uplink::dial`] gives, [`Hop`] hands to a
//! client library that only opens unix sockets.

mod route;
mod tcp;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod unix_bridge;

use std::fmt;
use std::io;
use std::time::Duration;

use provisioning::config::{Broker, HostPort, Scheme, Tls};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

pub use route::{HubChanges, Route, TunnelHandle};
pub use tls::TlsError;
pub use unix_bridge::UnixBridge;

/// A stream of bytes to the broker.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// The way to the brokers.
#[derive(Clone, Debug)]
pub struct Uplink {
    route: Route,
    tls: Tls,
}

/// Why a broker could not be reached.
#[derive(Debug, Error)]
pub enum DialError {
    /// The name has no address.
    #[error("the name {host} cannot be resolved")]
    Unresolved {
        /// The name as configured.
        host: String,
        /// What the resolver said; absent when it gave an empty answer.
        source: Option<io::Error>,
    },
    /// Nobody answered in time.
    #[error("{at} does not answer")]
    TimedOut {
        /// The broker as configured.
        at: HostPort,
    },
    /// The machine is there, but nothing listens on the port.
    #[error("{at} refuses the connection")]
    Refused {
        /// The broker as configured.
        at: HostPort,
    },
    /// The network does not lead there, or the connection broke while it was made.
    #[error("{at} cannot be reached")]
    Unreachable {
        /// The broker as configured.
        at: HostPort,
        /// What the operating system said.
        source: io::Error,
    },
    /// The tunnel that it has to take has no session.
    #[error("the tunnel is not up")]
    NoTunnel {
        /// Why, for an installer.
        sentence: String,
    },
    /// The hub in use does not lead there.
    #[error("the hub {hub} does not lead to {at}")]
    NotBehindHub {
        /// The broker as configured.
        at: HostPort,
        /// The hub in use.
        hub: String,
    },
    /// The stream came about, and TLS on it did not.
    #[error("no TLS with {at}")]
    Tls {
        /// The broker as configured.
        at: HostPort,
        /// Why.
        source: TlsError,
    },
}

impl Uplink {
    /// Takes `way` to every broker.
    #[must_use]
    pub const fn new(way: Route, tls: Tls) -> Self {
        Self { route: way, tls }
    }

    /// The way that the operating system routes.
    #[must_use]
    pub const fn direct(tls: Tls) -> Self {
        Self::new(Route::Direct, tls)
    }

    /// Connects to a broker, with TLS if its address says so.
    ///
    /// # Errors
    /// Fails after `limit` in total, or when no address took the connection; the error is the last
    /// address's. Through a tunnel it never tries another way.
    pub async fn dial(
        &self,
        broker: &Broker,
        limit: Duration,
    ) -> Result<Box<dyn ByteStream>, DialError> {
        let at = &broker.address;
        let deadline = Instant::now() + limit;
        let stream = self.route.dial(at, deadline).await?;
        match broker.scheme {
            Scheme::Mqtt => Ok(stream),
            Scheme::Mqtts => {
                let secured = timeout_at(deadline, tls::handshake(&self.tls, at, stream)).await;
                secured
                    .unwrap_or(Err(TlsError::TimedOut))
                    .map(|stream| Box::new(stream) as Box<dyn ByteStream>)
                    .map_err(|source| DialError::Tls { at: at.clone(), source })
            }
        }
    }

    /// Sees, from now on, that the tunnel goes over to another hub: other brokers may be reached
    /// then, and connections through the hub before are of no use.
    #[must_use]
    pub fn hub_changes(&self) -> HubChanges {
        self.route.hub_changes()
    }
}

impl fmt::Debug for dyn ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

impl DialError {
    /// Tells an installer what is wrong and where to look.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::Unresolved { host, .. } => format!(
                "the broker's name {host} cannot be resolved: check its spelling, and that a DNS \
                 server answers"
            ),
            Self::TimedOut { at } => format!(
                "the broker {at} does not answer: check its address, the cable, and that no \
                 firewall swallows the connection"
            ),
            Self::Refused { at } => format!(
                "the broker {at} refuses the connection: the machine is there, but no broker \
                 listens on port {}",
                at.port
            ),
            Self::Unreachable { at, source } => format!(
                "the broker {at} cannot be reached ({source}): check the cable and the gateway's \
                 own address"
            ),
            Self::NoTunnel { sentence } => sentence.clone(),
            Self::NotBehindHub { at, hub } => format!(
                "the broker {at} is not behind the hub {hub}, which is in use: add its network to \
                 that hub's allowed_ips, or a broker that is behind it to brokers"
            ),
            Self::Tls { at, source } => source.sentence(at),
        }
    }
}
