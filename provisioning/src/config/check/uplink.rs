//! How the brokers of `[mqtt]` are reached: `via` and TLS.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::tunnel::TunnelPresence;
use crate::config::context::{KeyLocation, ReadContext};
use crate::config::field::Field;
use crate::config::raw::RawMqtt;
use crate::config::scalar::{Choice, Scalar, ValueError};
use crate::config::{Broker, ClientCertificate, Scheme, Tls, Via};

/// Through the tunnel where there is one. A broker that no hub leads to would never be reached.
pub(super) fn check_via(
    raw: &RawMqtt,
    brokers: Option<&[(KeyLocation, Broker)]>,
    tunnel: &TunnelPresence<'_>,
    draft: &mut ReadContext<'_>,
) -> Option<Via> {
    let default = if tunnel.is_on() { Via::Tunnel } else { Via::Direct };
    let via = draft.derived(&raw.via, || Some(Choice(default)))?.0;
    if via == Via::Direct {
        return Some(via);
    }
    if !tunnel.is_on() {
        draft.reject(
            &raw.via.key,
            "`via` is \"tunnel\", and there is no tunnel",
            Some("add a section [tunnel], or write via = \"direct\"".to_owned()),
        );
        return None;
    }
    for (at, broker) in brokers? {
        let Ok(address) = broker.address.host.parse::<IpAddr>() else {
            note_plain_lookup(at, &broker.address.host, draft);
            continue;
        };
        if let TunnelPresence::On(Some(tunnel)) = tunnel
            && !tunnel.settings.hubs.iter().any(|hub| routes_to(hub, address))
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
fn note_plain_lookup(at: &KeyLocation, host: &str, draft: &mut ReadContext<'_>) {
    let message = format!("the name {host} is looked up outside the tunnel, in clear");
    let help = "write the broker's address inside the tunnel, or put the name into /etc/hosts";
    draft.add_note(at, message, help.to_owned(), None);
}

fn routes_to(hub: &tunnel::Hub, address: IpAddr) -> bool {
    hub.allowed_ips.iter().any(|network| network.contains(&address))
}

pub(super) fn check_tls(
    raw: &RawMqtt,
    brokers: Option<&[(KeyLocation, Broker)]>,
    file: &Path,
    draft: &mut ReadContext<'_>,
) -> Option<Tls> {
    let ca_file = optional_file(&raw.ca_file, draft, |ca| ca.readable_path("certificate", file));
    let cert_file =
        optional_file(&raw.cert_file, draft, |cert| cert.readable_path("certificate", file));
    let key_file =
        optional_file(&raw.key_file, draft, |key| key.readable_path("private key", file));
    let (ca_file, cert_file, key_file) = (ca_file?, cert_file?, key_file?);
    let client = match (cert_file, key_file) {
        (Some(cert_file), Some(key_file)) => Some(ClientCertificate { cert_file, key_file }),
        (None, None) => None,
        (Some(_), None) => {
            let help = Some("add key_file = \"...\" beside it".to_owned());
            draft.reject(&raw.cert_file.key, "there is a certificate and no key", help);
            return None;
        }
        (None, Some(_)) => {
            let help = Some("add cert_file = \"...\" beside it".to_owned());
            draft.reject(&raw.key_file.key, "there is a key and no certificate", help);
            return None;
        }
    };
    let used = brokers.is_none_or(|all| all.iter().any(|(_, one)| one.scheme == Scheme::Mqtts));
    if !used
        && let Some(at) = [&raw.ca_file.key, &raw.cert_file.key]
            .into_iter()
            .zip([ca_file.is_some(), client.is_some()])
            .find_map(|(at, is_set)| is_set.then_some(at))
    {
        let help = "write mqtts:// in front of the broker's address, or leave the key out";
        draft.reject(
            at,
            format!("`{}` is for TLS, and no broker is mqtts://", at.name),
            Some(help.to_owned()),
        );
        return None;
    }
    Some(Tls { ca_file, client })
}

/// The outer option is the usual one, the inner one says whether there is a file.
#[expect(clippy::option_option, reason = "an absent file is a good value")]
fn optional_file<T: Scalar>(
    field: &Field<T>,
    draft: &mut ReadContext<'_>,
    check: impl FnOnce(&T) -> Result<PathBuf, ValueError>,
) -> Option<Option<PathBuf>> {
    let Some(file) = draft.optional(field) else { return Some(None) };
    match check(&file) {
        Ok(path) => Some(Some(path)),
        Err(wrong) => {
            draft.reject(&field.key, wrong.message, wrong.help);
            None
        }
    }
}
