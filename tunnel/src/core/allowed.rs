//! Which peer an address inside the tunnel belongs to.

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks and the peers that they belong to. The longest network that holds an address decides,
/// in both directions: a peer neither gets nor sends packets of a more specific network of another.
#[derive(Clone, Debug)]
pub(super) struct AllowedIps {
    /// Longest prefix first; of equal networks the first peer's.
    networks: Vec<(IpNet, usize)>,
}

impl AllowedIps {
    /// Takes the networks of each peer, in the order of their numbers.
    pub(super) fn new<'a>(peers: impl IntoIterator<Item = &'a [IpNet]>) -> Self {
        let mut networks: Vec<_> = peers
            .into_iter()
            .enumerate()
            .flat_map(|(peer, networks)| networks.iter().map(move |network| (*network, peer)))
            .collect();
        networks.sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix_len()));
        Self { networks }
    }

    /// The peer that an address belongs to.
    pub(super) fn owner(&self, address: IpAddr) -> Option<usize> {
        let (_, peer) = self.networks.iter().find(|(network, _)| network.contains(&address))?;
        Some(*peer)
    }
}
