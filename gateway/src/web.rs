//! Serves metrics, health and status over HTTP.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | Prometheus text exposition format 0.0.4 |
//! | `/metrics/tags` | the same with the last value of each tag, if the configuration says so |
//! | `/healthz` | 200 while the event loop runs, else 503 |
//! | `/readyz` | 200 while the storage is usable, else 503; broker and PLCs do not matter |
//! | `/status` | the status as JSON |
//! | `/headline` | its first line alone, with its code |

mod client;
mod eviction;
mod host;
mod liveness;
mod server;
mod tag_body;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use serde_json::json;
use tokio::sync::watch;

pub use self::client::{FetchError, HttpResponse, HttpTarget, fetch, post};
pub use self::eviction::PeerAddress;
pub use self::liveness::Liveness;
pub use self::server::{
    CONNECTION_TIMEOUT, InterfaceListener, MAX_CONNECTIONS, TunnelListener, serve,
};
use self::tag_body::TagBody;
use crate::metrics::{Metrics, TagPage};
use crate::model::Sentence;
use crate::status::Status;

/// Content type of metrics.
const EXPOSITION_FORMAT: &str = "text/plain; version=0.0.4";

/// What the pages are made from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// For `/metrics`.
    pub metrics: Metrics,
    /// For `/metrics/tags`; `None` if no tag is served there.
    pub tags: Option<TagPage>,
    /// For `/healthz`.
    pub liveness: Liveness,
    /// For `/readyz`.
    pub readiness: watch::Receiver<Readiness>,
    /// For `/status` and `/headline`.
    pub status: watch::Receiver<Status>,
}

/// Whether the gateway can do its work, apart from PLCs, broker and network.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Readiness {
    /// The storage is usable.
    Ready,
    /// The storage is not usable; the text says why.
    NotReady(String),
}

/// Returns a router for the pages. Other paths give 404, methods other than GET and HEAD 405,
/// and names that are not the gateway's 421.
pub fn router(sources: Sources) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/metrics/tags", get(tags))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .route("/headline", get(headline))
        .layer(middleware::from_fn(host::check))
        .with_state(sources)
}

async fn metrics(State(sources): State<Sources>) -> Response {
    match sources.metrics.render() {
        Ok(text) => ([(CONTENT_TYPE, EXPOSITION_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot render the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn tags(State(sources): State<Sources>) -> Response {
    let Some(page) = sources.tags else {
        let help = "no tag is served here: write tags = true into [metrics], or metric = true into a \
                    [[plc.tag]]\n";
        return (StatusCode::NOT_FOUND, help).into_response();
    };
    ([(CONTENT_TYPE, EXPOSITION_FORMAT)], Body::new(TagBody::new(page))).into_response()
}

async fn healthz(State(sources): State<Sources>) -> Response {
    // Not the readiness: a restart repairs neither storage nor broker, and would cost values.
    if sources.liveness.is_alive() {
        "alive\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the event loop hangs\n").into_response()
    }
}

/// Answers `ready` with 200, or the reason why not with 503.
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

async fn headline(State(sources): State<Sources>) -> Response {
    let Sentence { text, detail } = Sentence::new(&sources.status.borrow().headline());
    let (code, arguments) = (detail.code, detail.arguments);
    Json(json!({ "text": text, "code": code, "arguments": arguments })).into_response()
}

#[cfg(test)]
mod tests;
