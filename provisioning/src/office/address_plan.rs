//! Addresses of sites inside the tunnel. An address is stored in the file of its site when the site
//! is added, and never changes.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::hub_choice::score;

/// The addresses that sites may have.
#[derive(Clone, Debug)]
pub struct AddressPlan {
    /// All addresses inside the tunnel.
    pub network: Ipv4Net,
    /// The part of it that computers of the office use.
    pub office: Ipv4Net,
    /// Addresses of the hubs.
    pub hubs: BTreeSet<Ipv4Addr>,
}

impl AddressPlan {
    /// Returns an address for a new site that is not in `taken`; `None` if all are taken.
    ///
    /// The search begins at a place that depends on the name: two people who add sites in two
    /// branches rarely take the same address, and a site that was removed by mistake gets its
    /// address back.
    #[must_use]
    pub fn propose(&self, site: &str, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        let first = u32::from(self.network.network());
        let count = u32::from(self.network.broadcast()) - first;
        let start = u32::try_from(score(site, "address") % u64::from(count.max(1))).ok()?;
        (0..count)
            .map(|step| Ipv4Addr::from(first + (start + step) % count))
            .find(|address| self.is_for_sites(*address) && !taken.contains(address))
    }

    /// Returns whether a site may have this address.
    #[must_use]
    pub fn is_for_sites(&self, address: Ipv4Addr) -> bool {
        self.network.contains(&address)
            && address != self.network.network()
            && address != self.network.broadcast()
            && !self.office.contains(&address)
            && !self.hubs.contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(prefix: u8) -> AddressPlan {
        let network = Ipv4Net::new(Ipv4Addr::new(10, 77, 0, 0), prefix).unwrap().trunc();
        let last = u32::from(network.broadcast());
        let office = Ipv4Net::new(Ipv4Addr::from(last), (prefix + 2).min(32)).unwrap().trunc();
        let hubs = [Ipv4Addr::from(u32::from(network.network()) + 1)].into();
        AddressPlan { network, office, hubs }
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice_and_every_one_is_usable(
            sites in prop::collection::btree_set("[a-z0-9-]{1,12}", 1..60),
            prefix in 20_u8..28,
        ) {
            let plan = plan(prefix);
            let mut taken = BTreeSet::new();
            for site in &sites {
                match plan.propose(site, &taken) {
                    Some(address) => {
                        prop_assert!(plan.is_for_sites(address));
                        prop_assert!(taken.insert(address), "{address} twice");
                    }
                    None => {
                        let all = plan.network.hosts().filter(|host| plan.is_for_sites(*host));
                        prop_assert_eq!(all.count(), taken.len());
                    }
                }
            }
        }

        #[test]
        fn an_address_depends_on_the_name_and_on_nothing_before_it(
            site in "[a-z0-9-]{1,12}",
            others in prop::collection::btree_set("[a-z0-9-]{1,12}", 0..20),
        ) {
            let plan = plan(16);
            let alone = plan.propose(&site, &BTreeSet::new()).unwrap();
            let mut taken = BTreeSet::new();
            for other in &others {
                taken.extend(plan.propose(other, &taken));
            }
            let among_others = plan.propose(&site, &taken).unwrap();
            prop_assert!(among_others == alone || taken.contains(&alone));
        }
    }

    #[test]
    fn a_full_network_gives_no_address() {
        let plan = plan(30);
        let mut taken = BTreeSet::new();
        while let Some(address) = plan.propose("site", &taken) {
            taken.insert(address);
        }
        // 10.77.0.1 is the hub's, 10.77.0.3 the broadcast address.
        assert_eq!(taken, [Ipv4Addr::new(10, 77, 0, 2)].into());
    }
}
