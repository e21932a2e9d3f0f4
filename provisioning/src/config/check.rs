//! From raw sections to the typed configuration: what only several keys together can tell.

mod mqtt;
mod note;
mod plc;
mod publish;
mod tag;
mod tunnel;
mod uplink;

use std::net::Ipv4Addr;
use std::path::Path;

use super::context::ReadContext;
use super::raw::{RawConfig, RawGateway, RawMetrics, RawQueue};
use super::read::RawTable;
use super::{Config, Gateway, Listen, Metrics, Queue};
use tunnel::{CheckedTunnel, TunnelPresence};

const METRICS_PORT: u16 = 9464;

/// The configuration; absent only when a problem has been noted.
pub(super) fn check_config(
    root: &RawTable<'_>,
    file: &Path,
    draft: &mut ReadContext<'_>,
) -> Option<Config> {
    let raw = root.read_section::<RawConfig>(draft);
    let gateway = check_gateway(&raw.gateway.0, draft);
    let tunnel = tunnel::check_tunnel(raw.tunnel.0.as_ref(), file, draft);
    let underway = tunnel.presence();
    let mqtt = mqtt::check_mqtt(&raw.mqtt.0, gateway.as_ref(), &underway, file, draft);
    let publish = publish::check_publish(&raw.publish.0, draft);
    let queue = check_queue(&raw.queue.0, draft);
    let metrics = check_metrics(&raw.metrics.0, &underway, draft);
    let plcs = plc::check_plcs(&raw.plc, root, gateway.as_ref(), publish.as_ref(), draft);
    let tunnel = match tunnel {
        CheckedTunnel::Off => None,
        CheckedTunnel::On(tunnel) => Some(tunnel?),
    };
    Some(Config {
        gateway: gateway?,
        tunnel,
        mqtt: mqtt?,
        queue: queue?,
        metrics: metrics?,
        plcs: plcs?,
    })
}

fn check_gateway(raw: &RawGateway, draft: &mut ReadContext<'_>) -> Option<Gateway> {
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

fn check_queue(raw: &RawQueue, draft: &mut ReadContext<'_>) -> Option<Queue> {
    let durability = draft.optional(&raw.durability);
    let max_size = draft.optional(&raw.max_size);
    let min_free = draft.optional(&raw.min_free);
    let on_full = draft.optional(&raw.on_full);
    let order = draft.optional(&raw.order);
    Some(Queue {
        durability: durability?.0,
        max_size: max_size?.0,
        min_free: min_free?.0,
        on_full: on_full?.0,
        order: order?.0,
    })
}

fn check_metrics(
    raw: &RawMetrics,
    tunnel: &TunnelPresence<'_>,
    draft: &mut ReadContext<'_>,
) -> Option<Metrics> {
    if raw.listen.items.is_none() && !raw.listen.already_reported {
        let listen = if tunnel.is_on() {
            Listen::Tunnel(METRICS_PORT)
        } else {
            Listen::Address((Ipv4Addr::LOCALHOST, METRICS_PORT).into())
        };
        draft.record_default(&raw.listen.key, format!("[\"{listen}\"]"));
        return Some(Metrics { listen: vec![listen] });
    }
    let listen = draft.list(&raw.listen)?;
    for (index, (at, address)) in listen.iter().enumerate() {
        if let Some((first, _)) = listen.iter().take(index).find(|(_, other)| other == address) {
            let message = format!("{address} is in the list twice");
            draft.reject_duplicate(at, first, message, "leave one of them out");
        }
        if matches!(address, Listen::Tunnel(_)) && !tunnel.is_on() {
            let help = "add a section [tunnel], or write an address of this machine";
            let message = format!("\"{address}\" is in the tunnel, and there is none");
            draft.reject(at, message, Some(help.to_owned()));
        }
    }
    Some(Metrics { listen: listen.into_iter().map(|(_, address)| address).collect() })
}
