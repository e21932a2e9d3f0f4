//! Moves bytes between a socket of the stack and the user's stream.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{RecvError, Socket, State};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::oneshot;

use super::stream::{ResetFlag, TcpStream};
use crate::stack::socket_addr;

/// Bytes that the pipe between stream and task holds in each direction: the most that is moved at
/// once.
const PIPE_BYTES: usize = 256 * 1024;
/// The same for a connection that a peer has opened: it may be one of many whose answer the peer
/// never reads.
const ACCEPTED_PIPE_BYTES: usize = 64 * 1024;
/// Time that a connection has after its stream was dropped, to send what was written and to receive
/// the peer's FIN. A peer that acknowledges probes of a closed window could hold it for ever.
pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection attempt that fails after this got no answer; the stack ends it after five minutes.
const UNANSWERED_AFTER: Duration = Duration::from_secs(299);
/// Address of an end that the stack does not know any more.
const UNKNOWN_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// One connection.
pub(super) struct Connection {
    pub(super) socket: SocketHandle,
    phase: ConnectionPhase,
    reset_flag: ResetFlag,
    /// Ends when the stream is dropped; absent before there is one and afterwards.
    stream: Option<oneshot::Receiver<Infallible>>,
    /// When it is aborted; absent as long as its stream exists.
    abort_at: Option<Instant>,
    started_at: Instant,
    origin: Origin,
}

/// Which end opened a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Origin {
    /// This end.
    Dialled,
    /// The peer at this address, to this port.
    Accepted { peer: IpAddr, port: u16 },
}

enum ConnectionPhase {
    /// The SYN was sent, and the caller of `connect` waits.
    Connecting(oneshot::Sender<io::Result<TcpStream>>),
    /// The task's end of the pipe to the stream, and whether each direction is open.
    Open { io: DuplexStream, to_socket: HalfState, to_stream: HalfState },
    /// The stream was dropped, or knows how the connection ended.
    Closed,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum HalfState {
    Open,
    Closed,
}

/// Whether anything was moved that the stack must process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    Idle,
    Made,
}

impl Connection {
    /// Creates a connection that this end opens.
    pub(super) fn connecting(
        socket: SocketHandle,
        answer: oneshot::Sender<io::Result<TcpStream>>,
        now: Instant,
    ) -> Self {
        Self::new(socket, ConnectionPhase::Connecting(answer), Origin::Dialled, now)
    }

    /// Creates a connection that the peer has opened, and its stream.
    pub(super) fn accepted(
        handle: SocketHandle,
        socket: &Socket<'_>,
        now: Instant,
    ) -> (Self, TcpStream) {
        let address = |endpoint| socket_addr(endpoint).unwrap_or(UNKNOWN_ADDRESS);
        let (peer, port) = (address(socket.remote_endpoint()), address(socket.local_endpoint()));
        let origin = Origin::Accepted { peer: peer.ip(), port: port.port() };
        let mut connection = Self::new(handle, ConnectionPhase::Closed, origin, now);
        let stream = connection.open_stream(socket);
        (connection, stream)
    }

    fn new(socket: SocketHandle, phase: ConnectionPhase, origin: Origin, now: Instant) -> Self {
        let reset_flag = ResetFlag::default();
        Self { socket, phase, reset_flag, stream: None, abort_at: None, started_at: now, origin }
    }

    fn open_stream(&mut self, socket: &Socket<'_>) -> TcpStream {
        let pipe_bytes = match self.origin {
            Origin::Dialled => PIPE_BYTES,
            Origin::Accepted { .. } => ACCEPTED_PIPE_BYTES,
        };
        let (ours, io) = duplex(pipe_bytes);
        self.phase = ConnectionPhase::Open {
            io: ours,
            to_socket: HalfState::Open,
            to_stream: HalfState::Open,
        };
        let (alive, dropped) = oneshot::channel();
        self.stream = Some(dropped);
        let local = socket_addr(socket.local_endpoint()).unwrap_or(UNKNOWN_ADDRESS);
        let peer = socket_addr(socket.remote_endpoint()).unwrap_or(UNKNOWN_ADDRESS);
        TcpStream { io, reset_flag: self.reset_flag.clone(), local, peer, _alive: alive }
    }

    /// Moves all bytes that can be moved. The rest wakes `cx`, or follows with the next datagram.
    pub(super) fn pump(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket<'_>,
        now: Instant,
    ) -> Progress {
        if let ConnectionPhase::Connecting(_) = self.phase {
            return self.poll_connect(cx, socket, now);
        }
        let mut moved = Progress::Idle;
        if let ConnectionPhase::Open { io, to_socket, to_stream } = &mut self.phase {
            let (mut up, mut down) = (Progress::Idle, Progress::Idle);
            if *to_socket == HalfState::Open {
                up = pump_to_socket(cx, io, socket, to_socket);
            }
            if *to_stream == HalfState::Open {
                down = pump_to_stream(cx, io, socket, to_stream, &self.reset_flag);
            }
            if (up, down) != (Progress::Idle, Progress::Idle) {
                moved = Progress::Made;
            }
            // smoltcp has no error for a reset: the socket is closed although this end has not
            // closed it.
            if socket.state() == State::Closed && *to_socket == HalfState::Open {
                self.reset_flag.set();
            }
            if matches!(socket.state(), State::Closed | State::TimeWait)
                && *to_stream == HalfState::Closed
            {
                self.phase = ConnectionPhase::Closed;
            }
        }
        if self.poll_stream_dropped(cx, now).is_ready() {
            moved = Progress::Made;
        }
        if self.abort_at.is_some_and(|at| now >= at) && socket.is_active() {
            socket.abort();
            moved = Progress::Made;
        }
        moved
    }

