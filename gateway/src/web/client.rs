//! The asking side, for `edge-gateway status`.

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

/// Longest wait for a whole answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest answer; the status of 1,000 PLCs is well below.
const MAX_BODY_BYTES: usize = 8 << 20;

/// Where a gateway listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HttpTarget {
    /// `HOST:PORT`.
    Tcp(String),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// What came back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpResponse {
    /// HTTP status code.
    pub code: u16,
    /// The body.
    pub body: Bytes,
}

/// Why nothing came back.
#[derive(Debug, Error)]
pub enum FetchError {
    /// Nobody listens there, or we may not ask.
    #[error("no gateway answers at {target}")]
    Unreachable {
        /// Who was asked.
        target: HttpTarget,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The answer did not come in time.
    #[error("{0} took longer than {RESPONSE_TIMEOUT:?} to answer")]
    TimedOut(HttpTarget),
    /// What came is not HTTP, breaks off, or is far too long.
    #[error("{target} does not answer as a gateway does")]
    InvalidResponse {
        /// Who was asked.
        target: HttpTarget,
        /// What was wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Asks a running gateway for one page with GET.
///
/// # Errors
/// Fails when no whole HTTP answer came; an answer with a code other than 200 is no error.
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

async fn request(
    io: impl AsyncRead + AsyncWrite + Send + Unpin,
    path: &str,
) -> Result<HttpResponse, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    let request =
        Request::get(path).header(header::HOST, "edge-gateway").body(Empty::<Bytes>::new())?;
    // The sender goes with this future, which lets the connection come to its end.
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await?.to_bytes();
        Ok(HttpResponse { code, body })
    };
    // An error of the connection reaches the exchange too.
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
