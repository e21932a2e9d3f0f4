//! Under systemd a start that cannot succeed is reported once, and the process waits until its files
//! have changed or the obstacle is gone. Elsewhere it ends with exit code 1.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use e2e::{
    EVENT_TIMEOUT, Gateway, GatewayConfig, Log, Port, Process, STOP_TIMEOUT, Simulator, TempDir,
    eventually, http_get, temp_dir,
};

/// A site whose configuration the test writes.
struct Site {
    dir: TempDir,
    plc: Simulator,
    metrics: Port,
    broker: Port,
}

impl Site {
    fn new() -> Self {
        Self {
            dir: temp_dir(),
            plc: Simulator::start(),
            metrics: Port::reserve(),
            broker: Port::reserve(),
        }
    }

    fn config(&self) -> GatewayConfig {
        GatewayConfig::with_broker("g", format!("mqtt://{}", self.broker.address()))
            .set("gateway.state_dir", self.dir.path().join("state").display().to_string())
            .set("metrics.listen", vec![self.metrics.address().to_string()])
            .plcs(self.plc.plc_sections(1, Duration::from_millis(100)))
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("gateway.toml")
    }

    fn write(&self, config: &GatewayConfig) {
        fs::write(self.file(), config.to_string()).expect("its own directory is writable");
    }

    fn command(&self) -> Command {
        let mut command = Command::new(Gateway::program());
        command.arg("run").arg(self.file()).env_remove("NOTIFY_SOCKET");
        command.env_remove("JOURNAL_STREAM");
        command
    }

    /// Starts it as systemd does; returns the notifications too.
    fn start_as_service(&self) -> (Process, UnixDatagram) {
        let path = self.dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("its own directory is writable");
        socket.set_read_timeout(Some(EVENT_TIMEOUT)).expect("a time-out is allowed");
        (Process::start(self.command().env("NOTIFY_SOCKET", path)), socket)
    }

    fn wait_until_it_runs(&self) {
        let address = self.metrics.address();
        eventually("the gateway runs", EVENT_TIMEOUT, || http_get(address, "/healthz").ok());
    }
}

/// Waits for a notification that contains `part`, and returns it.
fn notified(socket: &UnixDatagram, part: &str) -> String {
    loop {
        let mut text = [0; 4096];
        let size = socket.recv(&mut text).expect("the gateway notifies its service manager");
        let text = String::from_utf8_lossy(text.get(..size).unwrap_or_default()).into_owned();
        if text.contains(part) {
            return text;
        }
    }
}

fn stop(mut process: Process) -> Log {
    process.terminate();
    let status = process.wait(STOP_TIMEOUT);
    assert!(status.success(), "{status}: {}", process.log().text());
    assert!(!process.log().contains("a task ended"), "{}", process.log().text());
    process.log().clone()
}

#[test]
fn a_wrong_configuration_is_reported_once_and_read_again_when_it_changes() {
    let site = Site::new();
    let plcs = site.plc.plc_sections(50, Duration::from_secs(1));
    site.write(&site.config().plcs(plcs.into_iter().map(|plc| plc.set("scan", true))));
    let (process, socket) = site.start_as_service();

    let reported = notified(&socket, "STATUS=not started");
    assert!(reported.contains("READY=1") && reported.contains("gateway.toml:"), "{reported}");
    process.wait_for_line("problems, shown by", EVENT_TIMEOUT);
    // The watchdog is reset meanwhile, twice at least.
    (0..2).for_each(|_| drop(notified(&socket, "WATCHDOG=1")));
    let lines = process.log().text().lines().count();
    assert!(lines <= 5, "{}", process.log().text());

    site.write(&site.config());
    notified(&socket, "STATUS=running");
    site.wait_until_it_runs();
    stop(process);
}

#[test]
fn a_secret_that_is_missing_is_waited_for() {
    let site = Site::new();
    let secret = site.dir.path().join("password");
    let config = site.config().set("mqtt.username", "u");
    site.write(&config.set("mqtt.password_file", secret.display().to_string()));
    let (process, socket) = site.start_as_service();
    let reported = notified(&socket, "STATUS=not started");
    assert!(reported.contains("password"), "{reported}");

    site.dir.write_private("password", "geheim");

    notified(&socket, "STATUS=running");
    let log = stop(process);
    assert!(!log.contains("geheim"), "{}", log.text());
}

