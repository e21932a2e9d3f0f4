//! What this host needs outside the tunnel: its networks, routers and DNS servers.

use std::fmt;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use super::NetlinkSocket;
use super::message::TUNNEL_METRIC;
use super::reply::HostRoute;

/// DNS servers of this host (resolv.conf(5)).
const RESOLV_CONF_PATH: &str = "/etc/resolv.conf";

/// Routes and DNS servers of this host, without the tunnel's own routes.
#[derive(Clone, Debug, Default)]
pub struct HostNetwork {
    routes: Vec<HostRoute>,
    resolvers: Vec<IpAddr>,
}

/// Something of this host that a network of the tunnel covers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NetworkConflict {
    /// A DNS server.
    Resolver(IpAddr, IpNet),
    /// A default router.
    Router(IpAddr, IpNet),
    /// A part of a network of this host, which is the first.
    LocalNetwork(IpNet, IpNet),
}

impl HostNetwork {
    /// Reads the present routes and DNS servers. A missing list of DNS servers is an empty one.
    ///
    /// # Errors
    /// Fails where a sandbox forbids netlink.
    pub fn read() -> io::Result<Self> {
        let routes = NetlinkSocket::open()?.dump_routes()?;
        let text = std::fs::read_to_string(RESOLV_CONF_PATH).unwrap_or_default();
        Ok(Self::new(routes, &text))
    }

    fn new(mut routes: Vec<HostRoute>, resolv_conf: &str) -> Self {
        routes.retain(|route| route.metric != TUNNEL_METRIC);
        let servers = resolv_conf.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            words.next().filter(|key| *key == "nameserver")?;
            words.next()?.parse().ok()
        });
        Self { routes, resolvers: servers.collect() }
    }

    /// Returns the default routers.
    #[must_use]
    pub fn routers(&self) -> Vec<IpAddr> {
        let defaults = self.routes.iter().filter(|route| route.to.prefix_len() == 0);
        defaults.filter_map(|route| route.gateway).collect()
    }

    /// Returns the DNS servers that this host reaches through one of these networks only.
    #[must_use]
    pub fn resolvers_inside(&self, networks: &[IpNet]) -> Vec<IpAddr> {
        let inside = |address: &&IpAddr| self.capturing(networks, **address).is_some();
        self.resolvers.iter().filter(inside).copied().collect()
    }

    /// Returns the network through which this host reaches an address once it routes these networks
    /// into the tunnel; `None` if a route of its own is more specific, or as specific.
    #[must_use]
    pub fn capturing(&self, networks: &[IpNet], address: IpAddr) -> Option<IpNet> {
        let own = self.routes.iter().map(|route| route.to).filter(|to| to.contains(&address));
        let own = own.map(|to| to.prefix_len()).max();
        let inside = networks.iter().filter(|network| network.contains(&address));
        let inside = inside.max_by_key(|network| network.prefix_len())?;
        // The metric of the tunnel's routes is the highest, and loopback has a table of its own.
        (own.is_none_or(|own| own < inside.prefix_len()) && !address.is_loopback())
            .then_some(*inside)
    }

    /// Returns what of this host these networks cover.
    #[must_use]
    pub fn conflicts(&self, networks: &[IpNet]) -> Vec<NetworkConflict> {
        let captured = |address: &IpAddr| Some((*address, self.capturing(networks, *address)?));
        let resolvers = self.resolvers.iter().filter_map(captured);
        let routers = self.routers();
        let routers = routers.iter().filter_map(captured);
        let is_local = |route: &&HostRoute| route.gateway.is_none() && route.to.prefix_len() > 0;
        let local = self.routes.iter().filter(is_local).flat_map(|route| {
            let inside = networks.iter().filter(|network| route.to.contains(*network));
            inside.map(|network| NetworkConflict::LocalNetwork(route.to, *network))
        });
        resolvers
            .map(|(address, network)| NetworkConflict::Resolver(address, network))
            .chain(routers.map(|(address, network)| NetworkConflict::Router(address, network)))
            .chain(local)
            .collect()
    }
}

