use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::metrics::{DropReason, RequestOutcome};
use crate::model::UnixTime;
use crate::status::{BrokerSentence, ConnectionState};
use crate::testing;

#[tokio::test]
async fn promtool_accepts_a_scrape() {
    let gateway = TestGateway::start().await;
    let metrics = &gateway.sources.metrics;
    metrics.plcs[0].count_request(RequestOutcome::Ok);
    metrics.plcs[1].request_seconds.observe(0.02);
    metrics.queue.count_dropped(DropReason::Full, 3);

    let scrape = gateway.get("/metrics").await;

    assert_eq!(scrape.code, 200);
    let text = String::from_utf8(scrape.body.to_vec()).unwrap();
    assert!(text.contains("edge_plc_requests_total{outcome=\"ok\",plc=\"plc0\"} 1"), "{text}");
    assert_eq!(promtool_check_metrics(&text), "");
}

#[tokio::test]
async fn every_counter_of_every_plc_exists_from_the_start() {
    let gateway = TestGateway::start().await;

    let text = String::from_utf8(gateway.get("/metrics").await.body.to_vec()).unwrap();

    for outcome in RequestOutcome::ALL {
        for plc in ["plc0", "plc1", "plc2"] {
            let series = format!(
                "edge_plc_requests_total{{outcome=\"{}\",plc=\"{plc}\"}} 0",
                outcome.label()
            );
            assert!(text.contains(&series), "{series} in {text}");
        }
    }
}

