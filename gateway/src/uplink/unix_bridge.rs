//! The step from a client library that opens unix sockets to a stream that we have opened.
//!
//! rumqttc has no way to take a stream. It can open a unix socket, so we listen on one that only
//! this process can use, and copy between it and the stream. TLS and the tunnel stay ours.

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
    /// Listens under a random name in Linux's abstract namespace: no file, no permissions, gone
    /// with the process.
    ///
    /// # Errors
    /// Fails when the process has no descriptors left.
    pub fn open() -> io::Result<Self> {
        let path = format!("\0edge-gateway-{}-{:032x}", std::process::id(), fastrand::u128(..));
        Ok(Self { listener: UnixListener::bind(&path)?, path })
    }

    /// Where the client has to connect. It starts with NUL, which marks the abstract namespace.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Accepts the one connection, stops listening, and copies both ways until both sides have
    /// ended. An end of one side becomes an end of the other; both streams are closed on return.
    ///
    /// # Errors
    /// Fails as soon as either side fails (a reset), and closes the other one.
    pub async fn copy<S>(self, mut far: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut near = self.accept().await?;
        copy_bidirectional(&mut near, &mut far).await.map(|_| ())
    }

    /// Every process of the machine may connect to an abstract name, so only our own is let in.
    async fn accept(self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let peer = stream.peer_cred()?.pid();
            if peer.is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id())) {
                return Ok(stream);
            }
            tracing::warn!(?peer, "another process tried to use the way to the broker");
        }
    }
}
