//! `[network]` of a site: the address of the box towards the PLCs, and its way to the internet.

use std::cell::RefCell;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::fleet_toml::ip_address;
use super::keys::{Rejection, SectionReader, keyword, text};
use super::problems::FleetProblem;
use super::tree::{FilePlace, SettingTable};

/// How the box is connected.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SiteNetwork {
    /// The side of the PLCs.
    pub machine: MachineSide,
    /// The way to the internet; none leaves it as it is on the box.
    pub uplink: Option<Uplink>,
}

/// `[network.machine]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MachineSide {
    /// Name of the interface.
    pub interface: String,
    /// Address of the box, with the length of the network.
    pub address: Ipv4Net,
}

/// `[network.uplink]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Uplink {
    /// Address by DHCP.
    Dhcp {
        /// Name of the interface.
        interface: String,
    },
    /// Fixed address.
    Static {
        /// Name of the interface.
        interface: String,
        /// Address of the box, with the length of the network.
        address: Ipv4Net,
        /// The router.
        gateway: Ipv4Addr,
        /// Name servers.
        dns: Vec<Ipv4Addr>,
    },
    /// A modem, with NetworkManager only.
    Lte {
        /// Name of the access point.
        apn: String,
    },
}

#[derive(Clone, Copy)]
enum UplinkMethod {
    Dhcp,
    Static,
    Lte,
}

const METHODS: [(&str, UplinkMethod); 3] =
    [("dhcp", UplinkMethod::Dhcp), ("static", UplinkMethod::Static), ("lte", UplinkMethod::Lte)];

/// Longest name of an interface (IFNAMSIZ without its final zero).
const MAX_INTERFACE: usize = 15;
/// Longest name of an access point (3GPP TS 23.003, 9.1).
const MAX_APN: usize = 100;

/// Reads `[network]`; `None` after a problem.
pub(crate) fn read_network(
    table: &SettingTable,
    problems: &RefCell<Vec<FleetProblem>>,
) -> Option<SiteNetwork> {
    let mut reader = SectionReader::new(table, "[network]", problems);
    let machine = reader.section("machine");
    let uplink = reader.section("uplink");
    if table.get("machine").is_none() {
        let message = "`machine` is missing in [network]".to_owned();
        let help = "add [network.machine] with interface and address: without an address in the \
                    network of the PLCs, none of them answers";
        reader.reject(&table.place, message, help.to_owned());
    }
    reader.finish();
    let machine = machine.and_then(|table| read_machine(table, problems));
    let has_uplink = uplink.is_some();
    let uplink = uplink.and_then(|table| read_uplink(table, problems));
    let (Some(machine), false) = (machine, has_uplink && uplink.is_none()) else { return None };
    let network = SiteNetwork { machine, uplink };
    check_sides(&network, &table.place, problems).then_some(network)
}

fn read_machine(
    table: &SettingTable,
    problems: &RefCell<Vec<FleetProblem>>,
) -> Option<MachineSide> {
    let mut reader = SectionReader::new(table, "[network.machine]", problems);
    let interface =
        reader.required("interface", "interface = \"eth1\"", |value| interface(value, "eth1"));
    let address = reader.required("address", "address = \"192.168.1.2/24\"", host_address);
    reader.finish();
    Some(MachineSide { interface: interface?.value, address: address?.value })
}

fn read_uplink(table: &SettingTable, problems: &RefCell<Vec<FleetProblem>>) -> Option<Uplink> {
    let mut reader = SectionReader::new(table, "[network.uplink]", problems);
    let method =
        reader.required("method", "method = \"dhcp\"", |value| keyword(value, &METHODS))?.value;
    let uplink = match method {
        UplinkMethod::Dhcp => {
            uplink_interface(&mut reader).map(|interface| Uplink::Dhcp { interface })
        }
        UplinkMethod::Static => read_static(&mut reader),
        UplinkMethod::Lte => {
            let found = reader.required("apn", "apn = \"internet\"", apn);
            found.map(|apn| Uplink::Lte { apn: apn.value })
        }
    };
    reader.finish();
    uplink
}

