//! The dashboards of Grafana: each of their queries has an answer. Grafana itself is not a package
//! of Debian.

use std::fs;
use std::path::Path;

use e2e::{EVENT_TIMEOUT, eventually};
use serde_json::Value;

use crate::SITE;
use crate::hub_server::HubServer;

const GRAFANA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/grafana");

/// Returns both dashboards with their names.
pub(crate) fn dashboards() -> [(&'static str, Value); 2] {
    ["fleet", "site"].map(|name| {
        let path = Path::new(GRAFANA).join(format!("dashboards/{name}.json"));
        let text = fs::read_to_string(path).expect("it is there");
        (name, serde_json::from_str(&text).expect("JSON"))
    })
}

/// Runs the queries of both dashboards at a Prometheus that reads the gateway of [`SITE`].
pub(crate) fn every_query_has_an_answer(hub: &HubServer<'_>) {
    assert!(hub.query("edge_no_such_metric").is_empty(), "a wrong name would be found");
    let provisioned = Path::new(GRAFANA).join("provisioning/datasources/edge.yaml");
    let provisioned = fs::read_to_string(provisioned).expect("the file is there");
    for (name, dashboard) in dashboards() {
        let mut queries = 0;
        for panel in dashboard["panels"].as_array().expect("a list") {
            for target in panel["targets"].as_array().expect("a list") {
                let expression = target["expr"].as_str().expect("a query");
                let source = target["datasource"]["uid"].as_str().expect("a data source");
                assert!(provisioned.contains(&format!("uid: {source}\n")), "{source}");
                has_answer(hub, &expression.replace("$gateway", SITE));
                queries += 1;
            }
        }
        assert!(queries >= 16, "{name}: {queries}");
    }
}

/// A rate needs two scrapes, and an alert an evaluation.
fn has_answer(hub: &HubServer<'_>, expression: &str) {
    eventually(expression, EVENT_TIMEOUT, || (!hub.query(expression).is_empty()).then_some(()));
}