#[test]
fn a_taken_port_is_reported_once_and_tried_again() {
    let site = Site::new();
    let blocker = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let taken = blocker.local_addr().expect("a bound socket has an address");
    site.write(&site.config().set("metrics.listen", vec![taken.to_string()]));

    // Without a service manager it ends.
    let mut outside = Process::start(&mut site.command());
    assert_eq!(outside.wait(EVENT_TIMEOUT).code(), Some(1));
    assert!(outside.log().contains("cannot serve metrics on"), "{}", outside.log().text());
    assert!(!outside.log().contains("a task ended"), "{}", outside.log().text());

    let (process, socket) = site.start_as_service();
    notified(&socket, "STATUS=not started: cannot serve metrics on");
    notified(&socket, "STATUS=not started");
    let reported = process.log().text();
    assert_eq!(reported.matches("cannot serve metrics on").count(), 1, "{reported}");
    // Between two attempts `status` gives the reason too.
    eventually("status names the reason", EVENT_TIMEOUT, || {
        let status = Command::new(Gateway::program()).arg("status").arg(site.file()).output();
        let status = status.expect("the program starts");
        let text = String::from_utf8_lossy(&status.stderr);
        let is_named = text.contains("Its last start failed: cannot serve metrics on");
        (is_named && status.status.code() == Some(1)).then_some(())
    });
    drop(blocker);
    notified(&socket, "STATUS=running");
    let log = stop(process);
    assert!(!log.contains("a task ended"), "{}", log.text());
}

#[test]
fn sigterm_ends_a_gateway_that_waits_for_its_configuration() {
    let site = Site::new();
    fs::write(site.file(), "[gateway]\nidd = 1\n").expect("its own directory is writable");
    let (process, socket) = site.start_as_service();
    notified(&socket, "STATUS=not started");
    stop(process);
}

#[test]
fn stray_signals_stop_nothing_and_a_second_sigterm_is_no_alarm() {
    let site = Site::new();
    site.write(&site.config());
    let mut process = Process::start(&mut site.command());
    site.wait_until_it_runs();

    for name in ["HUP", "USR1", "USR2", "ALRM", "PIPE"] {
        process.signal(name);
    }
    site.wait_until_it_runs();
    assert!(process.is_running());

    process.terminate();
    process.terminate();
    assert!(process.wait(STOP_TIMEOUT).success(), "{}", process.log().text());
    assert!(!process.log().contains("a task ended"), "{}", process.log().text());
}

#[test]
fn what_a_gateway_writes_is_for_its_user_only_and_no_core_has_its_secrets() {
    let site = Site::new();
    site.write(&site.config());
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c unlimited && exec \"$0\" run \"$1\""]);
    command.arg(Gateway::program()).arg(site.file()).current_dir(site.dir.path());
    let mut process = Process::start(&mut command);
    site.wait_until_it_runs();
    for dir in ["state", "state/queue"] {
        let metadata = fs::metadata(site.dir.path().join(dir)).expect("the gateway has made it");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o700, "{dir}");
    }

    process.signal("ABRT");

    let status = process.wait(STOP_TIMEOUT);
    assert!(!status.core_dumped() && status.signal().is_some(), "{status}");
}

#[test]
fn special_files_do_not_hang_a_start() {
    let site = Site::new();
    site.write(&site.config());
    let state = site.dir.path().join("state");
    fs::create_dir_all(state.join("queue")).expect("its own directory is writable");
    for name in ["clock", "clock.new", "hubs", "status.sock", "queue/lock"] {
        let made = Command::new("mkfifo").arg(state.join(name)).status();
        assert!(made.expect("coreutils are installed").success());
    }
    let process = Process::start(&mut site.command());
    site.wait_until_it_runs();
    stop(process);

    for path in ["/dev/zero", "/dev/stdin", "/", "/dev/null"] {
        let mut process = Command::new(Gateway::program());
        let mut process = Process::start(process.arg("run").arg(path));
        assert_eq!(process.wait(EVENT_TIMEOUT).code(), Some(1), "{path}");
    }
}
