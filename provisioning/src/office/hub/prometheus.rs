//! Prometheus at a hub: its sites as targets, and alerts.

use serde_json::json;

use super::{HubView, METRICS_PORT};

/// Alerts, `/etc/prometheus/edge-rules.yml`.
pub(super) const RULES: &str = include_str!("prometheus/edge-rules.yml");

/// Returns `/etc/prometheus/prometheus.yml`.
pub(super) fn settings() -> String {
    "# Made by edge-provision; changes here are lost.\n\
     global:\n\
     \x20 scrape_interval: 30s\n\
     \x20 evaluation_interval: 30s\n\
     rule_files: [\"edge-rules.yml\"]\n\
     scrape_configs:\n\
     \x20 - job_name: edge-gateway\n\
     \x20   file_sd_configs:\n\
     \x20     - files: [\"edge-targets.json\"]\n"
        .to_owned()
}

/// Returns `/etc/prometheus/edge-targets.json`: the sites whose primary hub this is. A site that
/// uses its spare is missed here, which the alert says.
pub(super) fn targets(view: &HubView<'_>) -> String {
    let mut text = String::from("[");
    let primary = view.sites.iter().filter(|entry| entry.is_primary);
    for (position, entry) in primary.filter(|entry| entry.site.public_key.is_some()).enumerate() {
        let separator = if position == 0 { "\n" } else { ",\n" };
        let target = format!("{}:{METRICS_PORT}", entry.site.address);
        let line = json!({
            "targets": [target],
            "labels": { "gateway": entry.site.id, "hub": view.hub.name },
        });
        text.push_str(separator);
        text.push_str(&line.to_string());
    }
    text.push_str("\n]\n");
    text
}
