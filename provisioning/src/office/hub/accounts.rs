//! Accounts of a broker: what each user may publish and read.

use std::collections::BTreeSet;

use zeroize::Zeroizing;

use super::{HubError, HubView, emqx, mosquitto, nats};
use crate::office::fleet::{
    BrokerAuthentication, BrokerSoftware, Fleet, OFFICE_USER, Site, in_parallel,
};
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

/// Kinds of messages that a gateway publishes, below `edge/ID/`.
const PUBLISHED: [&str; 4] = ["data/#", "status", "event", "reply/#"];
/// Kinds of messages that a gateway reads.
const READ: [&str; 2] = ["set/#", "offer"];

/// Returns the office's account and one for each site that is not revoked, sorted by id.
pub(super) fn of_fleet(fleet: &Fleet, secrets: &Secrets) -> Result<Vec<Account>, HubError> {
    let broker = fleet.settings().broker;
    let hash = match broker.software {
        BrokerSoftware::Mosquitto => mosquitto::password_hash,
        BrokerSoftware::Nats => nats::password_hash,
        BrokerSoftware::Emqx => emqx::password_hash,
    };
    let topics = fleet.extra_topics()?;
    let sites = fleet.sites().iter().zip(topics).filter(|(site, _)| !site.is_revoked);
    let sites: Vec<_> = sites.collect();
    // Reading and hashing ten thousand passwords takes most of the time.
    let accounts = in_parallel(&sites, |_, sites| {
        let accounts = |(site, extra): &(&Site, Vec<String>)| {
            let account = |name, password: Option<Zeroizing<String>>| Account {
                name,
                password_hash: password.map(|password| hash(&password)),
                rights: rights(&site.id, extra),
            };
            if broker.authentication == BrokerAuthentication::Certificate {
                return Ok(vec![account(site.id.clone(), None)]);
            }
            let password = secrets.site_password(&site.id, site.login)?;
            let mut accounts = vec![account(site.user_name(site.login), Some(password))];
            // The one before the last, until the box uses the new one.
            let previous = secrets.previous_site_password(&site.id, site.login)?;
            if let Some((login, password)) = previous {
                accounts.push(account(site.user_name(login), Some(password)));
            }
            Ok(accounts)
        };
        sites.iter().map(accounts).collect()
    });
    let office = Account {
        name: OFFICE_USER.to_owned(),
        password_hash: Some(hash(&secrets.office_password()?)),
        rights: Rights::Everything,
    };
    let accounts: Result<Vec<Vec<Account>>, HubError> = accounts.into_iter().collect();
    Ok([office].into_iter().chain(accounts?.into_iter().flatten()).collect())
}

fn rights(site: &str, extra: &[String]) -> Rights {
    let below = |kind: &&str| format!("edge/{site}/{kind}");
    Rights::Site {
        site: site.to_owned(),
        publish: PUBLISHED.iter().map(below).chain(extra.iter().cloned()).collect(),
        subscribe: READ.iter().map(below).collect(),
    }
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
