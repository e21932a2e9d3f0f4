//! An HTTP/1.1 server for a few clients at once, none of which can block the others for long.

use std::future::pending;
use std::io;
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
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet, yield_now};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tunnel::{InterfaceIndex, bind_to_interface};

use super::eviction::{ConnectionPhase, OpenConnection, PeerAddress, victim};

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

/// Number of connections that may wait to be accepted on an interface.
const LISTEN_BACKLOG: u32 = 16;
/// Pause before another attempt to listen on an interface.
const LISTEN_RETRY_PAUSE: Duration = Duration::from_secs(1);
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
        let phase =
            if has_request { ConnectionPhase::Answering } else { ConnectionPhase::Requesting };
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

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(SocketAddr::from(([0, 0, 0, 0], self.0.port())))
    }
}

/// Accepts connections through a network interface only. It listens as soon as the interface exists
/// and has the address; until then nothing is accepted.
#[derive(Debug)]
pub struct InterfaceListener {
    address: SocketAddr,
    interface: watch::Receiver<Option<InterfaceIndex>>,
    listener: Option<TcpListener>,
    /// Text of the last error, to log each error once.
    last_error: Option<String>,
}

impl InterfaceListener {
    /// Listens at `address`, which is an address of the interface.
    #[must_use]
    pub const fn new(
        address: SocketAddr,
        interface: watch::Receiver<Option<InterfaceIndex>>,
    ) -> Self {
        Self { address, interface, listener: None, last_error: None }
    }

    fn try_listen(&mut self) {
        let Some(interface) = *self.interface.borrow() else { return };
        match listen_on(self.address, interface) {
            Ok(listener) => self.listener = Some(listener),
            Err(error) => {
                let text = error.to_string();
                if self.last_error.as_ref() != Some(&text) {
                    tracing::warn!(address = %self.address, %error, "cannot serve metrics yet");
                    self.last_error = Some(text);
                }
            }
        }
    }
}

/// Linux accepts packets for any of its addresses on any interface, so a bound address alone would
/// also answer on the machine's network.
fn listen_on(address: SocketAddr, interface: InterfaceIndex) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    bind_to_interface(&socket, interface)?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

impl Listener for InterfaceListener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            if self.listener.is_none() {
                self.try_listen();
            }
            // An error concerns a connection that has ended already, or no descriptor is left.
            if let Some(listener) = &self.listener
                && let Ok(accepted) = listener.accept().await
            {
                return accepted;
            }
            sleep(LISTEN_RETRY_PAUSE).await;
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}
