//! How a byte stream reaches the broker: today a TCP connection of our own. Whatever `dial` gives,
//! [`Hop`] hands it to a client library that only opens unix sockets.

mod hop;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use provisioning::config::{Broker, HostPort};
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

pub use hop::Hop;

/// A silent connection is probed after this, and given up four probes later. It backs up MQTT's
/// own keep alive, which may be switched off.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(10);

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
}

/// Connects to the broker. The name is resolved every time, since addresses change; every address
/// is tried in the resolver's order and gets an equal share of the time that is left, so that a
/// dead one does not use up the turn of the next.
///
/// # Errors
/// Fails after `limit` in total, or when no address took the connection; the error is the last
/// address's.
pub async fn dial(broker: &Broker, limit: Duration) -> Result<TcpStream, DialError> {
    let at = &broker.address;
    let deadline = Instant::now() + limit;
    let addresses = match timeout_at(deadline, lookup_host((at.host.as_str(), at.port))).await {
        Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
        Ok(Err(source)) => {
            return Err(DialError::Unresolved { host: at.host.clone(), source: Some(source) });
        }
        Err(_) => return Err(DialError::Unresolved { host: at.host.clone(), source: None }),
    };
    let mut failure = DialError::Unresolved { host: at.host.clone(), source: None };
    for (index, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        match connect(at, *address, share).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn connect(
    at: &HostPort,
    address: SocketAddr,
    limit: Duration,
) -> Result<TcpStream, DialError> {
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => prepare(&stream)
            .map(|()| stream)
            .map_err(|source| DialError::Unreachable { at: at.clone(), source }),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(DialError::Refused { at: at.clone() })
        }
        Ok(Err(source)) => Err(DialError::Unreachable { at: at.clone(), source }),
        Err(_) => Err(DialError::TimedOut { at: at.clone() }),
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY);
    SockRef::from(stream).set_tcp_keepalive(&probes)
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
        }
    }
}
