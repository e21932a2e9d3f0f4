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

use super::stream::{Fate, TcpStream};
use crate::stack::address;

/// Bytes between the stream and the task, in each direction: one turn of the task moves as much.
const PIPE: usize = 256 * 1024;
/// A connection whose stream is gone and has said everything waits this long for the other end's.
const LINGER: Duration = Duration::from_secs(10);
/// A call that fails after this was not answered; the stack gives up after five minutes.
const LATE: Duration = Duration::from_secs(299);

/// One connection.
pub(super) struct Connection {
    pub(super) socket: SocketHandle,
    phase: Phase,
    fate: Fate,
    /// When it is ended by force.
    ends_at: Option<Instant>,
    began: Instant,
}

enum Phase {
    /// We have called, and somebody waits for the outcome.
    Calling(oneshot::Sender<io::Result<TcpStream>>),
    /// Our end of the pipe to the stream, and whether the stream may still write and read.
    Open { io: DuplexStream, upward: Half, downward: Half },
    /// The stream is gone or has been told how it ended.
    Closed,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Half {
    Open,
    Closed,
}

/// Whether anything was done that the stack has to know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Moved {
    Nothing,
    Something,
}

impl Connection {
    /// One that we begin.
    pub(super) fn calling(
        socket: SocketHandle,
        answer: oneshot::Sender<io::Result<TcpStream>>,
        now: Instant,
    ) -> Self {
        let phase = Phase::Calling(answer);
        Self { socket, phase, fate: Fate::default(), ends_at: None, began: now }
    }

    /// One that has come in, and its stream.
    pub(super) fn accepted(
        handle: SocketHandle,
        socket: &Socket<'_>,
        now: Instant,
    ) -> (Self, TcpStream) {
        let mut connection = Self {
            socket: handle,
            phase: Phase::Closed,
            fate: Fate::default(),
            ends_at: None,
            began: now,
        };
        let stream = connection.open(socket);
        (connection, stream)
    }

    fn open(&mut self, socket: &Socket<'_>) -> TcpStream {
        let (ours, io) = duplex(PIPE);
        self.phase = Phase::Open { io: ours, upward: Half::Open, downward: Half::Open };
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let local = address(socket.local_endpoint()).unwrap_or(nowhere);
        let peer = address(socket.remote_endpoint()).unwrap_or(nowhere);
        TcpStream { io, fate: self.fate.clone(), local, peer }
    }

    /// Moves what can be moved; the rest wakes `cx`, or comes with the next datagram.
    pub(super) fn pump(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket<'_>,
        now: Instant,
    ) -> Moved {
        if let Phase::Calling(_) = self.phase {
            return self.call(cx, socket, now);
        }
        let mut moved = Moved::Nothing;
        if let Phase::Open { io, upward, downward } = &mut self.phase {
            let (mut up, mut down) = (Moved::Nothing, Moved::Nothing);
            if *upward == Half::Open {
                up = pump_up(cx, io, socket, upward);
            }
            if *downward == Half::Open {
                down = pump_down(cx, io, socket, downward, &self.fate);
            }
            if (up, down) != (Moved::Nothing, Moved::Nothing) {
                moved = Moved::Something;
            }
            if socket.state() == State::Closed && *upward == Half::Open {
                self.fate.reset();
            }
            if matches!(socket.state(), State::Closed | State::TimeWait)
                && *downward == Half::Closed
            {
                self.phase = Phase::Closed;
            }
        }
        let has_said_all = socket.send_queue() == 0 && !socket.may_send();
        if self.fate.is_orphan() && has_said_all {
            let ends_at = *self.ends_at.get_or_insert(now + LINGER);
            if now >= ends_at && socket.is_active() {
                socket.abort();
                moved = Moved::Something;
            }
        }
        moved
    }

