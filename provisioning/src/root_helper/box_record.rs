//! What the helper remembers of the bundles of its box. Only root can change it.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use toml::{Table, Value};

use super::network::NetworkService;

/// The bundles of a box, by their counters.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct BoxRecord {
    /// `gateway.id`, which the first bundle has set.
    pub(super) gateway: Option<String>,
    /// Largest counter of all that were accepted; 0 before the first.
    pub(super) last: u64,
    /// The last bundle that a person brought: it may hold secrets in clear.
    pub(super) loaded_by_hand: Option<u64>,
    /// The last confirmed bundle.
    pub(super) confirmed: Option<u64>,
    /// The bundle on trial.
    pub(super) on_trial: Option<u64>,
    /// Whose network is installed; none until a bundle brings one.
    pub(super) network: Option<NetworkInUse>,
}

/// The network that is installed, or is being installed since this was recorded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct NetworkInUse {
    /// Counter of its bundle.
    pub(super) bundle: u64,
    /// The service that reads its files.
    pub(super) service: NetworkService,
    /// The service has read them.
    pub(super) is_loaded: bool,
}

/// The record is not what this program writes.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the record of this box is damaged: run `edge-gateway-box wipe`, and enrol the box again")]
pub(super) struct BoxRecordError;

impl BoxRecord {
    /// Returns the bundles of which a copy is needed.
    pub(super) fn needed_bundles(&self) -> Vec<u64> {
        let network = self.network.map(|network| network.bundle);
        [self.confirmed, self.on_trial, network].into_iter().flatten().collect()
    }
}

impl fmt::Display for BoxRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(gateway) = &self.gateway {
            writeln!(f, "gateway = {}", Value::from(gateway.as_str()))?;
        }
        writeln!(f, "last = {}", self.last)?;
        for (key, counter) in [
            ("brought", self.loaded_by_hand),
            ("confirmed", self.confirmed),
            ("tried", self.on_trial),
        ] {
            if let Some(counter) = counter {
                writeln!(f, "{key} = {counter}")?;
            }
        }
        if let Some(NetworkInUse { bundle, service, is_loaded }) = self.network {
            writeln!(f, "[network]\nbundle = {bundle}\nservice = \"{service}\"")?;
            writeln!(f, "is_loaded = {is_loaded}")?;
        }
        Ok(())
    }
}

impl FromStr for BoxRecord {
    type Err = BoxRecordError;

    fn from_str(text: &str) -> Result<Self, BoxRecordError> {
        let root: Table = text.parse().map_err(|_| BoxRecordError)?;
        let gateway = root.get("gateway").map(|value| value.as_str().ok_or(BoxRecordError));
        let network = root.get("network").map(|value| value.as_table().ok_or(BoxRecordError));
        Ok(Self {
            gateway: gateway.transpose()?.map(str::to_owned),
            last: counter(&root, "last")?.ok_or(BoxRecordError)?,
            loaded_by_hand: counter(&root, "brought")?,
            confirmed: counter(&root, "confirmed")?,
            on_trial: counter(&root, "tried")?,
            network: network.transpose()?.map(network_in_use).transpose()?,
        })
    }
}

fn network_in_use(table: &Table) -> Result<NetworkInUse, BoxRecordError> {
    let service = table.get("service").and_then(Value::as_str);
    Ok(NetworkInUse {
        bundle: counter(table, "bundle")?.ok_or(BoxRecordError)?,
        service: service.and_then(NetworkService::from_name).ok_or(BoxRecordError)?,
        is_loaded: table.get("is_loaded").and_then(Value::as_bool).ok_or(BoxRecordError)?,
    })
}

fn counter(table: &Table, key: &str) -> Result<Option<u64>, BoxRecordError> {
    let number = |value: &Value| value.as_integer().and_then(|number| u64::try_from(number).ok());
    table.get(key).map(|value| number(value).ok_or(BoxRecordError)).transpose()
}
