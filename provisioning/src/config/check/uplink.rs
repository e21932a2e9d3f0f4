//! How the brokers of `[mqtt]` are reached: `via` and TLS.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::tunnel::Underway;
use crate::config::draft::{At, Draft};
use crate::config::leaf::{Choice, Leaf, Wrong};
use crate::config::member::Field;
use crate::config::raw::RawMqtt;
use crate::config::{Broker, ClientCertificate, Scheme, Tls, Via};

/// Through the tunnel where there is one. A broker that no hub leads to would never be reached.
pub(super) fn via(
    raw: &RawMqtt,
    brokers: Option<&[(At, Broker)]>,
    tunnel: &Underway<'_>,
    draft: &mut Draft<'_>,
) -> Option<Via> {
    let default = if tunnel.is_on() { Via::Tunnel } else { Via::Direct };
    let via = draft.derived(&raw.via, || Some(Choice(default)))?.0;
    if via == Via::Direct {
        return Some(via);
    }
    if !tunnel.is_on() {
        draft.reject(
            &raw.via.at,
            "`via` is \"tunnel\", and there is no tunnel",
            Some("add a section [tunnel], or write via = \"direct\"".to_owned()),
        );
        return None;
    }
    for (at, broker) in brokers? {
        let Ok(address) = broker.address.host.parse::<IpAddr>() else {
            note_name(at, &broker.address.host, draft);
            continue;
        };
        if let Underway::On(Some(tunnel)) = tunnel
            && !tunnel.settings.hubs.iter().any(|hub| leads_to(hub, address))
        {
            draft.reject(
                at,
                format!("no hub leads to the broker {address}"),
                Some(
                    "add its network to allowed_ips of a hub, or write via = \"direct\"".to_owned(),
                ),
            );
        }
    }
    Some(via)
}

/// Names are not looked up through the tunnel: who sees the network sees them, and an answer of his
/// may keep us from the broker. It cannot lead us past the tunnel.
fn note_name(at: &At, host: &str, draft: &mut Draft<'_>) {
    let message = format!("the name {host} is looked up outside the tunnel, in clear");
    let help = "write the broker's address inside the tunnel, or put the name into /etc/hosts";
    draft.note(at, message, help.to_owned(), None);
}

fn leads_to(hub: &tunnel::Hub, address: IpAddr) -> bool {
    hub.allowed_ips.iter().any(|network| network.contains(&address))
}

pub(super) fn tls(
    raw: &RawMqtt,
    brokers: Option<&[(At, Broker)]>,
    file: &Path,
    draft: &mut Draft<'_>,
) -> Option<Tls> {
    let ca_file = optional_file(&raw.ca_file, draft, |ca| ca.checked("certificate", file));
    let cert_file = optional_file(&raw.cert_file, draft, |cert| cert.checked("certificate", file));
    let key_file = optional_file(&raw.key_file, draft, |key| key.checked("private key", file));
    let (ca_file, cert_file, key_file) = (ca_file?, cert_file?, key_file?);
    let client = match (cert_file, key_file) {
        (Some(cert_file), Some(key_file)) => Some(ClientCertificate { cert_file, key_file }),
        (None, None) => None,
        (Some(_), None) => {
            let help = Some("add key_file = \"...\" beside it".to_owned());
            draft.reject(&raw.cert_file.at, "there is a certificate and no key", help);
            return None;
        }
        (None, Some(_)) => {
            let help = Some("add cert_file = \"...\" beside it".to_owned());
            draft.reject(&raw.key_file.at, "there is a key and no certificate", help);
            return None;
        }
    };
    let used = brokers.is_none_or(|all| all.iter().any(|(_, one)| one.scheme == Scheme::Mqtts));
    if !used
        && let Some(at) = [&raw.ca_file.at, &raw.cert_file.at]
            .into_iter()
            .zip([ca_file.is_some(), client.is_some()])
            .find_map(|(at, is_set)| is_set.then_some(at))
    {
        let help = "write mqtts:// in front of the broker's address, or leave the key out";
        draft.reject(
            at,
            format!("`{}` is for TLS, and no broker is mqtts://", at.key),
            Some(help.to_owned()),
        );
        return None;
    }
    Some(Tls { ca_file, client })
}

/// The outer option is the usual one, the inner one says whether there is a file.
#[expect(clippy::option_option, reason = "an absent file is a good value")]
fn optional_file<T: Leaf>(
    field: &Field<T>,
    draft: &mut Draft<'_>,
    check: impl FnOnce(&T) -> Result<PathBuf, Wrong>,
) -> Option<Option<PathBuf>> {
    let Some(file) = draft.optional(field) else { return Some(None) };
    match check(&file) {
        Ok(path) => Some(Some(path)),
        Err(wrong) => {
            draft.reject(&field.at, wrong.message, wrong.help);
            None
        }
    }
}
