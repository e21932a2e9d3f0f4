//! UDP, with many datagrams in one call of the kernel.

mod socket;
#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time;
use tracing::{debug, info};

use super::{RecvBatch, Segments, SendBatch, Transport};
use crate::core::{PathError, PathErrorCause};
use crate::netlink::{ChangeMonitor, RouteChange, RouteWatch};
use crate::time::now;

pub use socket::LocalPort;

/// Reads before the other tasks get a turn. More made no difference in speed.
const MAX_READS_PER_WAKE: usize = 16;
/// Time for the kernel's send buffer to drain before the rest is dropped. A stalled link must not
/// stop the timers of the tunnel.
const SEND_TIMEOUT: Duration = Duration::from_millis(100);

/// Datagrams over UDP to and from any address, on IPv4 and, if the kernel supports it, IPv6.
///
/// Sends and receives joined datagrams (UDP_SEGMENT, UDP_GRO) until the kernel refuses, then single
/// ones. Datagrams may be fragmented on the way, because their size is up to WireGuard.
#[derive(Debug)]
pub struct UdpTransport {
    port: LocalPort,
    socket: UdpSocket,
    family: SocketFamily,
    batching: Batching,
    unsent: u64,
    /// The kernel's count of datagrams that did not fit into the socket's buffer.
    overflow: u32,
    last_send_error: Option<io::Error>,
    monitor: ChangeMonitor,
    /// Watches the route to the last destination; `None` where the kernel does not notify.
    route: Option<RouteWatch>,
    /// Address of the last datagram that was sent.
    last_destination: Option<SocketAddr>,
}

/// Address families of a socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SocketFamily {
    /// IPv6, and IPv4 as mapped addresses.
    DualStack,
    /// IPv4 only, on a kernel without IPv6.
    Ipv4Only,
}

/// Whether the kernel accepts joined datagrams.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Batching {
    /// It has not refused any.
    On,
    /// It has refused some, so each datagram is sent alone until the next rebind.
    Refused,
}

/// Result of an attempt to send.
enum SendOutcome {
    Sent,
    /// The kernel's buffer is full.
    BufferFull,
    /// The kernel does not accept joined datagrams.
    NoSegmentation,
}

impl UdpTransport {
    /// Opens a socket on every address of the host.
    ///
    /// Must be called in a tokio runtime. Fails if a fixed port is in use.
    pub fn bind(port: LocalPort) -> io::Result<Self> {
        let (socket, family) = socket::open(port)?;
        let listening =
            ChangeMonitor::listen().and_then(|monitor| Ok((monitor, Some(RouteWatch::new()?))));
        let (monitor, route) = listening.unwrap_or_else(|error| {
            info!(%error, "cannot monitor the network; only the hub's silence shows a change");
            (ChangeMonitor::disabled(), None)
        });
        Ok(Self {
            port,
            socket: UdpSocket::from_std(socket)?,
            family,
            batching: Batching::On,
            unsent: 0,
            overflow: 0,
            last_send_error: None,
            monitor,
            route,
            last_destination: None,
        })
    }

    /// Returns the local address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Returns whether the kernel accepts joined datagrams.
    #[must_use]
    pub const fn batching(&self) -> Batching {
        self.batching
    }

    /// Returns why the last datagram could not be sent, for example no route, a firewall, or an
    /// interface that is down; `None` if it was sent.
    #[must_use]
    pub const fn last_send_error(&self) -> Option<&io::Error> {
        self.last_send_error.as_ref()
    }

    /// Sends datagrams to one address: joined, or one by one once the kernel rejects joined ones.
    async fn send_segments(&mut self, segments: Segments<'_>, end: time::Instant) {
        self.last_destination = Some(segments.to);
        if self.batching == Batching::On && segments.bytes.len() > segments.segment_size {
            if self.send_or_drop(segments, end).await {
                return;
            }
            info!(to = %segments.to, "the kernel rejects joined datagrams: sending single ones");
            self.batching = Batching::Refused;
        }
        for datagram in segments.bytes.chunks(segments.segment_size) {
            self.send_or_drop(Segments { bytes: datagram, ..segments }, end).await;
        }
    }

