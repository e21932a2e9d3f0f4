//! `[tunnel]` and `[[tunnel.hub]]`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use tunnel::{Hub, PresharedKey, PrivateKey, PublicKey, RoutePolicy, Settings};

use super::file::{NamedFile, open_secret};
use crate::config::context::{KeyLocation, ReadContext};
use crate::config::field::Field;
use crate::config::raw::{RawHub, RawTunnel};
use crate::config::scalar::{SecretFile, ValueError};
use crate::config::{Tunnel, TunnelMode};

/// Maximum number of hubs.
const MAX_HUBS: usize = 8;

/// Whether there is a tunnel, for the checks of other sections.
#[derive(Debug)]
pub(super) enum TunnelPresence<'a> {
    /// There is no tunnel.
    Off,
    /// There is a tunnel.
    On {
        /// Its hubs; `None` when they are invalid.
        hubs: Option<&'a [Hub]>,
        /// Address of the gateway; `None` when it is invalid.
        address: Option<IpAddr>,
    },
}

impl TunnelPresence<'_> {
    pub(super) const fn is_on(&self) -> bool {
        matches!(self, Self::On { .. })
    }

    /// Returns why a host can never be reached through the tunnel, and what to write instead;
    /// `None` if it can, or if there is no tunnel. `role` names the host in the message; `otherwise` is
    /// another way out, for a host that is behind no hub.
    pub(super) fn unreachable(
        &self,
        role: &str,
        host: IpAddr,
        otherwise: &str,
    ) -> Option<(String, String)> {
        let Self::On { hubs, address } = self else { return None };
        if *address == Some(host) {
            let help = format!(
                "address is that of this gateway; the {role} has another one behind the hub"
            );
            return Some((
                format!("the {role} {host} has the address of this gateway in the tunnel"),
                help,
            ));
        }
        if address.is_some_and(|own| own.is_ipv4() != host.is_ipv4()) {
            let family = if host.is_ipv4() { "IPv4" } else { "IPv6" };
            let help =
                format!("give the {role}'s other address, or an {family} address in [tunnel]");
            return Some((
                format!("the tunnel has no {family} address from which to reach {host}"),
                help,
            ));
        }
        let is_routed = |hub: &Hub| hub.allowed_ips.iter().any(|network| network.contains(&host));
        if hubs.is_some_and(|hubs| !hubs.iter().any(is_routed)) {
            return Some((
                format!("the {role} {host} is not in allowed_ips of any hub"),
                format!("add its network to allowed_ips of a hub{otherwise}"),
            ));
        }
        None
    }
}

/// Result of checking `[tunnel]`.
#[derive(Debug)]
pub(super) enum CheckedTunnel {
    Off,
    On {
        /// Its hubs; `None` after a problem.
        hubs: Option<Vec<Hub>>,
        /// Address of the gateway; `None` after a problem.
        address: Option<IpAddr>,
        /// Networks that the machine routes into it; none in `userspace` mode.
        routes: Vec<IpNet>,
        /// Its settings; `None` after a problem, and when its keys were not read.
        tunnel: Option<Tunnel>,
    },
}

impl CheckedTunnel {
    pub(super) fn presence(&self) -> TunnelPresence<'_> {
        match self {
            Self::Off => TunnelPresence::Off,
            Self::On { hubs, address, .. } => {
                TunnelPresence::On { hubs: hubs.as_deref(), address: *address }
            }
        }
    }
}

pub(super) fn check_tunnel(
    raw: Option<&RawTunnel>,
    file: &Path,
    context: &mut ReadContext<'_>,
) -> CheckedTunnel {
    let Some(raw) = raw else { return CheckedTunnel::Off };
    match raw.mode.optional(context).map(|switch| switch.0.mode()) {
        Some(Some(mode)) => check_enabled(raw, mode, file, context),
        // With mode = "off" the other keys are not used and may be incomplete.
        Some(None) => CheckedTunnel::Off,
        // An invalid mode: the other keys are checked too, so that all problems are reported.
        None => {
            let checked = check_enabled(raw, TunnelMode::Userspace, file, context);
            let CheckedTunnel::On { hubs, address, .. } = checked else { return checked };
            CheckedTunnel::On { hubs, address, routes: Vec::new(), tunnel: None }
        }
    }
}

