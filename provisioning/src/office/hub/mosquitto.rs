//! Mosquitto at a hub.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::accounts::{self, Account, Rights};
use super::password_hash::{ITERATIONS, derived_salt, pbkdf2};
use super::wireguard::AFTER_TUNNEL;
use super::{HubFile, HubView, public, secret};
use crate::office::fleet::{BROKER_PORT, BROKER_TLS_PORT, BrokerAuthentication};

/// Length of a salt in bytes, as mosquitto_passwd(1) makes it.
const SALT_BYTES: usize = 12;

/// Messages that wait for an absent client, for example Node-RED. Mosquitto drops those beyond
/// 1,000 by default, and with 0 (no limit) version 2.0.11 closes the connections of clients that
/// published something refused.
const MAX_QUEUED_MESSAGES: u32 = 1_000_000;

/// Returns its configuration, password file and access list.
pub(super) fn render(view: &HubView<'_>, accounts: &[Account]) -> Vec<HubFile> {
    let accounts: Vec<_> = accounts::of_hub(accounts, view).collect();
    vec![
        public("etc/mosquitto/conf.d/edge.conf", settings(view)),
        secret("etc/mosquitto/edge.passwords", passwords(&accounts)),
        secret("etc/mosquitto/edge.acl", access_list(&accounts)),
        public("etc/systemd/system/mosquitto.service.d/edge.conf", AFTER_TUNNEL.to_owned()),
    ]
}

fn settings(view: &HubView<'_>) -> String {
    let address = view.hub.address;
    // Each line of persistence was needed in a test: without autosave, kill -9 loses acknowledged
    // messages. set_tcp_nodelay: without it, acknowledgements wait for a round trip on slow lines.
    let mut text = format!(
        "# Made by edge-provision; changes here are lost.\n\
         per_listener_settings false\n\
         allow_anonymous false\n\
         password_file /etc/mosquitto/edge.passwords\n\
         acl_file /etc/mosquitto/edge.acl\n\
         persistence true\n\
         autosave_on_changes true\n\
         autosave_interval 1\n\
         max_queued_messages {MAX_QUEUED_MESSAGES}\n\
         max_inflight_messages 0\n\
         set_tcp_nodelay true\n\
         \n\
         listener {BROKER_PORT} {address}\n"
    );
    if view.fleet.settings().broker.authentication == BrokerAuthentication::Certificate {
        let _ = write!(
            text,
            "\n\
             listener {BROKER_TLS_PORT} {address}\n\
             cafile /etc/mosquitto/certs/ca.pem\n\
             certfile /etc/mosquitto/certs/broker.pem\n\
             keyfile /etc/mosquitto/certs/broker.key\n\
             require_certificate true\n\
             use_identity_as_username true\n"
        );
    }
    text
}

/// Returns the hash of a password in the form of mosquitto_passwd(1): `$7$101$SALT$HASH`.
pub(super) fn password_hash(password: &str) -> String {
    let salt: [u8; SALT_BYTES] = derived_salt(password, "mosquitto");
    let hash = pbkdf2(password, &salt);
    format!("$7${ITERATIONS}${}${}", STANDARD.encode(salt), STANDARD.encode(hash))
}

fn passwords(accounts: &[&Account]) -> String {
    let mut text = String::new();
    for account in accounts {
        if let Some(hash) = &account.password_hash {
            // A String accepts every text.
            let _ = writeln!(text, "{}:{hash}", account.name);
        }
    }
    text
}

/// Returns the access list: one line for each verb of each user.
/// What it does not list is refused.
fn access_list(accounts: &[&Account]) -> String {
    let mut text = String::from("# Made by edge-provision; changes here are lost.\n");
    for account in accounts {
        // A String accepts every text.
        let _ = writeln!(text, "\nuser {}", account.name);
        match &account.rights {
            Rights::Everything => text.push_str("topic readwrite #\n"),
            Rights::Site { publish, subscribe, .. } => {
                for topic in publish {
                    let _ = writeln!(text, "topic write {topic}");
                }
                for topic in subscribe {
                    let _ = writeln!(text, "topic read {topic}");
                }
            }
        }
    }
    text
}
