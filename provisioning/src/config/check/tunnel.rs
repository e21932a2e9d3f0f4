//! `[tunnel]` and `[[tunnel.hub]]`.

use std::collections::BTreeMap;
use std::path::Path;

use tunnel::{Hub, PresharedKey, PrivateKey, PublicKey, Settings};

use crate::config::draft::{At, Draft};
use crate::config::leaf::SecretFile;
use crate::config::member::Field;
use crate::config::raw::{RawHub, RawTunnel};
use crate::config::{Tunnel, TunnelMode};

/// Most hubs that a gateway tries in turn.
const MOST_HUBS: usize = 8;

/// What is known of the tunnel while the rest is checked.
#[derive(Debug)]
pub(super) enum Underway<'a> {
    /// There is none.
    Off,
    /// There is one; nothing when something is wrong with it.
    On(Option<&'a Tunnel>),
}

impl Underway<'_> {
    pub(super) const fn is_on(&self) -> bool {
        matches!(self, Self::On(_))
    }
}

/// A section that has been read: off, or a tunnel unless a problem was noted.
pub(super) enum Checked {
    Off,
    On(Option<Tunnel>),
}

impl Checked {
    pub(super) const fn underway(&self) -> Underway<'_> {
        match self {
            Self::Off => Underway::Off,
            Self::On(tunnel) => Underway::On(tunnel.as_ref()),
        }
    }
}

pub(super) fn tunnel(raw: Option<&RawTunnel>, file: &Path, draft: &mut Draft<'_>) -> Checked {
    let Some(raw) = raw else { return Checked::Off };
    match draft.optional(&raw.mode).map(|mode| mode.0.0) {
        Some(Some(mode)) => Checked::On(on(raw, mode, file, draft)),
        // The rest may stay in the file, and may be wrong: nobody uses it.
        Some(None) => Checked::Off,
        None => {
            on(raw, TunnelMode::Userspace, file, draft);
            Checked::On(None)
        }
    }
}

fn on(raw: &RawTunnel, mode: TunnelMode, file: &Path, draft: &mut Draft<'_>) -> Option<Tunnel> {
    let example = "private_key_file = \"cred:tunnel.key\"";
    let private_key_file = draft.required(&raw.private_key_file, example);
    let private_key: Option<PrivateKey> = key(&raw.private_key_file, private_key_file, file, draft);
    let address = draft.required(&raw.address, "address = \"10.77.0.12/32\"");
    let mtu = draft.optional(&raw.mtu);
    let keep_alive = keep_alive(raw, draft);
    let hubs = hubs(raw, file, draft);
    let private_key = private_key?;
    let hubs = hubs?;
    if let Some(hub) = hubs.iter().find(|hub| hub.public_key == private_key.public()) {
        let message = format!("the hub {} has the public key of this gateway itself", hub.name);
        let help = "public_key is the hub's, private_key_file is this gateway's";
        draft.reject(&raw.private_key_file.at, message, Some(help.to_owned()));
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

fn keep_alive(raw: &RawTunnel, draft: &mut Draft<'_>) -> Option<std::time::Duration> {
    let keep_alive = draft.optional(&raw.keep_alive)?.0;
    if keep_alive.subsec_nanos() == 0 {
        return Some(keep_alive);
    }
    let help = "write something like keep_alive = \"25s\"";
    let message = "`keep_alive` must be whole seconds";
    draft.reject(&raw.keep_alive.at, message, Some(help.to_owned()));
    None
}

/// Reads a key from the file that was named, if one was.
fn key<K: std::str::FromStr<Err = tunnel::KeyError>>(
    field: &Field<SecretFile>,
    named: Option<SecretFile>,
    file: &Path,
    draft: &mut Draft<'_>,
) -> Option<K> {
    let secret = match named?.load("key", file) {
        Ok(secret) => secret,
        Err(wrong) => {
            draft.reject(&field.at, wrong.message, wrong.help);
            return None;
        }
    };
    match secret.reveal().parse() {
        Ok(key) => Some(key),
        Err(error) => {
            let message = format!("the file that `{}` names holds no key", field.at.key);
            draft.reject(&field.at, message, Some(error.to_string()));
            None
        }
    }
}

fn hubs(raw: &RawTunnel, file: &Path, draft: &mut Draft<'_>) -> Option<Vec<Hub>> {
    if raw.hub.entries.is_empty() && !raw.hub.broken {
        let help = "add a section [[tunnel.hub]] with name, endpoint, public_key and allowed_ips";
        draft.reject(&raw.hub.at, "the tunnel has no hub", Some(help.to_owned()));
    } else if raw.hub.entries.len() > MOST_HUBS {
        let message = format!("the tunnel has more than {MOST_HUBS} hubs");
        draft.reject(&raw.hub.at, message, Some("leave some out".to_owned()));
    }
    let mut names: BTreeMap<String, &At> = BTreeMap::new();
    let mut keys: BTreeMap<PublicKey, &At> = BTreeMap::new();
    let mut hubs = Vec::new();
    for raw in &raw.hub.entries {
        let Some(hub) = hub(raw, file, draft) else { continue };
        if let Some(first) = names.get(&hub.name) {
            let message = format!("two hubs have the name \"{}\"", hub.name);
            draft.reject_twice(&raw.name.at, first, message, "give each a name of its own");
        }
        if let Some(first) = keys.get(&hub.public_key) {
            let message = "two hubs have the same public key".to_owned();
            let help = "a hub with several addresses has one name in DNS; others have other keys";
            draft.reject_twice(&raw.public_key.at, first, message, help);
        }
        names.insert(hub.name.clone(), &raw.name.at);
        keys.insert(hub.public_key, &raw.public_key.at);
        hubs.push(hub);
    }
    (hubs.len() == raw.hub.entries.len() && !hubs.is_empty()).then_some(hubs)
}

fn hub(raw: &RawHub, file: &Path, draft: &mut Draft<'_>) -> Option<Hub> {
    let name = draft.required(&raw.name, "name = \"hub-a\"");
    let endpoint = draft.required(&raw.endpoint, "endpoint = \"hub-a.example.net:51820\"");
    let public_key = draft.required(&raw.public_key, "public_key = \"...\"");
    let named = draft.optional(&raw.preshared_key_file);
    let is_named = named.is_some();
    let preshared_key: Option<PresharedKey> = key(&raw.preshared_key_file, named, file, draft);
    let networks = draft.items(&raw.allowed_ips);
    let example = "allowed_ips = [\"10.77.0.0/16\"]";
    let empty = networks.as_ref().is_some_and(Vec::is_empty);
    if empty {
        let help = Some(format!("write something like {example}"));
        draft.reject(&raw.allowed_ips.at, "`allowed_ips` is empty", help);
    } else if raw.allowed_ips.items.is_none() && !raw.allowed_ips.broken {
        draft.reject_missing(&raw.allowed_ips.at, example);
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
