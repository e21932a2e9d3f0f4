//! TCP inside the tunnel without a network interface: smoltcp on top of the core.
//!
//! No socket, no runtime and no clock, like the core.

mod device;
mod path_mtu;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State as TcpState};
use smoltcp::time::Instant as Timestamp;
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint, IpListenEndpoint};
use thiserror::Error;

use crate::core::{Now, Tunnel};
use crate::packet_buffer::PacketBuffer;
use crate::transport::SendBatch;
use device::TunnelPhy;
use path_mtu::PathMtus;

/// Buffers of a connection that this end opens. To send: four times what its stream delivers at
/// once (`PIPE_BYTES`), so that the kernel gets full batches of datagrams. To receive: 40 Mbit/s
/// on a link with a round trip of 100 ms. They fill up if a connection is not read, and untouched
/// memory is not allocated.
const DIALLED: BufferSizes = BufferSizes { send: 1024 * 1024, receive: 512 * 1024 };
/// Buffers of a connection that a peer opens. Smaller, because any machine behind the hub may open
/// one, send a short request and never read the answer.
const ACCEPTED: BufferSizes = BufferSizes { send: 256 * 1024, receive: 64 * 1024 };
/// A connection fails when nothing was acknowledged for this long (RFC 9293, 3.8.3: at least 100 s,
/// by default five minutes). Retransmissions back off to one a minute, so 60 s ended more than half
/// of the connections over a lossy satellite link. Protocols that need an earlier answer ping their
/// peer, as MQTT does.
const USER_TIMEOUT: Duration = Duration::from_secs(300);
/// Interval at which an idle connection probes its peer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// Sockets of one listener: those that wait for a SYN, and those that wait for the handshake to
/// end.
const BACKLOG: usize = 8;
/// Sockets of the backlog that always wait for a SYN. The oldest unfinished handshakes make room:
/// a peer that sends nothing but SYNs keeps out no other.
const MIN_IDLE: usize = BACKLOG / 2;
/// Time-out of the handshake of a connection that a peer opens; three retransmissions (RFC 6298,
/// 2.1).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// First local port (RFC 6335, 6).
const FIRST_EPHEMERAL_PORT: u16 = 49_152;

/// A TCP/IP stack in a tunnel.
pub struct Stack {
    /// The tunnel below. Its methods may be called; its datagrams go through the stack.
    pub tunnel: Tunnel,
    interface: Interface,
    sockets: SocketSet<'static>,
    inbound: PacketBuffer,
    scratch: Vec<u8>,
    paths: PathMtus,
    start: Instant,
    last_port: u16,
}

/// Why a socket cannot be opened.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SocketError {
    /// The tunnel has no address of that family, or the address cannot be connected to.
    #[error("the tunnel has no address from which this one can be reached")]
    Unreachable,
    /// The port is 0 or in use.
    #[error("the port is 0 or in use")]
    PortUnavailable,
}

/// Sockets that listen on one port; their number is bounded.
#[derive(Debug)]
pub struct ListeningSockets {
    port: u16,
    /// They wait for a SYN.
    idle: Vec<SocketHandle>,
    /// They have received a SYN and wait for the end of the handshake, the oldest first.
    half_open: VecDeque<SocketHandle>,
}

/// Sizes of the buffers of a connection, in bytes.
struct BufferSizes {
    send: usize,
    receive: usize,
}

