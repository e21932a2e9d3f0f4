//! TCP inside the tunnel, without a device of the host: smoltcp straight on the core.
//!
//! No socket, no runtime, no clock, like the core below it.

mod device;
#[cfg(test)]
mod tests;

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

/// Bytes of a connection under way to the other end. Twice and four times what its stream gives at
/// once (`PIPE`), so that the kernel gets full runs of datagrams; memory that was not used is none.
const SEND_BUFFER_BYTES: usize = 1024 * 1024;
/// The same from the other end: 40 Mbit/s over a line of 100 ms. A connection that nobody reads
/// fills it.
const RECV_BUFFER_BYTES: usize = 512 * 1024;
/// A peer that acknowledges nothing for this long is gone (RFC 9293, 3.8.3: 100 s at least, five minutes by
/// default). With pauses between attempts that double up to a minute, 60 s ended more than half of the
/// connections over a satellite in the rain; whoever is in more of a hurry asks its peer, as MQTT does.
const USER_TIMEOUT: Duration = Duration::from_secs(300);
/// An idle connection asks whether its peer is there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// Connections that may be on their way to a listener at once.
const BACKLOG: usize = 8;
/// Where local ports begin (RFC 6335, 6).
const FIRST_EPHEMERAL_PORT: u16 = 49_152;

/// A TCP/IP stack in a tunnel.
pub struct Stack {
    /// What it stands on. Its verbs may be called; its datagrams go through the stack.
    pub tunnel: Tunnel,
    interface: Interface,
    sockets: SocketSet<'static>,
    inbound: PacketBuffer,
    scratch: Vec<u8>,
    start: Instant,
    last_port: u16,
}

/// Why a connection cannot be begun.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SocketError {
    /// The tunnel has no address of that family, or that is none to connect to.
    #[error("the tunnel has no address from which that one can be reached")]
    Unreachable,
    /// Port 0, or one that something listens on.
    #[error("the port is 0 or in use")]
    PortUnavailable,
}

/// Sockets that wait at one port.
#[derive(Debug)]
pub struct ListeningSockets {
    port: u16,
    sockets: Vec<SocketHandle>,
}

