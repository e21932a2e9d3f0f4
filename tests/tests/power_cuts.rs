//! What was acknowledged survives a power cut at any moment, and the test would notice if not.

use std::fs;
use std::time::Duration;

use e2e::{Barriers, Filesystem, Found, Gateway, Guest, GuestBuilder, Log, Mosquitto, PowerCut};

const SOON: Duration = Duration::from_secs(30);
const WRITER: &str = env!("CARGO_BIN_EXE_append_records");

#[test]
fn in_a_guest_what_was_acknowledged_survives_power_cuts() {
    let mut power = PowerCut::new(writer(), Barriers::Kept);
    let mut acknowledged = 0;
    // Odd numbers, so that the cuts fall at other places of a block and of the journal.
    for more in [1, 7, 61, 149, 333] {
        let guest = power.power_on();
        guest.send("append_records /data/log");
        guest.wait_for_line(&format!("acknowledged {}", acknowledged + more), SOON);

        let console = power.cut();

        let found = power.find("/");
        assert_eq!(found.filesystem, Filesystem::Sound);
        acknowledged = last_acknowledged(&console).expect("it has acknowledged something");
        let kept = records(&found);
        assert!(kept > acknowledged, "{acknowledged} was acknowledged, {kept} records were kept");
        acknowledged = kept;
    }
}

/// The negative control.
#[test]
fn in_a_guest_a_disk_that_is_never_flushed_loses_what_was_acknowledged() {
    let mut power = PowerCut::new(writer(), Barriers::Ignored);
    let guest = power.power_on();
    guest.send("append_records /data/log");
    guest.wait_for_line("acknowledged 100", SOON);

    let console = power.cut();

    let acknowledged = last_acknowledged(&console).expect("it has acknowledged something");
    let kept = records(&power.find("/"));
    assert!(kept < acknowledged, "all of {acknowledged} survived a disk without flushes: {kept}");
}

/// A gateway and its PLC in the guest, its broker outside.
#[test]
fn in_a_guest_a_gateway_publishes_again_after_its_power_was_cut() {
    let broker = Mosquitto::start();
    let subscriber = broker.subscribe("edge/boxed/data/pump6");
    let machine = Guest::builder()
        .program(Gateway::program())
        .network()
        .file("/gateway.toml", configuration(&broker));
    let mut power = PowerCut::new(machine, Barriers::Kept);
    for _life in 0..2 {
        let guest = power.power_on();
        guest.send("edge-gateway simulate --model M241 --listen 127.0.0.1:502 &");
        guest.send("edge-gateway run /gateway.toml");
        assert_eq!(subscriber.next(SOON).json()["device"], "M241");

        power.cut();

        assert_eq!(power.find("/").filesystem, Filesystem::Sound);
        while subscriber.try_next(Duration::ZERO).is_some() {}
    }
}

fn writer() -> GuestBuilder {
    Guest::builder().program(WRITER)
}

fn configuration(broker: &Mosquitto) -> String {
    format!(
        r#"
        [gateway]
        id = "boxed"
        state_dir = "/data"

        [mqtt]
        brokers = ["mqtt://10.0.2.2:{}"]

        [[plc]]
        name = "pump6"
        model = "M241"
        address = "127.0.0.1:502"

        [[plc.tag]]
        name = "temperature"
        at = "%MW10"
        type = "INT"
        "#,
        broker.port()
    )
}

/// The number of the last record that the console saw acknowledged. Its last line may be cut.
fn last_acknowledged(console: &Log) -> Option<usize> {
    let text = console.text();
    let whole = text.rsplit_once('\n')?.0;
    whole.lines().rev().find_map(|line| line.strip_prefix("acknowledged ")?.trim().parse().ok())
}

/// How many records lie in the log without a gap.
fn records(found: &Found) -> usize {
    let log = fs::read(found.path("log")).unwrap_or_default();
    let is_whole = |(number, record): &(usize, &[u8])| {
        *record == format!("record {number:056}\n").into_bytes().as_slice()
    };
    log.chunks(64).enumerate().take_while(is_whole).count()
}
