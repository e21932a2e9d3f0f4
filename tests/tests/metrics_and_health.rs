//! The metrics pass promtool, and the health pages return what is documented.

use std::io::Write;
use std::net::SocketAddr;

use std::process::{Command, Stdio};

use e2e::{EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, PlcConfig, Port, Pymodbus, Simulator};

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
    assert_good_exposition(&answer.body);
    let none = gateway.get("/metrics/tags");
    assert!(none.status == 404 && none.body.contains("tags = true"), "{none:?}");
}

#[test]
fn the_values_of_tags_are_served_apart_and_pass_promtool() {
    let (plc, broker) = (Simulator::start(), Mosquitto::start());
    let tags = PlcConfig::new("p", "M241", plc.address())
        .tag("word", "%MW10", "INT")
        .tag("flag", "%MX20.1", "BOOL")
        .tag("list", "%MW30", "ARRAY[3..5] OF UINT")
        .tag("text", "%MW40", "STRING(4)");
    let config = GatewayConfig::with_broker("g", broker.url()).plc(tags);
    let mut gateway = Gateway::start_with(&config, &[("EDGE_METRICS__TAGS", "true")]);
    gateway.wait_until_ready(EVENT_TIMEOUT);
    gateway.wait_for_metric("edge_samples_delivered_total", EVENT_TIMEOUT, |samples| samples > 0.0);

    let page = gateway.get("/metrics/tags").body;

    let labels = |tag: &str| format!("{{plc=\"p\",tag=\"{tag}\"");
    for (tag, values) in [("word", 1), ("flag", 1), ("list", 3), ("text", 0)] {
        let lines = |family: &str| {
            let start = format!("{family}{}", labels(tag));
            page.lines().filter(|line| line.starts_with(&start)).count()
        };
        assert_eq!(lines("edge_tag_value"), values, "{page}");
        assert_eq!(lines("edge_tag_good"), usize::from(values > 0), "{page}");
        assert_eq!(lines("edge_tag_timestamp_seconds"), usize::from(values > 0), "{page}");
    }
    assert!(page.contains("tag=\"list\",index=\"3\"} "), "{page}");
    assert!(page.contains("edge_tag_good{plc=\"p\",tag=\"word\"} 1"), "{page}");
    assert_good_exposition(&page);
    assert!(!gateway.get("/metrics").body.contains("edge_tag"), "the fleet's page stays small");
}

/// Panics unless promtool has nothing to say about the text.
#[expect(clippy::expect_used, reason = "test code may stop on the spot")]
fn assert_good_exposition(text: &str) {
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
        .write_all(text.as_bytes())
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
