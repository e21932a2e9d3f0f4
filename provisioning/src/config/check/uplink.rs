//! Route to the brokers of `[mqtt]` (`via`), and TLS.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::certificates;
use super::file::{NamedFile, open_public, open_secret};
use super::tunnel::TunnelPresence;
use crate::config::context::{KeyLocation, ReadContext};
use crate::config::field::Field;
use crate::config::raw::RawMqtt;
use crate::config::scalar::{Choice, Scalar, SecretFile};
use crate::config::{Broker, ClientCertificate, Scheme, Tls, Via};

/// Returns the route to the brokers, by default the tunnel if there is one. Rejects a broker
/// address outside the allowed IPs of all hubs, because it could never be reached.
pub(super) fn check_via(
    raw: &RawMqtt,
    brokers: Option<&[(KeyLocation, Broker)]>,
    tunnel: &TunnelPresence<'_>,
    context: &mut ReadContext<'_>,
) -> Option<Via> {
    let default = if tunnel.is_on() { Via::Tunnel } else { Via::Direct };
    let via = raw.via.derived(context, || Some(Choice(default)))?.0;
    if via == Via::Direct {
        return Some(via);
    }
    if !tunnel.is_on() {
        context.reject(
            &raw.via.key,
            "`via` is \"tunnel\", but there is no tunnel",
            Some("add a section [tunnel], or write via = \"direct\"".to_owned()),
        );
        return None;
    }
    for (location, broker) in brokers? {
        let Ok(address) = broker.address.host.parse::<IpAddr>() else {
            note_plain_lookup(location, &broker.address.host, context);
            continue;
        };
        let otherwise = ", or write via = \"direct\"";
        if let Some((message, help)) = tunnel.unreachable("broker", address, otherwise) {
            context.reject(location, message, Some(help));
        }
    }
    Some(via)
}

/// Adds a note on a broker with a host name: the DNS query leaves outside the tunnel. Others on the
/// network can read it, and a forged answer can make the broker unreachable, but cannot divert the
/// connection from the tunnel.
fn note_plain_lookup(location: &KeyLocation, host: &str, context: &mut ReadContext<'_>) {
    let message = format!("the DNS query for {host} is sent outside the tunnel, unencrypted");
    let help = "write the broker's address inside the tunnel, or add the name to /etc/hosts";
    context.add_note(location, message, help.to_owned(), None);
}

pub(super) fn check_tls(
    raw: &RawMqtt,
    brokers: Option<&[(KeyLocation, Broker)]>,
    file: &Path,
    context: &mut ReadContext<'_>,
) -> Option<Tls> {
    let ca_file = optional_file(&raw.ca_file, context, |ca, context| {
        open_public(&raw.ca_file, ca, file, context)
    });
    let cert_file = optional_file(&raw.cert_file, context, |cert, context| {
        open_public(&raw.cert_file, cert, file, context)
    });
    let key_file = optional_file(&raw.key_file, context, |key, context| {
        let open = |key: &SecretFile| key.readable_path("private key", file);
        open_secret(&raw.key_file, key, file, context, open)
    });
    let alpn = check_alpn(raw, context);
    let (ca_file, cert_file, key_file) = (ca_file?, cert_file?, key_file?);
    let client = match (cert_file, key_file) {
        (Some(cert_file), Some(key_file)) => Some(ClientCertificate { cert_file, key_file }),
        (None, None) => None,
        (Some(_), None) => {
            let help = Some("add a line key_file = \"...\"".to_owned());
            context.reject(&raw.cert_file.key, "there is a certificate but no key", help);
            return None;
        }
        (None, Some(_)) => {
            let help = Some("add a line cert_file = \"...\"".to_owned());
            context.reject(&raw.key_file.key, "there is a key but no certificate", help);
            return None;
        }
    };
    let (has_ca, has_client) = (ca_file.is_some(), client.is_some());
    let tls = Tls { ca_file, client, alpn: alpn? };
    let used = brokers.is_none_or(|all| all.iter().any(|(_, one)| one.scheme == Scheme::Mqtts));
    if !used
        && let Some(location) = [&raw.ca_file.key, &raw.cert_file.key, &raw.alpn.key]
            .into_iter()
            .zip([has_ca, has_client, !tls.alpn.is_empty()])
            .find_map(|(location, is_set)| is_set.then_some(location))
    {
        let help = "write mqtts:// before the broker's address, or remove the key";
        context.reject(
            location,
            format!("`{}` is for TLS, but no broker is mqtts://", location.name),
            Some(help.to_owned()),
        );
        return None;
    }
    certificates::check_contents(raw, &tls, context);
    Some(tls)
}

/// Returns the application protocols, without duplicates.
fn check_alpn(raw: &RawMqtt, context: &mut ReadContext<'_>) -> Option<Vec<String>> {
    if raw.alpn.items.is_none() && !raw.alpn.already_reported {
        return Some(Vec::new());
    }
    let names = raw.alpn.values(context)?;
    for (index, (location, name)) in names.iter().enumerate() {
        if let Some((first, _)) = names.iter().take(index).find(|(_, other)| other == name) {
            let message = format!("the list contains \"{}\" twice", name.0);
            context.reject_duplicate(location, first, message, "remove one of them");
        }
    }
    Some(names.into_iter().map(|(_, name)| name.0).collect())
}

/// Returns the path of a file, `Some(None)` when the key is missing, or `None` after a problem. A
/// file that was not opened has no path that anything uses.
#[expect(clippy::option_option, reason = "an absent file is a good value")]
fn optional_file<T: Scalar>(
    field: &Field<T>,
    context: &mut ReadContext<'_>,
    open: impl FnOnce(&T, &mut ReadContext<'_>) -> NamedFile<PathBuf>,
) -> Option<Option<PathBuf>> {
    let Some(named) = field.optional(context) else { return Some(None) };
    match open(&named, context) {
        NamedFile::Opened(path) => Some(Some(path)),
        NamedFile::Unopened => Some(Some(PathBuf::new())),
        NamedFile::Rejected => None,
    }
}
