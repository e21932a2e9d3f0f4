//! The network of a box as files of NetworkManager and of systemd-networkd. A box uses those of the
//! manager that it runs.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::SiteFile;
use super::network::{MachineSide, SiteNetwork, Uplink};

/// Metric of a modem's default route: a cable is preferred.
const LTE_METRIC: u32 = 700;

/// Returns the files of one site.
pub(crate) fn render(network: &SiteNetwork) -> Vec<SiteFile> {
    let mut files = vec![
        file("edge-machine.nmconnection", machine_keyfile(&network.machine)),
        file("10-edge-machine.network", machine_networkd(&network.machine)),
    ];
    if let Some(uplink) = &network.uplink {
        files.push(file("edge-uplink.nmconnection", uplink_keyfile(uplink)));
        files.extend(uplink_networkd(uplink).map(|text| file("10-edge-uplink.network", text)));
    }
    files
}

fn file(name: &str, text: String) -> SiteFile {
    SiteFile { name: format!("network/{name}"), content: text.into_bytes() }
}

/// NetworkManager retries for ever: a cable may be plugged in at any time.
fn keyfile_head(id: &str, kind: &str, interface: Option<&str>) -> String {
    let interface = interface.map(|name| format!("interface-name={name}\n")).unwrap_or_default();
    format!("[connection]\nid={id}\ntype={kind}\n{interface}autoconnect-retries=0\n")
}

fn machine_keyfile(machine: &MachineSide) -> String {
    let head = keyfile_head("edge-machine", "ethernet", Some(&machine.interface));
    let address = machine.address;
    // No route but to the machines: they are no way to the internet.
    format!(
        "{head}\n[ipv4]\nmethod=manual\naddress1={address}\nnever-default=true\n\n\
         [ipv6]\nmethod=disabled\n"
    )
}

fn machine_networkd(machine: &MachineSide) -> String {
    let MachineSide { interface, address } = machine;
    format!(
        "[Match]\nName={interface}\n\n[Link]\nRequiredForOnline=no\n\n[Network]\n\
         Address={address}\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    )
}

fn uplink_keyfile(uplink: &Uplink) -> String {
    let id = "edge-uplink";
    match uplink {
        Uplink::Dhcp { interface } => {
            let head = keyfile_head(id, "ethernet", Some(interface));
            format!("{head}\n[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n")
        }
        Uplink::Static { interface, address, gateway, dns } => {
            let head = keyfile_head(id, "ethernet", Some(interface));
            let dns = joined(dns, ";");
            format!(
                "{head}\n[ipv4]\nmethod=manual\naddress1={address},{gateway}\ndns={dns};\n\n\
                 [ipv6]\nmethod=disabled\n"
            )
        }
        Uplink::Lte { apn } => {
            let head = keyfile_head(id, "gsm", None);
            format!(
                "{head}\n[gsm]\napn={apn}\n\n[ipv4]\nmethod=auto\nroute-metric={LTE_METRIC}\n\n\
                 [ipv6]\nmethod=auto\nroute-metric={LTE_METRIC}\n"
            )
        }
    }
}

/// Returns the file of systemd-networkd, which knows no modems.
fn uplink_networkd(uplink: &Uplink) -> Option<String> {
    match uplink {
        Uplink::Dhcp { interface } => {
            Some(format!("[Match]\nName={interface}\n\n[Network]\nDHCP=yes\n"))
        }
        Uplink::Static { interface, address, gateway, dns } => {
            Some(static_networkd(interface, *address, *gateway, dns))
        }
        Uplink::Lte { .. } => None,
    }
}

fn static_networkd(
    interface: &str,
    address: Ipv4Net,
    gateway: Ipv4Addr,
    dns: &[Ipv4Addr],
) -> String {
    let mut text =
        format!("[Match]\nName={interface}\n\n[Network]\nAddress={address}\nGateway={gateway}\n");
    for server in dns {
        // A String accepts every text.
        let _ = writeln!(text, "DNS={server}");
    }
    text
}

fn joined(addresses: &[Ipv4Addr], separator: &str) -> String {
    addresses.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(separator)
}
