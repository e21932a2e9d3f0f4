//! The user's end of connections.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::{mpsc, oneshot};

/// A TCP connection inside a tunnel.
///
/// `shutdown` sends what was written and then FIN, and returns at once. Dropping does the same,
/// answers later data with RST, and ends the connection after ten seconds even if the peer has not
/// taken everything. A connection that the peer resets, or that gets no acknowledgement
/// for five minutes, fails with `ConnectionReset` instead of an end of file.
#[derive(Debug)]
pub struct TcpStream {
    pub(super) io: DuplexStream,
    pub(super) reset_flag: ResetFlag,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    /// Dropped with the stream, which tells the task.
    pub(super) _alive: oneshot::Sender<Infallible>,
}

/// Whether a connection was reset; shared by its stream and the task.
#[derive(Clone, Debug, Default)]
pub(super) struct ResetFlag(Arc<AtomicBool>);

impl ResetFlag {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl TcpStream {
    /// Returns the address of this end.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Returns the address of the peer.
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
        // A read of zero bytes into a buffer with room is an end of file; after a reset it must be
        // an error, or truncated data would look complete.
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

/// Accepts connections on one port of a tunnel. Dropping it closes the port.
#[derive(Debug)]
pub struct TcpListener {
    pub(super) port: u16,
    pub(super) accepted: mpsc::Receiver<TcpStream>,
}

impl TcpListener {
    /// Returns the next connection. Fails with `NotConnected` when the tunnel has ended. Cancel
    /// safe.
    pub async fn accept(&mut self) -> io::Result<TcpStream> {
        self.accepted.recv().await.ok_or_else(super::ended_error)
    }

    /// Returns the port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}
