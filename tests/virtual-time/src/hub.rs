//! The hubs of a simulated world.

use std::net::SocketAddr;

use tunnel::{Endpoint, Hub, HubSettings, PrivateKey, SitePeer, Tunnel};

use crate::world::parse_net;
use crate::{HUB_TUNNEL_IP, SITE_TUNNEL_IP};

/// A hub, which may be stopped.
#[derive(Debug)]
pub struct SimulatedHub {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where its datagrams come from, if not from there.
    pub sends_from: Option<SocketAddr>,
    /// Its settings.
    pub settings: HubSettings,
    /// `None` while it is stopped.
    pub tunnel: Option<Tunnel>,
}

impl SimulatedHub {
    pub(crate) fn new(number: u8, site: tunnel::PublicKey) -> Self {
        let allowed_ips = vec![parse_net(SITE_TUNNEL_IP), parse_net("fd77::12")];
        let site = SitePeer { public_key: site, preshared_key: None, allowed_ips };
        let settings = HubSettings {
            private_key: PrivateKey::generate(),
            addresses: vec![parse_net(HUB_TUNNEL_IP), parse_net("fd77::1")],
            mtu: 1280,
            sites: vec![site],
        };
        let address = SocketAddr::new([198, 51, 100, number].into(), 51820);
        Self { address, sends_from: None, settings, tunnel: None }
    }

    pub(crate) fn as_peer(&self, number: usize) -> Hub {
        Hub {
            name: format!("hub-{number}"),
            endpoint: Endpoint { host: format!("hub-{number}.test"), port: 51820 },
            public_key: self.settings.private_key.public_key(),
            preshared_key: None,
            allowed_ips: ["10.77.0.0/16", "fd77::/16"].map(parse_net).to_vec(),
        }
    }
}
