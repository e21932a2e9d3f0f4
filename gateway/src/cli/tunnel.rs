//! `tunnel`: only the tunnel, from a file of wg-quick.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use provisioning::wg_quick;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tunnel::{InterfaceName, Now, Tunnel, TunnelEvent, UdpTransport};

use super::{EXIT_NEGATIVE, EXIT_OK, block_on, run};
use crate::clock;

/// `tunnel`.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  edge-gateway tunnel /etc/wireguard/site.conf --interface site0

Makes a network device, which wants CAP_NET_ADMIN. It goes with the program, with its addresses and
routes. PostUp, PreDown and their kind are refused and never run. SIGTERM and Ctrl-C end it.")]
pub(super) struct TunnelOptions {
    /// File of wg-quick, closed to others.
    #[arg(value_name = "FILE", default_value = "/etc/wireguard/edge0.conf")]
    path: PathBuf,
    /// Name of the network device.
    #[arg(long, value_name = "NAME", default_value = "edge0")]
    interface: InterfaceName,
    /// Directory where the gateway keeps what its clock has passed.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/edge-gateway")]
    state_dir: PathBuf,
}

/// Keeps the tunnel until it is told to stop.
pub(super) fn tunnel(options: &TunnelOptions) -> anyhow::Result<u8> {
    run::init_logging();
    let read = match wg_quick::load(&options.path) {
        Ok(read) => read,
        Err(error @ wg_quick::WgQuickError::Unreadable(..)) => return Err(error.into()),
        Err(error) => {
            writeln!(io::stderr(), "{error}")?;
            return Ok(EXIT_NEGATIVE);
        }
    };
    for note in read.notes.lines() {
        tracing::warn!("{note}");
    }
    block_on(async {
        let stop = CancellationToken::new();
        let signals = run::stop_on_signal(stop.clone())?;
        let path = UdpTransport::bind(read.port).context("cannot open a UDP socket")?;
        let judgement = clock::assess(&options.state_dir);
        let bounds = clock::tunnel_bounds(judgement);
        let seed = fastrand::u64(..);
        let site = Tunnel::site(read.settings.clone(), bounds, Now::read(), seed);
        let (device, driver) =
            tunnel::open_device_tunnel(&read.settings, read.routes, options.interface, site, path)?;
        tracing::info!(interface = %options.interface, "the network device is up");
        let (told, _) = watch::channel(judgement);
        let tell = |bounds| device.send_event(TunnelEvent::ClockBoundsChanged(bounds));
        let keeping = async {
            clock::watch(&options.state_dir, told, tell, stop.clone()).await;
            // It was told to stop, and so was the driver.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = driver.run(stop.clone().cancelled_owned()) => ended?,
            () = signals => {}
            () = keeping => {}
        }
        Ok(EXIT_OK)
    })
}
