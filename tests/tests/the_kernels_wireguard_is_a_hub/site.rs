//! A site with the userspace tunnel, on a socket of this machine.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::KernelHub;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tunnel::{
    ClockBounds, Endpoint, Hub, LocalPort, Now, PrivateKey, Settings, Tunnel, UdpTransport,
    UserspaceTunnel,
};

/// A site that dials the hub.
pub(crate) struct Site {
    /// Drives the tunnel as long as this lives.
    runtime: Runtime,
    stack: UserspaceTunnel,
}

impl Site {
    pub(crate) fn new(key: &PrivateKey, hub: &KernelHub) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let settings = settings(key, hub);
        let entered = runtime.enter();
        let path = UdpTransport::bind(LocalPort::Any).expect("a UDP port");
        let tunnel = Tunnel::site(settings, ClockBounds::default(), Now::read(), 7);
        let (stack, driver) = tunnel::userspace_tunnel(tunnel, path, 7);
        drop(runtime.spawn(driver.run(std::future::pending())));
        drop(entered);
        Self { runtime, stack }
    }

    /// Connects through the tunnel, sends `request` and returns an answer of that length, if it
    /// arrives in time.
    pub(crate) fn exchange(
        &mut self,
        port: u16,
        request: &[u8],
        answer: usize,
        deadline: Duration,
    ) -> Option<Vec<u8>> {
        let address = SocketAddr::from((KernelHub::ADDRESS, port));
        let exchange = async {
            let stream = self.stack.connect(address).await.ok()?;
            let (mut from, mut to) = tokio::io::split(stream);
            let mut read = vec![0; answer];
            let (sent, got) = tokio::join!(to.write_all(request), from.read_exact(&mut read));
            sent.ok()?;
            got.ok()?;
            Some(read)
        };
        self.runtime.block_on(async { timeout(deadline, exchange).await.ok().flatten() })
    }
}

fn settings(key: &PrivateKey, hub: &KernelHub) -> Settings {
    let endpoint = hub.endpoint();
    let network = format!("{}/32", KernelHub::ADDRESS);
    Settings {
        private_key: key.clone(),
        addresses: vec![format!("{}/32", KernelHub::SITE_ADDRESS).parse().expect("an address")],
        mtu: 1280,
        keep_alive: Some(Duration::from_secs(25)),
        hubs: vec![Hub {
            name: "kernel".to_owned(),
            endpoint: Endpoint { host: endpoint.ip().to_string(), port: endpoint.port() },
            public_key: hub.public_key().parse().expect("the guest's key"),
            preshared_key: None,
            allowed_ips: vec![network.parse().expect("a network")],
        }],
    }
}
