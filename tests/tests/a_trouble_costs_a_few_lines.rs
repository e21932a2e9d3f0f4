//! The log is for people: any failure, however often it comes, costs a few lines. Several gateways
//! live with one trouble each at the same time; `cargo xtask long` gives them an hour.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use e2e::{Gateway, GatewayConfig, PlcConfig, Port, Simulator, eventually};
use gateway::mock_broker::{self, ConnackProperties, Ending, Script};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Lines in the first minute, with those of the start.
const LINES_OF_A_MINUTE: u64 = 10;
/// Further lines in an hour.
const LINES_OF_AN_HOUR: u64 = 50;

/// Serves a broker with this script for every connection.
fn broker(runtime: &Runtime, script: Script) -> String {
    let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listener = listener.expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let (events, mut seen) = mpsc::channel(16);
    runtime.spawn(mock_broker::serve(listener, vec![script], events, CancellationToken::new()));
    runtime.spawn(async move { while seen.recv().await.is_some() {} });
    format!("mqtt://{address}")
}

/// Accepts connections and closes them at once.
fn closing_peer() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    thread::spawn(move || listener.incoming().for_each(drop));
    address
}

/// A directory that another program takes away and brings back every two seconds.
fn flapping(dir: PathBuf) {
    thread::spawn(move || {
        let away = dir.with_extension("away");
        loop {
            thread::sleep(Duration::from_secs(2));
            // The test may have removed both: it has ended.
            if fs::rename(&dir, &away).is_err() {
                return;
            }
            thread::sleep(Duration::from_secs(2));
            // The gateway may have made a new one.
            let _ = fs::remove_dir_all(&dir);
            let _ = fs::rename(&away, &dir);
        }
    });
}

#[test]
fn no_trouble_fills_the_log() {
    let seconds = test_settings::LOG_SECONDS.number();
    let runtime = Runtime::new().expect("there are threads");
    let simulator = Simulator::start();
    let nowhere = Port::reserve();
    let unreachable = format!("mqtt://{}", nowhere.address());
    let good = || broker(&runtime, Script::default());
    let refused = ["edge/g/data/p0", "edge/g/event", "edge/g/status"];
    let refused_topics = refused.map(|topic| (topic.to_owned(), 0x87)).to_vec();
    let small = ConnackProperties { max_packet: Some(60), ..ConnackProperties::default() };
    let flaps = Script { ending: Some((1, Ending::Close)), ..Script::default() };
    let brokers = [
        ("a broker that cannot be reached", unreachable.clone()),
        (
            "a broker that refuses all",
            broker(&runtime, Script { refused_topics, ..Script::default() }),
        ),
        (
            "a broker that takes short messages only",
            broker(&runtime, Script { connack: small, ..Script::default() }),
        ),
        ("a broker that flaps", broker(&runtime, flaps)),
        ("a broker that closes at once", format!("mqtt://{}", closing_peer())),
    ];
    let plc = || simulator.plc_sections(1, Duration::from_millis(200));
    let mut gateways: Vec<(&str, Gateway)> = brokers
        .into_iter()
        .map(|(name, url)| (name, Gateway::start(GatewayConfig::with_broker("g", url).plcs(plc()))))
        .collect();
    let bad_plc = PlcConfig::new("p0", "M241", closing_peer())
        .scan(Duration::from_millis(200))
        .tag("life", "%MW0", "WORD");
    gateways.push((
        "a PLC that flaps",
        Gateway::start(GatewayConfig::with_broker("g", good()).plc(bad_plc)),
    ));
    let storage = Gateway::start(GatewayConfig::with_broker("g", unreachable).plcs(plc()));
    flapping(storage.state_dir());
    gateways.push(("a disk that comes and goes", storage));
    let broken = Gateway::start(GatewayConfig::with_broker("g", good()).set("mqtt.nonsense", true));
    gateways.push(("a wrong configuration", broken));

    let end = Instant::now() + Duration::from_secs(seconds);
    // Time is what this test is about.
    thread::sleep(end.saturating_duration_since(Instant::now()));

    let bound = LINES_OF_A_MINUTE + LINES_OF_AN_HOUR * seconds / 3600;
    let mut failures = Vec::new();
    for (name, gateway) in &gateways {
        let text = gateway.log().text();
        let lines = text.lines().count() as u64;
        if lines > bound {
            failures.push(format!("{name}: {lines} lines\n{text}"));
        }
    }
    assert!(failures.is_empty(), "more than {bound} lines:\n{}", failures.join("\n\n"));
    // They did live with it.
    let (_, refused) = &gateways[1];
    let dropped = "edge_samples_dropped_total{reason=\"refused\"}";
    eventually("drops", Duration::from_secs(1), || refused.metric(dropped).filter(|it| *it > 50.0));
}
