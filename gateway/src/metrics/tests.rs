use std::fmt::Write;

use super::*;
use crate::testing;

#[test]
fn the_names_and_labels_of_the_series_are_a_contract() {
    let metrics = Metrics::new(&testing::config(1), "hash").unwrap();

    let text = metrics.render().unwrap();

    let mut series = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket")) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        writeln!(series, "{} {value}", name.replace(env!("CARGO_PKG_VERSION"), "VERSION")).unwrap();
    }
    assert_eq!(series, SERIES);
}

/// Every series at the start of a gateway with one PLC, without the buckets of the histograms.
const SERIES: &str = r#"edge_build_info{version="VERSION"} 1
edge_bundle_number 0
edge_bundle_offers_total{outcome="failed"} 0
edge_bundle_offers_total{outcome="followed"} 0
edge_bundle_offers_total{outcome="malformed"} 0
edge_bundle_offers_total{outcome="old"} 0
edge_bundle_offers_total{outcome="taken"} 0
edge_bundle_offers_total{outcome="withdrawn"} 0
edge_bundle_on_trial 0
edge_clock_synchronized 0
edge_config_info{hash="hash"} 1
edge_mqtt_ack_seconds_sum 0
edge_mqtt_ack_seconds_count 0
edge_mqtt_connected 0
edge_mqtt_messages_total{outcome="deferred"} 0
edge_mqtt_messages_total{outcome="delivered"} 0
edge_mqtt_messages_total{outcome="interrupted"} 0
edge_mqtt_messages_total{outcome="refused"} 0
edge_mqtt_replies_total{outcome="delivered"} 0
edge_mqtt_replies_total{outcome="dropped"} 0
edge_mqtt_replies_total{outcome="refused"} 0
edge_mqtt_version 0
edge_plc_connects_total{plc="plc0"} 0
edge_plc_cycles_missed_total{plc="plc0"} 0
edge_plc_last_answer_timestamp_seconds{plc="plc0"} 0
edge_plc_request_seconds_sum{plc="plc0"} 0
edge_plc_request_seconds_count{plc="plc0"} 0
edge_plc_requests_total{outcome="busy",plc="plc0"} 0
edge_plc_requests_total{outcome="disconnected",plc="plc0"} 0
edge_plc_requests_total{outcome="garbled",plc="plc0"} 0
edge_plc_requests_total{outcome="ok",plc="plc0"} 0
edge_plc_requests_total{outcome="refused",plc="plc0"} 0
edge_plc_requests_total{outcome="timed_out",plc="plc0"} 0
edge_plc_tags_quarantined{plc="plc0"} 0
edge_plc_up{plc="plc0"} 0
edge_queue_bytes 0
edge_queue_fits_seconds inf
edge_queue_max_bytes 1048576
edge_queue_oldest_timestamp_seconds 0
edge_queue_storage_failing 0
edge_queue_sync_seconds_sum 0
edge_queue_sync_seconds_count 0
edge_queue_unclean_start 0
edge_queue_written_bytes_total 0
edge_samples_delivered_total 0
edge_samples_dropped_total{reason="corrupt"} 0
edge_samples_dropped_total{reason="full"} 0
edge_samples_dropped_total{reason="refused"} 0
edge_samples_dropped_total{reason="shutdown"} 0
edge_samples_dropped_total{reason="storage"} 0
edge_samples_dropped_total{reason="too_large"} 0
edge_samples_dropped_total{reason="unconfigured"} 0
edge_samples_produced_total 0
edge_samples_recovered_total 0
edge_samples_stored 0
edge_tunnel_bytes_total{direction="received"} 0
edge_tunnel_bytes_total{direction="sent"} 0
edge_tunnel_dropped_packets_total{reason="looped"} 0
edge_tunnel_dropped_packets_total{reason="malformed"} 0
edge_tunnel_dropped_packets_total{reason="no_room"} 0
edge_tunnel_dropped_packets_total{reason="not_allowed_in"} 0
edge_tunnel_dropped_packets_total{reason="not_allowed_out"} 0
edge_tunnel_dropped_packets_total{reason="queue_full"} 0
edge_tunnel_dropped_packets_total{reason="replayed"} 0
edge_tunnel_dropped_packets_total{reason="stranger"} 0
edge_tunnel_dropped_packets_total{reason="too_long"} 0
edge_tunnel_dropped_packets_total{reason="undecryptable"} 0
edge_tunnel_dropped_packets_total{reason="unsent"} 0
edge_tunnel_dropped_packets_total{reason="waited"} 0
edge_tunnel_handshakes_total{outcome="established"} 0
edge_tunnel_handshakes_total{outcome="unanswered"} 0
edge_tunnel_last_handshake_timestamp_seconds 0
edge_tunnel_up 0
edge_writes_total{outcome="done",plc="plc0"} 0
edge_writes_total{outcome="duplicate",plc="plc0"} 0
edge_writes_total{outcome="expired",plc="plc0"} 0
edge_writes_total{outcome="failed",plc="plc0"} 0
edge_writes_total{outcome="rejected",plc="plc0"} 0
edge_writes_total{outcome="unknown",plc="plc0"} 0
"#;