fn read_static(reader: &mut SectionReader<'_>) -> Option<Uplink> {
    let interface = uplink_interface(reader);
    let address = reader.required("address", "address = \"10.1.2.3/24\"", host_address);
    let gateway =
        reader.required("gateway", "gateway = \"10.1.2.1\"", |value| ip_address(value, "10.1.2.1"));
    let dns = reader.required("dns", "dns = [\"10.1.2.1\"]", |value| {
        let list = value.as_array().filter(|list| !list.is_empty());
        let help = || "write dns = [\"10.1.2.1\"]".to_owned();
        let list = list.ok_or_else(|| ("`dns` is a list of addresses".to_owned(), help()))?;
        list.iter().map(|value| ip_address(value, "10.1.2.1")).collect::<Result<Vec<_>, _>>()
    });
    let (address, gateway) = (address?, gateway?);
    if !address.value.contains(&gateway.value) || address.value.addr() == gateway.value {
        let message = format!("{} is not a router in {}", gateway.value, address.value.trunc());
        let help = "write the address of the router, which is in the same network as the box";
        reader.reject(&gateway.place, message, help.to_owned());
        return None;
    }
    Some(Uplink::Static {
        interface: interface?,
        address: address.value,
        gateway: gateway.value,
        dns: dns?.value,
    })
}

fn uplink_interface(reader: &mut SectionReader<'_>) -> Option<String> {
    let found =
        reader.required("interface", "interface = \"eth0\"", |value| interface(value, "eth0"));
    found.map(|found| found.value)
}

/// Reports two sides that are one interface or overlap: the box would not know where a PLC is.
fn check_sides(
    network: &SiteNetwork,
    place: &FilePlace,
    problems: &RefCell<Vec<FleetProblem>>,
) -> bool {
    let machine = &network.machine;
    let (interface, address) = match &network.uplink {
        Some(Uplink::Dhcp { interface }) => (interface, None),
        Some(Uplink::Static { interface, address, .. }) => (interface, Some(address)),
        Some(Uplink::Lte { .. }) | None => return true,
    };
    let overlaps = |uplink: &&Ipv4Net| {
        uplink.contains(&machine.address.network()) || machine.address.contains(&uplink.network())
    };
    let (message, help) = if *interface == machine.interface {
        let message = format!("machine and uplink have the same interface {interface}");
        (message, "give each side its own interface")
    } else if let Some(uplink) = address.filter(overlaps) {
        let message = format!(
            "the networks of machine and uplink overlap: {} and {}",
            machine.address.trunc(),
            uplink.trunc()
        );
        (message, "give one of them another network")
    } else {
        return true;
    };
    problems.borrow_mut().push(FleetProblem::new(place, message, help));
    false
}

/// Returns the address of a host with the length of its network.
fn host_address(value: &toml::Value) -> Result<Ipv4Net, Rejection> {
    let address: Ipv4Net =
        text(value, "an IPv4 address with the length of its network", "192.168.1.2/24")?;
    let is_host = address.prefix_len() >= 31
        || address.addr() != address.network() && address.addr() != address.broadcast();
    let is_usable = is_host && !address.addr().is_unspecified();
    let message = || format!("{} is not the address of a host in its network", address.addr());
    let help = "write the address of the box, such as \"192.168.1.2/24\"";
    if is_usable { Ok(address) } else { Err((message(), help.to_owned())) }
}

fn interface(value: &toml::Value, example: &str) -> Result<String, Rejection> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name = value.as_str().filter(|name| {
        (1..=MAX_INTERFACE).contains(&name.len())
            && name.chars().all(is_allowed)
            && ![".", ".."].contains(name)
    });
    let message = || format!("{value} is not the name of a network interface");
    name.map(str::to_owned).ok_or_else(|| (message(), format!("write \"{example}\"")))
}

/// Returns the name of an access point (3GPP TS 23.003, 9.1).
fn apn(value: &toml::Value) -> Result<String, Rejection> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    let apn = value
        .as_str()
        .filter(|apn| (1..=MAX_APN).contains(&apn.len()) && apn.chars().all(is_allowed));
    let message = || format!("{value} is not the name of an access point");
    let help = "write the APN that the operator of the SIM card names, such as \"internet\"";
    apn.map(str::to_owned).ok_or_else(|| (message(), help.to_owned()))
}