impl fmt::Display for NetworkConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolver(address, network) => write!(
                f,
                "the DNS server {address} of this host is in {network}, which is routed into the \
                 tunnel: while the tunnel is down, no name can be looked up"
            ),
            Self::Router(address, network) => write!(
                f,
                "the router {address} of this host is in {network}, which is routed into the tunnel"
            ),
            Self::LocalNetwork(local, network) if local == network => write!(
                f,
                "this host has the network {local} already: hosts behind the hub in {network} are \
                 reached by the gateway only"
            ),
            Self::LocalNetwork(local, network) => write!(
                f,
                "{network}, which is routed into the tunnel, is a part of this host's network \
                 {local}: hosts there are no longer reached"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Namespace, ip};

    fn route(to: &str, gateway: Option<&str>) -> HostRoute {
        let gateway = gateway.map(|gateway| gateway.parse().unwrap());
        HostRoute { to: to.parse().unwrap(), device: Some(2), gateway, metric: 0 }
    }

    fn nets(text: &str) -> Vec<IpNet> {
        text.split_whitespace().map(|net| net.parse().unwrap()).collect()
    }

    fn host() -> HostNetwork {
        let routes = vec![
            route("0.0.0.0/0", Some("192.168.1.1")),
            route("192.168.1.0/24", None),
            route("10.0.0.0/16", None),
        ];
        let text = "# by hand\nnameserver 10.64.0.53 # LTE\nnameserver fd00::53\nsearch a.b\n\
                    nameserver 192.168.1.1\nnameserver x\n";
        HostNetwork::new(routes, text)
    }

    #[test]
    fn what_a_wide_network_takes_in_is_named_and_what_a_route_of_the_host_keeps_is_not() {
        let network = |text: &str| text.parse::<IpNet>().unwrap();
        let resolver =
            NetworkConflict::Resolver("10.64.0.53".parse().unwrap(), network("10.0.0.0/8"));
        assert_eq!(host().conflicts(&nets("10.0.0.0/8 192.168.0.0/16")), [resolver]);
        assert_eq!(host().resolvers_inside(&nets("10.0.0.0/8")).len(), 1);
        assert_eq!(host().conflicts(&nets("10.77.0.0/16 fd77::/64")), []);
        for (networks, local) in [("10.0.7.0/24", "10.0.0.0/16"), ("10.0.0.0/16", "10.0.0.0/16")] {
            let expected = NetworkConflict::LocalNetwork(network(local), network(networks));
            assert_eq!(host().conflicts(&nets(networks)), [expected]);
        }
        let router =
            NetworkConflict::Router("192.168.1.1".parse().unwrap(), network("192.168.1.0/25"));
        assert!(host().conflicts(&nets("192.168.1.0/25")).contains(&router));
    }

    #[test]
    fn an_address_is_captured_by_the_most_specific_network_if_no_route_of_the_host_is_as_specific()
    {
        let networks = nets("10.0.0.0/8 10.0.7.0/24 192.168.1.0/24");
        let capturing = |ip: &str| host().capturing(&networks, ip.parse().unwrap());
        assert_eq!(capturing("10.0.7.9"), Some(nets("10.0.7.0/24")[0]));
        assert_eq!(capturing("10.0.8.9"), None);
        assert_eq!(capturing("10.9.8.9"), Some(nets("10.0.0.0/8")[0]));
        assert_eq!(capturing("192.168.1.9"), None);
        assert_eq!(capturing("8.8.8.8"), None);
    }

    #[test]
    fn as_root_the_routes_of_the_host_are_read() {
        let _namespace = Namespace::enter();
        ip(&["link", "add", "lan", "type", "veth"]);
        ip(&["link", "set", "lan", "up"]);
        ip(&["addr", "add", "192.168.1.5/24", "dev", "lan"]);
        ip(&["route", "add", "default", "via", "192.168.1.1"]);
        let host = HostNetwork::read().unwrap();
        assert_eq!(host.routers(), ["192.168.1.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(host.capturing(&nets("192.168.0.0/16"), "192.168.1.9".parse().unwrap()), None);
        assert!(host.capturing(&nets("192.168.0.0/16"), "192.168.2.9".parse().unwrap()).is_some());
    }
}
