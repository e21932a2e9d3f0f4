//! Metrics, health and status over HTTP.
//!
//! | path | answers |
//! |---|---|
//! | `/metrics` | Prometheus text exposition format 0.0.4 |
//! | `/healthz` | 200 while the tasks are alive, else 503 |
//! | `/readyz` | 200 while configuration and storage are usable, else 503; a missing broker is normal life |
//! | `/status` | the status as JSON |

mod client;
mod liveness;
mod server;
mod tunnel_listener;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::sync::watch;

pub use self::client::{FetchError, HttpResponse, HttpTarget, fetch};
pub use self::liveness::Liveness;
pub use self::server::{CONNECTION_TIMEOUT, MAX_CONNECTIONS, serve};
pub use self::tunnel_listener::TunnelListener;
use crate::metrics::Metrics;
use crate::status::Status;

/// Where the answers come from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Rendered by `/metrics`.
    pub metrics: Metrics,
    /// Asked by `/healthz`.
    pub liveness: Liveness,
    /// Shown by `/readyz`.
    pub readiness: watch::Receiver<Readiness>,
    /// Shown by `/status`.
    pub status: watch::Receiver<Status>,
}

/// Whether the gateway can do its work as far as that depends on itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Readiness {
    /// Configuration and storage are usable.
    Ready,
    /// They are not; the text says what is wrong.
    NotReady(String),
}

/// The four pages. Other paths are 404, other methods than GET and HEAD 405.
pub fn router(sources: Sources) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .with_state(sources)
}

async fn metrics(State(sources): State<Sources>) -> Response {
    match sources.metrics.render() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot render the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn healthz(State(sources): State<Sources>) -> Response {
    if sources.liveness.is_alive() {
        "alive\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the tasks do not move\n").into_response()
    }
}

async fn readyz(State(sources): State<Sources>) -> Response {
    match &*sources.readiness.borrow() {
        Readiness::Ready => "ready\n".into_response(),
        Readiness::NotReady(why) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
        }
    }
}

async fn status(State(sources): State<Sources>) -> Response {
    Json(&*sources.status.borrow()).into_response()
}

#[cfg(test)]
mod tests;
