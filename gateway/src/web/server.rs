//! An HTTP/1.1 server for a few clients at once, none of which can block the others for long.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Number of connections that are served at once; further ones wait until one ends. Enough for two
/// Prometheus servers, a watchdog and a person, several times over.
pub const MAX_CONNECTIONS: usize = 8;

/// Time-out of a connection. Each carries one request, so this bounds reading it and answering it,
/// and a client that sends nothing.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for open requests to finish after the stop.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

/// Serves the router until `stop` fires, then finishes the open requests.
pub async fn serve<L: Listener>(mut listener: L, router: Router, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => log_panic(ended),
            (io, _) = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                connections.spawn(serve_connection(io, router.clone()));
            }
        }
    }
    // A client that connects now is refused, instead of waiting for an answer that never comes.
    drop(listener);
    // Requests that take longer are cut off when the set is dropped.
    let _ =
        timeout(SHUTDOWN_GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

/// Serves one request, then closes; drops a client after [`CONNECTION_TIMEOUT`].
async fn serve_connection<Io: AsyncRead + AsyncWrite + Unpin>(io: Io, router: Router) {
    // One request for each connection: an idle one would hold one of the few places.
    let connection = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection failed"),
        Err(_) => tracing::debug!(limit = ?CONNECTION_TIMEOUT, "an HTTP connection timed out"),
    }
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "answering an HTTP request panicked");
    }
}

/// Accepts connections through the userspace stack of the tunnel.
#[derive(Debug)]
pub struct TunnelListener(pub tunnel::TcpListener);

impl Listener for TunnelListener {
    type Io = tunnel::TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.0.accept().await {
            Ok(stream) => {
                let peer = stream.peer_addr();
                (stream, peer)
            }
            // The tunnel has ended, and its stage ends the process.
            Err(_) => pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(SocketAddr::from(([0, 0, 0, 0], self.0.port())))
    }
}
