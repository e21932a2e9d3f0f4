//! Fetches a bundle from a web server: one GET, no redirect, at most 1 MiB within 60 seconds.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use provisioning::bundle::{BundleOffer, MAX_BUNDLE_BYTES};
use provisioning::config::HostPort;
use ring::digest::{SHA256, digest};
use thiserror::Error;
use tokio::time::timeout;

use super::active::StagingError;
use super::offer::PullFault;
use crate::uplink::{ByteStream, DialError, Uplink};

/// Time for the whole of a download.
const PULL_TIMEOUT: Duration = Duration::from_secs(60);
/// Time to connect to the web server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the bundles of a gateway are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WebFile {
    /// Address of the web server; an IP address, so that nothing is looked up.
    pub server: HostPort,
    /// Path of the file, from `/`.
    pub path: String,
}

/// Why a bundle was not fetched.
#[derive(Debug, Error)]
pub enum PullError {
    /// The web server cannot be reached.
    #[error("the web server {server} was not reached ({cause}): check `[bundle] url` and the hub")]
    Unreachable {
        /// Host and port.
        server: String,
        /// Why not.
        #[source]
        cause: Box<DialError>,
    },
    /// The download took too long.
    #[error(
        "the web server {server} took longer than {PULL_TIMEOUT:?}: check the server and the \
         connection"
    )]
    TimedOut {
        /// Host and port.
        server: String,
    },
    /// The web server does not have it.
    #[error(
        "the web server {server} answered {code} for {path}: copy the file there, and check \
         `[bundle] url`"
    )]
    Status {
        /// Host and port.
        server: String,
        /// Path of the file.
        path: String,
        /// Status code (RFC 9110).
        code: u16,
    },
    /// The answer is no HTTP, or ended early.
    #[error("{server} did not send a valid HTTP response, or it was truncated: check the server")]
    NotHttp {
        /// Host and port.
        server: String,
    },
    /// The answer is longer than a bundle may be.
    #[error("{path} has more than {MAX_BUNDLE_BYTES} bytes, so it is no bundle: copy it again")]
    TooLong {
        /// Path of the file.
        path: String,
    },
    /// The file is not the one of the offer.
    #[error("{path} is not the file that was offered: copy the newest bundle there, or offer it")]
    NotOffered {
        /// Path of the file.
        path: String,
    },
    /// The bundle is refused, or cannot be stored.
    #[error(transparent)]
    NotTaken(#[from] StagingError),
}

impl PullError {
    /// Returns whether waiting may help.
    pub(super) fn fault(&self) -> PullFault {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Status { .. }
            | Self::NotHttp { .. }
            | Self::NotTaken(StagingError::Trial(_) | StagingError::Keys(_)) => {
                PullFault::Unavailable
            }
            Self::TooLong { .. }
            | Self::NotOffered { .. }
            | Self::NotTaken(StagingError::Refused(_)) => PullFault::Mismatch,
        }
    }
}

/// Returns the file, by the route to the broker.
pub(super) async fn fetch(uplink: &Uplink, url: &WebFile) -> Result<Vec<u8>, PullError> {
    let fetched = timeout(PULL_TIMEOUT, async { get(url.connect(uplink).await?, url).await });
    let server = || url.server.to_string();
    fetched.await.unwrap_or_else(|_| Err(PullError::TimedOut { server: server() }))
}

/// Returns the file of an offer.
pub(super) async fn fetch_offered(
    uplink: &Uplink,
    url: &WebFile,
    offer: &BundleOffer,
) -> Result<Vec<u8>, PullError> {
    let bytes = fetch(uplink, url).await?;
    let is_offered =
        bytes.len() == offer.size && digest(&SHA256, &bytes).as_ref() == offer.sha256.as_slice();
    if is_offered { Ok(bytes) } else { Err(PullError::NotOffered { path: url.path.clone() }) }
}

async fn get(stream: Box<dyn ByteStream>, url: &WebFile) -> Result<Vec<u8>, PullError> {
    exchange(stream, url, None, async |response| {
        match Limited::new(response.into_body(), MAX_BUNDLE_BYTES).collect().await {
            Ok(body) => Ok(body.to_bytes().to_vec()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                Err(PullError::TooLong { path: url.path.clone() })
            }
            Err(_) => Err(url.not_http()),
        }
    })
    .await
}

/// Asks for a file, from this byte on if it is not the whole one, and lets `read` take the answer
/// if it is a success: 200, or 206 with a part.
pub(super) async fn exchange<T>(
    stream: Box<dyn ByteStream>,
    url: &WebFile,
    from: Option<u64>,
    read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, PullError>,
) -> Result<T, PullError> {
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|_| url.not_http())?;
    let timed_out = |_| PullError::TimedOut { server: url.server.to_string() };
    let mut request = Request::get(&url.path)
        .header(header::HOST, url.server.to_string())
        .header(header::CONNECTION, "close");
    if let Some(from) = from {
        request = request.header(header::RANGE, format!("bytes={from}-"));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| url.not_http())?;
    // The future owns the sender, so that the connection closes after the exchange.
    let exchange = async {
        let response = timeout(PULL_TIMEOUT, sender.send_request(request)).await;
        let response = response.map_err(timed_out)?.map_err(|_| url.not_http())?;
        match response.status().as_u16() {
            200 => read(response).await,
            206 if from.is_some() => read(response).await,
            code => {
                let (server, path) = (url.server.to_string(), url.path.clone());
                Err(PullError::Status { server, path, code })
            }
        }
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // An error of the connection fails the exchange as well.
        _ = connection => exchange.await,
    }
}

impl WebFile {
    /// Returns another file of the directory that this one is in.
    pub(super) fn sibling(&self, name: &str) -> Self {
        let dir = self.path.rsplit_once('/').map_or("", |(dir, _)| dir);
        Self { server: self.server.clone(), path: format!("{dir}/{name}") }
    }

    /// Connects to the server, by the route to the broker.
    pub(super) async fn connect(&self, uplink: &Uplink) -> Result<Box<dyn ByteStream>, PullError> {
        uplink.connect(&self.server, CONNECT_TIMEOUT).await.map_err(|cause| {
            PullError::Unreachable { server: self.server.to_string(), cause: Box::new(cause) }
        })
    }

    pub(super) fn not_http(&self) -> PullError {
        PullError::NotHttp { server: self.server.to_string() }
    }
}
