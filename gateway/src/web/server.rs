//! An HTTP/1.1 server for a few clients at once, none of which can block the others for long.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tunnel::{InterfaceIndex, bind_to_interface};

/// Number of connections that are served at once; further ones wait until one ends. Enough for two
/// Prometheus servers, a watchdog and a person, several times over.
pub const MAX_CONNECTIONS: usize = 8;

/// Time-out of a connection. Each carries one request, so this bounds reading it and answering it,
/// and a client that sends nothing.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of connections that may wait to be accepted on an interface.
const LISTEN_BACKLOG: u32 = 16;
/// Pause before another attempt to listen on an interface.
const LISTEN_RETRY_PAUSE: Duration = Duration::from_secs(1);
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
    drop(listener);
    // Requests that take longer are cut off when the set is dropped.
    let _ =
        timeout(SHUTDOWN_GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

/// Serves one request, then closes; drops a client after [`CONNECTION_TIMEOUT`].
async fn serve_connection<Io: AsyncRead + AsyncWrite + Unpin>(io: Io, router: Router) {
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
