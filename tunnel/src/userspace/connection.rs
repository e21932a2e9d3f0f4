//! Moves bytes between a socket of the stack and the user's stream.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
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
/// Time that a connection without a stream waits for the peer's FIN after its own.
const LINGER_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection attempt that fails after this got no answer; the stack ends it after five minutes.
const UNANSWERED_AFTER: Duration = Duration::from_secs(299);

/// One connection.
pub(super) struct Connection {
    pub(super) socket: SocketHandle,
    phase: ConnectionPhase,
    reset_flag: ResetFlag,
    /// When it is aborted.
    abort_at: Option<Instant>,
    started_at: Instant,
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
        let phase = ConnectionPhase::Connecting(answer);
        Self { socket, phase, reset_flag: ResetFlag::default(), abort_at: None, started_at: now }
    }

    /// Creates a connection that the peer has opened, and its stream.
    pub(super) fn accepted(
        handle: SocketHandle,
        socket: &Socket<'_>,
        now: Instant,
    ) -> (Self, TcpStream) {
        let mut connection = Self {
            socket: handle,
            phase: ConnectionPhase::Closed,
            reset_flag: ResetFlag::default(),
            abort_at: None,
            started_at: now,
        };
        let stream = connection.open_stream(socket);
        (connection, stream)
    }

    fn open_stream(&mut self, socket: &Socket<'_>) -> TcpStream {
        let (ours, io) = duplex(PIPE_BYTES);
        self.phase = ConnectionPhase::Open {
            io: ours,
            to_socket: HalfState::Open,
            to_stream: HalfState::Open,
        };
        let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let local = socket_addr(socket.local_endpoint()).unwrap_or(unknown);
        let peer = socket_addr(socket.remote_endpoint()).unwrap_or(unknown);
        TcpStream { io, reset_flag: self.reset_flag.clone(), local, peer }
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
        let has_sent_all = socket.send_queue() == 0 && !socket.may_send();
        if self.reset_flag.is_stream_dropped() && has_sent_all {
            // A peer that never sends its FIN must not keep the socket and its buffers.
            let abort_at = *self.abort_at.get_or_insert(now + LINGER_TIMEOUT);
            if now >= abort_at && socket.is_active() {
                socket.abort();
                moved = Progress::Made;
            }
        }
        moved
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

    /// Returns when the connection is aborted.
    pub(super) const fn abort_at(&self) -> Option<Instant> {
        self.abort_at
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