fn check_enabled(
    raw: &RawTunnel,
    mode: TunnelMode,
    file: &Path,
    context: &mut ReadContext<'_>,
) -> CheckedTunnel {
    let example = "private_key_file = \"cred:tunnel.key\"";
    let private_key_file = raw.private_key_file.required(context, example);
    let private_key = private_key_file.map_or(NamedFile::Rejected, |named| {
        read_key(&raw.private_key_file, &named, file, context)
    });
    let address = raw.address.required(context, "address = \"10.77.0.12/32\"");
    let mtu = raw.mtu.optional(context);
    let keep_alive = check_keep_alive(raw, context);
    let hubs = check_hubs(raw, file, context);
    let routes = match (mode, &hubs, &address) {
        (TunnelMode::Tun, Some(hubs), Some(address)) => check_routes(raw, hubs, address.0, context),
        _ => Vec::new(),
    };
    let own_address = address.as_ref().map(|address| address.0.addr());
    let settings = || {
        let NamedFile::Opened(private_key) = private_key else { return None };
        let (hubs, keep_alive) = (hubs.clone()?, keep_alive?);
        reject_own_key(raw, &private_key, &hubs, context)?;
        Some(Settings {
            private_key,
            addresses: vec![address?.0],
            mtu: mtu?.0,
            keep_alive: (!keep_alive.is_zero()).then_some(keep_alive),
            hubs,
        })
    };
    let tunnel = settings().map(|settings| Tunnel { mode, settings });
    CheckedTunnel::On { hubs, address: own_address, routes, tunnel }
}

/// Rejects a hub with the public key of this gateway.
fn reject_own_key(
    raw: &RawTunnel,
    private_key: &PrivateKey,
    hubs: &[Hub],
    context: &mut ReadContext<'_>,
) -> Option<()> {
    if let Some(hub) = hubs.iter().find(|hub| hub.public_key == private_key.public_key()) {
        let message = format!("the hub {} has the public key of this gateway", hub.name);
        let help = "public_key is the key of the hub, private_key_file the key of this gateway";
        context.reject(&raw.private_key_file.key, message, Some(help.to_owned()));
        return None;
    }
    Some(())
}

/// Returns the networks that the machine routes into the tunnel in `tun` mode. Reports those that
/// it cannot.
fn check_routes(
    raw: &RawTunnel,
    hubs: &[Hub],
    address: IpNet,
    context: &mut ReadContext<'_>,
) -> Vec<IpNet> {
    tunnel::host_routes(hubs, &[address], RoutePolicy::Auto).unwrap_or_else(|error| {
        let network = error.network();
        let is_here = |hub: &Hub| hub.allowed_ips.iter().any(|allowed| allowed.trunc() == network);
        let at = hubs.iter().position(is_here).unwrap_or_default();
        if let Some(hub) = raw.hub.entries.get(at) {
            let help = "use the networks behind the hub, or mode = \"userspace\", which needs no \
                        routes";
            context.reject(&hub.allowed_ips.key, error.to_string(), Some(help.to_owned()));
        }
        Vec::new()
    })
}

fn check_keep_alive(raw: &RawTunnel, context: &mut ReadContext<'_>) -> Option<std::time::Duration> {
    let keep_alive = raw.keep_alive.optional(context)?.0;
    if keep_alive.subsec_nanos() == 0 {
        return Some(keep_alive);
    }
    let help = "write something like keep_alive = \"25s\"";
    let message = "`keep_alive` must be whole seconds";
    context.reject(&raw.keep_alive.key, message, Some(help.to_owned()));
    None
}

