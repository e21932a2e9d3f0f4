//! Allowed networks of each peer.

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks with their peers. The longest matching prefix decides, in both directions: a peer
/// neither receives nor may send packets of a more specific network of another peer.
#[derive(Clone, Debug)]
pub(super) struct AllowedIps {
    /// Longest prefix first; of equal networks the first peer's first.
    networks: Vec<(IpNet, usize)>,
}

impl AllowedIps {
    /// Takes the networks of each peer, in the order of the peers' numbers.
    pub(super) fn new<'a>(peers: impl IntoIterator<Item = &'a [IpNet]>) -> Self {
        let mut networks: Vec<_> = peers
            .into_iter()
            .enumerate()
            .flat_map(|(peer, networks)| networks.iter().map(move |network| (*network, peer)))
            .collect();
        // The sort is stable, so the first peer keeps a network that two peers have.
        networks.sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix_len()));
        Self { networks }
    }

    /// Returns the peer that an address belongs to.
    pub(super) fn peer_for(&self, address: IpAddr) -> Option<usize> {
        let (_, peer) = self.networks.iter().find(|(network, _)| network.contains(&address))?;
        Some(*peer)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_prefix_decides_and_families_do_not_mix() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let first = [net("10.0.0.0/8"), net("::/0")];
        let second = [net("10.77.0.0/16"), net("10.77.0.9/32")];
        let third = [net("10.77.0.9/32")];
        let allowed = AllowedIps::new([&first[..], &second, &third]);
        for (address, owner) in [
            ("10.1.2.3", Some(0)),
            ("10.77.0.1", Some(1)),
            ("10.77.0.9", Some(1)),
            ("11.0.0.1", None),
            ("::ffff:11.0.0.1", Some(0)),
        ] {
            assert_eq!(allowed.peer_for(address.parse().unwrap()), owner, "{address}");
        }
    }

    proptest! {
        #[test]
        fn lookup_agrees_with_a_search_through_all_networks(
            networks in prop::collection::vec((any::<u32>(), 0_u8..=32, 0_usize..4), 0..40),
            address: u32,
        ) {
            let mut peers = vec![Vec::new(); 4];
            for (address, length, peer) in networks {
                let net = ipnet::Ipv4Net::new(Ipv4Addr::from(address), length).unwrap();
                peers[peer].push(IpNet::V4(net));
            }
            let address = IpAddr::V4(address.into());
            let mut best: Option<(u8, usize)> = None;
            for (peer, networks) in peers.iter().enumerate() {
                for net in networks.iter().filter(|net| net.contains(&address)) {
                    if best.is_none_or(|(length, _)| net.prefix_len() > length) {
                        best = Some((net.prefix_len(), peer));
                    }
                }
            }
            let allowed = AllowedIps::new(peers.iter().map(Vec::as_slice));
            prop_assert_eq!(allowed.peer_for(address), best.map(|(_, peer)| peer));
        }
    }
}
