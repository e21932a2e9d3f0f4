//! Both ends of a tunnel in one process, in real time; every wait is for an event.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::connection::LINGER_TIMEOUT;
use super::{TcpListener, TcpStream, UserspaceTunnel, userspace_tunnel};
use crate::TunnelReport;
use crate::core::{ClockBounds, DropReason, Now, Tunnel, TunnelState};
use crate::testing::{Namespace, site_and_hub};
use crate::transport::{LocalPort, RecvBatch, SendBatch, Transport, UdpTransport, memory_pair};

const HUB: &str = "10.77.0.1";
const SITE: &str = "10.77.0.12";
/// Longer than anything here takes on a busy machine.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Both ends of a tunnel, each with its task.
struct Pair {
    site: UserspaceTunnel,
    hub: UserspaceTunnel,
    stop_hub: Option<oneshot::Sender<()>>,
    hub_task: JoinHandle<std::io::Result<()>>,
    _site_task: JoinHandle<std::io::Result<()>>,
}

fn at(host: &str, port: u16) -> SocketAddr {
    SocketAddr::new(host.parse().unwrap(), port)
}

#[expect(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]
fn spawn(
    tunnel: Tunnel,
    transport: impl Transport + 'static,
) -> (UserspaceTunnel, oneshot::Sender<()>, JoinHandle<std::io::Result<()>>) {
    let (handle, driver) = userspace_tunnel(tunnel, transport, fastrand::u64(..));
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(driver.run(async move {
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
    }));
    (handle, stop, task)
}

impl Pair {
    fn new() -> Self {
        let (site, hub) = site_and_hub();
        let (site_path, hub_path) = memory_pair(at("192.0.2.9", 4000), at("192.0.2.1", 51820));
        let now = Now::read();
        let hub = Tunnel::hub(hub, now, fastrand::u64(..));
        let site = Tunnel::site(site, ClockBounds::default(), now, fastrand::u64(..));
        let (hub, stop_hub, hub_task) = spawn(hub, hub_path);
        let (site, stop_site, _site_task) = spawn(site, site_path);
        drop(stop_site);
        Self { site, hub, stop_hub: Some(stop_hub), hub_task, _site_task }
    }

