//! An HTTP client for `edge-gateway status`.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// Time-out for a whole response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

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
    #[error("{0} took longer than {RESPONSE_TIMEOUT:?} to answer")]
    TimedOut(HttpTarget),
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
    timeout(RESPONSE_TIMEOUT, connect_and_request(target, path))
        .await
        .unwrap_or_else(|_| Err(FetchError::TimedOut(target.clone())))
}

async fn connect_and_request(target: &HttpTarget, path: &str) -> Result<HttpResponse, FetchError> {
    let unreachable = |source| FetchError::Unreachable { target: target.clone(), source };
    let answer = match target {
        HttpTarget::Tcp(address) => {
            request(TcpStream::connect(address).await.map_err(unreachable)?, path).await
        }
        HttpTarget::Unix(socket) => {
            request(UnixStream::connect(socket).await.map_err(unreachable)?, path).await
        }
    };
    answer.map_err(|source| FetchError::InvalidResponse { target: target.clone(), source })
}

/// Sends one GET request and returns its response, at most [`MAX_BODY_BYTES`]; then closes.
async fn request(
    io: impl AsyncRead + AsyncWrite + Send + Unpin,
    path: &str,
) -> Result<HttpResponse, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    let request =
        Request::get(path).header(header::HOST, "edge-gateway").body(Empty::<Bytes>::new())?;
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
