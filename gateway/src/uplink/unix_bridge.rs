//! Connects a client library that opens unix sockets to a stream that the gateway has opened.
//!
//! rumqttc accepts no stream from outside. It can open a unix socket, so the gateway listens on one
//! that only this process can use and copies bytes between it and the stream. Name resolution,
//! time-outs, TLS and the tunnel stay in the gateway's hands (docs/decisions, 0004).

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};

/// A listening socket for exactly one connection of this process.
#[derive(Debug)]
pub struct UnixBridge {
    listener: UnixListener,
    path: String,
}

impl UnixBridge {
    /// Listens under a random name in Linux's abstract namespace: there is no file and no
    /// permission to set, and the kernel removes the name when the process ends.
    ///
    /// # Errors
    /// Fails when the process has no file descriptors left.
    pub fn open() -> io::Result<Self> {
        let path = format!("\0edge-gateway-{}-{:032x}", std::process::id(), fastrand::u128(..));
        Ok(Self { listener: UnixListener::bind(&path)?, path })
    }

    /// Returns the path for the client. It starts with NUL, which marks the abstract namespace.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Accepts the one connection, stops listening, and copies both ways until both sides have
    /// ended. The end of one side becomes the end of the other; both streams are closed on return.
    ///
    /// # Errors
    /// Fails as soon as either side fails (a reset), and closes the other one.
    pub async fn copy<S>(self, mut remote: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut local = self.accept().await?;
        copy_bidirectional(&mut local, &mut remote).await.map(|_| ())
    }

    async fn accept(self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            // Any process of the machine may connect to an abstract name: it has no permissions.
            let peer = stream.peer_cred()?.pid();
            if peer.is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id())) {
                return Ok(stream);
            }
            tracing::warn!(?peer, "rejected another process on the socket to the broker");
        }
    }
}
