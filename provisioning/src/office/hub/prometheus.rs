//! Prometheus at a hub: its sites as targets, and alerts. Like Alertmanager, it has no passwords, so
//! both listen on the loopback only.

use serde_json::json;

use super::{HubFile, HubView, METRICS_PORT, public};

/// Alerts, `/etc/prometheus/edge-rules.yml`.
const RULES: &str = include_str!("prometheus/edge-rules.yml");

/// What the administrator has in `/etc/default` stays in use.
const PROMETHEUS_UNIT: &str = "\
# Made by edge-provision; changes here are lost.
[Service]
ExecStart=
ExecStart=/usr/bin/prometheus --web.listen-address=127.0.0.1:9090 $ARGS
";

/// A single Alertmanager needs no port for others.
const ALERTMANAGER_UNIT: &str = "\
# Made by edge-provision; changes here are lost.
[Service]
ExecStart=
ExecStart=/usr/bin/prometheus-alertmanager --web.listen-address=127.0.0.1:9093 --cluster.listen-address= $ARGS
";

/// Returns their files. The receivers of alerts, in `alertmanager.yml`, are the administrator's.
pub(super) fn render(view: &HubView<'_>) -> Vec<HubFile> {
    let unit = |path, text: &str| public(path, text.to_owned());
    vec![
        public("etc/prometheus/prometheus.yml", settings()),
        public("etc/prometheus/edge-targets.json", targets(view)),
        public("etc/prometheus/edge-rules.yml", RULES.to_owned()),
        unit("etc/systemd/system/prometheus.service.d/edge.conf", PROMETHEUS_UNIT),
        unit("etc/systemd/system/prometheus-alertmanager.service.d/edge.conf", ALERTMANAGER_UNIT),
    ]
}

fn settings() -> String {
    "# Made by edge-provision; changes here are lost.\n\
     global:\n\
     \x20 scrape_interval: 30s\n\
     \x20 evaluation_interval: 30s\n\
     rule_files: [\"edge-rules.yml\"]\n\
     alerting:\n\
     \x20 alertmanagers:\n\
     \x20   - static_configs: [{ targets: [\"127.0.0.1:9093\"] }]\n\
     scrape_configs:\n\
     \x20 - job_name: edge-gateway\n\
     \x20   file_sd_configs:\n\
     \x20     - files: [\"edge-targets.json\"]\n"
        .to_owned()
}

/// Returns the sites whose primary hub this is. A site that
/// uses its spare is missed here, which the alert says.
fn targets(view: &HubView<'_>) -> String {
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