    /// Sends or drops joined datagrams; returns `false` if the kernel accepts only single ones.
    async fn send_or_drop(&mut self, segments: Segments<'_>, end: time::Instant) -> bool {
        let mut sent = self.try_send(segments);
        if matches!(sent, Ok(SendOutcome::BufferFull)) {
            let in_time = time::timeout_at(end, self.send_when_writable(segments)).await;
            sent = in_time.unwrap_or(Ok(SendOutcome::BufferFull));
        }
        match sent {
            Ok(SendOutcome::NoSegmentation) => return false,
            Ok(SendOutcome::Sent) => self.last_send_error = None,
            Ok(SendOutcome::BufferFull) => self.drop_segments(segments, Errno::EAGAIN),
            Err(errno) => self.drop_segments(segments, errno),
        }
        true
    }

    /// Sends as soon as the socket is writable; the caller limits the time.
    async fn send_when_writable(&self, segments: Segments<'_>) -> Result<SendOutcome, Errno> {
        loop {
            let Ok(ready) = self.socket.ready(Interest::WRITABLE).await else {
                return Ok(SendOutcome::BufferFull);
            };
            let attempt =
                self.socket.try_io(Interest::WRITABLE, || match self.try_send(segments) {
                    Ok(SendOutcome::BufferFull) => Err(io::ErrorKind::WouldBlock.into()),
                    sent => Ok(sent),
                });
            match attempt {
                Ok(sent) => return sent,
                // tokio reports this forever after an ICMP error that was not read yet.
                Err(_) if ready.is_write_closed() => return Ok(SendOutcome::BufferFull),
                Err(_) => {}
            }
        }
    }

    fn drop_segments(&mut self, segments: Segments<'_>, errno: Errno) {
        self.unsent += segments.bytes.len().div_ceil(segments.segment_size.max(1)) as u64;
        if self.last_send_error.as_ref().and_then(io::Error::raw_os_error) != Some(errno as i32) {
            debug!(to = %segments.to, error = errno.desc(), "cannot send");
        }
        self.last_send_error = Some(errno.into());
    }

    fn try_send(&self, segments: Segments<'_>) -> Result<SendOutcome, Errno> {
        // The kernel reports an ICMP error for an earlier datagram once, instead of sending.
        match self.send_once(segments) {
            Err(Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => {
                self.send_once(segments)
            }
            sent => sent,
        }
    }

    fn send_once(&self, segments: Segments<'_>) -> Result<SendOutcome, Errno> {
        let to = SockaddrStorage::from(self.socket_address(segments.to));
        let stride = u16::try_from(segments.segment_size).unwrap_or(u16::MAX);
        let joined = [ControlMessage::UdpGsoSegments(&stride)];
        let is_joined = segments.bytes.len() > segments.segment_size;
        let control = if is_joined { joined.as_slice() } else { &[] };
        let bytes = [IoSlice::new(segments.bytes)];
        let fd = self.socket.as_raw_fd();
        match sendmsg(fd, &bytes, control, MsgFlags::MSG_NOSIGNAL, Some(&to)) {
            Ok(_) => Ok(SendOutcome::Sent),
            Err(Errno::EAGAIN) => Ok(SendOutcome::BufferFull),
            // Unknown option; no checksum offload; longer than the path MTU.
            Err(
                Errno::EIO
                | Errno::EINVAL
                | Errno::EOPNOTSUPP
                | Errno::ENOPROTOOPT
                | Errno::EMSGSIZE,
            ) if is_joined => Ok(SendOutcome::NoSegmentation),
            Err(errno) => Err(errno),
        }
    }

    /// Returns an address in the form that the socket expects.
    fn socket_address(&self, to: SocketAddr) -> SocketAddr {
        match (self.family, to.ip()) {
            (SocketFamily::DualStack, IpAddr::V4(ip)) => (ip.to_ipv6_mapped(), to.port()).into(),
            _ => to,
        }
    }

    /// Checks the route to the hub, because something in the network has changed.
    fn check_route(&mut self, received: &mut RecvBatch) {
        let Some(route) = &mut self.route else { return };
        match route.check(now(), self.last_destination.map(|to| to.ip())) {
            RouteChange::Unchanged => {}
            RouteChange::Changed => {
                info!("the route to the hub has changed");
                received.note_network_change();
            }
            RouteChange::DeferredUntil(at) => self.monitor.wake_at(at.into()),
        }
    }

    /// Reads the ICMP errors from the socket's error queue.
    fn handle_icmp_errors(&mut self, received: &mut RecvBatch) {
        socket::drain_error_queue(&self.socket, received);
        // tokio treats an error on a writable socket as its end and would report it as writable
        // forever. A new registration of the same socket starts afresh.
        let same = self.socket.as_fd().try_clone_to_owned();
        match same.and_then(|same| UdpSocket::from_std(same.into())) {
            Ok(same) => self.socket = same,
            // No file descriptor is left. Datagrams may now be dropped instead of waiting.
            Err(_) => {
                let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                let _cleared = self.socket.try_io(Interest::ERROR, nothing);
            }
        }
    }
}

impl Transport for UdpTransport {
    async fn receive(&mut self, received: &mut RecvBatch) -> io::Result<()> {
        loop {
            let ready = tokio::select! {
                ready = self.socket.ready(Interest::READABLE | Interest::ERROR) => Some(ready?),
                () = self.monitor.changed() => None,
            };
            match ready {
                None => self.check_route(received),
                Some(ready) => {
                    if ready.is_readable() {
                        receive_available(&self.socket, &mut self.overflow, received)?;
                    }
                    if ready.is_error() {
                        self.handle_icmp_errors(received);
                    }
                }
            }
            if !received.is_empty() {
                return Ok(());
            }
        }
    }

