//! UDP, with as many datagrams in one call of the kernel as it takes.

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
use crate::netlink::{ChangeMonitor, RouteChange, RouteWatch};
use crate::time::now;

pub use socket::LocalPort;

/// Reads before the other tasks have a turn. More made no difference in speed.
const MAX_READS_PER_WAKE: usize = 16;
/// How long a full send buffer of the kernel may take to drain before what is left is dropped. A
/// link that stands still must not stop the timers of the tunnel.
const SEND_TIMEOUT: Duration = Duration::from_millis(100);

/// Datagrams over UDP, to and from anybody, on IPv4 and, where the kernel has it, IPv6.
///
/// Sends and receives joined datagrams (UDP_SEGMENT, UDP_GRO) until the kernel refuses, then one
/// by one. Datagrams may be fragmented on the way: the sizes of WireGuard's are not ours to change.
#[derive(Debug)]
pub struct UdpTransport {
    port: LocalPort,
    socket: UdpSocket,
    family: SocketFamily,
    batching: Batching,
    unsent: u64,
    /// What this socket's buffer had no room for, as the kernel counts.
    overflow: u32,
    last_send_error: Option<io::Error>,
    monitor: ChangeMonitor,
    /// The way to the last receiver; absent where the kernel does not tell.
    route: Option<RouteWatch>,
    /// The last receiver.
    last_destination: Option<IpAddr>,
}

/// What a socket speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SocketFamily {
    /// IPv6, and IPv4 as mapped addresses.
    DualStack,
    /// IPv4 only, on a kernel without IPv6.
    Ipv4Only,
}

/// Whether the kernel takes joined datagrams.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Batching {
    /// It has not refused any.
    On,
    /// It has refused, so each datagram is sent by itself until the next rebind.
    Refused,
}

/// What became of an attempt to send.
enum SendOutcome {
    Sent,
    /// The kernel's buffer is full.
    BufferFull,
    /// It does not take joined datagrams.
    NoSegmentation,
}

