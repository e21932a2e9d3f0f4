//! `fleet.toml`: what all sites share.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use tunnel::{Endpoint, PublicKey};

use super::keys::{Located, Rejection, SectionReader, keyword, text};
use super::problems::FleetProblem;
use super::site::reject_fleet_keys;
use super::tree::{FilePlace, SettingTable};
use crate::bundle::is_version;
use crate::office::address_plan::AddressPlan;

/// What all sites share.
#[derive(Clone, Debug)]
pub struct FleetSettings {
    /// Addresses inside the tunnel.
    pub plan: AddressPlan,
    /// The hubs; at least one.
    pub hubs: Vec<FleetHub>,
    /// Computers of the office with a tunnel of their own to the hubs.
    pub office: Vec<OfficeComputer>,
    /// The brokers, one on each hub.
    pub broker: BrokerSettings,
    /// Version of edge-gateway that the boxes shall run; none leaves it to them.
    pub version: Option<String>,
    /// Oldest version of edge-gateway that a box may install from now on.
    pub min_version: Option<String>,
    pub(crate) places: VersionPlaces,
    /// Sections of gateway.toml for all sites.
    pub(crate) defaults: SettingTable,
}

/// Where the versions of the fleet stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct VersionPlaces {
    pub(crate) version: Option<FilePlace>,
    pub(crate) min_version: Option<FilePlace>,
}

/// `[[hub]]`.
#[derive(Clone, Debug)]
pub struct FleetHub {
    /// Name in the status of the gateways: a label of a host name.
    pub name: String,
    /// Where the gateways reach it.
    pub endpoint: Endpoint,
    /// Its address inside the tunnel.
    pub address: Ipv4Addr,
    /// Its public key.
    pub public_key: PublicKey,
    /// Port of its ssh server, which stays reachable from outside.
    pub ssh_port: u16,
    pub(crate) places: HubPlaces,
}

/// Where the values of a hub stand.
#[derive(Clone, Debug)]
pub(crate) struct HubPlaces {
    pub(crate) name: FilePlace,
    pub(crate) endpoint: FilePlace,
    pub(crate) address: FilePlace,
    pub(crate) public_key: FilePlace,
}

/// What has a key of its own in the tunnel, with its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyHolder<'a> {
    /// A hub.
    Hub(&'a str),
    /// A computer of the office.
    Office(&'a str),
    /// A site.
    Site(&'a str),
}

/// `[[office]]`.
#[derive(Clone, Debug)]
pub struct OfficeComputer {
    /// Its name, for people.
    pub name: String,
    /// Its address inside the tunnel.
    pub address: Ipv4Addr,
    /// Its public key.
    pub public_key: PublicKey,
}

/// `[broker]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BrokerSettings {
    /// The program.
    pub software: BrokerSoftware,
    /// How the broker recognises a gateway.
    pub authentication: BrokerAuthentication,
}

/// `broker.software`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BrokerSoftware {
    /// One Mosquitto on each hub.
    Mosquitto,
    /// A cluster of NATS servers.
    Nats,
    /// A cluster of EMQX nodes.
    Emqx,
}

/// `broker.authentication`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BrokerAuthentication {
    /// User name and password, inside the tunnel only.
    Password,
    /// A certificate for each gateway.
    Certificate,
}

const SOFTWARE: [(&str, BrokerSoftware); 3] = [
    ("mosquitto", BrokerSoftware::Mosquitto),
    ("nats", BrokerSoftware::Nats),
    ("emqx", BrokerSoftware::Emqx),
];
const AUTHENTICATION: [(&str, BrokerAuthentication); 2] = [
    ("password", BrokerAuthentication::Password),
    ("certificate", BrokerAuthentication::Certificate),
];
const DEFAULT_SSH_PORT: u16 = 22;
/// Maximum number of hubs: a site uses two of them, and each holds up to 20,000 sites.
const MAX_HUBS: usize = 100;

