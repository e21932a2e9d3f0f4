//! A TCP connection as the operating system routes it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use provisioning::config::HostPort;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};
use tunnel::{InterfaceName, bind_to_device};

use super::DialError;
use super::way::{refused, resolve, shares};

/// A silent connection is probed after this, and given up four probes later. It backs up MQTT's
/// own keep alive, which may be switched off.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// Connects to the broker, by one device only if one is given. The name is resolved every time,
/// since addresses change; every address is tried in the resolver's order.
pub(super) async fn dial(
    at: &HostPort,
    deadline: Instant,
    device: Option<InterfaceName>,
) -> Result<TcpStream, DialError> {
    let addresses = resolve(at, deadline).await?;
    let mut failure = DialError::Unresolved { host: at.host.clone(), source: None };
    for (address, limit) in addresses.iter().zip(shares(addresses.len(), deadline)) {
        match timeout_at(limit, connect(*address, device)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = refused(at, error),
            Err(_) => failure = DialError::TimedOut { at: at.clone() },
        }
    }
    Err(failure)
}

async fn connect(address: SocketAddr, device: Option<InterfaceName>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(device) = device {
        bind_to_device(&socket, device)?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY);
    SockRef::from(&stream).set_tcp_keepalive(&probes)?;
    Ok(stream)
}
