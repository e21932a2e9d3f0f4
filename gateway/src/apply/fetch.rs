//! Fetches a bundle from a web server: one GET, no redirect, at most 1 MiB within 60 seconds.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header;
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
        "the web server {server} answered {code} for {path}: copy the bundle there, and check \
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
    let server = || url.server.to_string();
    let fetched = timeout(PULL_TIMEOUT, async {
        let stream = uplink
            .connect(&url.server, CONNECT_TIMEOUT)
            .await
            .map_err(|cause| PullError::Unreachable { server: server(), cause: Box::new(cause) })?;
        get(stream, url).await
    });
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
    let not_http = || PullError::NotHttp { server: url.server.to_string() };
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|_| not_http())?;
    let request = Request::get(&url.path)
        .header(header::HOST, url.server.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| not_http())?;
    // The future owns the sender, so that the connection closes after the exchange.
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|_| not_http())?;
        let code = response.status().as_u16();
        if code != 200 {
            let (server, path) = (url.server.to_string(), url.path.clone());
            return Err(PullError::Status { server, path, code });
        }
        match Limited::new(response.into_body(), MAX_BUNDLE_BYTES).collect().await {
            Ok(body) => Ok(body.to_bytes().to_vec()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                Err(PullError::TooLong { path: url.path.clone() })
            }
            Err(_) => Err(not_http()),
        }
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // An error of the connection fails the exchange as well.
        _ = connection => exchange.await,
    }
}
