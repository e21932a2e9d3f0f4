//! A file system that is full, broken or read-only: the gateway reads and publishes, reports the
//! problem, and announces every loss.

use std::time::Duration;

use e2e::{
    Capture, Gateway, GatewayConfig, LoopDisk, Mosquitto, Simulator, Subscriber, eventually,
};

const SLOW_TIMEOUT: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

#[test]
fn as_root_other_programs_fill_the_disk_during_an_outage() {
    the_disk_is_filled_during_an_outage(LoopDisk::new(24 * MIB));
}

#[test]
fn as_root_other_programs_fill_a_tmpfs_during_an_outage() {
    the_disk_is_filled_during_an_outage(LoopDisk::tmpfs(24 * MIB));
}

fn the_disk_is_filled_during_an_outage(disk: LoopDisk) {
    let mut world = World::on(disk);
    world.gateway.wait_until_ready(SLOW_TIMEOUT);
    world.broker.stop();
    // Several segments, so that one can be evicted.
    world.wait_for("edge_queue_bytes", 128.0 * 1024.0);

    world.disk.fill();

    let status = || world.storage().filter(|told| told.contains("file system is full"));
    eventually("the status reports it", SLOW_TIMEOUT, status);
    world.wait_for_readyz(503);
    let stored = world.wait_for("edge_samples_stored", 0.0);
    world.wait_for("edge_samples_stored", stored + 2_000.0);
    assert!(world.dropped() < 1.0, "memory has room");
    assert!(world.gateway.metric("edge_plc_up{plc=\"p0\"}").is_some_and(|up| up > 0.0));
    world.broker.start_again();
    world.gateway.wait_for_metric("edge_samples_stored", SLOW_TIMEOUT, |stored| stored < 500.0);
    world.disk.free_filled();
    eventually("the storage is healthy again", SLOW_TIMEOUT, || {
        world.storage().is_none().then_some(())
    });
    world.ends_accounted_for();
}

/// With the default `min_free`, which this disk never has, and with none.
#[test]
fn as_root_a_restart_on_a_full_disk_costs_nothing_that_is_stored() {
    for min_free in ["64MiB", "0KiB"] {
        let mut world = World::with_min_free(LoopDisk::new(24 * MIB), min_free);
        world.gateway.wait_until_ready(SLOW_TIMEOUT);
        world.broker.stop();
        world.wait_for("edge_samples_stored", 300.0);
        world.disk.fill();
        let (status, log) = world.gateway.terminate(SLOW_TIMEOUT);
        assert!(status.success(), "{}", log.text());
        world.gateway.start_again();

        world.wait_for_readyz(503);
        let recovered = world.wait_for("edge_samples_recovered_total", 299.0);
        world.wait_for("edge_samples_stored", recovered + 2_000.0);

        assert!(world.dropped() < 1.0, "min_free {min_free}");
        world.broker.start_again();
        world.gateway.wait_for_metric("edge_samples_stored", SLOW_TIMEOUT, |left| left < 500.0);
        world.disk.free_filled();
        eventually("the storage is healthy again", SLOW_TIMEOUT, || {
            (world.storage().is_none() || min_free == "64MiB").then_some(())
        });
        world.ends_accounted_for();
    }
}

#[test]
fn as_root_the_disk_is_full_at_the_start() {
    let disk = LoopDisk::new(24 * MIB);
    disk.fill();
    let mut world = World::on(disk);

    world.wait_for_readyz(503);
    world.wait_for("edge_samples_delivered_total", 500.0);
    world.disk.free_filled();

    world.wait_for_readyz(200);
    assert_eq!(world.storage(), None);
    world.broker.stop();
    world.wait_for("edge_samples_stored", 500.0);
    world.gateway.kill();
    world.broker.start_again();
    world.gateway.start_again();
    world.gateway.wait_until_ready(SLOW_TIMEOUT);
    world.wait_for("edge_samples_recovered_total", 499.0);
    world.ends_accounted_for();
}

/// As a failing SD card does it: ext4 becomes read-only, with `errors=remount-ro` as Debian mounts
/// it.
#[test]
fn as_root_the_file_system_breaks_while_it_runs() {
    let mut world = World::new();
    world.gateway.wait_until_ready(SLOW_TIMEOUT);
    world.wait_for("edge_queue_sync_seconds_count", 2.0);

    world.disk.inject_error();

    world.wait_for_readyz(503);
    let told = world.storage();
    assert!(told.is_some_and(|told| told.contains("samples wait in memory only")));
    let delivered = world.wait_for("edge_samples_delivered_total", 0.0);
    world.wait_for("edge_samples_delivered_total", delivered + 500.0);
    let (status, log) = world.gateway.terminate(SLOW_TIMEOUT);
    assert!(status.success(), "{}", log.text());
    world.disk.repair();
    world.gateway.start_again();
    world.wait_for_readyz(200);
    assert_eq!(world.storage(), None);
    world.ends_accounted_for();
}