/// Reads a key from its file.
fn read_key<K: std::str::FromStr<Err = tunnel::KeyError>>(
    field: &Field<SecretFile>,
    named: &SecretFile,
    file: &Path,
    context: &mut ReadContext<'_>,
) -> NamedFile<K> {
    let name = field.key.name.clone();
    open_secret(field, named, file, context, |named| {
        let secret = named.read_secret("key", file)?;
        secret.reveal().parse().map_err(|error: tunnel::KeyError| {
            let message = format!("the file of `{name}` does not contain a key");
            ValueError::new(message, error.to_string())
        })
    })
}

fn check_hubs(raw: &RawTunnel, file: &Path, context: &mut ReadContext<'_>) -> Option<Vec<Hub>> {
    if raw.hub.entries.is_empty() && !raw.hub.already_reported {
        let help = "add a section [[tunnel.hub]] with name, endpoint, public_key and allowed_ips";
        context.reject(&raw.hub.key, "the tunnel has no hub", Some(help.to_owned()));
    } else if raw.hub.entries.len() > MAX_HUBS {
        let message = format!("the tunnel has more than {MAX_HUBS} hubs");
        context.reject(&raw.hub.key, message, Some("remove some".to_owned()));
    }
    let mut names: BTreeMap<String, &KeyLocation> = BTreeMap::new();
    let mut keys: BTreeMap<PublicKey, &KeyLocation> = BTreeMap::new();
    let mut hubs = Vec::new();
    for raw in &raw.hub.entries {
        let Some(hub) = check_hub(raw, file, context) else { continue };
        if let Some(first) = names.get(&hub.name) {
            let message = format!("two hubs have the name \"{}\"", hub.name);
            context.reject_duplicate(&raw.name.key, first, message, "give each hub its own name");
        }
        if let Some(first) = keys.get(&hub.public_key) {
            let message = "two hubs have the same public key".to_owned();
            let help = "each hub has its own key; a hub with several addresses is one name in DNS";
            context.reject_duplicate(&raw.public_key.key, first, message, help);
        }
        names.insert(hub.name.clone(), &raw.name.key);
        keys.insert(hub.public_key, &raw.public_key.key);
        hubs.push(hub);
    }
    (hubs.len() == raw.hub.entries.len() && !hubs.is_empty()).then_some(hubs)
}

fn check_hub(raw: &RawHub, file: &Path, context: &mut ReadContext<'_>) -> Option<Hub> {
    let name = raw.name.required(context, "name = \"hub-a\"");
    let endpoint = raw.endpoint.required(context, "endpoint = \"hub-a.example.net:51820\"");
    let public_key = raw.public_key.required(context, "public_key = \"...\"");
    let named = raw.preshared_key_file.optional(context);
    let preshared_key: Option<NamedFile<PresharedKey>> =
        named.map(|named| read_key(&raw.preshared_key_file, &named, file, context));
    let networks = raw.allowed_ips.values(context);
    let example = "allowed_ips = [\"10.77.0.0/16\"]";
    let empty = networks.as_ref().is_some_and(Vec::is_empty);
    if empty {
        let help = Some(format!("write something like {example}"));
        context.reject(&raw.allowed_ips.key, "`allowed_ips` is empty", help);
    } else if raw.allowed_ips.items.is_none() && !raw.allowed_ips.already_reported {
        context.reject_missing(&raw.allowed_ips.key, example);
    }
    // A rejected one does not keep the hub from being checked with the brokers.
    let preshared_key = match preshared_key {
        Some(NamedFile::Opened(key)) => Some(key),
        Some(NamedFile::Unopened | NamedFile::Rejected) | None => None,
    };
    if empty {
        return None;
    }
    Some(Hub {
        name: name?.0,
        endpoint: endpoint?.0,
        public_key: public_key?.0,
        preshared_key,
        allowed_ips: networks?.into_iter().map(|(_, network)| network.0).collect(),
    })
}
