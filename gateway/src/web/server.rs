//! HTTP/1.1 for a few askers at once, none of which can hold the others up for long.

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

/// Most connections that are served at once; further ones wait until one ends. Two Prometheus
/// servers, a watchdog and a person fit several times over.
pub const MAX_CONNECTIONS: usize = 8;

/// Longest life of a connection. Each carries one request, so this bounds reading it, answering
/// it and an asker who says nothing.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long requests on hand may take to finish after the stop.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

/// Serves the router until `stop` fires, then finishes what is on hand.
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
    let _ =
        timeout(SHUTDOWN_GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

async fn serve_connection<Io: AsyncRead + AsyncWrite + Unpin>(io: Io, router: Router) {
    let connection = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection broke"),
        Err(_) => tracing::debug!(limit = ?CONNECTION_TIMEOUT, "an HTTP connection took too long"),
    }
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "answering an HTTP request failed");
    }
}