impl Stack {
    /// Puts a stack on a tunnel. `seed` decides ports and sequence numbers: another one at each
    /// start, or the peer takes the first connection for one from before.
    #[must_use]
    pub fn new(mut tunnel: Tunnel, now: Now, seed: u64) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let inbound = PacketBuffer::new();
        // smoltcp asks it for its MTU and checksums, once.
        let mut device = TunnelPhy {
            tunnel: &mut tunnel,
            now,
            out: &mut SendBatch::new(),
            inbound: &inbound,
            next: &mut 0,
            scratch: &mut Vec::new(),
        };
        let interface = Interface::new(config, &mut device, Timestamp::ZERO);
        let mut stack = Self {
            interface,
            tunnel,
            sockets: SocketSet::new(Vec::new()),
            inbound,
            scratch: Vec::new(),
            start: now.instant,
            last_port: fastrand::Rng::with_seed(seed).u16(FIRST_EPHEMERAL_PORT..),
        };
        let addresses: Vec<IpCidr> = stack
            .tunnel
            .addresses()
            .iter()
            .map(|net| IpCidr::new(net.addr().into(), net.prefix_len()))
            .collect();
        stack.interface.update_ip_addrs(|own| {
            // A ninth address is left out.
            for address in addresses {
                let _ = own.push(address);
            }
        });
        stack
    }

    /// Takes a datagram; [`Stack::poll`] does what follows from it.
    pub fn handle_datagram(
        &mut self,
        now: Now,
        datagram: (SocketAddr, &[u8]),
        out: &mut SendBatch,
    ) {
        self.tunnel.handle_datagram(now, datagram, out, &mut self.inbound);
    }

    /// Does everything that can be done now, until `out` is full: then it is to be sent, and polled
    /// again. Returns whether nothing is left.
    pub fn poll(&mut self, now: Now, out: &mut SendBatch) -> bool {
        if self.tunnel.poll_timeout().is_some_and(|at| now.instant >= at) {
            self.tunnel.handle_timeout(now, out);
        }
        let Self { tunnel, interface, sockets, inbound, scratch: room, start, .. } = self;
        let mut next = 0;
        let at = smoltcp_time(*start, now.instant);
        let mut device = TunnelPhy { tunnel, now, out, inbound, next: &mut next, scratch: room };
        interface.poll(at, &mut device, sockets);
        let is_done = next >= inbound.len() && !out.is_full();
        inbound.remove_first(next);
        is_done
    }

    /// When to call [`Stack::poll`] at the latest.
    pub fn poll_at(&mut self, now: Instant) -> Option<Instant> {
        let at = self.interface.poll_at(smoltcp_time(self.start, now), &self.sockets);
        let at = at.map(|at| {
            let micros = u64::try_from(at.total_micros()).unwrap_or_default();
            self.start + Duration::from_micros(micros)
        });
        at.into_iter().chain(self.tunnel.poll_timeout()).min()
    }

    /// Begins a connection.
    pub fn connect(&mut self, to: SocketAddr) -> Result<SocketHandle, SocketError> {
        let has_family = |own: &&ipnet::IpNet| own.addr().is_ipv4() == to.is_ipv4();
        self.tunnel.addresses().iter().find(has_family).ok_or(SocketError::Unreachable)?;
        let port = self.allocate_port();
        let mut socket = new_socket();
        socket
            .connect(self.interface.context(), ip_endpoint(to), port)
            .map_err(|_| SocketError::Unreachable)?;
        Ok(self.sockets.add(socket))
    }

    /// The next port after the last that no connection of ours uses.
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

    /// Listens at a port, on all addresses of the tunnel.
    pub fn listen(&mut self, port: u16) -> Result<ListeningSockets, SocketError> {
        let mut sockets = Vec::new();
        for _ in 0..BACKLOG {
            let mut socket = new_socket();
            socket
                .listen(IpListenEndpoint::from(port))
                .map_err(|_| SocketError::PortUnavailable)?;
            sockets.push(self.sockets.add(socket));
        }
        Ok(ListeningSockets { port, sockets })
    }

    /// The next connection that has come, and has been answered: open, or closed again by the other
    /// end. Another socket takes its place.
    pub fn accept(&mut self, waiting: &mut ListeningSockets) -> Option<SocketHandle> {
        for handle in &mut waiting.sockets {
            let state = self.sockets.get::<Socket<'_>>(*handle).state();
            if matches!(state, TcpState::Listen | TcpState::SynReceived) {
                continue;
            }
            let mut fresh = new_socket();
            // It has been listened there before.
            let _ = fresh.listen(IpListenEndpoint::from(waiting.port));
            let accepted = std::mem::replace(handle, self.sockets.add(fresh));
            if state != TcpState::Closed {
                return Some(accepted);
            }
            self.sockets.remove(accepted);
        }
        None
    }

    /// Listens no longer.
    pub fn close_listener(&mut self, waiting: &ListeningSockets) {
        for handle in &waiting.sockets {
            self.sockets.remove(*handle);
        }
    }

    /// A connection. It is there until [`Stack::remove`].
    pub fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Forgets a connection; what it still has to say is lost.
    pub fn remove(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }
}

fn new_socket() -> Socket<'static> {
    let buffer = |length| SocketBuffer::new(vec![0; length]);
    let mut socket = Socket::new(buffer(RECV_BUFFER_BYTES), buffer(SEND_BUFFER_BYTES));
    socket.set_timeout(Some(USER_TIMEOUT.into()));
    socket.set_keep_alive(Some(KEEPALIVE_INTERVAL.into()));
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

/// The other end's address of a connection, or ours.
pub(crate) fn socket_addr(endpoint: Option<IpEndpoint>) -> Option<SocketAddr> {
    endpoint.map(|endpoint| SocketAddr::new(IpAddr::from(endpoint.addr), endpoint.port))
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack").field("tunnel", &self.tunnel).finish_non_exhaustive()
    }
}
