//! An HTTP/1.1 server for a few clients at once, none of which can block the others for long.

use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{AbortHandle, JoinError, JoinSet, yield_now};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::eviction::{OpenConnection, PeerAddress, Phase, victim};

/// Number of connections that are served at once. Enough for two Prometheus servers, a watchdog and
/// a person, several times over; above it, a new connection takes the place of another one.
pub const MAX_CONNECTIONS: usize = 8;

/// Time-out of a connection. Each carries one request, so this bounds reading it and answering it.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Time-out of the request. It fits into one packet, and a link has lost two of them within this
/// time (RFC 6298, 2.1).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Time for open requests to finish after the stop.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

/// A connection and the task that serves it.
struct ServedConnection {
    peer: Option<IpAddr>,
    has_request: Arc<AtomicBool>,
    task: AbortHandle,
}

/// Serves the router until `stop` fires, then finishes the open requests.
pub async fn serve<L: Listener>(mut listener: L, router: Router, stop: CancellationToken)
where
    L::Addr: PeerAddress,
{
    let mut tasks = JoinSet::new();
    let mut served: Vec<ServedConnection> = Vec::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = tasks.join_next() => log_panic(ended),
            (io, peer) = listener.accept() => {
                make_room(&mut served);
                let has_request = Arc::new(AtomicBool::new(false));
                let task =
                    tasks.spawn(serve_connection(io, router.clone(), has_request.clone()));
                served.push(ServedConnection { peer: peer.ip(), has_request, task });
                // A request that has arrived is answered before another connection takes its place.
                yield_now().await;
            }
        }
    }
    // A client that connects now is refused, instead of waiting for an answer that never comes.
    drop(listener);
    // Requests that take longer are cut off when the set is dropped.
    let _ = timeout(SHUTDOWN_GRACE, async { while tasks.join_next().await.is_some() {} }).await;
}

/// Makes room for one more connection.
fn make_room(served: &mut Vec<ServedConnection>) {
    served.retain(|one| !one.task.is_finished());
    while served.len() >= MAX_CONNECTIONS {
        let open: Vec<_> = served.iter().map(ServedConnection::to_open).collect();
        let Some(index) = victim(&open) else { return };
        let dropped = served.remove(index);
        tracing::debug!(peer = ?dropped.peer, "an HTTP connection made room for a new one");
        dropped.task.abort();
    }
}

impl ServedConnection {
    fn to_open(&self) -> OpenConnection {
        let has_request = self.has_request.load(Ordering::Relaxed);
        let phase = if has_request { Phase::Answering } else { Phase::Requesting };
        OpenConnection { peer: self.peer, phase }
    }
}

/// Serves one request, then closes; drops a client after [`CONNECTION_TIMEOUT`].
async fn serve_connection<Io: AsyncRead + AsyncWrite + Unpin>(
    io: Io,
    router: Router,
    has_request: Arc<AtomicBool>,
) {
    let router = TowerToHyperService::new(router);
    let answer = service_fn(|request| {
        has_request.store(true, Ordering::Relaxed);
        router.call(request)
    });
    // One request for each connection: an idle one would hold one of the few places.
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(io), answer);
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection failed"),
        Err(_) => tracing::debug!(limit = ?CONNECTION_TIMEOUT, "an HTTP connection timed out"),
    }
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
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