impl UdpTransport {
    /// Opens a socket on every address of the host.
    ///
    /// Has to be called in a tokio runtime. Fails when a fixed port is taken.
    pub fn bind(port: LocalPort) -> io::Result<Self> {
        let (socket, family) = socket::open(port)?;
        let listening =
            ChangeMonitor::listen().and_then(|news| Ok((news, Some(RouteWatch::new()?))));
        let (news, way) = listening.unwrap_or_else(|error| {
            info!(%error, "changes of this host's network are noticed by silence only");
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
            monitor: news,
            route: way,
            last_destination: None,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether the kernel takes joined datagrams.
    #[must_use]
    pub const fn batching(&self) -> Batching {
        self.batching
    }

    /// Why the last datagram could not be sent; `None` when it was. For a sentence: no route, a
    /// firewall, an interface that is down.
    #[must_use]
    pub const fn last_send_error(&self) -> Option<&io::Error> {
        self.last_send_error.as_ref()
    }

    /// Sends a run, apart if need be.
    async fn send_segments(&mut self, run: Segments<'_>, end: time::Instant) {
        self.last_destination = Some(run.to.ip());
        if self.batching == Batching::On && run.bytes.len() > run.segment_size {
            if self.send_or_drop(run, end).await {
                return;
            }
            info!(to = %run.to, "the kernel does not take joined datagrams: sending them one by one");
            self.batching = Batching::Refused;
        }
        for datagram in run.bytes.chunks(run.segment_size) {
            self.send_or_drop(Segments { bytes: datagram, ..run }, end).await;
        }
    }

    /// Sends or drops; returns false if the kernel wants the datagrams apart.
    async fn send_or_drop(&mut self, run: Segments<'_>, end: time::Instant) -> bool {
        let mut sent = self.try_send(run);
        if matches!(sent, Ok(SendOutcome::BufferFull)) {
            let patient = time::timeout_at(end, self.send_when_writable(run)).await;
            sent = patient.unwrap_or(Ok(SendOutcome::BufferFull));
        }
        match sent {
            Ok(SendOutcome::NoSegmentation) => return false,
            Ok(SendOutcome::Sent) => self.last_send_error = None,
            Ok(SendOutcome::BufferFull) => self.drop_segments(run, Errno::EAGAIN),
            Err(errno) => self.drop_segments(run, errno),
        }
        true
    }

    async fn send_when_writable(&self, run: Segments<'_>) -> Result<SendOutcome, Errno> {
        loop {
            let Ok(ready) = self.socket.ready(Interest::WRITABLE).await else {
                return Ok(SendOutcome::BufferFull);
            };
            let attempt = self.socket.try_io(Interest::WRITABLE, || match self.try_send(run) {
                Ok(SendOutcome::BufferFull) => Err(io::ErrorKind::WouldBlock.into()),
                sent => Ok(sent),
            });
            match attempt {
                Ok(sent) => return sent,
                // The runtime says so for ever after an ICMP answer that is still to be taken.
                Err(_) if ready.is_write_closed() => return Ok(SendOutcome::BufferFull),
                Err(_) => {}
            }
        }
    }

    fn drop_segments(&mut self, run: Segments<'_>, errno: Errno) {
        self.unsent += run.bytes.len().div_ceil(run.segment_size.max(1)) as u64;
        if self.last_send_error.as_ref().and_then(io::Error::raw_os_error) != Some(errno as i32) {
            debug!(to = %run.to, error = errno.desc(), "cannot send");
        }
        self.last_send_error = Some(errno.into());
    }

    fn try_send(&self, run: Segments<'_>) -> Result<SendOutcome, Errno> {
        // An ICMP answer to something earlier is reported once, in place of the next call.
        match self.send_once(run) {
            Err(Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => {
                self.send_once(run)
            }
            sent => sent,
        }
    }

    fn send_once(&self, run: Segments<'_>) -> Result<SendOutcome, Errno> {
        let to = SockaddrStorage::from(self.socket_address(run.to));
        let stride = u16::try_from(run.segment_size).unwrap_or(u16::MAX);
        let joined = [ControlMessage::UdpGsoSegments(&stride)];
        let is_joined = run.bytes.len() > run.segment_size;
        let control = if is_joined { joined.as_slice() } else { &[] };
        let bytes = [IoSlice::new(run.bytes)];
        let fd = self.socket.as_raw_fd();
        match sendmsg(fd, &bytes, control, MsgFlags::MSG_NOSIGNAL, Some(&to)) {
            Ok(_) => Ok(SendOutcome::Sent),
            Err(Errno::EAGAIN) => Ok(SendOutcome::BufferFull),
            // No such option; no checksums in the device; longer than the way takes in one piece.
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

    /// The address as the socket wants it.
    fn socket_address(&self, to: SocketAddr) -> SocketAddr {
        match (self.family, to.ip()) {
            (SocketFamily::DualStack, IpAddr::V4(ip)) => (ip.to_ipv6_mapped(), to.port()).into(),
            _ => to,
        }
    }

    /// Looks whether the way is another, now that something of the network has changed.
    fn check_route(&mut self, inbox: &mut RecvBatch) {
        let Some(way) = &mut self.route else { return };
        match way.check(now(), self.last_destination) {
            RouteChange::Unchanged => {}
            RouteChange::Changed => {
                info!("the way out of this host is another");
                inbox.note_network_change();
            }
            RouteChange::DeferredUntil(at) => self.monitor.wake_at(at.into()),
        }
    }

    /// Takes what ICMP has answered from the socket's queue of errors.
    fn handle_icmp_errors(&mut self, inbox: &mut RecvBatch) {
        socket::drain_error_queue(&self.socket, inbox);
        // The runtime takes an error on a writable socket for its end, and would say for ever that
        // there is room to send. A new registration of the same socket knows nothing of it.
        let same = self.socket.as_fd().try_clone_to_owned();
        match same.and_then(|same| UdpSocket::from_std(same.into())) {
            Ok(same) => self.socket = same,
            // No file descriptor is left now. Sending may drop instead of waiting.
            Err(_) => {
                let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                let _cleared = self.socket.try_io(Interest::ERROR, nothing);
            }
        }
    }
}

impl Transport for UdpTransport {
    async fn receive(&mut self, inbox: &mut RecvBatch) -> io::Result<()> {
        loop {
            let ready = tokio::select! {
                ready = self.socket.ready(Interest::READABLE | Interest::ERROR) => Some(ready?),
                () = self.monitor.changed() => None,
            };
            match ready {
                None => self.check_route(inbox),
                Some(ready) => {
                    if ready.is_readable() {
                        receive_available(&self.socket, &mut self.overflow, inbox)?;
                    }
                    if ready.is_error() {
                        self.handle_icmp_errors(inbox);
                    }
                }
            }
            if !inbox.is_empty() {
                return Ok(());
            }
        }
    }

    async fn send(&mut self, outbox: &mut SendBatch) -> io::Result<()> {
        // One limit for all: after it every run is tried once more and dropped.
        let end = time::Instant::now() + SEND_TIMEOUT;
        for run in outbox.segments() {
            self.send_segments(run, end).await;
        }
        outbox.clear();
        Ok(())
    }

    fn unsent(&self) -> u64 {
        self.unsent
    }

    fn rebind(&mut self) -> io::Result<()> {
        let LocalPort::Any = self.port else { return Ok(()) };
        let (socket, family) = socket::open(self.port)?;
        (self.socket, self.family) = (UdpSocket::from_std(socket)?, family);
        self.batching = Batching::On;
        self.overflow = 0;
        Ok(())
    }
}

/// Reads what is there and fits.
fn receive_available(
    socket: &UdpSocket,
    overflow: &mut u32,
    inbox: &mut RecvBatch,
) -> io::Result<()> {
    for _ in 0..MAX_READS_PER_WAKE {
        if !inbox.has_room() {
            break;
        }
        match socket.try_io(Interest::READABLE, || Ok(socket::receive(socket, inbox)?)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if socket::is_fatal(&error) => return Err(error),
            Ok(Some(count)) => {
                inbox.add_dropped(count.wrapping_sub(*overflow).into());
                *overflow = count;
            }
            // ICMP answers come here too, each once, and anybody can send them.
            Ok(None) | Err(_) => {}
        }
    }
    Ok(())
}
