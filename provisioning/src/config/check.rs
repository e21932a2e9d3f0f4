//! Converts raw sections to the typed configuration, with the checks that involve several keys.

mod bundle;
mod certificates;
mod environment;
mod event;
mod file;
mod mqtt;
mod note;
mod plc;
mod publish;
mod tag;
mod tunnel;
mod uplink;
mod write;

use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::IpNet;

use super::context::ReadContext;
use super::raw::{RawConfig, RawGateway, RawMetrics, RawQueue};
use super::read::RawTable;
use super::{BundleSettings, Config, Gateway, Listen, Metrics, Mqtt, Plc, Queue};
#[cfg(feature = "office")]
pub(crate) use tag::{MAX_TAGS, is_reserved_tag_name, size_error, tag_name_error, whole_numbers};
use tunnel::{CheckedTunnel, TunnelPresence};

const METRICS_PORT: u16 = 9464;

/// A configuration without problems.
#[derive(Debug)]
pub(super) struct CheckedConfig {
    pub(super) gateway: Gateway,
    tunnel: CheckedTunnel,
    pub(super) mqtt: Mqtt,
    queue: Queue,
    bundle: BundleSettings,
    pub(super) metrics: Metrics,
    pub(super) plcs: Vec<Plc>,
}

impl CheckedConfig {
    /// Returns the networks that the machine routes into the tunnel.
    pub(super) fn tunnel_routes(&self) -> Vec<IpNet> {
        match &self.tunnel {
            CheckedTunnel::Off => Vec::new(),
            CheckedTunnel::On { routes, .. } => routes.clone(),
        }
    }

    /// Returns the configuration to run; `None` if the keys of the tunnel were not read.
    pub(super) fn into_config(self) -> Option<Config> {
        let Self { gateway, tunnel, mqtt, queue, bundle, metrics, plcs } = self;
        let tunnel = match tunnel {
            CheckedTunnel::Off => None,
            CheckedTunnel::On { tunnel, .. } => Some(tunnel?),
        };
        Some(Config { gateway, tunnel, mqtt, queue, bundle, metrics, plcs })
    }
}

/// Returns the configuration, or `None` when a problem has been recorded.
pub(super) fn check_config(
    root: &RawTable<'_>,
    file: &Path,
    context: &mut ReadContext<'_>,
) -> Option<CheckedConfig> {
    environment::note_other_variables(context);
    let raw = root.read_section::<RawConfig>(context);
    let gateway = check_gateway(&raw.gateway.0, context);
    let tunnel = tunnel::check_tunnel(raw.tunnel.0.as_ref(), file, context);
    let presence = tunnel.presence();
    let mqtt = mqtt::check_mqtt(&raw.mqtt.0, gateway.as_ref(), &presence, file, context);
    let publish = publish::check_publish(&raw.publish.0, context);
    let queue = check_queue(&raw.queue.0, context);
    let bundle = bundle::check_bundle(&raw.bundle.0, &presence, context);
    let metrics = check_metrics(&raw.metrics.0, &presence, context);
    let (owner, served) = (gateway.as_ref(), metrics.as_ref());
    let plcs = plc::check_plcs(&raw.plc, root, owner, publish.as_ref(), served, context);
    let (mqtt, plcs) = (mqtt?, plcs?);
    if let (Some(raw), Some(will)) = (&raw.mqtt.0.will.0, &mqtt.will) {
        mqtt::note_will_among_values(raw, will, &plcs, context);
    }
    write::check_way_of_writes(&raw.mqtt.0, &mqtt, &plcs, context);
    Some(CheckedConfig {
        gateway: gateway?,
        tunnel,
        mqtt,
        queue: queue?,
        bundle: bundle?,
        metrics: metrics?,
        plcs,
    })
}

fn check_gateway(raw: &RawGateway, context: &mut ReadContext<'_>) -> Option<Gateway> {
    let id = raw.id.required(context, "id = \"amsterdam-01\"");
    let location = raw.location.optional(context);
    let timezone = raw.timezone.optional(context);
    let state_dir = raw.state_dir.optional(context);
    Some(Gateway {
        id: id?.0,
        location: location?.0,
        timezone: timezone?.0,
        state_dir: state_dir?.0,
    })
}

fn check_queue(raw: &RawQueue, context: &mut ReadContext<'_>) -> Option<Queue> {
    let durability = raw.durability.optional(context);
    let max_size = raw.max_size.optional(context);
    let min_free = raw.min_free.optional(context);
    let on_full = raw.on_full.optional(context);
    let order = raw.order.optional(context);
    Some(Queue {
        durability: durability?.0,
        max_size: max_size?.0,
        min_free: min_free?.0,
        on_full: on_full?.0,
        order: order?.0,
    })
}

/// Returns the addresses to listen on; by default the tunnel if there is one, else loopback.
/// Reports duplicates, and the tunnel where there is none.
fn check_metrics(
    raw: &RawMetrics,
    tunnel: &TunnelPresence<'_>,
    context: &mut ReadContext<'_>,
) -> Option<Metrics> {
    let tags = raw.tags.optional(context);
    if raw.listen.items.is_none() && !raw.listen.already_reported {
        let listen = if tunnel.is_on() {
            Listen::Tunnel(METRICS_PORT)
        } else {
            Listen::Address((Ipv4Addr::LOCALHOST, METRICS_PORT).into())
        };
        context.record(&raw.listen.key, format!("[\"{listen}\"]"), false);
        return Some(Metrics { listen: vec![listen], tags: tags?.0 });
    }
    let listen = raw.listen.values(context)?;
    for (index, (location, address)) in listen.iter().enumerate() {
        if let Some((first, _)) = listen.iter().take(index).find(|(_, other)| other == address) {
            let message = format!("the list contains {address} twice");
            context.reject_duplicate(location, first, message, "remove one of them");
        }
        if matches!(address, Listen::Tunnel(_)) && !tunnel.is_on() {
            let help = "add a section [tunnel], or write an address of this machine";
            let message = format!("\"{address}\" needs a tunnel, and there is no tunnel");
            context.reject(location, message, Some(help.to_owned()));
        }
    }
    let is_inside = |(_, address): &(_, Listen)| matches!(address, Listen::Tunnel(_));
    if tunnel.is_on() && !listen.is_empty() && !listen.iter().any(is_inside) {
        let message = "there is a tunnel, but no metrics are served in it";
        let help = format!("add \"tunnel:{METRICS_PORT}\" for a Prometheus at the hub");
        context.add_note(&raw.listen.key, message.to_owned(), help, None);
    }
    let listen = listen.into_iter().map(|(_, address)| address).collect();
    Some(Metrics { listen, tags: tags?.0 })
}