    /// Returns a connection from the site to the hub, and its other end.
    async fn connected(&self, listener: &mut TcpListener) -> (TcpStream, TcpStream) {
        let to = at(HUB, listener.port());
        let (ours, theirs) = tokio::join!(self.site.connect(to), listener.accept());
        (ours.unwrap(), theirs.unwrap())
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(TEST_TIMEOUT, future).await.expect("it takes much less")
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

#[tokio::test]
async fn data_that_is_written_at_one_end_is_read_at_the_other() {
    let pair = Pair::new();
    let mut listener = pair.hub.listen(1883).await.unwrap();
    within(async {
        let (ours, theirs) = pair.connected(&mut listener).await;
        assert_eq!((ours.peer_addr(), theirs.local_addr()), (at(HUB, 1883), at(HUB, 1883)));
        assert_eq!(theirs.peer_addr().ip(), at(SITE, 0).ip());
        let sent = bytes(3_000_000);
        let (mut ours_in, mut ours_out) = tokio::io::split(ours);
        let (mut theirs_in, mut theirs_out) = tokio::io::split(theirs);
        let echo = async {
            tokio::io::copy(&mut theirs_in, &mut theirs_out).await.unwrap();
            theirs_out.shutdown().await.unwrap();
        };
        let write = async {
            ours_out.write_all(&sent).await.unwrap();
            ours_out.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let read = async { ours_in.read_to_end(&mut received).await.unwrap() };
        tokio::join!(echo, write, read);
        assert!(received == sent);
    })
    .await;
}

#[tokio::test]
async fn the_hub_can_connect_to_the_site_in_both_families() {
    let pair = Pair::new();
    let mut listener = pair.site.listen(9464).await.unwrap();
    // The hub learns the site's address from its first datagram.
    let mut reports = pair.hub.reports();
    within(reports.wait_for(|report| report.state == TunnelState::Up)).await.unwrap();
    for address in [at(SITE, 9464), at("fd77::12", 9464)] {
        within(async {
            let (ours, theirs) = tokio::join!(pair.hub.connect(address), listener.accept());
            let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
            ours.write_all(b"GET").await.unwrap();
            let mut buffer = [0; 3];
            theirs.read_exact(&mut buffer).await.unwrap();
            assert_eq!(&buffer, b"GET");
        })
        .await;
    }
}

#[tokio::test]
async fn a_thousand_closed_connections_do_not_block_the_next_one() {
    let pair = Pair::new();
    let mut listener = pair.hub.listen(80).await.unwrap();
    within(async {
        for _ in 0..1_000 {
            let (ours, theirs) = pair.connected(&mut listener).await;
            drop(ours);
            drop(theirs);
        }
        let (mut ours, mut theirs) = pair.connected(&mut listener).await;
        ours.write_all(b"still here").await.unwrap();
        let mut buffer = [0; 10];
        theirs.read_exact(&mut buffer).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_is_closed_before_it_is_accepted_is_accepted_and_ends() {
    let pair = Pair::new();
    let mut listener = pair.hub.listen(80).await.unwrap();
    within(async {
        for _ in 0..8 {
            drop(pair.site.connect(at(HUB, 80)).await.unwrap());
        }
        for _ in 0..8 {
            let mut stream = listener.accept().await.unwrap();
            assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
        }
        let (mut ours, mut theirs) = pair.connected(&mut listener).await;
        ours.write_all(b"x").await.unwrap();
        assert_eq!(theirs.read_u8().await.unwrap(), b'x');
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_is_not_read_stops_the_writer_and_loses_nothing() {
    let pair = Pair::new();
    let mut listener = pair.hub.listen(1883).await.unwrap();
    within(async {
        let (mut ours, mut theirs) = pair.connected(&mut listener).await;
        let mut written = 0_u64;
        let chunk = bytes(64 * 1024);
        // Both pipes and both buffers take less than 1 MiB.
        while let Ok(result) = timeout(Duration::from_millis(300), ours.write(&chunk)).await {
            written += result.unwrap() as u64;
            assert!(written < 4 << 20, "nothing stops it");
        }
        let write = async {
            ours.write_all(b"end").await.unwrap();
            ours.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let read = async { theirs.read_to_end(&mut received).await.unwrap() };
        tokio::join!(write, read);
        assert_eq!(received.len() as u64, written + 3);
    })
    .await;
}

#[tokio::test]
async fn a_reset_is_an_error_and_not_an_end_of_file() {
    let pair = Pair::new();
    let mut listener = pair.hub.listen(1883).await.unwrap();
    within(async {
        let (mut ours, theirs) = pair.connected(&mut listener).await;
        drop(theirs);
        // Nothing reads this, so the reply is RST.
        let error = loop {
            if let Err(error) = ours.write_all(&[0; 1000]).await {
                break error;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let mut rest = Vec::new();
        let error = ours.read_to_end(&mut rest).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    })
    .await;
}

#[tokio::test]
async fn a_connection_to_a_closed_port_is_refused() {
    let pair = Pair::new();
    within(async {
        let error = pair.site.connect(at(HUB, 7)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let listener = pair.hub.listen(7).await.unwrap();
        assert_eq!(pair.hub.listen(7).await.unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(pair.hub.listen(0).await.unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(pair.site.connect(at(HUB, 7)).await.unwrap());
        drop(listener);
        let mut outcome = pair.site.connect(at(HUB, 7)).await;
        while outcome.is_ok() {
            outcome = pair.site.connect(at(HUB, 7)).await;
        }
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    })
    .await;
}

#[tokio::test]
async fn the_connections_of_a_peer_each_get_their_own_bytes() {
    let pair = Pair::new();
    let mut listener = pair.hub.listen(1883).await.unwrap();
    within(async {
        let mut streams = Vec::new();
        for number in 0..8_u8 {
            let (mut ours, theirs) = pair.connected(&mut listener).await;
            ours.write_all(&vec![number; 10_000]).await.unwrap();
            streams.push((number, ours, theirs));
        }
        for (number, ours, theirs) in &mut streams {
            let mut buffer = vec![0; 10_000];
            theirs.read_exact(&mut buffer).await.unwrap();
            assert!(buffer.iter().all(|byte| byte == number));
            theirs.write_all(&buffer).await.unwrap();
            ours.read_exact(&mut buffer).await.unwrap();
            assert!(buffer.iter().all(|byte| byte == number));
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_never_read_ends_by_force() {
    let pair = Pair::new();
    let mut listener = pair.site.listen(9464).await.unwrap();
    let mut reports = pair.hub.reports();
    within(reports.wait_for(|report| report.state == TunnelState::Up)).await.unwrap();
    within(async {
        let (theirs, ours) = tokio::join!(pair.hub.connect(at(SITE, 9464)), listener.accept());
        let (mut theirs, mut ours) = (theirs.unwrap(), ours.unwrap());
        // More than the buffers of both ends hold: the peer's window closes.
        let stalled = Duration::from_millis(500);
        let chunk = bytes(64 * 1024);
        while timeout(stalled, ours.write_all(&chunk)).await.is_ok() {}
        drop(ours);
        // Reading would open the window, and writing would be answered with RST.
        tokio::time::sleep(LINGER_TIMEOUT + Duration::from_secs(2)).await;
        let error = theirs.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    })
    .await;
}

#[tokio::test]
async fn on_stop_all_written_data_arrives_before_the_end_of_file() {
    let mut pair = Pair::new();
    let mut listener = pair.hub.listen(1883).await.unwrap();
    within(async {
        let (mut ours, mut theirs) = pair.connected(&mut listener).await;
        let sent = bytes(60_000);
        theirs.write_all(&sent).await.unwrap();
        pair.stop_hub.take().unwrap().send(()).unwrap();
        let mut received = Vec::new();
        ours.read_to_end(&mut received).await.unwrap();
        assert!(received == sent);
        (&mut pair.hub_task).await.unwrap().unwrap();
        assert_eq!(listener.accept().await.unwrap_err().kind(), ErrorKind::NotConnected);
        let error = pair.hub.connect(at(SITE, 1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected);
    })
    .await;
}

#[tokio::test]
async fn an_abandoned_connection_attempt_is_cancelled() {
    let (site, _) = site_and_hub();
    let (transport, _dead) = memory_pair(at("192.0.2.9", 4000), at("192.0.2.1", 51820));
    let site = Tunnel::site(site, ClockBounds::default(), Now::read(), 1);
    let (site, _stop, _task) = spawn(site, transport);
    for _ in 0..300 {
        let attempt = timeout(Duration::from_millis(1), site.connect(at(HUB, 1))).await;
        assert!(attempt.is_err() || attempt.is_ok_and(|connected| connected.is_err()));
    }
    // At most 64 of them exist at once: the earlier ones are removed, or this one would fail.
    let attempt = timeout(Duration::from_millis(50), site.connect(at(HUB, 1))).await;
    assert!(attempt.is_err());
}

#[tokio::test]
async fn the_report_shows_when_the_tunnel_is_up() {
    let pair = Pair::new();
    let mut reports = pair.site.reports();
    let report: TunnelReport =
        within(reports.wait_for(|report| report.state == TunnelState::Up)).await.unwrap().clone();
    assert_eq!(report.diagnosis.to_string(), "The tunnel to hub is up.");
    assert_eq!(report.endpoint, Some(at("192.0.2.1", 51820)));
}

#[tokio::test]
async fn as_root_datagrams_that_the_kernel_refuses_are_counted() {
    // The namespace has no route.
    let _namespace = Namespace::enter();
    let transport = UdpTransport::bind(LocalPort::Any).unwrap();
    let site = Tunnel::site(site_and_hub().0, ClockBounds::default(), Now::read(), 1);
    let (site, _stop, _task) = spawn(site, transport);
    let mut reports = site.reports();
    let is_counted = |report: &TunnelReport| report.counters.dropped(DropReason::Unsent) > 0;
    within(reports.wait_for(is_counted)).await.unwrap();
}

/// A transport that reports one change of the route and nothing else.
struct RouteChangeOnly {
    has_moved: bool,
}

impl Transport for RouteChangeOnly {
    async fn receive(&mut self, received: &mut RecvBatch) -> std::io::Result<()> {
        if std::mem::replace(&mut self.has_moved, true) {
            std::future::pending::<()>().await;
        }
        received.note_network_change();
        Ok(())
    }

    async fn send(&mut self, outgoing: &mut SendBatch) -> std::io::Result<()> {
        outgoing.clear();
        Ok(())
    }

    fn send_error(&self) -> Option<crate::core::PathError> {
        None
    }

    fn unsent(&self) -> u64 {
        0
    }

    fn local_port(&self) -> Option<u16> {
        None
    }

    fn rebind(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_change_of_the_route_opens_another_port() {
    // With this clock the tunnel sends nothing on its own.
    let bounds = ClockBounds { floor: None, ceiling: Some(std::time::UNIX_EPOCH) };
    let site = Tunnel::site(site_and_hub().0, bounds, Now::read(), 1);
    let (site, _stop, _task) = spawn(site, RouteChangeOnly { has_moved: false });
    let mut reports = site.reports();
    within(reports.wait_for(|report| report.counters.rebinds == 1)).await.unwrap();
}
