//! `sites/ID.toml`: what is particular to one site.

use std::cell::RefCell;
use std::net::Ipv4Addr;

use tunnel::PublicKey;

use super::fleet_toml::{ip_address, is_label, package_version, public_key};
use super::keys::{Rejection, SectionReader, text};
use super::network::{SiteNetwork, read_network};
use super::problems::FleetProblem;
use super::tree::{FilePlace, FleetFile, SettingTable};

/// One site with its gateway.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its name: that of its file, the `gateway.id`, and the user name at the broker.
    pub id: String,
    /// Its address inside the tunnel.
    pub address: Ipv4Addr,
    /// Public key of its tunnel; none before it was enrolled.
    pub public_key: Option<PublicKey>,
    /// Whether its access was withdrawn.
    pub is_revoked: bool,
    /// Counter of its last bundle; 0 before the first.
    pub counter: u64,
    /// SHA-256 of what its last bundle holds, in hexadecimal.
    pub digest: Option<String>,
    /// Version of edge-gateway that its box shall run; none leaves it to the box.
    pub version: Option<String>,
    /// Versions whose packages its last bundle names; the first is that which its box shall run.
    pub packages: Vec<String>,
    /// Number of its login at the broker, from 1; a new password comes with a new login.
    pub login: u64,
    /// How its box is connected; none leaves it as it is.
    pub network: Option<SiteNetwork>,
    /// Its sections of gateway.toml.
    pub(crate) settings: SettingTable,
    pub(crate) places: SitePlaces,
    /// Equal for sites whose gateway.toml differs in names and addresses only; none if the file
    /// repeats one of them elsewhere.
    pub(crate) shape: Option<u64>,
}

/// Where the values of a site stand.
#[derive(Clone, Debug)]
pub(crate) struct SitePlaces {
    pub(crate) file: FilePlace,
    pub(crate) address: FilePlace,
    pub(crate) public_key: Option<FilePlace>,
    pub(crate) version: Option<FilePlace>,
}

impl Site {
    /// Returns its user name at the broker for a login: the id, then `ID.2` and so on. A point is
    /// in no id.
    #[must_use]
    pub fn user_name(&self, login: u64) -> String {
        if login == 1 { self.id.clone() } else { format!("{}.{login}", self.id) }
    }
}

/// User of the programs at the office and at the hub, who may do everything at the broker. A site
/// of this name would be that user, by its password or by the name in its certificate.
pub(crate) const OFFICE_USER: &str = "office";

/// Checks a name for a site: a label of a host name that is no other user of the broker.
pub(crate) fn check_id(id: &str) -> Result<(), Rejection> {
    let message = format!("\"{id}\" cannot be the id of a site");
    if !is_label(id) {
        let help = "rename the file: a-z, 0-9 and -, at most 63, such as sites/amsterdam-01.toml";
        return Err((message, help.to_owned()));
    }
    if id == OFFICE_USER {
        let help = "the user `office` of the broker may do everything: choose another name, \
                    such as amsterdam-01";
        return Err((message, help.to_owned()));
    }
    Ok(())
}

/// Sections of a site's file that are not part of its gateway.toml.
const OWN_SECTIONS: [&str; 2] = ["site", "network"];

/// Keys of gateway.toml that the fleet sets, with the place where they belong.
const FLEET_KEYS: [(&str, &str, &str); 6] = [
    ("gateway", "id", "the id of a site is the name of its file"),
    ("tunnel", "address", "the address of a site is `address` in [site]"),
    ("tunnel", "hub", "the hubs of all sites are [[hub]] in fleet.toml"),
    ("tunnel", "private_key_file", "the box makes its own key"),
    ("mqtt", "username", "the user name of a site is its id"),
    ("mqtt", "password_file", "`edge-provision add` makes the password of a site"),
];

