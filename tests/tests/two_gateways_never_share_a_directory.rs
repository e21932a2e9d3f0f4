//! A second gateway on the same `state_dir` is refused in words and disturbs nothing; after the death
//! of the first, however sudden, the next one starts at once.

use std::fs;
use std::process::Command;
use std::time::Duration;

use e2e::{Gateway, Mosquitto, Process, Simulator};

const SOON: Duration = Duration::from_secs(20);

/// Starts a second gateway on the first one's directory, waits for its end, and gives its log.
fn refused(first: &Gateway) -> String {
    let mut second = Command::new(Gateway::program());
    second.arg("run").arg(first.config_path());
    second.env("EDGE_GATEWAY__STATE_DIR", first.state_dir());
    second.env("EDGE_METRICS__LISTEN", "127.0.0.1:0");
    let mut second = Process::start(&mut second);
    let status = second.wait(SOON);
    assert_eq!(status.code(), Some(1), "{}", second.log().text());
    second.log().text()
}

#[test]
fn the_second_is_refused_and_the_first_goes_on() {
    let (plc, broker) = (Simulator::start(), Mosquitto::start());
    let mut first = Gateway::start_ready(&format!(
        "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"{}\"]\n{}",
        broker.url(),
        plc.plc_sections(1, Duration::from_millis(20))
    ));
    first.wait_for_metric("edge_samples_delivered_total", SOON, |count| count > 0.0);

    let log = refused(&first);
    assert!(log.contains("another gateway is running with state_dir"), "{log}");
    // Where the socket is gone the lock of the queue still tells.
    fs::remove_file(first.state_dir().join("status.sock")).expect("it is there");
    let log = refused(&first);
    assert!(log.contains("another gateway is using the queue in"), "{log}");

    let before = first.metric("edge_samples_delivered_total").expect("the series is there");
    first.wait_for_metric("edge_samples_delivered_total", SOON, |count| count > before + 10.0);
    assert_eq!(first.metric("edge_queue_storage_failing"), Some(0.0));
    first.kill();
    first.start_again();
    first.wait_until_ready(SOON);
    assert_eq!(first.metric("edge_queue_storage_failing"), Some(0.0));
}
