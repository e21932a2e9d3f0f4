//! Promise 11: what takes the log or the notifications of the gateway cannot stop it. With a dead or
//! full standard error, or a service manager that reads nothing, PLCs are read, the pages answer,
//! and SIGTERM ends the gateway in time.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fmt::Display;
use std::io::{ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::{
    EVENT_TIMEOUT, Gateway, GatewayConfig, Port, STOP_TIMEOUT, Simulator, TempDir, eventually,
    http_get, temp_dir,
};

/// A gateway whose standard error the test chooses. Dropping it kills it.
struct RunningGateway {
    child: Child,
    metrics: Port,
    _plc: Simulator,
    _dir: TempDir,
}

impl RunningGateway {
    /// Starts it with a PLC, and a broker that cannot be reached: there is something to log.
    fn start(stderr: Stdio, notify: impl Display) -> Self {
        let (plc, metrics, broker, dir) =
            (Simulator::start(), Port::reserve(), Port::reserve(), temp_dir());
        let state = dir.path().join("state").display().to_string();
        let config = GatewayConfig::with_broker("g", format!("mqtt://{}", broker.address()))
            .set("gateway.state_dir", state)
            .set("metrics.listen", vec![metrics.address().to_string()])
            .plcs(plc.plc_sections(1, Duration::from_millis(100)));
        let config = dir.write("gateway.toml", &config.to_string());
        let child = Command::new(Gateway::program())
            .arg("run")
            .arg(config)
            .env("NOTIFY_SOCKET", notify.to_string())
            // Thousands of lines.
            .env("RUST_LOG", "trace")
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the program starts");
        Self { child, metrics, _plc: plc, _dir: dir }
    }

    /// Waits until it has read the PLC a few times and answers, then stops it.
    fn assert_lives_and_stops(mut self) {
        let address = self.metrics.address();
        let get = |path| http_get(address, path).ok().filter(|answer| answer.status == 200);
        let produced = |at_least: f64| {
            eventually("samples are read", EVENT_TIMEOUT, || {
                let text = get("/metrics")?.body;
                let series = "edge_samples_produced_total ";
                let count = text.lines().find_map(|line| line.strip_prefix(series))?;
                count.parse::<f64>().ok().filter(|count| *count >= at_least)
            })
        };
        let before = produced(10.0);
        produced(before + 20.0);
        get("/healthz").expect("the tasks are alive");

        let id = self.child.id().to_string();
        let sent = Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &id]).status();
        assert!(sent.expect("sh is installed").success());
        let status = eventually("the end", STOP_TIMEOUT, || self.child.try_wait().ok().flatten());
        assert_eq!(status.code(), Some(0), "{status}");
    }
}

impl Drop for RunningGateway {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns both ends of a stream, as systemd connects a service with its journal.
fn stream() -> (UnixStream, UnixStream) {
    UnixStream::pair().expect("there are descriptors")
}

#[test]
fn a_log_whose_reader_has_gone_stops_nothing() {
    let (reader, writer) = std::io::pipe().expect("there are descriptors");
    drop(reader);
    RunningGateway::start(writer.into(), "").assert_lives_and_stops();

    let (reader, writer) = stream();
    drop(reader);
    RunningGateway::start(OwnedFd::from(writer).into(), "").assert_lives_and_stops();
}

#[test]
fn a_log_that_is_full_and_never_read_stops_nothing() {
    let (_reader, mut writer) = stream();
    writer.set_nonblocking(true).expect("a socket may be non-blocking");
    let full = (0..1_000_000).find_map(|_| writer.write(&[b'x'; 1024]).err());
    assert_eq!(full.map(|error| error.kind()), Some(ErrorKind::WouldBlock));
    writer.set_nonblocking(false).expect("a socket may be blocking");

    RunningGateway::start(OwnedFd::from(writer).into(), "").assert_lives_and_stops();
}

#[test]
fn a_service_manager_that_reads_nothing_stops_nothing() {
    let dir = temp_dir();
    let path = dir.path().join("notify");
    let _unread = UnixDatagram::bind(&path).expect("its own directory is writable");
    let sender = UnixDatagram::unbound().expect("there are descriptors");
    sender.set_nonblocking(true).expect("a socket may be non-blocking");
    let full = (0..1_000_000).find_map(|_| sender.send_to(b"x", &path).err());
    assert_eq!(full.map(|error| error.kind()), Some(ErrorKind::WouldBlock));

    RunningGateway::start(Stdio::null(), path.display()).assert_lives_and_stops();
}
