//! Which networks the host reaches through the tunnel. Pure.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

/// Why a network cannot be reached through the tunnel.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum RouteError {
    /// The hub is in it.
    #[error(
        "the route to {network} would take the hub's own address {hub} into the tunnel, which is \
         reached through it: name smaller networks in allowed_ips"
    )]
    ContainsHub {
        /// What would be routed.
        network: IpNet,
        /// Where the hub is.
        hub: IpAddr,
    },
    /// It is all there is, so whatever the hub's address is or becomes, it is in it.
    #[error(
        "allowed_ips that cover all of {0} would take everything this host sends into the tunnel, \
         the way to the hub too: name the networks behind the hub, or use the mode \"userspace\", \
         which needs no routes"
    )]
    CoversEverything(IpNet),
}

/// The routes for what is behind the hubs. `addresses` are the device's own, whose networks the
/// kernel routes by itself; `hubs` are those addresses of hubs that are known by now.
///
/// What comes back is sorted, and holds no network twice.
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
        let own = addresses.iter().map(IpNet::trunc).filter(|own| own.prefix_len() < 31);
        if let Some(network) = containing_route(&routes, hub)
            .or_else(|| own.into_iter().find(|own| own.contains(&hub)))
        {
            return Err(RouteError::ContainsHub { network, hub });
        }
    }
    routes.retain(|route| !addresses.iter().any(|own| own.trunc() == *route));
    Ok(routes)
}

/// The network among `routes` that holds a hub's address: datagrams to it would go into the tunnel.
/// To be asked again for each address that a name turns out to have.
#[must_use]
pub(crate) fn containing_route(routes: &[IpNet], hub: IpAddr) -> Option<IpNet> {
    routes.iter().copied().find(|route| route.contains(&hub))
}