/// Reads the file of a site; `None` after a problem.
pub(crate) fn read_site(
    id: &str,
    file: FleetFile,
    mut root: SettingTable,
    problems: &RefCell<Vec<FleetProblem>>,
) -> Option<Site> {
    let before = problems.borrow().len();
    let file = FilePlace { file, span: 0..0 };
    reject_fleet_keys(&root, problems);
    let own = root.table("site").cloned();
    if own.is_none() {
        let help = "add [site] with address; `edge-provision add` writes a whole file";
        problems.borrow_mut().push(FleetProblem::new(&file, "there is no section [site]", help));
    }
    let network = root.table("network").map(|table| read_network(table, problems));
    let own = own.unwrap_or_else(|| SettingTable::empty(file.clone()));
    let mut reader = SectionReader::new(&own, "[site]", problems);
    let address = (!own.entries.is_empty())
        .then(|| {
            let example = "address = \"10.77.0.12\"";
            reader.required("address", example, |value| ip_address(value, "10.77.0.12"))
        })
        .flatten();
    let public_key = reader.optional("public_key", public_key);
    let is_revoked = reader.optional("revoked", |value| {
        let help = || "write revoked = true, or remove it".to_owned();
        value.as_bool().ok_or_else(|| (format!("{value} is not true or false"), help()))
    });
    let counter = reader.optional("counter", |value| {
        let counter = value.as_integer().and_then(|counter| u64::try_from(counter).ok());
        let help = "`edge-provision build` counts it up".to_owned();
        counter.ok_or_else(|| (format!("{value} is not a whole number from 0"), help))
    });
    let digest = reader
        .optional("digest", |value| text(value, "what `edge-provision build` writes", "0123abcd"));
    let version = reader.optional("version", package_version);
    let packages = reader.optional("packages", package_versions);
    let login = reader.optional("login", login_number);
    reader.finish();
    root.entries.retain(|entry| !OWN_SECTIONS.contains(&entry.key.as_str()));
    if problems.borrow().len() != before {
        return None;
    }
    let address = address?;
    Some(Site {
        id: id.to_owned(),
        address: address.value,
        is_revoked: is_revoked.is_some_and(|revoked| revoked.value),
        counter: counter.map_or(0, |counter| counter.value),
        digest: digest.map(|digest| digest.value),
        packages: packages.map_or_else(Vec::new, |packages| packages.value),
        login: login.map_or(1, |login| login.value),
        network: network.flatten(),
        settings: root,
        places: SitePlaces {
            file,
            address: address.place,
            public_key: public_key.as_ref().map(|key| key.place.clone()),
            version: version.as_ref().map(|version| version.place.clone()),
        },
        version: version.map(|version| version.value),
        public_key: public_key.map(|key| key.value),
        shape: None,
    })
}

fn login_number(value: &toml::Value) -> Result<u64, Rejection> {
    let login = value.as_integer().and_then(|login| u64::try_from(login).ok());
    let help = "`edge-provision rotate --password` counts it up".to_owned();
    let login = login.filter(|login| *login > 0);
    login.ok_or_else(|| (format!("{value} is not a whole number from 1"), help))
}

/// Reads the versions that `build` has written.
fn package_versions(value: &toml::Value) -> Result<Vec<String>, Rejection> {
    let help = || "`edge-provision build` writes it: remove it".to_owned();
    let versions = value.as_array().ok_or_else(|| (format!("{value} is not a list"), help()))?;
    versions
        .iter()
        .map(|value| package_version(value).map_err(|(what, _)| (what, help())))
        .collect()
}

/// Reports keys of gateway.toml that the fleet sets.
pub(crate) fn reject_fleet_keys(root: &SettingTable, problems: &RefCell<Vec<FleetProblem>>) {
    for (section, key, sentence) in FLEET_KEYS {
        if let Some(entry) = root.table(section).and_then(|table| table.get(key)) {
            let message = format!("`{key}` is not set here: {sentence}");
            let help = format!("remove `{key}`");
            problems.borrow_mut().push(FleetProblem::new(&entry.place, message, help));
        }
    }
}
