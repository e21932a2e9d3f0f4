//! Downloads that are cut, altered or endless.

use std::sync::{Arc, Mutex};

use provisioning::config::Tls;
use ring::digest::digest;

use super::super::tests::fetches::{WebServer, ok, serve_with};
use super::*;

const CONTENT: &[u8] = b"0123456789 of a package";

fn name() -> PackageName {
    PackageName::new("0.2.0", "arm64").unwrap()
}

struct TestDownload {
    dir: PathBuf,
    task: DownloadTask,
    requests: Arc<Mutex<Vec<String>>>,
    _web: WebServer,
}

impl TestDownload {
    /// Gives these answers, one after the other.
    async fn new(answers: Vec<Vec<u8>>) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, mut answers) = (requests.clone(), answers.into_iter());
        let web = serve_with(move |request| {
            seen.lock().unwrap().push(request.to_owned());
            answers.next().expect("no more requests")
        })
        .await;
        let dir = format!("edge-packages-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let dir = std::env::temp_dir().join(dir);
        let task = DownloadTask {
            packages: Vec::new(),
            dir: dir.clone(),
            uplink: Uplink::direct(Tls::default()),
            bundle: web.file.clone(),
            progress: watch::Sender::default(),
        };
        Self { dir, task, requests, _web: web }
    }

    async fn fetch(&self) -> Result<(), String> {
        let expected = PackageDigest(digest(&SHA256, CONTENT).as_ref().try_into().unwrap());
        self.task.fetch(&name(), expected).await.map_err(|error| error.to_string())
    }

    fn content(&self) -> Option<Vec<u8>> {
        fs::read(self.dir.join(name().to_string())).ok()
    }

    /// Returns the value of `Range` in each request.
    fn ranges(&self) -> Vec<Option<String>> {
        let range = |request: &String| {
            let line = request.lines().find_map(|line| line.strip_prefix("range: "));
            line.map(str::to_owned)
        };
        self.requests.lock().unwrap().iter().map(range).collect()
    }
}

impl Drop for TestDownload {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn part(from: usize, claimed: usize) -> Vec<u8> {
    let (length, total) = (CONTENT.len() - from, CONTENT.len());
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {length}\r\n\
         Content-Range: bytes {claimed}-{}/{total}\r\n\r\n",
        total - 1
    );
    [head.as_bytes(), &CONTENT[from..]].concat()
}

fn cut_after(bytes: usize) -> Vec<u8> {
    let whole = ok(CONTENT);
    whole[..whole.len() - CONTENT.len() + bytes].to_vec()
}

#[tokio::test]
async fn a_download_goes_on_where_it_was_cut() {
    let download = TestDownload::new(vec![cut_after(7), part(7, 7)]).await;
    let error = download.fetch().await.unwrap_err();
    assert!(error.contains("truncated") && download.content().is_none(), "{error}");
    download.fetch().await.unwrap();
    assert_eq!(download.content().as_deref(), Some(CONTENT));
    assert_eq!(download.ranges(), [None, Some("bytes=7-".to_owned())]);
    assert_eq!(download.task.progress.borrow().received, CONTENT.len() as u64);
}

#[tokio::test]
async fn a_server_without_ranges_sends_the_whole_file_again() {
    let download = TestDownload::new(vec![cut_after(7), ok(CONTENT)]).await;
    download.fetch().await.unwrap_err();
    download.fetch().await.unwrap();
    assert_eq!(download.content().as_deref(), Some(CONTENT));
}

#[tokio::test]
async fn other_bytes_are_refused_and_fetched_again_from_the_start() {
    let refused = Err("it is not the file whose SHA-256 the bundle names: copy `packages` to the \
                       hub again"
        .to_owned());
    let elsewhere = part(9, 3);
    let too_short = b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n".to_vec();
    let answers =
        vec![ok(b"altered"), cut_after(7), elsewhere, cut_after(7), too_short, ok(CONTENT)];
    let download = TestDownload::new(answers).await;
    assert_eq!(download.fetch().await, refused);
    download.fetch().await.unwrap_err();
    assert_eq!(download.fetch().await, refused, "a part from another place");
    download.fetch().await.unwrap_err();
    assert_eq!(download.fetch().await, refused, "the server has less than that");
    assert!(download.content().is_none());
    download.fetch().await.unwrap();
    assert_eq!(download.content().as_deref(), Some(CONTENT));
    let ranges = download.ranges();
    assert_eq!(ranges.iter().filter(|range| range.is_none()).count(), 4, "{ranges:?}");
}

#[tokio::test]
async fn no_more_is_stored_than_a_package_may_have() {
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &vec![0; MAX_PACKAGE_BYTES + 1]].concat();
    let download = TestDownload::new(vec![endless]).await;
    let error = download.fetch().await.unwrap_err();
    assert!(error.contains("it is not the file whose SHA-256"), "{error}");
    let stored = fs::metadata(download.dir.join("edge-gateway_0.2.0_arm64.part")).unwrap();
    assert!(stored.len() <= (MAX_PACKAGE_BYTES + 2 * WRITE_BYTES) as u64);
}

#[tokio::test]
async fn a_missing_package_is_named_with_its_place() {
    let missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec();
    let download = TestDownload::new(vec![missing]).await;
    let error = download.fetch().await.unwrap_err();
    let place = "404 for /bundles/packages/edge-gateway_0.2.0_arm64.deb: copy the file there";
    assert!(error.contains(place), "{error}");
}
