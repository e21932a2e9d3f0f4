//! A second gateway with the same `state_dir` ends with a message and disturbs nothing. After the
//! first one ends, even by SIGKILL, the next one starts at once.

use std::fs;
use std::process::Command;
use std::time::Duration;

use e2e::{EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, Process, Simulator};

/// Starts a second gateway with the directory of the first, waits for its end and returns its log.
fn refused(first: &Gateway) -> String {
    let mut second = Command::new(Gateway::program());
    second.arg("run").arg(first.config_path());
    second.env("EDGE_GATEWAY__STATE_DIR", first.state_dir());
    second.env("EDGE_METRICS__LISTEN", "127.0.0.1:0");
    let mut second = Process::start(&mut second);
    let status = second.wait(EVENT_TIMEOUT);
    assert_eq!(status.code(), Some(1), "{}", second.log().text());
    assert!(!second.log().contains("a task ended"), "{}", second.log().text());
    second.log().text()
}

#[test]
fn the_second_is_refused_and_the_first_goes_on() {
    let (plc, broker) = (Simulator::start(), Mosquitto::start());
    let plcs = plc.plc_sections(1, Duration::from_millis(20));
    let config = GatewayConfig::with_broker("g", broker.url()).plcs(plcs);
    let mut first = Gateway::start_ready(config);
    first.wait_for_metric("edge_samples_delivered_total", EVENT_TIMEOUT, |count| count > 0.0);

    let log = refused(&first);
    assert!(log.contains("another gateway is running with state_dir"), "{log}");
    // Without the socket, the lock of the queue still detects it.
    fs::remove_file(first.state_dir().join("status.sock")).expect("it exists");
    let log = refused(&first);
    assert!(log.contains("another gateway is using the queue in"), "{log}");

    let before = first.metric("edge_samples_delivered_total").expect("the series is there");
    first.wait_for_metric("edge_samples_delivered_total", EVENT_TIMEOUT, |count| {
        count > before + 10.0
    });
    assert_eq!(first.metric("edge_queue_storage_failing"), Some(0.0));
    first.kill();
    first.start_again();
    first.wait_until_ready(EVENT_TIMEOUT);
    assert_eq!(first.metric("edge_queue_storage_failing"), Some(0.0));
}
