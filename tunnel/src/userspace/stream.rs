//! What the user of a tunnel holds.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

/// A TCP connection inside a tunnel.
///
/// `shutdown` sends what was written and then FIN, and returns at once. Dropping it does the same,
/// and answers what still comes with RST. A connection that the other end has reset, or that nobody
/// acknowledges for five minutes, fails with `ConnectionReset`; it does not look like a proper end.
#[derive(Debug)]
pub struct TcpStream {
    pub(super) io: DuplexStream,
    pub(super) reset_flag: ResetFlag,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
}

/// How a connection has ended, known to its stream and to the task.
#[derive(Clone, Debug, Default)]
pub(super) struct ResetFlag(Arc<AtomicBool>);

impl ResetFlag {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Whether the stream is gone.
    pub(super) fn is_stream_dropped(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl TcpStream {
    /// Our end's address.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The other end's address.
    #[must_use]
    pub const fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    fn write_error(&self) -> io::Error {
        if self.reset_flag.is_set() { reset_error() } else { io::ErrorKind::BrokenPipe.into() }
    }
}

fn reset_error() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl AsyncRead for TcpStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = (buf.filled().len(), buf.remaining());
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let is_end = before.1 > 0 && buf.filled().len() == before.0;
        Poll::Ready(if is_end && self.reset_flag.is_set() { Err(reset_error()) } else { Ok(()) })
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf));
        Poll::Ready(written.map_err(|_| self.write_error()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Connections that come in at one port of a tunnel. Dropping it closes the port.
#[derive(Debug)]
pub struct TcpListener {
    pub(super) port: u16,
    pub(super) accepted: mpsc::Receiver<TcpStream>,
}

impl TcpListener {
    /// The next connection. Fails with `NotConnected` when the tunnel has ended. Cancel safe.
    pub async fn accept(&mut self) -> io::Result<TcpStream> {
        self.accepted.recv().await.ok_or_else(super::ended_error)
    }

    /// Where it listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}
