//! Downloads from web servers as they are.

use provisioning::bundle::MAX_BUNDLE_BYTES;
use provisioning::config::{HostPort, Tls};
use ring::digest::{SHA256, digest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::super::fetch::{fetch, fetch_offered};
use super::*;

/// A web server, until it is dropped.
pub(in crate::apply) struct WebServer {
    pub(in crate::apply) file: WebFile,
    _task: JoinSet<()>,
}

/// Serves the same answer to each request for the bundle.
pub(super) async fn serve(answer: Vec<u8>) -> WebServer {
    serve_with(move |request| {
        let expected = "GET /bundles/edge-bundle-amsterdam-01.tar HTTP/1.1\r\n";
        assert!(request.starts_with(expected), "{request}");
        answer.clone()
    })
    .await
}

/// Answers each request with what `answer` returns.
pub(in crate::apply) async fn serve_with(
    mut answer: impl FnMut(&str) -> Vec<u8> + Send + 'static,
) -> WebServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut task = JoinSet::new();
    task.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n")
                && stream.read_buf(&mut request).await.unwrap() > 0
            {}
            // A client that has enough closes.
            let _ = stream.write_all(&answer(&String::from_utf8_lossy(&request))).await;
        }
    });
    let server = HostPort { host: "127.0.0.1".to_owned(), port };
    let file = WebFile { server, path: "/bundles/edge-bundle-amsterdam-01.tar".to_owned() };
    WebServer { file, _task: task }
}

pub(in crate::apply) fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub(super) fn offer_of(counter: u64, bytes: &[u8]) -> Vec<u8> {
    let sha256: String =
        digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!(r#"{{"counter":{counter},"size":{},"sha256":"{sha256}"}}"#, bytes.len()).into_bytes()
}

async fn fetched(answer: Vec<u8>) -> Result<Vec<u8>, PullError> {
    let web = serve(answer).await;
    fetch(&Uplink::direct(Tls::default()), &web.file).await
}

#[tokio::test]
async fn a_bundle_is_fetched_as_it_is() {
    let bytes = bundle(3);
    assert_eq!(fetched(ok(&bytes)).await.unwrap(), bytes);
    let chunked =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", bytes.len());
    let chunked = [chunked.as_bytes(), &bytes, b"\r\n0\r\n\r\n"].concat();
    assert_eq!(fetched(chunked).await.unwrap(), bytes);
    let until_close = [b"HTTP/1.0 200 OK\r\n\r\n", bytes.as_slice()].concat();
    assert_eq!(fetched(until_close).await.unwrap(), bytes);
}

#[tokio::test]
async fn no_redirect_is_followed_and_no_answer_is_taken_for_a_bundle() {
    let moved = b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/x\r\nContent-Length: 0\r\n\r\n";
    let longest = vec![0; MAX_BUNDLE_BYTES];
    assert_eq!(fetched(ok(&longest)).await.unwrap().len(), MAX_BUNDLE_BYTES);
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &vec![0; 3 << 20]].concat();
    for (answer, fault, text) in [
        (moved.to_vec(), PullFault::Unavailable, "answered 302"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec(), PullFault::Unavailable, "answered 404"),
        (b"220 ftp\r\n".to_vec(), PullFault::Unavailable, "did not send a valid HTTP response"),
        (Vec::new(), PullFault::Unavailable, "did not send a valid HTTP response"),
        (ok(&bundle(3))[..600].to_vec(), PullFault::Unavailable, "it was truncated"),
        (ok(&vec![0; MAX_BUNDLE_BYTES + 1]), PullFault::Mismatch, "more than 1048576 bytes"),
        (endless, PullFault::Mismatch, "more than 1048576 bytes"),
    ] {
        let error = fetched(answer).await.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.fault(), fault, "{text}");
    }
    let nowhere = WebFile {
        server: HostPort { host: "127.0.0.1".to_owned(), port: 1 },
        path: "/x".to_owned(),
    };
    let error = fetch(&Uplink::direct(Tls::default()), &nowhere).await.unwrap_err();
    assert_eq!(error.fault(), PullFault::Unavailable);
}

#[tokio::test]
async fn only_the_file_of_the_offer_is_taken() {
    let bytes = bundle(3);
    let web = serve(ok(&bytes)).await;
    let uplink = Uplink::direct(Tls::default());
    let offer = BundleOffer::parse(&offer_of(3, &bytes)).unwrap();
    assert_eq!(fetch_offered(&uplink, &web.file, &offer).await.unwrap(), bytes);
    let mut other = offer;
    other.sha256[31] ^= 1;
    let shorter = BundleOffer { size: offer.size - 1, ..offer };
    for wrong in [other, shorter] {
        let error = fetch_offered(&uplink, &web.file, &wrong).await.unwrap_err();
        assert_eq!(error.fault(), PullFault::Mismatch, "{error}");
    }
}