    async fn send(&mut self, outgoing: &mut SendBatch) -> io::Result<()> {
        // One limit for all: after it each of the rest is tried once and then dropped.
        let end = time::Instant::now() + SEND_TIMEOUT;
        for segments in outgoing.segments() {
            self.send_segments(segments, end).await;
        }
        outgoing.clear();
        Ok(())
    }

    fn send_error(&self) -> Option<PathError> {
        let errno = self.last_send_error.as_ref()?.raw_os_error().map(Errno::from_raw)?;
        let without_route =
            [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::ENETDOWN, Errno::EADDRNOTAVAIL];
        let cause = if [Errno::EPERM, Errno::EACCES].contains(&errno) {
            PathErrorCause::Prohibited
        } else if without_route.contains(&errno) {
            PathErrorCause::NoRoute
        } else {
            return None;
        };
        Some(PathError { to: self.last_destination?, cause, reporter: None })
    }

    fn unsent(&self) -> u64 {
        self.unsent
    }

    fn local_port(&self) -> Option<u16> {
        self.socket.local_addr().ok().map(|address| address.port())
    }

    fn rebind(&mut self) -> io::Result<()> {
        // The hub or a firewall expects the fixed port, so a rebind must keep it.
        let LocalPort::Any = self.port else { return Ok(()) };
        let (socket, family) = socket::open(self.port)?;
        (self.socket, self.family) = (UdpSocket::from_std(socket)?, family);
        // The new socket may leave through another device, which may accept joined datagrams.
        self.batching = Batching::On;
        self.overflow = 0;
        Ok(())
    }
}

/// Reads the datagrams that are available and fit.
fn receive_available(
    socket: &UdpSocket,
    overflow: &mut u32,
    received: &mut RecvBatch,
) -> io::Result<()> {
    for _ in 0..MAX_READS_PER_WAKE {
        if !received.has_room() {
            break;
        }
        match socket.try_io(Interest::READABLE, || Ok(socket::receive(socket, received)?)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if socket::is_fatal(&error) => return Err(error),
            Ok(Some(count)) => {
                // The kernel counts modulo 2^32 over the life of the socket.
                received.add_dropped(count.wrapping_sub(*overflow).into());
                *overflow = count;
            }
            // ICMP errors are returned here too, each once; anyone can cause them.
            Ok(None) | Err(_) => {}
        }
    }
    Ok(())
}
