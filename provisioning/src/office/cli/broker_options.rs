//! `--broker`: where the statuses of the sites come from, and where offers go.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use jiff::Timestamp;

use crate::office::broker::{BrokerEvent, Brokers, LinkError, MQTT_PORT, parse_address};
use crate::office::fleet::{BrokerSoftware, Fleet};
use crate::office::secrets::Secrets;
use crate::office::site_report::SiteReports;

/// Time in which a broker has to send what it keeps.
const LIST_LIMIT: Duration = Duration::from_secs(30);

/// The brokers.
#[derive(Args, Debug)]
pub(super) struct BrokerOptions {
    /// Broker on this machine or inside the tunnel; may be repeated. By default port 1883 of every
    /// hub, or of the first one if the brokers are a cluster. The user is `office`, with the
    /// password in secrets/office/mqtt.password.
    #[arg(long = "broker", value_name = "HOST:PORT")]
    brokers: Vec<String>,
}

/// What a message about a broker is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum MissingBroker {
    /// The answer is incomplete without it.
    Warned,
    /// Nothing is done without it.
    Refused,
}

impl BrokerOptions {
    /// Connects to the brokers, and returns the statuses that they keep.
    pub(super) fn connect(
        &self,
        fleet: &Fleet,
        dir: &Path,
        missing: MissingBroker,
    ) -> anyhow::Result<(Brokers, SiteReports)> {
        let addresses = self.addresses(fleet)?;
        let password = Secrets::of_fleet(dir).office_password()?;
        let mut brokers = Brokers::connect(&addresses, password);
        let mut reports = SiteReports::default();
        let failures = brokers.list(LIST_LIMIT, |event| record(&mut reports, event));
        let is_all = failures.len() == addresses.len();
        for (broker, error) in &failures {
            let address = brokers.address(*broker).map(|address| address.to_string());
            let text = unusable(&address.unwrap_or_default(), error);
            if is_all || missing == MissingBroker::Refused {
                bail!(text);
            }
            writeln!(io::stderr(), "{text}")?;
        }
        Ok((brokers, reports))
    }

    fn addresses(&self, fleet: &Fleet) -> anyhow::Result<Vec<SocketAddr>> {
        let settings = fleet.settings();
        if !self.brokers.is_empty() {
            let parse = |text: &String| parse_address(text, settings.plan.network);
            let parsed: Result<Vec<_>, _> = self.brokers.iter().map(parse).collect();
            return parsed.context("--broker");
        }
        let hubs = match settings.broker.software {
            BrokerSoftware::Mosquitto => settings.hubs.len(),
            // Every node of a cluster has the messages of all.
            BrokerSoftware::Nats | BrokerSoftware::Emqx => 1,
        };
        let address = |address| SocketAddr::new(address, MQTT_PORT);
        Ok(settings.hubs.iter().take(hubs).map(|hub| address(hub.address.into())).collect())
    }
}

/// Records a status; other events change nothing.
pub(super) fn record(reports: &mut SiteReports, event: BrokerEvent) {
    if let BrokerEvent::Status { broker, site, payload, is_retained } = event {
        let received_at = (!is_retained).then(Timestamp::now);
        reports.on_message(broker, &site, &payload, received_at);
    }
}

/// Returns the sentence about a broker that cannot be used.
pub(super) fn unusable(address: &str, error: &LinkError) -> String {
    format!("the broker at {address}: {error}")
}
