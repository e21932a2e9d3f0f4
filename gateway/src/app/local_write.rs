//! `POST /write` on the status socket: how `edge-gateway write` reaches the running gateway. It is
//! on no other listener: the file mode of the socket says who may write.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::pump::LocalCommand;
use crate::command::MAX_COMMAND_BYTES;

/// Time for the reply, shorter than that of the connection. A PLC that does not answer a write is
/// read back for up to 10 s.
const REPLY_TIMEOUT: Duration = Duration::from_secs(9);

/// Returns a router for `/write/{plc}`: the body is a command, the answer its reply.
pub(super) fn router(commands: mpsc::Sender<LocalCommand>) -> Router {
    Router::new()
        .route("/write/{plc}", post(write))
        // A longer one gets a reply that says so.
        .layer(DefaultBodyLimit::max(2 * MAX_COMMAND_BYTES))
        .with_state(commands)
}

/// Answers with the reply; 404 for an unknown PLC, 503 while the gateway stops, 504 while it is not
/// known what the PLC did.
async fn write(
    State(commands): State<mpsc::Sender<LocalCommand>>,
    Path(plc): Path<String>,
    body: Bytes,
) -> Response {
    let (reply, answer) = oneshot::channel();
    let command = LocalCommand { plc, payload: body.to_vec(), reply };
    if commands.send(command).await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    match timeout(REPLY_TIMEOUT, answer).await {
        Ok(Ok(reply)) => Json(reply.body).into_response(),
        Ok(Err(_)) => StatusCode::NOT_FOUND.into_response(),
        Err(_) => StatusCode::GATEWAY_TIMEOUT.into_response(),
    }
}