    fn call(&mut self, cx: &mut Context<'_>, socket: &mut Socket<'_>, now: Instant) -> Moved {
        let Phase::Calling(answer) = &mut self.phase else { return Moved::Nothing };
        if answer.poll_closed(cx).is_ready() {
            socket.abort();
            self.phase = Phase::Closed;
            return Moved::Something;
        }
        if matches!(socket.state(), State::SynSent | State::SynReceived) {
            return Moved::Nothing;
        }
        let Phase::Calling(answer) = std::mem::replace(&mut self.phase, Phase::Closed) else {
            return Moved::Nothing;
        };
        let outcome = if socket.state() == State::Closed {
            let is_late = now >= self.began + LATE;
            let kind =
                if is_late { io::ErrorKind::TimedOut } else { io::ErrorKind::ConnectionRefused };
            Err(kind.into())
        } else {
            Ok(self.open(socket))
        };
        // Whoever waited may be gone by now: then the stream is dropped, and closed.
        let _ = answer.send(outcome);
        Moved::Something
    }

    /// Sends what the stream has written, then FIN, whatever the stream does.
    pub(super) fn finish(&mut self, socket: &mut Socket<'_>) {
        self.phase = Phase::Closed;
        socket.close();
    }

    /// Whether nothing is left to do.
    pub(super) fn is_over(&self, socket: &Socket<'_>) -> bool {
        matches!(self.phase, Phase::Closed)
            && matches!(socket.state(), State::Closed | State::TimeWait)
    }

    /// When it is ended by force.
    pub(super) const fn ends_at(&self) -> Option<Instant> {
        self.ends_at
    }
}

/// From the stream into the socket.
fn pump_up(
    cx: &mut Context<'_>,
    io: &mut DuplexStream,
    socket: &mut Socket<'_>,
    half: &mut Half,
) -> Moved {
    let mut moved = Moved::Nothing;
    while socket.can_send() {
        let read = socket.send(|room| {
            let mut buffer = ReadBuf::new(room);
            let read = Pin::new(&mut *io).poll_read(cx, &mut buffer);
            let length = buffer.filled().len();
            (length, read.map_ok(|()| length))
        });
        match read {
            Ok(Poll::Ready(Ok(length))) if length > 0 => moved = Moved::Something,
            Ok(Poll::Pending) => break,
            Ok(Poll::Ready(_)) | Err(_) => {
                *half = Half::Closed;
                socket.close();
                return Moved::Something;
            }
        }
    }
    moved
}

/// From the socket into the stream.
fn pump_down(
    cx: &mut Context<'_>,
    io: &mut DuplexStream,
    socket: &mut Socket<'_>,
    half: &mut Half,
    fate: &Fate,
) -> Moved {
    let mut moved = Moved::Nothing;
    loop {
        let written = socket.recv(|bytes| match Pin::new(&mut *io).poll_write(cx, bytes) {
            Poll::Ready(Ok(length)) => (length, Poll::Ready(Ok(length))),
            Poll::Ready(Err(error)) => (0, Poll::Ready(Err(error))),
            Poll::Pending => (0, Poll::Pending),
        });
        match written {
            Ok(Poll::Ready(Ok(length))) if length > 0 => moved = Moved::Something,
            Ok(Poll::Ready(Ok(_)) | Poll::Pending) => return moved,
            // The stream is gone: TCP has to say that nobody reads this (RFC 1122, 4.2.2.13).
            Ok(Poll::Ready(Err(_))) if socket.can_recv() => {
                *half = Half::Closed;
                socket.abort();
                return Moved::Something;
            }
            Ok(Poll::Ready(Err(_))) => return moved,
            Err(RecvError::Finished) => {
                *half = Half::Closed;
                let _ = Pin::new(&mut *io).poll_shutdown(cx);
                return Moved::Something;
            }
            Err(RecvError::InvalidState) => {
                *half = Half::Closed;
                if socket.state() == State::Closed {
                    fate.reset();
                }
                let _ = Pin::new(&mut *io).poll_shutdown(cx);
                return Moved::Something;
            }
        }
    }
}
