//! A hub in the process of the test: it needs neither root nor a namespace.

use std::future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tunnel::{
    ClockBounds, Endpoint, Hub, HubSettings, LocalPort, MTU_RANGE, Now, PresharedKey, PrivateKey,
    PublicKey, Settings, SitePeer, TcpListener, Tunnel, TunnelState, UdpTransport, UserspaceTunnel,
};

const SESSION_TIMEOUT: Duration = Duration::from_secs(20);
const SEED: u64 = 7;

/// A hub for one site that forwards connections to a broker. It keeps its session state until it
/// is dropped.
#[derive(Debug)]
pub struct LocalHub {
    runtime: Runtime,
    address: SocketAddr,
    key: PublicKey,
    preshared: Option<PresharedKey>,
    /// The hub ends when this is dropped.
    _stack: UserspaceTunnel,
}

impl LocalHub {
    /// Address of the hub inside the tunnel; the broker is at port 1883.
    pub const ADDRESS: &str = "10.77.0.1";
    /// Address of the site inside the tunnel.
    pub const SITE_ADDRESS: &str = "10.77.0.12";

    /// Starts it for the site with this key. Connections to its broker are forwarded to `broker`.
    #[must_use]
    pub fn start(site: PublicKey, preshared: Option<PresharedKey>, broker: SocketAddr) -> Self {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().expect("a runtime");
        let private_key = PrivateKey::generate();
        let key = private_key.public_key();
        let allowed_ips = vec![network(Self::SITE_ADDRESS)];
        let settings = HubSettings {
            private_key,
            addresses: vec![network(Self::ADDRESS)],
            mtu: *MTU_RANGE.start(),
            sites: vec![SitePeer {
                public_key: site,
                preshared_key: preshared.clone(),
                allowed_ips,
            }],
        };
        let entered = runtime.enter();
        let path = UdpTransport::bind(LocalPort::Any).expect("a UDP port");
        let port = path.local_addr().expect("it is bound").port();
        let hub = Tunnel::hub(settings, Now::read(), SEED);
        let (stack, driver) = tunnel::userspace_tunnel(hub, path, SEED);
        drop(runtime.spawn(driver.run(future::pending())));
        let listener = runtime.block_on(stack.listen(1883)).expect("the port is free");
        drop(runtime.spawn(forward_connections(listener, broker)));
        drop(entered);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { runtime, address, key, preshared, _stack: stack }
    }

    /// Returns the address that it receives datagrams on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its public key.
    #[must_use]
    pub const fn public_key(&self) -> PublicKey {
        self.key
    }

    /// Connects a site with this key from this process, whose clock is right, until there is a
    /// session. From then on the hub rejects handshakes with an earlier timestamp.
    ///
    /// # Panics
    /// When there is no session in time.
    pub fn connect_once(&self, key: &PrivateKey) {
        let address = self.address;
        let settings = Settings {
            private_key: key.clone(),
            addresses: vec![network(Self::SITE_ADDRESS)],
            mtu: *MTU_RANGE.start(),
            keep_alive: None,
            hubs: vec![Hub {
                name: "hub".to_owned(),
                endpoint: Endpoint { host: address.ip().to_string(), port: address.port() },
                public_key: self.key,
                preshared_key: self.preshared.clone(),
                allowed_ips: vec![network(Self::ADDRESS)],
            }],
        };
        self.runtime.block_on(async {
            let path = UdpTransport::bind(LocalPort::Any).expect("a UDP port");
            let site = Tunnel::site(settings, ClockBounds::default(), Now::read(), SEED);
            let (stack, driver) = tunnel::userspace_tunnel(site, path, SEED);
            let mut reports = stack.reports();
            let up = reports.wait_for(|report| report.state == TunnelState::Up);
            tokio::select! {
                ended = driver.run(future::pending()) => panic!("the site has ended: {ended:?}"),
                is_up = timeout(SESSION_TIMEOUT, up) => drop(is_up.expect("in time").expect("it lives")),
            }
        });
    }
}

fn network(address: &str) -> ipnet::IpNet {
    format!("{address}/32").parse().expect("an address")
}

/// Forwards each connection from the tunnel to the broker.
async fn forward_connections(mut listener: TcpListener, broker: SocketAddr) {
    let mut carried = JoinSet::new();
    while let Ok(mut near) = listener.accept().await {
        carried.spawn(async move {
            // Without a broker the connection is closed.
            if let Ok(mut far) = TcpStream::connect(broker).await {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}
