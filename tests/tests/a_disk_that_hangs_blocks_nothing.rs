//! A disk that does not answer for a while, as cheap SD cards do during garbage collection, costs
//! no cycle and no sample: the gateway reads and delivers meanwhile, reports the hang, and writes
//! again as soon as the disk answers.

use std::time::Duration;

use e2e::{
    Barriers, Capture, Gateway, GatewayConfig, Guest, HttpResponse, Mosquitto, Port, PowerCut,
    Simulator, eventually, http_get,
};

const SLOW_TIMEOUT: Duration = Duration::from_secs(100);
const TOPIC: &str = "edge/boxed/data/p0";
const SCAN: Duration = Duration::from_millis(20);

#[test]
fn in_a_guest_values_read_while_the_disk_hangs_are_delivered_and_the_hang_is_reported() {
    let (plc, metrics, broker) = (Simulator::start(), Port::reserve(), Mosquitto::start());
    let consumer = broker.subscribe("edge/boxed/#");
    let status = broker.subscribe("edge/boxed/status");
    let config = GatewayConfig::with_broker("boxed", broker.url())
        .set("gateway.state_dir", "/data")
        .set("metrics.listen", vec!["0.0.0.0:9464"])
        .set("queue.max_size", "16MiB")
        .set("queue.min_free", "1MiB")
        .plcs(plc.plc_sections(1, SCAN));
    let machine = Guest::builder()
        .program(Gateway::program())
        .forward_tcp(metrics.number(), 9464)
        .file("/gateway.toml", config.for_guest());
    let mut power = PowerCut::new(machine, Barriers::Kept, 1);
    power.power_on().send("edge-gateway run /gateway.toml &");
    let gateway = Metrics(metrics);
    let before = gateway.wait_for("edge_queue_sync_seconds_count", 2);

    let hanging = power.block_disk();
    let told = gateway.wait_for_readyz(503);
    let delivered = gateway.wait_for("edge_samples_delivered_total", 0);
    // While it still hangs, 100 cycles of the PLC are read and delivered.
    gateway.wait_for("edge_samples_delivered_total", delivered + 100);
    drop(hanging);

    assert!(told.body.contains("does not answer"), "{}", told.body);
    gateway.wait_for_readyz(200);
    gateway.wait_for("edge_queue_sync_seconds_count", before + 2);
    // A stop while it hangs again: what is in memory is delivered, and the status says offline. The
    // kernel ends a process only when its writes have ended.
    let hanging = power.block_disk();
    power.guest().run("kill -TERM $!");
    status.wait_for("offline", SLOW_TIMEOUT, |message| message.payload.contains("offline"));
    drop(hanging);
    power.guest().run("wait $!");
    let mut capture = Capture::default();
    let messages = consumer.drain(Duration::from_secs(2));
    let data = || messages.iter().filter(|message| message.topic == TOPIC);
    data().for_each(|message| capture.add(message));
    let first = data().next().expect("something was delivered").json();
    let epoch = first["gateway"]["epoch"].as_str().expect("it is in every message");
    let numbers = capture.numbers(TOPIC, epoch);
    assert!(
        numbers.len() > 200 && numbers.iter().copied().eq(0..numbers.len() as u64),
        "{numbers:?}"
    );
}

struct Metrics(Port);

impl Metrics {
    fn wait_for(&self, series: &str, more_than: u64) -> u64 {
        eventually(series, SLOW_TIMEOUT, || {
            let text = http_get(self.0.address(), "/metrics").ok()?.body;
            let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            value?.parse().ok().filter(|value| *value > more_than)
        })
    }

    fn wait_for_readyz(&self, status: u16) -> HttpResponse {
        eventually(&format!("/readyz is {status}"), SLOW_TIMEOUT, || {
            http_get(self.0.address(), "/readyz").ok().filter(|answer| answer.status == status)
        })
    }
}