impl FleetSettings {
    /// Returns the keys of hubs and computers of the office.
    pub fn keys(&self) -> impl Iterator<Item = (PublicKey, KeyHolder<'_>)> {
        let hubs = self.hubs.iter().map(|hub| (hub.public_key, KeyHolder::Hub(&hub.name)));
        let office = self.office.iter();
        hubs.chain(office.map(|own| (own.public_key, KeyHolder::Office(&own.name))))
    }
}

impl std::fmt::Display for KeyHolder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hub(name) => write!(f, "the hub {name}"),
            Self::Office(name) => write!(f, "the computer {name} of the office"),
            Self::Site(name) => write!(f, "the site {name}"),
        }
    }
}

/// Reads the file; `None` after a problem.
pub(crate) fn read_fleet(
    root: &SettingTable,
    problems: &RefCell<Vec<FleetProblem>>,
) -> Option<FleetSettings> {
    let before = problems.borrow().len();
    let mut reader = SectionReader::new(root, "fleet.toml", problems);
    let tunnel = reader.section("tunnel");
    let hubs = reader.sections("hub");
    let office = reader.sections("office");
    let broker = reader.section("broker");
    let defaults = reader.section("defaults");
    let version = reader.optional("version", package_version);
    let min_version = reader.optional("min_version", package_version);
    if tunnel.is_none() && root.get("tunnel").is_none() {
        let help = "add [tunnel] with network = \"10.77.0.0/16\" and office = \"10.77.255.0/24\"";
        reader.reject(&root.place, "there is no section [tunnel]".to_owned(), help.to_owned());
    }
    if hubs.is_empty() && root.get("hub").is_none() {
        let help = "add [[hub]] with name, endpoint, address and public_key";
        reader.reject(&root.place, "the fleet has no hub".to_owned(), help.to_owned());
    }
    if let Some(entry) = defaults.and_then(|defaults| defaults.get("plc")) {
        let help = "write the PLCs into the files of the sites, and what they share into templates";
        reader.reject(&entry.place, "the fleet has no PLCs".to_owned(), help.to_owned());
    }
    if let Some(defaults) = defaults {
        reject_fleet_keys(defaults, problems);
    }
    if let Some(hub) = hubs.get(MAX_HUBS) {
        let message = format!("there are more than {MAX_HUBS} hubs");
        reader.reject(&hub.place, message, "split the fleet".to_owned());
    }
    reader.finish();
    let networks = tunnel.and_then(|table| read_tunnel(table, problems));
    let hubs: Vec<_> = hubs.iter().filter_map(|hub| read_hub(hub, problems)).collect();
    let office = office.iter().filter_map(|table| read_office(table, problems)).collect::<Vec<_>>();
    let broker = read_broker(broker, root, problems);
    if let Some(networks) = &networks {
        check_addresses(networks, &hubs, &office, problems);
    }
    check_duplicates(&hubs, &office, problems);
    let hub_addresses = hubs.iter().map(|hub| hub.address).collect();
    let is_good = problems.borrow().len() == before;
    let (network, office_network) = networks.filter(|_| is_good)?;
    let place = |found: &Option<Located<String>>| found.as_ref().map(|found| found.place.clone());
    Some(FleetSettings {
        places: VersionPlaces { version: place(&version), min_version: place(&min_version) },
        plan: AddressPlan { network, office: office_network, hubs: hub_addresses },
        hubs,
        office: office.into_iter().map(|computer| computer.value).collect(),
        broker,
        version: version.map(|version| version.value),
        min_version: min_version.map(|version| version.value),
        defaults: defaults.cloned().unwrap_or_else(|| SettingTable::empty(root.place.clone())),
    })
}

fn read_tunnel(
    table: &SettingTable,
    problems: &RefCell<Vec<FleetProblem>>,
) -> Option<(Ipv4Net, Ipv4Net)> {
    let mut reader = SectionReader::new(table, "[tunnel]", problems);
    let network = reader.required("network", "network = \"10.77.0.0/16\"", |value| {
        parse_network(value, "10.77.0.0/16")
    });
    let office = reader.required("office", "office = \"10.77.255.0/24\"", |value| {
        parse_network(value, "10.77.255.0/24")
    });
    let (network, office) = (network.as_ref(), office.as_ref());
    if let (Some(network), Some(office)) = (network, office)
        && (!network.value.contains(&office.value) || network.value == office.value)
    {
        let message = format!("{} is not a part of {}", office.value, network.value);
        let help = "the office has a part of the tunnel's network, such as its last /24";
        reader.reject(&office.place, message, help.to_owned());
    }
    reader.finish();
    Some((network?.value, office?.value))
}

