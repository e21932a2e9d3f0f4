//! The log is for people: any failure, however often it comes, costs a few lines. Several gateways
//! live with one trouble each at the same time; `cargo xtask long` gives them an hour.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use e2e::{Gateway, GatewayConfig, PlcConfig, Port, Simulator, TempDir, free_udp_port, temp_dir};
use gateway::mock_broker::{self, ConnackProperties, Ending, Script};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tunnel::PrivateKey;

const REFUSES: &str = "a broker that refuses all";
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

/// What stands around the gateways.
struct Peers {
    runtime: Runtime,
    simulator: Simulator,
    /// Port where no broker listens.
    nowhere: Port,
    dir: TempDir,
}

type NamedGateway = (&'static str, Gateway);

impl Peers {
    fn plc(&self) -> Vec<PlcConfig> {
        self.simulator.plc_sections(1, Duration::from_millis(200))
    }

    fn nowhere(&self) -> String {
        format!("mqtt://{}", self.nowhere.address())
    }

    fn broker(&self, script: Script) -> String {
        broker(&self.runtime, script)
    }

    /// Starts gateways with a broker that does not do what it should.
    fn start_with_bad_brokers(&self) -> Vec<NamedGateway> {
        let refused = ["edge/g/data/p0", "edge/g/event", "edge/g/status"];
        let refused_topics = refused.map(|topic| (topic.to_owned(), 0x87)).to_vec();
        let connack = ConnackProperties { max_packet: Some(60), ..ConnackProperties::default() };
        let refuses = Script { refused_topics, ..Script::default() };
        let short = Script { connack, ..Script::default() };
        let flaps = Script { ending: Some((1, Ending::Close)), ..Script::default() };
        let brokers = [
            (REFUSES, self.broker(refuses)),
            ("a broker that takes short messages only", self.broker(short)),
            ("a broker that flaps", self.broker(flaps)),
            ("a broker that closes at once", format!("mqtt://{}", closing_peer())),
            ("a broker that cannot be reached", self.nowhere()),
        ];
        let start = |(name, url)| {
            (name, Gateway::start(GatewayConfig::with_broker("g", url).plcs(self.plc())))
        };
        brokers.into_iter().map(start).collect()
    }

    /// Starts gateways with another trouble each.
    fn start_others(&self) -> Vec<NamedGateway> {
        let bad_plc = PlcConfig::new("p0", "M241", closing_peer())
            .scan(Duration::from_millis(200))
            .tag("life", "%MW0", "WORD");
        let good = || GatewayConfig::with_broker("g", self.broker(Script::default()));
        let disk = Gateway::start(GatewayConfig::with_broker("g", self.nowhere()).plcs(self.plc()));
        flapping(disk.state_dir());
        let (own, hub) = (PrivateKey::generate(), PrivateKey::generate());
        let hub_address = (Ipv4Addr::LOCALHOST, free_udp_port());
        let tunnel = GatewayConfig::with_broker("g", "mqtt://10.77.0.1:1883")
            .set("tunnel.private_key_file", self.dir.write_private("tunnel.key", &own.expose()))
            .set("tunnel.address", "10.77.0.12/32")
            .hub("h", SocketAddr::from(hub_address), hub.public_key(), "10.77.0.1");
        vec![
            ("a PLC that flaps", Gateway::start(good().plc(bad_plc))),
            ("a disk that comes and goes", disk),
            ("a hub that never answers", Gateway::start(tunnel.plcs(self.plc()))),
            ("a wrong configuration", Gateway::start(good().set("mqtt.nonsense", true))),
        ]
    }
}

#[test]
fn no_trouble_fills_the_log() {
    let seconds = test_settings::LOG_SECONDS.number();
    let peers = Peers {
        runtime: Runtime::new().expect("there are threads"),
        simulator: Simulator::start(),
        nowhere: Port::reserve(),
        dir: temp_dir(),
    };
    let mut gateways = peers.start_with_bad_brokers();
    gateways.extend(peers.start_others());

    // Time is what this test is about.
    thread::sleep(Duration::from_secs(seconds));

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
    // The gateways did live with it.
    let (_, refused) = gateways.iter().find(|(name, _)| *name == REFUSES).expect("it was started");
    let dropped = refused.metric("edge_samples_dropped_total{reason=\"refused\"}");
    assert!(dropped.is_some_and(|dropped| dropped > 50.0), "{dropped:?}");
}
