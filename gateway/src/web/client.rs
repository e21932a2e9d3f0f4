//! An HTTP client for `edge-gateway status` and `edge-gateway write`.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderValue};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// Time-out for a whole response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time-out for a whole response to a command, longer than that of the server.
const POST_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest response body; the status of 1,000 PLCs is much shorter.
const MAX_BODY_BYTES: usize = 8 << 20;

/// Address of a gateway's HTTP server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HttpTarget {
    /// `HOST:PORT`.
    Tcp(String),
    /// Path of a Unix socket.
    Unix(PathBuf),
}

/// An HTTP response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpResponse {
    /// Status code.
    pub code: u16,
    /// Body.
    pub body: Bytes,
}

/// Why there is no response.
#[derive(Debug, Error)]
pub enum FetchError {
    /// Nothing listens there, or this user may not connect.
    #[error("no gateway answers at {target}")]
    Unreachable {
        /// Address of the server.
        target: HttpTarget,
        /// Error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The response did not arrive in time.
    #[error("{0} took longer than {1:?} to answer")]
    TimedOut(HttpTarget, Duration),
    /// The response is not HTTP, is incomplete, or is too long.
    #[error("the response of {target} is not that of a gateway")]
    InvalidResponse {
        /// Address of the server.
        target: HttpTarget,
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Fetches one page of a running gateway with GET.
///
/// # Errors
/// Fails without a complete HTTP response; a status code other than 200 is no error.
pub async fn fetch(target: &HttpTarget, path: &str) -> Result<HttpResponse, FetchError> {
    let request = Request::get(path).body(Full::default());
    exchange(target, request, RESPONSE_TIMEOUT).await
}

/// Sends a JSON text to a running gateway with POST. A PLC may take long to answer.
///
/// # Errors
/// As [`fetch`].
pub async fn post(
    target: &HttpTarget,
    path: &str,
    json: String,
) -> Result<HttpResponse, FetchError> {
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(json)));
    exchange(target, request, POST_TIMEOUT).await
}

type ClientRequest = Result<Request<Full<Bytes>>, hyper::http::Error>;

async fn exchange(
    target: &HttpTarget,
    request: ClientRequest,
    limit: Duration,
) -> Result<HttpResponse, FetchError> {
    timeout(limit, connect_and_request(target, request))
        .await
        .unwrap_or_else(|_| Err(FetchError::TimedOut(target.clone(), limit)))
}

async fn connect_and_request(
    target: &HttpTarget,
    request: ClientRequest,
) -> Result<HttpResponse, FetchError> {
    let unreachable = |source| FetchError::Unreachable { target: target.clone(), source };
    let answer = match target {
        HttpTarget::Tcp(address) => {
            send(TcpStream::connect(address).await.map_err(unreachable)?, request).await
        }
        HttpTarget::Unix(socket) => {
            send(UnixStream::connect(socket).await.map_err(unreachable)?, request).await
        }
    };
    answer.map_err(|source| FetchError::InvalidResponse { target: target.clone(), source })
}

/// Sends one request and returns its response, at most [`MAX_BODY_BYTES`]; then closes.
async fn send(
    io: impl AsyncRead + AsyncWrite + Send + Unpin,
    request: ClientRequest,
) -> Result<HttpResponse, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    let mut request = request?;
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("edge-gateway"));
    // The future owns the sender, so that the connection closes after the exchange.
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await?.to_bytes();
        Ok(HttpResponse { code, body })
    };
    // An error of the connection fails the exchange as well.
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}

impl fmt::Display for HttpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(socket) => socket.display().fmt(f),
        }
    }
}