#[tokio::test]
async fn metrics_carry_the_content_type_of_the_text_format() {
    let gateway = TestGateway::start().await;

    let response = gateway.raw("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;

    assert!(response.contains("content-type: text/plain; version=0.0.4\r\n"), "{response}");
}

#[tokio::test]
async fn status_is_the_struct_as_json() {
    let gateway = TestGateway::start().await;

    let answer = gateway.get("/status").await;

    let status: Status = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(status, *gateway.sources.status.borrow());
}

#[tokio::test]
async fn the_headline_is_the_first_line_of_the_status() {
    let gateway = TestGateway::start().await;
    let gone = Sentence::new(&BrokerSentence::Connecting);
    gateway.status.send_modify(|status| status.on_broker_disconnected(gone, UnixTime::default()));

    let answer = gateway.get("/headline").await;

    let headline: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let expected = Sentence::new(&gateway.sources.status.borrow().headline());
    assert_eq!(headline["code"], "disconnected");
    assert_eq!(headline["text"], expected.text);
    assert!(headline["arguments"]["sentence"].is_string(), "{headline}");
}

#[tokio::test]
async fn healthz_fails_when_the_event_loop_hangs() {
    let gateway = TestGateway::start().await;
    assert_eq!(gateway.get("/healthz").await.code, 200);

    let dead = Liveness::new(Duration::ZERO);
    while dead.is_alive() {
        tokio::task::yield_now().await;
    }
    let gateway = TestGateway::with(|sources| sources.liveness = dead).await;

    assert_eq!(gateway.get("/healthz").await.code, 503);
}

#[tokio::test]
async fn readyz_says_why_the_storage_is_not_usable() {
    let gateway = TestGateway::start().await;
    assert_eq!(gateway.get("/readyz").await.code, 200);

    gateway.readiness.send_replace(Readiness::NotReady("the disk is full".to_owned()));

    let answer = gateway.get("/readyz").await;
    assert_eq!((answer.code, answer.body.as_ref()), (503, b"the disk is full\n".as_ref()));
}

#[tokio::test]
async fn readyz_succeeds_without_a_broker() {
    let gateway = TestGateway::start().await;

    let gone = Sentence::new(&BrokerSentence::Connecting);
    gateway.status.send_modify(|status| status.on_broker_disconnected(gone, UnixTime::default()));

    assert_eq!(gateway.get("/readyz").await.code, 200);
    let status: Status = serde_json::from_slice(&gateway.get("/status").await.body).unwrap();
    assert_eq!(status.broker.state, ConnectionState::Disconnected);
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let gateway = TestGateway::start().await;

    assert_eq!(gateway.get("/").await.code, 404);
    let posted = gateway.raw("POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    assert!(posted.starts_with("HTTP/1.1 405"), "{posted}");
}

#[tokio::test]
async fn a_unix_socket_serves_the_same_pages() {
    let socket = std::env::temp_dir().join(format!("edge-web-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&socket);
    let gateway = TestGateway::on(UnixListener::bind(&socket).unwrap(), String::new(), |_| {});

    let answer = fetch(&HttpTarget::Unix(socket.clone()), "/readyz").await.unwrap();

    std::fs::remove_file(&socket).unwrap();
    assert_eq!(answer.code, 200);
    drop(gateway);
}

/// The clock is paused only after the silent clients are connected: time then advances when all
/// tasks wait, until the last of them has timed out.
#[tokio::test]
async fn silent_connections_time_out_and_free_their_slots() {
    let gateway = TestGateway::start().await;
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        silent.push(TcpStream::connect(&gateway.address).await.unwrap());
    }
    tokio::time::pause();

    let ended = read_to_end(silent.remove(0)).await;
    assert_eq!(ended, "");
    tokio::time::resume();

    assert_eq!(gateway.get("/healthz").await.code, 200);
}

#[tokio::test]
async fn a_request_is_answered_however_many_connections_are_silent() {
    let gateway = TestGateway::start().await;
    let mut silent = Vec::new();
    for _ in 0..10 * MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(&gateway.address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nX: ").await.unwrap();
        silent.push(stream);
    }
    assert_eq!(gateway.get("/healthz").await.code, 200);
    // The oldest made room.
    assert_eq!(read_to_end(silent.remove(0)).await, "");
}

/// The clock is paused only after the client is connected.
#[tokio::test]
async fn half_a_request_is_dropped_after_two_seconds() {
    let gateway = TestGateway::start().await;
    let mut slow = TcpStream::connect(&gateway.address).await.unwrap();
    slow.write_all(b"GET /status HTTP/1.1\r\nHost: ").await.unwrap();
    assert_eq!(gateway.get("/healthz").await.code, 200);
    tokio::time::pause();
    let start = tokio::time::Instant::now();

    read_to_end(slow).await;

    assert!(start.elapsed() <= Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_name_that_a_stranger_can_own_gets_no_status() {
    let gateway = TestGateway::start().await;
    for path in ["/status", "/metrics", "/nowhere"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: evil.example.com\r\n\r\n");
        let response = gateway.raw(&request).await;
        assert!(response.starts_with("HTTP/1.1 421 "), "{response}");
        assert!(response.contains("use its IP address"), "{response}");
    }
}

#[tokio::test]
async fn serving_ends_at_the_stop() {
    let mut gateway = TestGateway::start().await;

    gateway.stop.cancel();

    gateway.tasks.join_next().await.unwrap().unwrap();
    let error = fetch(&HttpTarget::Tcp(gateway.address.clone()), "/healthz").await.unwrap_err();
    assert!(matches!(error, FetchError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_response_that_is_not_http_is_told_apart_from_no_response() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = HttpTarget::Tcp(listener.local_addr().unwrap().to_string());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 mail ready\r\n\r\n").await.unwrap();
    });

    let error = fetch(&target, "/status").await.unwrap_err();

    assert!(matches!(error, FetchError::InvalidResponse { .. }), "{error:?}");
}

/// A served router, with the senders that the app would hold.
struct TestGateway {
    address: String,
    sources: Sources,
    readiness: watch::Sender<Readiness>,
    status: watch::Sender<Status>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl TestGateway {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Sources)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self::on(listener, address, change)
    }

    fn on<L>(listener: L, address: String, change: impl FnOnce(&mut Sources)) -> Self
    where
        L: axum::serve::Listener<Addr: PeerAddress>,
    {
        let (readiness, readiness_rx) = watch::channel(Readiness::Ready);
        let plcs = ["plc0", "plc1", "plc2"];
        let (status, status_rx) =
            watch::channel(Status::new("a", "0.1.0", "3f9a", plcs, UnixTime::default()));
        let mut sources = Sources {
            tags: None,
            metrics: Metrics::new(&testing::config(3), "3f9a61c0d2b4").unwrap(),
            liveness: Liveness::new(Duration::from_secs(60)),
            readiness: readiness_rx,
            status: status_rx,
        };
        change(&mut sources);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, router(sources.clone()), stop.clone()));
        Self { address, sources, readiness, status, stop, tasks }
    }

    async fn get(&self, path: &str) -> HttpResponse {
        fetch(&HttpTarget::Tcp(self.address.clone()), path).await.unwrap()
    }

    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        read_to_end(stream).await
    }
}

async fn read_to_end(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// Returns the complaints of `promtool check metrics`.
fn promtool_check_metrics(scrape: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed (Debian package prometheus)");
    promtool.stdin.take().unwrap().write_all(scrape.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    String::from_utf8(said).unwrap()
}