fn read_hub(table: &SettingTable, problems: &RefCell<Vec<FleetProblem>>) -> Option<FleetHub> {
    let mut reader = SectionReader::new(table, "[[hub]]", problems);
    let name = reader.required("name", "name = \"hub-a\"", |value| label(value, "hub-a"));
    let example = "endpoint = \"hub-a.example.net:51820\"";
    let endpoint = reader.required("endpoint", example, |value| {
        let help = || "write host:port, such as \"hub-a.example.net:51820\"".to_owned();
        let text = value.as_str().ok_or_else(|| (format!("{value} is not a text"), help()))?;
        text.parse::<Endpoint>().map_err(|error| (format!("`endpoint`: {error}"), help()))
    });
    let address = reader
        .required("address", "address = \"10.77.0.1\"", |value| ip_address(value, "10.77.0.1"));
    let example = "public_key = \"...\", which `edge-provision add --hub` makes";
    let public_key = reader.required("public_key", example, public_key);
    let ssh_port = reader.optional("ssh_port", |value| {
        let port = value.as_integer().and_then(|port| u16::try_from(port).ok());
        let help = "write a number from 1 to 65535".to_owned();
        port.filter(|port| *port > 0).ok_or_else(|| (format!("{value} is not a port"), help))
    });
    reader.finish();
    let (name, endpoint, address, public_key) = (name?, endpoint?, address?, public_key?);
    Some(FleetHub {
        places: HubPlaces {
            name: name.place,
            endpoint: endpoint.place,
            address: address.place,
            public_key: public_key.place,
        },
        name: name.value,
        endpoint: endpoint.value,
        address: address.value,
        public_key: public_key.value,
        ssh_port: ssh_port.map_or(DEFAULT_SSH_PORT, |port| port.value),
    })
}

fn read_office(
    table: &SettingTable,
    problems: &RefCell<Vec<FleetProblem>>,
) -> Option<Located<OfficeComputer>> {
    let mut reader = SectionReader::new(table, "[[office]]", problems);
    let name = reader.required("name", "name = \"anna\"", |value| label(value, "anna"));
    let address = reader
        .required("address", "address = \"10.77.255.2\"", |value| ip_address(value, "10.77.255.2"));
    let public_key = reader.required("public_key", "public_key = \"...\"", public_key);
    reader.finish();
    let address = address?;
    let computer =
        OfficeComputer { name: name?.value, address: address.value, public_key: public_key?.value };
    Some(Located { value: computer, place: address.place })
}

fn read_broker(
    table: Option<&SettingTable>,
    root: &SettingTable,
    problems: &RefCell<Vec<FleetProblem>>,
) -> BrokerSettings {
    let none = SettingTable::empty(root.place.clone());
    let mut reader = SectionReader::new(table.unwrap_or(&none), "[broker]", problems);
    let software = reader.optional("software", |value| keyword(value, &SOFTWARE));
    let authentication = reader.optional("authentication", |value| keyword(value, &AUTHENTICATION));
    let settings = BrokerSettings {
        software: software.as_ref().map_or(BrokerSoftware::Mosquitto, |found| found.value),
        authentication: authentication
            .as_ref()
            .map_or(BrokerAuthentication::Password, |found| found.value),
    };
    if let Some(Located { value: BrokerAuthentication::Certificate, place }) = &authentication
        && settings.software != BrokerSoftware::Mosquitto
    {
        let message = "the files for NATS and EMQX ask for passwords only".to_owned();
        let help = "write authentication = \"password\", or software = \"mosquitto\"";
        reader.reject(place, message, help.to_owned());
    }
    reader.finish();
    settings
}

