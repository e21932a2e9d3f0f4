//! The hub of the demo: the other end of the tunnel, in the same process.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tunnel::{
    HubSettings, LocalPort, MTU_RANGE, Now, PrivateKey, PublicKey, SitePeer, Tunnel, UdpTransport,
};

use crate::supervise::Stage;
use crate::web::TunnelListener;

/// The broker's port at the hub's address in the tunnel, 10.77.0.1.
const BROKER_PORT: u16 = 1883;

/// A running hub.
pub(super) struct DemoHub {
    /// UDP address of the hub.
    pub(super) address: SocketAddr,
    /// Public key of the hub.
    pub(super) key: PublicKey,
    /// Accepts connections to the broker.
    pub(super) listener: TunnelListener,
}

/// Starts a hub for one site.
pub(super) async fn open(
    site: PublicKey,
    stage: &Stage,
    fatal: &CancellationToken,
) -> anyhow::Result<DemoHub> {
    let private_key = PrivateKey::generate();
    let key = private_key.public_key();
    let allowed_ips = vec!["10.77.0.12/32".parse()?];
    let site = SitePeer { public_key: site, preshared_key: None, allowed_ips };
    let settings = HubSettings {
        private_key,
        addresses: vec!["10.77.0.1/24".parse()?],
        mtu: *MTU_RANGE.start(),
        sites: vec![site],
    };
    let path = UdpTransport::bind(LocalPort::Any).context("the demo needs a UDP port")?;
    let port = path.local_addr()?.port();
    let seed = fastrand::u64(..);
    let tunnel = Tunnel::hub(settings, Now::read(), seed);
    let (stack, driver) = tunnel::userspace_tunnel(tunnel, path, seed);
    stage.spawn(fatal.clone(), |stop| async move {
        if let Err(error) = driver.run(stop.cancelled_owned()).await {
            tracing::error!(%error, "the hub of the demo failed");
        }
    });
    let listener = TunnelListener(stack.listen(BROKER_PORT).await?);
    // The hub stops when its last handle is dropped, so one is kept until the demo stops.
    stage.spawn(fatal.clone(), |stop| async move {
        let _stack = stack;
        stop.cancelled().await;
    });
    Ok(DemoHub { address: (Ipv4Addr::LOCALHOST, port).into(), key, listener })
}
