//! `[tunnel]` and `[[tunnel.hub]]`.

use std::collections::BTreeMap;
use std::path::Path;

use tunnel::{Hub, PresharedKey, PrivateKey, PublicKey, Settings};

use crate::config::context::{KeyLocation, ReadContext};
use crate::config::field::Field;
use crate::config::raw::{RawHub, RawTunnel};
use crate::config::scalar::SecretFile;
use crate::config::{Tunnel, TunnelMode};

/// Most hubs that a gateway tries in turn.
const MAX_HUBS: usize = 8;

/// What is known of the tunnel while the rest is checked.
#[derive(Debug)]
pub(super) enum TunnelPresence<'a> {
    /// There is none.
    Off,
    /// There is one; nothing when something is wrong with it.
    On(Option<&'a Tunnel>),
}

impl TunnelPresence<'_> {
    pub(super) const fn is_on(&self) -> bool {
        matches!(self, Self::On(_))
    }
}

/// A section that has been read: off, or a tunnel unless a problem was noted.
pub(super) enum CheckedTunnel {
    Off,
    On(Option<Tunnel>),
}

impl CheckedTunnel {
    pub(super) const fn presence(&self) -> TunnelPresence<'_> {
        match self {
            Self::Off => TunnelPresence::Off,
            Self::On(tunnel) => TunnelPresence::On(tunnel.as_ref()),
        }
    }
}

pub(super) fn check_tunnel(
    raw: Option<&RawTunnel>,
    file: &Path,
    draft: &mut ReadContext<'_>,
) -> CheckedTunnel {
    let Some(raw) = raw else { return CheckedTunnel::Off };
    match draft.optional(&raw.mode).map(|mode| mode.0.0) {
        Some(Some(mode)) => CheckedTunnel::On(check_enabled(raw, mode, file, draft)),
        // The rest may stay in the file, and may be wrong: nobody uses it.
        Some(None) => CheckedTunnel::Off,
        None => {
            check_enabled(raw, TunnelMode::Userspace, file, draft);
            CheckedTunnel::On(None)
        }
    }
}

fn check_enabled(
    raw: &RawTunnel,
    mode: TunnelMode,
    file: &Path,
    draft: &mut ReadContext<'_>,
) -> Option<Tunnel> {
    let example = "private_key_file = \"cred:tunnel.key\"";
    let private_key_file = draft.required(&raw.private_key_file, example);
    let private_key: Option<PrivateKey> =
        read_key(&raw.private_key_file, private_key_file, file, draft);
    let address = draft.required(&raw.address, "address = \"10.77.0.12/32\"");
    let mtu = draft.optional(&raw.mtu);
    let keep_alive = check_keep_alive(raw, draft);
    let hubs = check_hubs(raw, file, draft);
    let private_key = private_key?;
    let hubs = hubs?;
    if let Some(hub) = hubs.iter().find(|hub| hub.public_key == private_key.public_key()) {
        let message = format!("the hub {} has the public key of this gateway itself", hub.name);
        let help = "public_key is the hub's, private_key_file is this gateway's";
        draft.reject(&raw.private_key_file.key, message, Some(help.to_owned()));
        return None;
    }
    let keep_alive = keep_alive?;
    let settings = Settings {
        private_key,
        addresses: vec![address?.0],
        mtu: mtu?.0,
        keep_alive: (!keep_alive.is_zero()).then_some(keep_alive),
        hubs,
    };
    Some(Tunnel { mode, settings })
}

fn check_keep_alive(raw: &RawTunnel, draft: &mut ReadContext<'_>) -> Option<std::time::Duration> {
    let keep_alive = draft.optional(&raw.keep_alive)?.0;
    if keep_alive.subsec_nanos() == 0 {
        return Some(keep_alive);
    }
    let help = "write something like keep_alive = \"25s\"";
    let message = "`keep_alive` must be whole seconds";
    draft.reject(&raw.keep_alive.key, message, Some(help.to_owned()));
    None
}

/// Reads a key from the file that was named, if one was.
fn read_key<K: std::str::FromStr<Err = tunnel::KeyError>>(
    field: &Field<SecretFile>,
    named: Option<SecretFile>,
    file: &Path,
    draft: &mut ReadContext<'_>,
) -> Option<K> {
    let secret = match named?.read_secret("key", file) {
        Ok(secret) => secret,
        Err(wrong) => {
            draft.reject(&field.key, wrong.message, wrong.help);
            return None;
        }
    };
    match secret.reveal().parse() {
        Ok(key) => Some(key),
        Err(error) => {
            let message = format!("the file that `{}` names holds no key", field.key.name);
            draft.reject(&field.key, message, Some(error.to_string()));
            None
        }
    }
}

fn check_hubs(raw: &RawTunnel, file: &Path, draft: &mut ReadContext<'_>) -> Option<Vec<Hub>> {
    if raw.hub.entries.is_empty() && !raw.hub.already_reported {
        let help = "add a section [[tunnel.hub]] with name, endpoint, public_key and allowed_ips";
        draft.reject(&raw.hub.key, "the tunnel has no hub", Some(help.to_owned()));
    } else if raw.hub.entries.len() > MAX_HUBS {
        let message = format!("the tunnel has more than {MAX_HUBS} hubs");
        draft.reject(&raw.hub.key, message, Some("leave some out".to_owned()));
    }
    let mut names: BTreeMap<String, &KeyLocation> = BTreeMap::new();
    let mut keys: BTreeMap<PublicKey, &KeyLocation> = BTreeMap::new();
    let mut hubs = Vec::new();
    for raw in &raw.hub.entries {
        let Some(hub) = check_hub(raw, file, draft) else { continue };
        if let Some(first) = names.get(&hub.name) {
            let message = format!("two hubs have the name \"{}\"", hub.name);
            draft.reject_duplicate(&raw.name.key, first, message, "give each a name of its own");
        }
        if let Some(first) = keys.get(&hub.public_key) {
            let message = "two hubs have the same public key".to_owned();
            let help = "a hub with several addresses has one name in DNS; others have other keys";
            draft.reject_duplicate(&raw.public_key.key, first, message, help);
        }
        names.insert(hub.name.clone(), &raw.name.key);
        keys.insert(hub.public_key, &raw.public_key.key);
        hubs.push(hub);
    }
    (hubs.len() == raw.hub.entries.len() && !hubs.is_empty()).then_some(hubs)
}

fn check_hub(raw: &RawHub, file: &Path, draft: &mut ReadContext<'_>) -> Option<Hub> {
    let name = draft.required(&raw.name, "name = \"hub-a\"");
    let endpoint = draft.required(&raw.endpoint, "endpoint = \"hub-a.example.net:51820\"");
    let public_key = draft.required(&raw.public_key, "public_key = \"...\"");
    let named = draft.optional(&raw.preshared_key_file);
    let is_named = named.is_some();
    let preshared_key: Option<PresharedKey> = read_key(&raw.preshared_key_file, named, file, draft);
    let networks = draft.list(&raw.allowed_ips);
    let example = "allowed_ips = [\"10.77.0.0/16\"]";
    let empty = networks.as_ref().is_some_and(Vec::is_empty);
    if empty {
        let help = Some(format!("write something like {example}"));
        draft.reject(&raw.allowed_ips.key, "`allowed_ips` is empty", help);
    } else if raw.allowed_ips.items.is_none() && !raw.allowed_ips.already_reported {
        draft.reject_missing(&raw.allowed_ips.key, example);
    }
    if is_named && preshared_key.is_none() || empty {
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
