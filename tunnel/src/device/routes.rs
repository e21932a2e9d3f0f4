//! Which networks the host routes into the tunnel. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

/// Why a network cannot be routed into the tunnel.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum RouteError {
    /// It contains the hub.
    #[error(
        "the route to {network} would lead the hub's own address {hub} into the tunnel, which \
         cannot carry itself"
    )]
    ContainsHub {
        /// The network.
        network: IpNet,
        /// Address of the hub.
        hub: IpAddr,
    },
    /// It covers all addresses, and so also every address of the hub.
    #[error(
        "networks that cover all of {0} would lead all traffic of this host into the tunnel, \
         including that to the hub"
    )]
    CoversEverything(IpNet),
}

impl RouteError {
    /// Returns the network.
    #[must_use]
    pub const fn network(&self) -> IpNet {
        match self {
            Self::ContainsHub { network, .. } | Self::CoversEverything(network) => *network,
        }
    }
}

/// Returns the routes to the networks behind the hubs. `addresses` are the interface's local, whose
/// networks the kernel routes itself; `hubs` are the addresses of hubs that are known so far.
///
/// The result is sorted and without duplicates. Fails for networks that together cover all
/// addresses, and for one that contains a hub.
pub(crate) fn tunnel_routes(
    allowed_ips: &[IpNet],
    addresses: &[IpNet],
    hubs: &[IpAddr],
) -> Result<Vec<IpNet>, RouteError> {
    let whole = IpNet::aggregate(&allowed_ips.to_vec());
    if let Some(network) = whole.into_iter().find(|network| network.prefix_len() == 0) {
        return Err(RouteError::CoversEverything(network));
    }
    let mut routes: Vec<_> = allowed_ips.iter().map(IpNet::trunc).collect();
    routes.sort_unstable();
    routes.dedup();
    for &hub in hubs {
        let local = addresses.iter().map(IpNet::trunc).filter(|local| local.prefix_len() < 31);
        if let Some(network) = containing_route(&routes, hub)
            .or_else(|| local.into_iter().find(|local| local.contains(&hub)))
        {
            return Err(RouteError::ContainsHub { network, hub });
        }
    }
    routes.retain(|route| !addresses.iter().any(|local| local.trunc() == *route));
    Ok(routes)
}

/// Returns the network among `routes` that contains a hub's address; datagrams to it would be
/// routed into the tunnel.
fn containing_route(routes: &[IpNet], hub: IpAddr) -> Option<IpNet> {
    routes.iter().copied().find(|route| route.contains(&hub))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(text: &str) -> Vec<IpNet> {
        text.split_whitespace().map(|net| net.parse().unwrap()).collect()
    }

    fn hub() -> IpAddr {
        "192.0.2.1".parse().unwrap()
    }

    #[test]
    fn networks_behind_the_hub_are_routed_once() {
        let allowed = nets("10.77.3.9/16 10.77.0.0/16 fd00::/64 10.1.0.0/24");
        let routes = tunnel_routes(&allowed, &nets("10.1.0.5/24 10.77.0.12/32"), &[hub()]);
        assert_eq!(routes, Ok(nets("10.77.0.0/16 fd00::/64")));
    }

    #[test]
    fn the_hubs_own_address_is_never_routed_into_the_tunnel() {
        let network = nets("192.0.0.0/16")[0];
        let refused = Err(RouteError::ContainsHub { network, hub: hub() });
        assert_eq!(tunnel_routes(&nets("10.0.0.0/8 192.0.2.0/16"), &[], &[hub()]), refused);
        assert_eq!(tunnel_routes(&[], &nets("192.0.9.9/16"), &[hub()]), refused);
        assert_eq!(containing_route(&nets("10.0.0.0/8"), hub()), None);
    }

    #[test]
    fn networks_that_cover_everything_are_rejected() {
        for all in ["0.0.0.0/0", "0.0.0.0/1 128.0.0.0/1", "10.0.0.0/8 ::/0", "::/1 8000::/1"] {
            let refused = tunnel_routes(&nets(all), &[], &[]);
            assert!(matches!(refused, Err(RouteError::CoversEverything(_))), "{all}");
        }
    }
}
