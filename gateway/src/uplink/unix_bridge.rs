//! Connects a client library that opens unix sockets to a stream that the gateway has opened.
//!
//! rumqttc accepts no stream from outside. It can open a unix socket, so the gateway listens on one
//! that only this process can use and copies bytes between it and the stream. Name resolution,
//! time-outs, TLS and the tunnel stay in the gateway's hands (docs/decisions, 0004).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{UnixListener, UnixStream};

/// Bytes that are copied at once.
const COPY_LEN: usize = 8 * 1024;

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
    /// A client that closes its socket has ended, whatever it has not read: all that it wrote goes
    /// to the remote side, and what comes from there is discarded. Otherwise a byte that arrives
    /// beside a DISCONNECT would cut it off, and the broker would publish the will.
    ///
    /// # Errors
    /// Fails as soon as the remote side fails (a reset), and closes the client.
    pub async fn copy<S>(self, remote: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite,
    {
        let (mut from_client, mut to_client) = self.accept().await?.into_split();
        let (mut from_remote, mut to_remote) = split(remote);
        let up = async {
            let mut buffer = vec![0; COPY_LEN];
            // The kernel reports an error for a client that closed with bytes unread, after those
            // that it wrote.
            while let Ok(len @ 1..) = from_client.read(&mut buffer).await {
                to_remote.write_all(buffer.get(..len).unwrap_or_default()).await?;
                to_remote.flush().await?;
            }
            to_remote.shutdown().await
        };
        let down = async {
            let mut buffer = vec![0; COPY_LEN];
            let mut is_open = true;
            loop {
                let len = from_remote.read(&mut buffer).await?;
                let bytes = buffer.get(..len).unwrap_or_default();
                if bytes.is_empty() {
                    // It may have closed by itself.
                    let _ = to_client.shutdown().await;
                    return Ok(());
                }
                is_open = is_open && to_client.write_all(bytes).await.is_ok();
            }
        };
        tokio::try_join!(up, down).map(|((), ())| ())
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