    /// Ready once, when the stream was dropped.
    fn poll_stream_dropped(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let Some(stream) = &mut self.stream else { return Poll::Pending };
        let _: Result<Infallible, _> = ready!(Pin::new(stream).poll(cx));
        self.stream = None;
        self.abort_at = Some(now + LINGER_TIMEOUT);
        Poll::Ready(())
    }

    fn poll_connect(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket<'_>,
        now: Instant,
    ) -> Progress {
        let ConnectionPhase::Connecting(answer) = &mut self.phase else { return Progress::Idle };
        if answer.poll_closed(cx).is_ready() {
            // The caller has dropped its future, so nothing would ever use the connection.
            socket.abort();
            self.phase = ConnectionPhase::Closed;
            return Progress::Made;
        }
        if matches!(socket.state(), State::SynSent | State::SynReceived) {
            return Progress::Idle;
        }
        let ConnectionPhase::Connecting(answer) =
            std::mem::replace(&mut self.phase, ConnectionPhase::Closed)
        else {
            return Progress::Idle;
        };
        let connected = if socket.state() == State::Closed {
            let got_no_answer = now >= self.started_at + UNANSWERED_AFTER;
            let kind = if got_no_answer {
                io::ErrorKind::TimedOut
            } else {
                io::ErrorKind::ConnectionRefused
            };
            Err(kind.into())
        } else {
            Ok(self.open_stream(socket))
        };
        // If the caller is gone, the stream is dropped, which closes the connection.
        let _ = answer.send(connected);
        Progress::Made
    }

    /// Sends what the stream has written, then FIN.
    pub(super) fn close(&mut self, socket: &mut Socket<'_>) {
        self.phase = ConnectionPhase::Closed;
        socket.close();
    }

    /// Returns whether nothing is left to do.
    pub(super) fn is_finished(&self, socket: &Socket<'_>) -> bool {
        matches!(self.phase, ConnectionPhase::Closed)
            && matches!(socket.state(), State::Closed | State::TimeWait)
    }

    /// Returns when the connection is aborted; absent as long as its stream exists.
    pub(super) const fn abort_at(&self) -> Option<Instant> {
        self.abort_at
    }

    /// Returns which end opened it.
    pub(super) const fn origin(&self) -> Origin {
        self.origin
    }
}

/// Moves bytes from the stream to the socket.
fn pump_to_socket(
    cx: &mut Context<'_>,
    io: &mut DuplexStream,
    socket: &mut Socket<'_>,
    half: &mut HalfState,
) -> Progress {
    let mut moved = Progress::Idle;
    while socket.can_send() {
        let read = socket.send(|room| {
            let mut buffer = ReadBuf::new(room);
            let read = Pin::new(&mut *io).poll_read(cx, &mut buffer);
            let length = buffer.filled().len();
            (length, read.map_ok(|()| length))
        });
        match read {
            Ok(Poll::Ready(Ok(length))) if length > 0 => moved = Progress::Made,
            Ok(Poll::Pending) => break,
            Ok(Poll::Ready(_)) | Err(_) => {
                *half = HalfState::Closed;
                socket.close();
                return Progress::Made;
            }
        }
    }
    moved
}

/// Moves bytes from the socket to the stream.
fn pump_to_stream(
    cx: &mut Context<'_>,
    io: &mut DuplexStream,
    socket: &mut Socket<'_>,
    half: &mut HalfState,
    reset_flag: &ResetFlag,
) -> Progress {
    let mut moved = Progress::Idle;
    loop {
        let written = socket.recv(|bytes| match Pin::new(&mut *io).poll_write(cx, bytes) {
            Poll::Ready(Ok(length)) => (length, Poll::Ready(Ok(length))),
            Poll::Ready(Err(error)) => (0, Poll::Ready(Err(error))),
            Poll::Pending => (0, Poll::Pending),
        });
        match written {
            Ok(Poll::Ready(Ok(length))) if length > 0 => moved = Progress::Made,
            Ok(Poll::Ready(Ok(_)) | Poll::Pending) => return moved,
            // The stream was dropped: TCP must report that data was not read (RFC 1122, 4.2.2.13).
            Ok(Poll::Ready(Err(_))) if socket.can_recv() => {
                *half = HalfState::Closed;
                socket.abort();
                return Progress::Made;
            }
            Ok(Poll::Ready(Err(_))) => return moved,
            Err(RecvError::Finished) => {
                *half = HalfState::Closed;
                let _ = Pin::new(&mut *io).poll_shutdown(cx);
                return Progress::Made;
            }
            Err(RecvError::InvalidState) => {
                *half = HalfState::Closed;
                // Before the shutdown below, or the reader would see a proper end of file.
                if socket.state() == State::Closed {
                    reset_flag.set();
                }
                let _ = Pin::new(&mut *io).poll_shutdown(cx);
                return Progress::Made;
            }
        }
    }
}