impl Stack {
    /// Creates a stack in a tunnel. `seed` determines ports and sequence numbers and must differ at
    /// each start, or a peer mistakes the first connection for an old one.
    #[must_use]
    pub fn new(mut tunnel: Tunnel, now: Now, seed: u64) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let inbound = PacketBuffer::new();
        // smoltcp only reads the MTU and the checksum capabilities.
        let mut device = TunnelPhy {
            tunnel: &mut tunnel,
            now,
            out: &mut SendBatch::new(),
            inbound: &inbound,
            next: &mut 0,
            scratch: &mut Vec::new(),
            paths: &mut PathMtus::default(),
        };
        let interface = Interface::new(config, &mut device, Timestamp::ZERO);
        let mut stack = Self {
            interface,
            tunnel,
            sockets: SocketSet::new(Vec::new()),
            inbound,
            scratch: Vec::new(),
            paths: PathMtus::default(),
            start: now.instant,
            last_port: fastrand::Rng::with_seed(seed).u16(FIRST_EPHEMERAL_PORT..),
        };
        let addresses: Vec<IpCidr> = stack
            .tunnel
            .addresses()
            .iter()
            .map(|net| IpCidr::new(net.addr().into(), net.prefix_len()))
            .collect();
        stack.interface.update_ip_addrs(|addresses_of_interface| {
            // smoltcp holds eight addresses; further ones are ignored.
            for address in addresses {
                let _ = addresses_of_interface.push(address);
            }
        });
        stack
    }

    /// Handles a datagram; its effects follow in [`Stack::poll`].
    pub fn handle_datagram(
        &mut self,
        now: Now,
        datagram: (SocketAddr, &[u8]),
        out: &mut SendBatch,
    ) {
        self.tunnel.handle_datagram(now, datagram, out, &mut self.inbound);
    }

    /// Does everything that can be done now, until `out` is full and must be sent. Returns whether
    /// nothing is left.
    pub fn poll(&mut self, now: Now, out: &mut SendBatch) -> bool {
        if self.tunnel.poll_timeout().is_some_and(|at| now.instant >= at) {
            self.tunnel.handle_timeout(now, out);
        }
        let Self { tunnel, interface, sockets, inbound, scratch, paths, start, .. } = self;
        let mut next = 0;
        let at = smoltcp_time(*start, now.instant);
        let next_packet = &mut next;
        let mut device = TunnelPhy { tunnel, now, out, inbound, next: next_packet, scratch, paths };
        interface.poll(at, &mut device, sockets);
        let is_done = next >= inbound.len() && !out.is_full();
        inbound.remove_first(next);
        is_done
    }

    /// Returns when to call [`Stack::poll`] at the latest.
    pub fn poll_at(&mut self, now: Instant) -> Option<Instant> {
        let at = self.interface.poll_at(smoltcp_time(self.start, now), &self.sockets);
        let at = at.map(|at| {
            let micros = u64::try_from(at.total_micros()).unwrap_or_default();
            self.start + Duration::from_micros(micros)
        });
        at.into_iter().chain(self.tunnel.poll_timeout()).min()
    }

    /// Opens a connection.
    pub fn connect(&mut self, to: SocketAddr) -> Result<SocketHandle, SocketError> {
        let has_family = |addresses_of_interface: &&ipnet::IpNet| {
            addresses_of_interface.addr().is_ipv4() == to.is_ipv4()
        };
        self.tunnel.addresses().iter().find(has_family).ok_or(SocketError::Unreachable)?;
        let port = self.allocate_port();
        let mut socket = new_socket(&DIALLED);
        socket
            .connect(self.interface.context(), ip_endpoint(to), port)
            .map_err(|_| SocketError::Unreachable)?;
        Ok(self.sockets.add(socket))
    }

    /// Returns the next port after the last one that no connection uses.
    fn allocate_port(&mut self) -> u16 {
        let is_used = |sockets: &SocketSet<'_>, port| {
            let mut ports = sockets.iter().filter_map(|(_, socket)| {
                let smoltcp::socket::Socket::Tcp(socket) = socket;
                socket.local_endpoint().map(|local| local.port)
            });
            ports.any(|used| used == port)
        };
        // There are far fewer connections than ports.
        for _ in FIRST_EPHEMERAL_PORT..=u16::MAX {
            self.last_port = self.last_port.checked_add(1).unwrap_or(FIRST_EPHEMERAL_PORT);
            if !is_used(&self.sockets, self.last_port) {
                break;
            }
        }
        self.last_port
    }

    /// Listens on a port, on all addresses of the tunnel.
    pub fn listen(&mut self, port: u16) -> Result<ListeningSockets, SocketError> {
        let mut idle = Vec::new();
        for _ in 0..BACKLOG {
            idle.push(self.add_listening(port)?);
        }
        Ok(ListeningSockets { port, idle, half_open: VecDeque::new() })
    }

    fn add_listening(&mut self, port: u16) -> Result<SocketHandle, SocketError> {
        let mut socket = new_socket(&ACCEPTED);
        socket.set_timeout(Some(HANDSHAKE_TIMEOUT.into()));
        socket.listen(IpListenEndpoint::from(port)).map_err(|_| SocketError::PortUnavailable)?;
        Ok(self.sockets.add(socket))
    }

    /// Returns the next connection that was established, even if the peer has closed it since.
    /// Another socket takes its place.
    pub fn accept(&mut self, listener: &mut ListeningSockets) -> Option<SocketHandle> {
        let mut established = VecDeque::new();
        let was_idle = std::mem::take(&mut listener.idle);
        let was_half_open = std::mem::take(&mut listener.half_open);
        for handle in was_half_open.into_iter().chain(was_idle) {
            match self.socket(handle).state() {
                // Also after the peer has reset its handshake.
                TcpState::Listen => listener.idle.push(handle),
                TcpState::Closed => self.remove(handle),
                TcpState::SynReceived => listener.half_open.push_back(handle),
                TcpState::SynSent
                | TcpState::Established
                | TcpState::FinWait1
                | TcpState::FinWait2
                | TcpState::CloseWait
                | TcpState::Closing
                | TcpState::LastAck
                | TcpState::TimeWait => established.push_back(handle),
            }
        }
        let accepted = established.pop_front();
        listener.half_open.extend(established);
        self.refill(listener);
        if let Some(handle) = accepted {
            self.socket(handle).set_timeout(Some(USER_TIMEOUT.into()));
        }
        accepted
    }

    /// Adds idle sockets up to the backlog, in place of the oldest handshakes if necessary.
    fn refill(&mut self, listener: &mut ListeningSockets) {
        while listener.idle.len() < MIN_IDLE
            && listener.idle.len() + listener.half_open.len() >= BACKLOG
        {
            let is_unfinished = |handle: &SocketHandle| {
                self.sockets.get::<Socket<'_>>(*handle).state() == TcpState::SynReceived
            };
            let oldest = listener.half_open.iter().position(is_unfinished);
            let Some(oldest) = oldest.and_then(|at| listener.half_open.remove(at)) else { break };
            self.remove(oldest);
        }
        while listener.idle.len() + listener.half_open.len() < BACKLOG {
            // The port was valid before.
            let Ok(fresh) = self.add_listening(listener.port) else { break };
            listener.idle.push(fresh);
        }
    }

    /// Stops listening.
    pub fn close_listener(&mut self, listener: &ListeningSockets) {
        for handle in listener.idle.iter().chain(&listener.half_open) {
            self.sockets.remove(*handle);
        }
    }

    /// Returns a connection, which exists until [`Stack::remove`].
    pub fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Removes a connection; unsent data is lost.
    pub fn remove(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }
}

fn new_socket(sizes: &BufferSizes) -> Socket<'static> {
    let buffer = |length| SocketBuffer::new(vec![0; length]);
    let mut socket = Socket::new(buffer(sizes.receive), buffer(sizes.send));
    socket.set_timeout(Some(USER_TIMEOUT.into()));
    socket.set_keep_alive(Some(KEEPALIVE_INTERVAL.into()));
    // MQTT packets are small, and waiting for an acknowledgement would add a round trip to each.
    socket.set_nagle_enabled(false);
    socket.set_congestion_control(CongestionControl::Cubic);
    socket
}

fn smoltcp_time(start: Instant, now: Instant) -> Timestamp {
    let micros = now.saturating_duration_since(start).as_micros();
    Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

fn ip_endpoint(address: SocketAddr) -> IpEndpoint {
    IpEndpoint::new(address.ip().into(), address.port())
}

/// Returns an address in the form of the standard library.
pub(crate) fn socket_addr(endpoint: Option<IpEndpoint>) -> Option<SocketAddr> {
    endpoint.map(|endpoint| SocketAddr::new(IpAddr::from(endpoint.addr), endpoint.port))
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack").field("tunnel", &self.tunnel).finish_non_exhaustive()
    }
}
