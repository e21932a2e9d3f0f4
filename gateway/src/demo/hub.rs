//! The hub of the demo: the other end of the tunnel, in this process.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tunnel::{HubEnd, LocalPort, MTU, Now, PrivateKey, PublicKey, SiteKeys, Tunnel, UdpPath};

use crate::supervise::Stage;
use crate::web::InTunnel;

/// The broker's port at the hub's address in the tunnel, 10.77.0.1.
const BROKER: u16 = 1883;

/// A running hub.
pub(super) struct Hub {
    /// Where it takes datagrams.
    pub(super) address: SocketAddr,
    /// Who it is.
    pub(super) key: PublicKey,
    /// Where it takes connections for the broker.
    pub(super) listener: InTunnel,
}

/// Opens a hub for one site.
pub(super) async fn open(
    site: PublicKey,
    stage: &Stage,
    fatal: &CancellationToken,
) -> anyhow::Result<Hub> {
    let private_key = PrivateKey::generate();
    let key = private_key.public();
    let allowed_ips = vec!["10.77.0.12/32".parse()?];
    let site = SiteKeys { public_key: site, preshared_key: None, allowed_ips };
    let settings = HubEnd {
        private_key,
        addresses: vec!["10.77.0.1/24".parse()?],
        mtu: *MTU.start(),
        sites: vec![site],
    };
    let path = UdpPath::bind(LocalPort::Any).context("the demo needs a UDP port")?;
    let port = path.local_addr()?.port();
    let seed = fastrand::u64(..);
    let tunnel = Tunnel::hub_end(settings, Now::read(), seed);
    let (stack, driver) = tunnel::userspace(tunnel, path, seed);
    stage.spawn(fatal.clone(), |stop| async move {
        if let Err(error) = driver.run(stop.cancelled_owned()).await {
            tracing::error!(%error, "the hub of the demo has ended");
        }
    });
    let listener = InTunnel(stack.listen(BROKER).await?);
    // The hub ends when nobody holds its handle any more.
    stage.spawn(fatal.clone(), |stop| async move {
        let _stack = stack;
        stop.cancelled().await;
    });
    Ok(Hub { address: (Ipv4Addr::LOCALHOST, port).into(), key, listener })
}
