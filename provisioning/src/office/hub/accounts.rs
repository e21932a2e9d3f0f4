//! Accounts of a broker: what each user may publish and read.

use std::collections::BTreeSet;

use zeroize::Zeroizing;

use super::{HubError, HubView, emqx, mosquitto, nats};
use crate::office::fleet::{BrokerAuthentication, BrokerSoftware, Fleet, in_parallel};
use crate::office::secrets::Secrets;

/// A user of the broker.
pub(super) struct Account {
    /// A login of a site, or [`OFFICE_USER`].
    pub(super) name: String,
    /// Hash of the password in the form of the broker; absent if the broker recognises the user by
    /// a certificate.
    pub(super) password_hash: Option<String>,
    pub(super) rights: Rights,
}

/// What a user may do.
pub(super) enum Rights {
    /// Topic filters, one for each kind of message.
    Site {
        /// Its id.
        site: String,
        /// The gateway publishes to these.
        publish: Vec<String>,
        /// The gateway subscribes to these.
        subscribe: Vec<String>,
    },
    /// Everything: Node-RED, the database, `edge-provision`.
    Everything,
}

/// User of the programs at the office and at the hub.
pub(super) const OFFICE_USER: &str = "office";

/// Kinds of messages that a gateway publishes, below `edge/ID/`.
const PUBLISHED: [&str; 4] = ["data/#", "status", "event", "reply/#"];
/// Kinds of messages that a gateway reads.
const READ: [&str; 2] = ["set/#", "offer"];

/// Returns the office's account and one for each site that is not revoked, sorted by id.
pub(super) fn of_fleet(fleet: &Fleet, secrets: &Secrets) -> Result<Vec<Account>, HubError> {
    let broker = fleet.settings().broker;
    let mut accounts = vec![(OFFICE_USER.to_owned(), Rights::Everything)];
    let mut passwords = vec![Some(secrets.office_password()?)];
    let topics = fleet.extra_topics()?;
    let sites = fleet.sites().iter().zip(topics);
    for (site, extra) in sites.filter(|(site, _)| !site.is_revoked) {
        let below = |kind: &&str| format!("edge/{}/{kind}", site.id);
        let publish: Vec<String> = PUBLISHED.iter().map(below).chain(extra).collect();
        let rights = || Rights::Site {
            site: site.id.clone(),
            publish: publish.clone(),
            subscribe: READ.iter().map(below).collect(),
        };
        match broker.authentication {
            BrokerAuthentication::Password => {
                accounts.push((site.user_name(site.login), rights()));
                passwords.push(Some(secrets.site_password(&site.id)?));
                // The one before the last, until the box uses the new one.
                if let Some(previous) = secrets.previous_site_password(&site.id)? {
                    accounts.push((site.user_name(site.login.saturating_sub(1).max(1)), rights()));
                    passwords.push(Some(previous));
                }
            }
            BrokerAuthentication::Certificate => {
                accounts.push((site.id.clone(), rights()));
                passwords.push(None);
            }
        }
    }
    let hash = match broker.software {
        BrokerSoftware::Mosquitto => mosquitto::password_hash,
        BrokerSoftware::Nats => nats::password_hash,
        BrokerSoftware::Emqx => emqx::password_hash,
    };
    let hash = |password: &Option<Zeroizing<String>>| password.as_ref().map(|text| hash(text));
    let hashes = in_parallel(&passwords, |_, passwords| passwords.iter().map(hash).collect());
    let account = |((name, rights), password_hash)| Account { name, password_hash, rights };
    Ok(accounts.into_iter().zip(hashes).map(account).collect())
}

/// Returns the accounts that one hub needs: the office, and the sites that use it.
pub(super) fn of_hub<'a>(
    accounts: &'a [Account],
    view: &HubView<'_>,
) -> impl Iterator<Item = &'a Account> {
    let sites: BTreeSet<String> = view.sites.iter().map(|entry| entry.site.id.clone()).collect();
    accounts.iter().filter(move |account| match &account.rights {
        Rights::Everything => true,
        Rights::Site { site, .. } => sites.contains(site),
    })
}
