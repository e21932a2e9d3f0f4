//! The stream after the handshake. In TLS 1.3 a broker checks the gateway's certificate after the
//! gateway has finished its handshake, so its alert comes with the first read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use super::diagnosis::{HandshakeContext, explain};
use crate::uplink::{ByteStream, DialError};

/// A stream in TLS whose errors are [`DialError`]s as long as the broker has sent no data.
#[derive(Debug)]
pub(in crate::uplink) struct BrokerTlsStream<S> {
    inner: TlsStream<S>,
    context: HandshakeContext,
    has_data: bool,
}

impl<S: ByteStream> BrokerTlsStream<S> {
    pub(super) const fn new(inner: TlsStream<S>, context: HandshakeContext) -> Self {
        Self { inner, context, has_data: false }
    }

    /// Returns what an error of the stream means.
    fn explained(&self, error: io::Error) -> io::Error {
        if self.has_data {
            return error;
        }
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let explained = tls.map(|tls| explain(tls, &self.context));
        let explained = explained.or_else(|| self.early_end());
        explained.map_or(error, io::Error::other)
    }

    /// Returns what an end before any data means.
    fn early_end(&self) -> Option<DialError> {
        self.context.early_end().filter(|_| !self.has_data)
    }

    /// Returns what the broker said before it closed, in place of the error of a write.
    fn alert_or(&mut self, cx: &mut Context<'_>, error: io::Error) -> io::Error {
        let mut byte = [0];
        match Pin::new(&mut self.inner).poll_read(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Err(alert)) => self.explained(alert),
            Poll::Ready(Ok(())) | Poll::Pending => self.explained(error),
        }
    }
}

impl<S: ByteStream> AsyncRead for BrokerTlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        Poll::Ready(match read {
            Err(error) => Err(self.explained(error)),
            Ok(()) if buf.filled().len() > before => {
                self.has_data = true;
                Ok(())
            }
            Ok(()) => self.early_end().map_or(Ok(()), |end| Err(io::Error::other(end))),
        })
    }
}

impl<S: ByteStream> AsyncWrite for BrokerTlsStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf));
        Poll::Ready(written.map_err(|error| self.alert_or(cx, error)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.inner).poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| self.alert_or(cx, error)))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