#[test]
fn as_root_the_disk_is_read_only_at_the_start() {
    let disk = LoopDisk::new(24 * MIB);
    disk.remount("ro");
    let world = World::on(disk);

    world.wait_for_readyz(503);
    world.wait_for("edge_samples_delivered_total", 500.0);
    world.disk.remount("rw");

    world.wait_for_readyz(200);
    assert_eq!(world.storage(), None);
    world.ends_accounted_for();
}

/// `LimitFSIZE` of a unit: the kernel sends SIGXFSZ at the limit, which ends a process by default.
#[test]
fn a_limit_on_the_size_of_files_is_reported_like_a_full_disk() {
    let plc = Simulator::start();
    let config = GatewayConfig::with_broker("g", "mqtt://127.0.0.1:9")
        .plcs(plc.plc_sections(10, Duration::from_millis(20)));
    let mut gateway = Gateway::start_with_limit("--fsize=65536:65536", config);
    gateway.wait_until_ready(SLOW_TIMEOUT);

    let failing = "edge_queue_storage_failing";
    gateway.wait_for_metric(failing, SLOW_TIMEOUT, |failing| failing > 0.5);
    let stored = gateway.metric("edge_samples_stored").expect("is there");

    gateway.wait_for_metric("edge_samples_stored", SLOW_TIMEOUT, |now| now > stored + 1_000.0);
    assert!(gateway.metric("edge_plc_up{plc=\"p0\"}") > Some(0.5));
}

/// A gateway on its own disk, whose queue begins a new segment every two seconds.
struct World {
    gateway: Gateway,
    broker: Mosquitto,
    consumer: Subscriber,
    plc: Simulator,
    disk: LoopDisk,
}

impl World {
    fn new() -> Self {
        Self::on(LoopDisk::new(24 * MIB))
    }

    fn on(disk: LoopDisk) -> Self {
        Self::with_min_free(disk, "1MiB")
    }

    fn with_min_free(disk: LoopDisk, min_free: &str) -> Self {
        let plc = Simulator::start();
        // It saves once a second and when it is stopped, not at every message: it is not killed
        // here, and it shares a busy disk.
        let broker = Mosquitto::builder().persistent().line("autosave_on_changes false").start();
        let consumer = broker.subscribe_persistent("consumer", "edge/g/#");
        let config = GatewayConfig::with_broker("g", broker.url())
            .set("queue.max_size", "256KiB")
            .set("queue.min_free", min_free)
            .plcs(plc.plc_sections(10, Duration::from_millis(20)));
        let gateway = Gateway::start_on(disk.path(), config);
        Self { gateway, broker, consumer, plc, disk }
    }

    fn wait_for(&self, series: &str, more_than: f64) -> f64 {
        self.gateway.wait_for_metric(series, SLOW_TIMEOUT, |value| value > more_than)
    }

    /// Returns how many samples were dropped because something is full.
    fn dropped(&self) -> f64 {
        self.gateway.metric("edge_samples_dropped_total{reason=\"full\"}").unwrap_or_default()
    }

    fn wait_for_readyz(&self, status: u16) {
        let is_so = || {
            let answer = e2e::http_get(self.gateway.metrics_address(), "/readyz").ok()?;
            (answer.status == status).then_some(())
        };
        eventually(&format!("/readyz is {status}"), SLOW_TIMEOUT, is_so);
    }

    /// Returns the storage problem of the status, if any.
    fn storage(&self) -> Option<String> {
        let status: serde_json::Value =
            serde_json::from_str(&self.gateway.get("/status").body).ok()?;
        status.pointer("/queue/storage")?.as_str().map(str::to_owned)
    }

    /// Stops the PLCs; every sample arrives or is announced as lost.
    fn ends_accounted_for(mut self) {
        drop(self.plc);
        self.gateway.wait_for_metric("edge_samples_stored", SLOW_TIMEOUT, |stored| stored == 0.0);
        let (status, log) = self.gateway.terminate(SLOW_TIMEOUT);
        assert!(status.success(), "{}", log.text());
        let messages = self.consumer.drain(Duration::from_secs(3));
        let capture = Capture::of(&messages);
        assert!(capture.distinct() > 500, "{}", capture.distinct());
        let (is_clean, report) = capture.audit();
        assert!(is_clean, "{report}\n{}", log.text());
    }
}
