//! The packet filter of a hub.

use super::{BUNDLE_PORT, HubView, INTERFACE, METRICS_PORT, cluster_ports};
use crate::office::fleet::{BROKER_PORT, BROKER_TLS_PORT, BrokerAuthentication};

/// Returns `/etc/nftables.d/edge.nft`. It replaces its own table as a whole and touches no other.
pub(super) fn ruleset(view: &HubView<'_>) -> String {
    let settings = view.fleet.settings();
    let (network, office) = (settings.plan.network, settings.plan.office);
    let broker = match settings.broker.authentication {
        BrokerAuthentication::Password => BROKER_PORT,
        BrokerAuthentication::Certificate => BROKER_TLS_PORT,
    };
    let cluster = cluster_rule(view);
    let (hub, wireguard, ssh) = (view.hub.address, view.hub.endpoint.port, view.hub.ssh_port);
    format!(
        r#"# Made by edge-provision; changes here are lost.
table inet edge
delete table inet edge

table inet edge {{
	chain from_tunnel {{
		meta nfproto != ipv4 drop
		# Linux also accepts packets for its other addresses here.
		ip daddr != {hub} drop
		ip saddr {office} accept
{cluster}		ip saddr != {network} drop
		icmp type echo-request limit rate 100/second accept
		tcp dport {{ {BUNDLE_PORT}, {broker} }} accept
		udp dport 123 accept
		drop
	}}

	chain input {{
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		iif "lo" accept
		iifname "{INTERFACE}" jump from_tunnel
		# An address of the tunnel is reached through the tunnel only.
		ip daddr {network} drop
		udp dport {wireguard} accept
		tcp dport {ssh} accept
		icmp type {{ destination-unreachable, time-exceeded, parameter-problem }} accept
		icmp type echo-request limit rate 10/second accept
		icmpv6 type {{ destination-unreachable, packet-too-big, time-exceeded, parameter-problem, nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert }} accept
		# Leases of a DHCPv6 client.
		ip6 saddr fe80::/10 udp dport 546 accept
	}}

	chain forward {{
		type filter hook forward priority filter; policy accept;
		iifname != "{INTERFACE}" oifname != "{INTERFACE}" accept
		ct state established,related accept
		# Only the office reaches a site, and there only the metrics. Sites reach no site.
		iifname "{INTERFACE}" oifname "{INTERFACE}" ip saddr {office} ip daddr != {office} tcp dport {METRICS_PORT} accept
		drop
	}}
}}
"#
    )
}

/// Returns the line that lets the other hubs reach the node of a cluster of brokers here; empty
/// without a cluster.
fn cluster_rule(view: &HubView<'_>) -> String {
    let peers: Vec<_> = view.cluster_peers().map(|hub| hub.address.to_string()).collect();
    if peers.is_empty() {
        return String::new();
    }
    let ports = cluster_ports(view.fleet.settings().broker.software);
    let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
    let (peers, ports) = (peers.join(", "), ports.join(", "));
    format!("\t\tip saddr {{ {peers} }} tcp dport {{ {ports} }} accept\n")
}
