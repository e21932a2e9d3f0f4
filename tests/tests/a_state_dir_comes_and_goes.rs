//! An unusable `state_dir` costs no sample and no restart: the gateway publishes from memory,
//! reports the problem, and attaches the directory when it becomes usable.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::{
    Gateway, GatewayConfig, HttpResponse, Port, Process, RECOVERY_TIMEOUT, Simulator, TempDir,
    eventually, http_get, temp_dir,
};

/// Debian's user `nobody`: permissions do not apply to root.
const UNPRIVILEGED_UID: u32 = 65_534;

/// A gateway that does not run as root, with its own directory and without a broker.
struct World {
    dir: TempDir,
    gateway: Process,
    metrics: Port,
    /// Reserved; no broker listens.
    _broker: Port,
    _plc: Simulator,
}

impl World {
    /// `prepare` gets the parent directory of `state_dir`, which is called `state`.
    fn new(prepare: impl Fn(&Path)) -> Self {
        let (plc, metrics, broker, dir) =
            (Simulator::start(), Port::reserve(), Port::reserve(), temp_dir());
        let config = GatewayConfig::with_broker("g", format!("mqtt://{}", broker.address()))
            .set("gateway.state_dir", dir.path().join("state").display().to_string())
            .set("metrics.listen", vec![metrics.address().to_string()])
            .plcs(plc.plc_sections(1, Duration::from_millis(100)));
        dir.write("gateway.toml", &config.to_string());
        allow(dir.path(), 0o755);
        prepare(dir.path());
        let gateway = start(dir.path());
        Self { dir, gateway, metrics, _broker: broker, _plc: plc }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn ready(&self) -> Option<HttpResponse> {
        http_get(self.metrics.address(), "/readyz").ok()
    }

    /// Waits for this HTTP status of /readyz and returns the body.
    fn wait(&self, status: u16) -> String {
        let is_so = || self.ready().filter(|answer| answer.status == status);
        eventually(&format!("/readyz is {status}"), RECOVERY_TIMEOUT, is_so).body
    }

    fn metric(&self, series: &str) -> Option<u64> {
        let text = http_get(self.metrics.address(), "/metrics").ok()?.body;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        value.parse().ok()
    }

    fn wait_for_samples(&self, more_than: u64) -> u64 {
        let stored = || self.metric("edge_samples_stored").filter(|stored| *stored > more_than);
        eventually("samples wait", RECOVERY_TIMEOUT, stored)
    }

    /// Returns the output of `edge-gateway status`, as soon as it reaches the gateway.
    fn status(&self) -> String {
        eventually("the gateway is found", RECOVERY_TIMEOUT, || {
            let mut status = Command::new(Gateway::program());
            status.arg("status").arg(self.dir.path().join("gateway.toml"));
            let text = String::from_utf8(status.output().ok()?.stdout).ok()?;
            text.contains("p0").then_some(text)
        })
    }

    /// Kills the gateway and checks that every stored sample is recovered.
    fn survives_a_kill(mut self) {
        let stored = self.wait_for_samples(20);
        self.gateway.kill();
        self.gateway = start(self.dir.path());
        let recovered = || self.metric("edge_samples_recovered_total").filter(|found| *found > 0);
        let recovered = eventually("samples are recovered", RECOVERY_TIMEOUT, recovered);
        assert!(recovered >= stored, "{stored} were stored, {recovered} are there");
    }
}

fn start(dir: &Path) -> Process {
    let user = UNPRIVILEGED_UID.to_string();
    let mut gateway = Command::new("setpriv");
    gateway.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]);
    Process::start(gateway.arg(Gateway::program()).arg("run").arg(dir.join("gateway.toml")))
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("the test runs as root");
}

fn make(path: &Path, mode: u32) {
    fs::create_dir(path).expect("its own directory is writable");
    chown(path, Some(UNPRIVILEGED_UID), Some(UNPRIVILEGED_UID)).expect("the test runs as root");
    allow(path, mode);
}

#[test]
fn as_root_a_directory_that_cannot_be_created_is_attached_when_it_can() {
    let world = World::new(|_| {});
    let why = world.wait(503);
    assert!(why.contains("samples wait in memory only"), "{why}");
    world.gateway.wait_for_line("samples wait in memory only", RECOVERY_TIMEOUT);
    world.wait_for_samples(10);

    make(&world.state(), 0o755);

    world.wait(200);
    assert!(!world.status().contains("in memory only"));
    assert_eq!(world.metric("edge_queue_storage_failing"), Some(0));
    world.survives_a_kill();
}

#[test]
fn as_root_a_read_only_directory_is_attached_when_it_becomes_writable() {
    let world = World::new(|dir| {
        make(&dir.join("state"), 0o755);
        make(&dir.join("state/queue"), 0o555);
    });
    world.wait(503);
    world.wait_for_samples(10);
    assert!(world.status().contains("in memory only"));

    allow(&world.state().join("queue"), 0o755);

    world.wait(200);
    assert!(world.state().join("queue/lock").exists(), "there is no lock against a second gateway");
    world.survives_a_kill();
}

#[test]
fn as_root_a_directory_that_is_deleted_at_run_time_is_created_again() {
    let world = World::new(|dir| make(&dir.join("state"), 0o755));
    world.wait(200);
    let stored = world.wait_for_samples(10);

    for name in ["queue", "status.sock"] {
        let path = world.state().join(name);
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.expect("it exists");
    }

    eventually("a part of the queue is there", RECOVERY_TIMEOUT, || {
        let mut names = fs::read_dir(world.state().join("queue")).ok()?.filter_map(Result::ok);
        names.find(|name| name.file_name().to_string_lossy().starts_with("seg-"))
    });
    world.wait(200);
    assert!(world.status().contains("p0"));
    assert!(world.wait_for_samples(0) >= stored, "stored samples are lost");
    world.survives_a_kill();
}