fn check_addresses(
    (network, office_network): &(Ipv4Net, Ipv4Net),
    hubs: &[FleetHub],
    office: &[Located<OfficeComputer>],
    problems: &RefCell<Vec<FleetProblem>>,
) {
    let reject = |place: &FilePlace, message: String, help: &str| {
        problems.borrow_mut().push(FleetProblem::new(place, message, help));
    };
    for hub in hubs {
        let is_host = network.contains(&hub.address)
            && hub.address != network.network()
            && hub.address != network.broadcast();
        if !is_host {
            let message = format!("{} is not an address of {network}", hub.address);
            reject(&hub.places.address, message, "write an address of tunnel.network");
        } else if office_network.contains(&hub.address) {
            let message = format!("{} belongs to the office", hub.address);
            reject(&hub.places.address, message, "write an address outside of tunnel.office");
        }
    }
    for computer in office {
        if !office_network.contains(&computer.value.address) {
            let message = format!("{} is not in {office_network}", computer.value.address);
            reject(&computer.place, message, "write an address of tunnel.office");
        }
    }
}

/// Reports names, addresses and keys that two hubs or computers have.
fn check_duplicates(
    hubs: &[FleetHub],
    office: &[Located<OfficeComputer>],
    problems: &RefCell<Vec<FleetProblem>>,
) {
    let mut names = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    let mut keys = BTreeSet::new();
    let check = |is_new: bool, place: &FilePlace, what: &str| {
        if !is_new {
            let message = format!("{what} is there twice");
            let help = "each hub and each computer has its own name, address and key";
            problems.borrow_mut().push(FleetProblem::new(place, message, help));
        }
    };
    for FleetHub { name, address, public_key, places, .. } in hubs {
        check(names.insert(name.as_str()), &places.name, name);
        check(addresses.insert(*address), &places.address, &address.to_string());
        check(keys.insert(*public_key), &places.public_key, "this key");
    }
    for Located { value, place } in office {
        check(names.insert(value.name.as_str()), place, &value.name);
        check(addresses.insert(value.address), place, &value.address.to_string());
        check(keys.insert(value.public_key), place, "this key");
    }
}

fn parse_network(value: &toml::Value, example: &str) -> Result<Ipv4Net, Rejection> {
    let network: Ipv4Net = text(value, "an IPv4 network", example)?;
    if network.trunc() == network {
        return Ok(network);
    }
    let message = format!("{network} has bits set after its first {}", network.prefix_len());
    Err((message, format!("write \"{}\"", network.trunc())))
}

pub(crate) fn ip_address(value: &toml::Value, example: &str) -> Result<Ipv4Addr, Rejection> {
    text(value, "an IPv4 address", example)
}

pub(crate) fn package_version(value: &toml::Value) -> Result<String, Rejection> {
    let version = value.as_str().filter(|version| is_version(version));
    let help = || "write the version of the package: \"0.1.0\"".to_owned();
    version.map(str::to_owned).ok_or_else(|| (format!("{value} is not a version"), help()))
}

pub(crate) fn public_key(value: &toml::Value) -> Result<PublicKey, Rejection> {
    let key = value.as_str().and_then(|text| text.parse().ok());
    let message = || format!("{value} is not a public key");
    key.ok_or_else(|| (message(), "a key is 44 characters of base64".to_owned()))
}

/// Returns a name of a-z, 0-9 and `-`, which is a file name, a user name and a level of a topic.
pub(crate) fn label(value: &toml::Value, example: &str) -> Result<String, Rejection> {
    let name = value.as_str().filter(|name| is_label(name));
    let message = || format!("{value} is not a name of a-z, 0-9 and -, at most 63 long");
    name.map(str::to_owned).ok_or_else(|| (message(), format!("write \"{example}\"")))
}

/// Returns whether a text is 1 to 63 of a-z, 0-9 and `-`, and does not begin with `-`.
pub(crate) fn is_label(name: &str) -> bool {
    let is_allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(is_allowed) && !name.starts_with('-')
}
