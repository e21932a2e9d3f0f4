//! A hub in front of the broker, on the tunnel crate. It runs on a thread of this process, since only
//! the site is measured.

use std::net::Ipv4Addr;
use std::thread;

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tunnel::{HubSettings, LocalPort, Now, PrivateKey, PublicKey, SitePeer, Tunnel, UdpTransport};

/// A hub for one site. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Hub {
    /// UDP port on loopback.
    pub(crate) port: u16,
    pub(crate) key: PublicKey,
    pub(crate) site: PrivateKey,
    _stop: oneshot::Sender<()>,
}

impl Hub {
    /// Address of the broker inside the tunnel.
    pub(crate) const BROKER: &str = "10.77.0.1:1883";
    /// Address of the site inside the tunnel.
    pub(crate) const SITE: &str = "10.77.0.12/32";

    /// Starts a hub that forwards to the broker at this port of loopback.
    pub(crate) fn start(broker: u16) -> Self {
        let (site, key) = (PrivateKey::generate(), PrivateKey::generate());
        let hub_key = key.public_key();
        let allowed_ips = vec![Self::SITE.parse().expect("a network")];
        let site_keys =
            SitePeer { public_key: site.public_key(), preshared_key: None, allowed_ips };
        let settings = HubSettings {
            private_key: key,
            addresses: vec!["10.77.0.1/24".parse().expect("a network")],
            mtu: 1280,
            sites: vec![site_keys],
        };
        let (stop, stopped) = oneshot::channel();
        let (open, opened) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let path = UdpTransport::bind(LocalPort::Any).expect("a UDP port");
                open.send(path.local_addr().expect("it is bound").port()).expect("it is awaited");
                let tunnel = Tunnel::hub(settings, Now::read(), 1);
                let (stack, driver) = tunnel::userspace_tunnel(tunnel, path, 1);
                tokio::select! {
                    ended = driver.run(async { drop(stopped.await) }) => drop(ended),
                    () = forward(stack, broker) => {}
                }
            });
        });
        Self { port: opened.recv().expect("it opens"), key: hub_key, site, _stop: stop }
    }
}

async fn forward(stack: tunnel::UserspaceTunnel, broker: u16) {
    let mut listener = stack.listen(1883).await.expect("the port is free");
    while let Ok(mut inside) = listener.accept().await {
        tokio::spawn(async move {
            let outside = TcpStream::connect((Ipv4Addr::LOCALHOST, broker)).await;
            let mut outside = outside.expect("the broker listens");
            outside.set_nodelay(true).expect("it is a socket");
            // Ends when either connection ends.
            drop(copy_bidirectional(&mut inside, &mut outside).await);
        });
    }
}
