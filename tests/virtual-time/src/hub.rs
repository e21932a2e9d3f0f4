//! The other end of a site's tunnel.

use std::net::SocketAddr;

use tunnel::{Endpoint, Hub, HubEnd, PrivateKey, SiteKeys, Tunnel};

use crate::world::net;
use crate::{HUB_INSIDE, SITE_INSIDE};

/// A hub, and whether it runs.
#[derive(Debug)]
pub struct SimulatedHub {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it was told.
    pub settings: HubEnd,
    /// Absent while it does not run.
    pub tunnel: Option<Tunnel>,
}

impl SimulatedHub {
    pub(crate) fn new(number: u8, site: tunnel::PublicKey) -> Self {
        let allowed_ips = vec![net(SITE_INSIDE), net("fd77::12")];
        let site = SiteKeys { public_key: site, preshared_key: None, allowed_ips };
        let settings = HubEnd {
            private_key: PrivateKey::generate(),
            addresses: vec![net(HUB_INSIDE), net("fd77::1")],
            mtu: 1280,
            sites: vec![site],
        };
        let address = SocketAddr::new([198, 51, 100, number].into(), 51820);
        Self { address, settings, tunnel: None }
    }

    pub(crate) fn as_seen_by_site(&self, number: usize) -> Hub {
        Hub {
            name: format!("hub-{number}"),
            endpoint: Endpoint { host: format!("hub-{number}.test"), port: 51820 },
            public_key: self.settings.private_key.public(),
            preshared_key: None,
            allowed_ips: ["10.77.0.0/16", "fd77::/16"].map(net).to_vec(),
        }
    }
}
