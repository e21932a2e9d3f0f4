//! Promise 11: a gateway reads its PLC on time without its tunnel, its broker, its disk, its log and
//! its clock, each alone and all together. 32 gateways run at once, one for each combination.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::{
    EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, PlcConfig, Port, RECOVERY_TIMEOUT, TempDir,
    eventually, http_get, temp_dir,
};
use gateway::simulate::{SimulatedPlc, SimulatorSettings, serve};
use provisioning::plc::PlcModel;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tunnel::PrivateKey;

const SCAN: Duration = Duration::from_millis(500);
/// How long every gateway is watched.
const WATCH_TIME: Duration = Duration::from_secs(8);

/// What a gateway cannot have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Missing {
    Tunnel,
    Broker,
    Disk,
    Log,
    Clock,
}

const ALL: [Missing; 5] =
    [Missing::Tunnel, Missing::Broker, Missing::Disk, Missing::Log, Missing::Clock];

struct Row {
    missing: Vec<Missing>,
    metrics: Port,
    child: Child,
    /// The other end of a log that is full.
    _log: Option<UnixStream>,
}

/// What everything around the gateways is.
struct World<'a> {
    dir: &'a TempDir,
    broker: String,
    /// Port where no broker listens.
    nowhere: Port,
    /// A hub that never answers.
    hub: SocketAddr,
}

impl World<'_> {
    fn start(&self, number: usize, plc: SocketAddr) -> Row {
        let bits = ALL.into_iter().enumerate();
        let missing: Vec<_> =
            bits.filter(|(bit, _)| number & 1 << bit != 0).map(|(_, missing)| missing).collect();
        let lacks = |what| missing.contains(&what);
        let (state, metrics) = (self.dir.path().join(format!("state{number}")), Port::reserve());
        fs::create_dir(&state).expect("its own directory is writable");
        if lacks(Missing::Disk) {
            fs::write(state.join("queue"), "no directory").expect("it is writable");
            fs::create_dir(state.join("status.sock")).expect("it is writable");
        }
        if lacks(Missing::Clock) {
            fs::write(state.join("clock"), "2090-01-01T00:00:00Z\n").expect("it is writable");
        }
        let nowhere = format!("mqtt://{}", self.nowhere.address());
        let broker = if lacks(Missing::Broker) { &nowhere } else { &self.broker };
        let plc = PlcConfig::new("p", "M241", plc).scan(SCAN).tag("life", "%MW0", "WORD");
        let mut config = GatewayConfig::with_broker(&format!("g{number}"), broker)
            .set("gateway.state_dir", state.display().to_string())
            .set("metrics.listen", vec![metrics.address().to_string()])
            .plc(plc);
        if lacks(Missing::Tunnel) {
            let (own, hub) = (PrivateKey::generate(), PrivateKey::generate());
            let key = self.dir.write_private(&format!("{number}.key"), &own.expose());
            config = config
                .set("mqtt.via", "direct")
                .set("tunnel.private_key_file", key)
                .set("tunnel.address", "10.77.0.12/32")
                .hub("h", self.hub, hub.public_key(), "10.77.0.1");
        }
        let file = self.dir.write(&format!("{number}.toml"), &config.to_string());
        let (stderr, log) = if lacks(Missing::Log) { full_log() } else { (Stdio::null(), None) };
        let mut command = Command::new(Gateway::program());
        let child = command.arg("run").arg(file).stdin(Stdio::null()).stderr(stderr).spawn();
        Row { missing, metrics, child: child.expect("the program starts"), _log: log }
    }
}

impl Row {
    fn metric(&self, series: &str) -> Option<f64> {
        let text = http_get(self.metrics.address(), "/metrics").ok()?.body;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        value.parse().ok()
    }

    /// Waits until a series has this value.
    fn wait_for(&self, series: &str, value: f64) {
        let what = format!("{:?}: {series} = {value}", self.missing);
        eventually(&what, RECOVERY_TIMEOUT, || {
            self.metric(series).filter(|found| (found - value).abs() < 0.5)
        });
    }

    fn cycles(&self) -> (f64, f64) {
        let series = |name| self.metric(name).expect("the series is there");
        (series("edge_samples_produced_total"), series("edge_plc_cycles_missed_total{plc=\"p\"}"))
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn full_log() -> (Stdio, Option<UnixStream>) {
    let (reader, mut writer) = UnixStream::pair().expect("there are descriptors");
    writer.set_nonblocking(true).expect("a socket may be non-blocking");
    while writer.write(&[b'x'; 4096]).is_ok() {}
    writer.set_nonblocking(false).expect("a socket may be blocking");
    (OwnedFd::from(writer).into(), Some(reader))
}

/// Starts a simulated PLC in this process.
fn start_plc(runtime: &Runtime) -> SocketAddr {
    let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listener = listener.expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let mut settings = SimulatorSettings::new(PlcModel::M241).expect("an M241 can be simulated");
    settings.mast = Duration::ZERO;
    runtime.spawn(serve(SimulatedPlc::new(settings), listener, CancellationToken::new()));
    address
}

#[test]
fn every_combination_of_what_is_missing_reads_its_plc_on_time() {
    let runtime = Runtime::new().expect("there are threads");
    let (dir, broker) = (temp_dir(), Mosquitto::start());
    let hub = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let world = World {
        dir: &dir,
        broker: broker.url(),
        nowhere: Port::reserve(),
        hub: hub.local_addr().expect("a bound socket has an address"),
    };
    let rows: Vec<Row> =
        (0..1 << ALL.len()).map(|number| world.start(number, start_plc(&runtime))).collect();
    for row in &rows {
        let what = format!("{:?}: first values", row.missing);
        let produced = "edge_samples_produced_total";
        eventually(&what, EVENT_TIMEOUT, || row.metric(produced).filter(|count| *count >= 2.0));
        row.wait_for("edge_mqtt_connected", f64::from(!row.missing.contains(&Missing::Broker)));
        let fails = row.missing.contains(&Missing::Disk);
        row.wait_for("edge_queue_storage_failing", f64::from(fails));
        row.wait_for("edge_tunnel_up", 0.0);
    }

    let (before, since) = (rows.iter().map(Row::cycles).collect::<Vec<_>>(), Instant::now());
    // Time is what this test is about.
    std::thread::sleep(WATCH_TIME);
    let after: Vec<_> = rows.iter().map(Row::cycles).collect();

    // Half of the cycles may be late on a machine that also compiles; a gateway that waits for
    // anything reads nothing.
    let due = since.elapsed().min(WATCH_TIME).as_secs_f64() / SCAN.as_secs_f64();
    for (row, ((samples, missed), (more, missed_more))) in rows.iter().zip(before.iter().zip(after))
    {
        let (read, missed) = (more - samples, missed_more - missed);
        let missing = &row.missing;
        assert!(read >= due / 2.0, "{missing:?}: {read} values and {missed} missed of {due}");
        assert!(missed <= due / 2.0, "{missing:?}: {missed} cycles missed of {due}");
    }
}
