//! The metrics pass promtool, and the health pages return what is documented.

use std::io::Write;
use std::net::SocketAddr;

use std::process::{Command, Stdio};

use e2e::{EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, PlcConfig, Port, Pymodbus};

/// Series that alerts and dashboards use.
const SERIES: [&str; 20] = [
    "edge_build_info{",
    "edge_config_info{",
    "edge_plc_up{plc=\"p\"}",
    "edge_plc_requests_total{outcome=\"ok\",plc=\"p\"}",
    "edge_plc_requests_total{outcome=\"timed_out\",plc=\"p\"}",
    "edge_plc_request_seconds_count{plc=\"p\"}",
    "edge_plc_connects_total{plc=\"p\"}",
    "edge_plc_cycles_missed_total{plc=\"p\"}",
    "edge_plc_last_answer_timestamp_seconds{plc=\"p\"}",
    "edge_samples_produced_total",
    "edge_samples_delivered_total",
    "edge_samples_dropped_total{reason=\"full\"}",
    "edge_samples_dropped_total{reason=\"refused\"}",
    "edge_samples_stored",
    "edge_mqtt_connected",
    "edge_mqtt_messages_total{outcome=\"delivered\"}",
    "edge_mqtt_ack_seconds_count",
    "edge_queue_bytes",
    "edge_queue_fits_seconds",
    "edge_queue_oldest_timestamp_seconds",
];

fn configuration(broker: &str, plc: SocketAddr) -> GatewayConfig {
    let plc = PlcConfig::new("p", "M241", plc).tag("t", "%MW10", "INT");
    GatewayConfig::with_broker("g", broker).plc(plc)
}

#[test]
fn the_live_endpoint_passes_promtool_and_has_every_series() {
    let (plc, broker) = (Pymodbus::start(), Mosquitto::start());
    let gateway = Gateway::start_ready(configuration(&broker.url(), plc.address()));
    gateway.wait_for_metric("edge_samples_delivered_total", EVENT_TIMEOUT, |samples| samples > 0.0);

    let answer = gateway.get("/metrics");

    for series in SERIES {
        let found = answer.body.lines().any(|line| line.starts_with(series));
        assert!(found, "{series} is missing in\n{}", answer.body);
    }
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed");
    promtool
        .stdin
        .take()
        .expect("piped")
        .write_all(answer.body.as_bytes())
        .expect("the process reads its input");
    let verdict = promtool.wait_with_output().expect("the process ends");
    assert!(verdict.status.success(), "{verdict:?}");
    assert!(verdict.stdout.is_empty() && verdict.stderr.is_empty(), "{verdict:?}");
}

#[test]
fn without_broker_and_plc_it_is_healthy_and_ready_and_reports_what_is_missing() {
    let (nobody, no_plc) = (Port::reserve(), Port::reserve());
    let broker = format!("mqtt://{}", nobody.address());
    let gateway = Gateway::start_ready(configuration(&broker, no_plc.address()));
    gateway
        .log()
        .wait_for_line("Modbus server", EVENT_TIMEOUT)
        .expect("the log reports the missing PLC");

    assert_eq!(gateway.get("/healthz").status, 200);
    assert_eq!(gateway.get("/readyz").status, 200, "a missing broker is no failure");
    let status = gateway.get("/status").body;
    assert!(status.contains(&nobody.address().to_string()), "{status}");
    assert_eq!(gateway.metric("edge_mqtt_connected"), Some(0.0));
}
