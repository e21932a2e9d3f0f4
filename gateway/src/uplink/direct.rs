//! A TCP connection as the operating system routes it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use provisioning::config::HostPort;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use super::DialError;

/// A silent connection is probed after this, and given up four probes later. It backs up MQTT's
/// own keep alive, which may be switched off.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// Connects to the broker. The name is resolved every time, since addresses change; every address
/// is tried in the resolver's order and gets an equal share of the time that is left, so that a
/// dead one does not use up the turn of the next.
pub(super) async fn dial(at: &HostPort, deadline: Instant) -> Result<TcpStream, DialError> {
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
