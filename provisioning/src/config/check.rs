//! From raw sections to the typed configuration: what only several keys together can tell.

mod mqtt;
mod plc;
mod publish;
mod tag;

use std::path::Path;

use super::draft::Draft;
use super::raw::{RawConfig, RawGateway, RawMetrics, RawQueue};
use super::read::Table;
use super::{Config, Gateway, Metrics, Queue};

/// The configuration; absent only when a problem has been noted.
pub(super) fn config(root: &Table<'_>, file: &Path, draft: &mut Draft<'_>) -> Option<Config> {
    let raw = root.body::<RawConfig>(draft);
    let gateway = gateway(&raw.gateway.0, draft);
    let mqtt = mqtt::mqtt(&raw.mqtt.0, gateway.as_ref(), file, draft);
    let publish = publish::common(&raw.publish.0, draft);
    let queue = queue(&raw.queue.0, draft);
    let metrics = metrics(&raw.metrics.0, draft);
    let plcs = plc::plcs(&raw.plc, root, gateway.as_ref(), publish.as_ref(), draft);
    Some(Config { gateway: gateway?, mqtt: mqtt?, queue: queue?, metrics: metrics?, plcs: plcs? })
}

fn gateway(raw: &RawGateway, draft: &mut Draft<'_>) -> Option<Gateway> {
    let id = draft.required(&raw.id, "id = \"amsterdam-01\"");
    let location = draft.optional(&raw.location);
    let timezone = draft.optional(&raw.timezone);
    let state_dir = draft.optional(&raw.state_dir);
    Some(Gateway {
        id: id?.0,
        location: location?.0,
        timezone: timezone?.0,
        state_dir: state_dir?.0,
    })
}

fn queue(raw: &RawQueue, draft: &mut Draft<'_>) -> Option<Queue> {
    let max_size = draft.optional(&raw.max_size);
    let on_full = draft.optional(&raw.on_full);
    Some(Queue { max_size: max_size?.0, on_full: on_full?.0 })
}

fn metrics(raw: &RawMetrics, draft: &mut Draft<'_>) -> Option<Metrics> {
    let listen = draft.items(&raw.listen)?;
    for (index, (at, address)) in listen.iter().enumerate() {
        if let Some((first, _)) = listen.iter().take(index).find(|(_, other)| other == address) {
            let message = format!("{} is in the list twice", address.0);
            draft.reject_twice(at, first, message, "leave one of them out");
        }
    }
    Some(Metrics { listen: listen.into_iter().map(|(_, address)| address.0).collect() })
}
