//! `tunnel`: runs only the tunnel, from a wg-quick file.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use provisioning::wg_quick;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tunnel::{InterfaceName, Now, Tunnel, TunnelEvent, UdpTransport};

use super::{EXIT_NEGATIVE, EXIT_OK, block_on, run};
use crate::clock;
use crate::logging::Logging;

/// `tunnel`.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  edge-gateway tunnel /etc/wireguard/site.conf --interface site0

Creates a network interface (needs CAP_NET_ADMIN) and removes it, with its addresses and routes, on
exit. PostUp, PreDown and similar hooks are rejected. SIGTERM or Ctrl-C ends it.")]
pub(super) struct TunnelOptions {
    /// wg-quick file; only its owner may have access.
    #[arg(value_name = "FILE", default_value = "/etc/wireguard/edge0.conf")]
    path: PathBuf,
    /// Name of the network interface.
    #[arg(long, value_name = "NAME", default_value = "edge0")]
    interface: InterfaceName,
    /// Directory for the latest time that the clock has shown. After a restart, a clock that is
    /// behind that time is known to be wrong.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/edge-gateway")]
    state_dir: PathBuf,
}

/// Runs the tunnel until a signal.
pub(super) fn tunnel(options: &TunnelOptions) -> anyhow::Result<u8> {
    let log = Logging::start()?;
    run_tunnel(options, &log).or_else(|error| {
        log.print_error(&error);
        Ok(EXIT_NEGATIVE)
    })
}

fn run_tunnel(options: &TunnelOptions, log: &Logging) -> anyhow::Result<u8> {
    let read = match wg_quick::load(&options.path) {
        Ok(read) => read,
        Err(error @ wg_quick::WgQuickError::Unreadable(..)) => return Err(error.into()),
        Err(error) => {
            log.print(error);
            return Ok(EXIT_NEGATIVE);
        }
    };
    if !read.notes.is_empty() {
        tracing::warn!("{}", read.notes.lines().collect::<Vec<_>>().join("\n"));
    }
    block_on(async {
        let stop = CancellationToken::new();
        let signals = run::stop_on_signal(stop.clone())?;
        let transport = UdpTransport::bind(read.port).context("cannot open a UDP socket")?;
        let assessment = clock::assess(&options.state_dir);
        let bounds = clock::tunnel_bounds(assessment);
        let seed = fastrand::u64(..);
        let client = Tunnel::site(read.settings.clone(), bounds, Now::read(), seed);
        let (device, mut driver) = tunnel::device_tunnel(
            &read.settings,
            read.routes,
            options.interface,
            client,
            transport,
        );
        driver.open()?;
        tracing::info!(interface = %options.interface, "the network interface is up");
        let (changes, _) = watch::channel(assessment);
        let send_bounds = |bounds| device.send_event(TunnelEvent::ClockBoundsChanged(bounds));
        let watching_clock = async {
            clock::watch(&options.state_dir, changes, send_bounds, stop.clone()).await;
            // It ends when `stop` fires, and so does the driver, whose result counts.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = driver.run(stop.clone().cancelled_owned()) => ended?,
            () = signals => {}
            () = watching_clock => {}
        }
        Ok(EXIT_OK)
    })
}
