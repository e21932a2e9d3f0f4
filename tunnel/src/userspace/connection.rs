//! Bytes between a socket of the stack and the stream that the user holds.

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

/// Bytes between the stream and the task, in each direction: one turn of the task moves as much.
const PIPE_BYTES: usize = 256 * 1024;
/// A connection whose stream is gone and has said everything waits this long for the other end's.
const LINGER_TIMEOUT: Duration = Duration::from_secs(10);
/// A call that fails after this was not answered; the stack gives up after five minutes.
const UNANSWERED_AFTER: Duration = Duration::from_secs(299);

/// One connection.
pub(super) struct Connection {
    pub(super) socket: SocketHandle,
    phase: ConnectionPhase,
    reset_flag: ResetFlag,
    /// When it is ended by force.
    abort_at: Option<Instant>,
    started_at: Instant,
}

enum ConnectionPhase {
    /// We have called, and somebody waits for the outcome.
    Connecting(oneshot::Sender<io::Result<TcpStream>>),
    /// Our end of the pipe to the stream, and whether the stream may still write and read.
    Open { io: DuplexStream, to_socket: HalfState, to_stream: HalfState },
    /// The stream is gone or has been told how it ended.
    Closed,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum HalfState {
    Open,
    Closed,
}

/// Whether anything was done that the stack has to know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    Idle,
    Made,
}

impl Connection {
    /// One that we begin.
    pub(super) fn connecting(
        socket: SocketHandle,
        answer: oneshot::Sender<io::Result<TcpStream>>,
        now: Instant,
    ) -> Self {
        let phase = ConnectionPhase::Connecting(answer);
        Self { socket, phase, reset_flag: ResetFlag::default(), abort_at: None, started_at: now }
    }

    /// One that has come in, and its stream.
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
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let local = socket_addr(socket.local_endpoint()).unwrap_or(nowhere);
        let peer = socket_addr(socket.remote_endpoint()).unwrap_or(nowhere);
        TcpStream { io, reset_flag: self.reset_flag.clone(), local, peer }
    }

    /// Moves what can be moved; the rest wakes `cx`, or comes with the next datagram.
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
        if let ConnectionPhase::Open { io, to_socket: upward, to_stream: downward } =
            &mut self.phase
        {
            let (mut up, mut down) = (Progress::Idle, Progress::Idle);
            if *upward == HalfState::Open {
                up = pump_to_socket(cx, io, socket, upward);
            }
            if *downward == HalfState::Open {
                down = pump_to_stream(cx, io, socket, downward, &self.reset_flag);
            }
            if (up, down) != (Progress::Idle, Progress::Idle) {
                moved = Progress::Made;
            }
            if socket.state() == State::Closed && *upward == HalfState::Open {
                self.reset_flag.set();
            }
            if matches!(socket.state(), State::Closed | State::TimeWait)
                && *downward == HalfState::Closed
            {
                self.phase = ConnectionPhase::Closed;
            }
        }
        let has_said_all = socket.send_queue() == 0 && !socket.may_send();
        if self.reset_flag.is_stream_dropped() && has_said_all {
            let ends_at = *self.abort_at.get_or_insert(now + LINGER_TIMEOUT);
            if now >= ends_at && socket.is_active() {
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
        let outcome = if socket.state() == State::Closed {
            let is_late = now >= self.started_at + UNANSWERED_AFTER;
            let kind =
                if is_late { io::ErrorKind::TimedOut } else { io::ErrorKind::ConnectionRefused };
            Err(kind.into())
        } else {
            Ok(self.open_stream(socket))
        };
        // Whoever waited may be gone by now: then the stream is dropped, and closed.
        let _ = answer.send(outcome);
        Progress::Made
    }

    /// Sends what the stream has written, then FIN, whatever the stream does.
    pub(super) fn close(&mut self, socket: &mut Socket<'_>) {
        self.phase = ConnectionPhase::Closed;
        socket.close();
    }

    /// Whether nothing is left to do.
    pub(super) fn is_finished(&self, socket: &Socket<'_>) -> bool {
        matches!(self.phase, ConnectionPhase::Closed)
            && matches!(socket.state(), State::Closed | State::TimeWait)
    }

    /// When it is ended by force.
    pub(super) const fn abort_at(&self) -> Option<Instant> {
        self.abort_at
    }
}

/// From the stream into the socket.
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

/// From the socket into the stream.
fn pump_to_stream(
    cx: &mut Context<'_>,
    io: &mut DuplexStream,
    socket: &mut Socket<'_>,
    half: &mut HalfState,
    fate: &ResetFlag,
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
            // The stream is gone: TCP has to say that nobody reads this (RFC 1122, 4.2.2.13).
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
                if socket.state() == State::Closed {
                    fate.set();
                }
                let _ = Pin::new(&mut *io).poll_shutdown(cx);
                return Progress::Made;
            }
        }
    }
}
