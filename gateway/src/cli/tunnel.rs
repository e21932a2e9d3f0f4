//! `tunnel`: only the tunnel, from a file of wg-quick.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tunnel::{Event, InterfaceName, Now, Tunnel, UdpPath, wg_quick};

use super::{DONE, NO, run, runtime};
use crate::clock::{self, Judgement};

/// How often the clock is judged again: one that nobody vouches for any more has a ceiling.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// `tunnel`.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  edge-gateway tunnel /etc/wireguard/site.conf --interface site0

Makes a network device, which wants CAP_NET_ADMIN. It goes with the program, with its addresses and
routes. PostUp, PreDown and their kind are refused and never run. SIGTERM and Ctrl-C end it.")]
pub(super) struct Options {
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
pub(super) fn tunnel(options: &Options) -> anyhow::Result<u8> {
    run::log();
    let read = match wg_quick::load(&options.path) {
        Ok(read) => read,
        Err(error @ wg_quick::LoadError::Unreadable(..)) => return Err(error.into()),
        Err(error) => {
            writeln!(io::stderr(), "{error}")?;
            return Ok(NO);
        }
    };
    for note in &read.notes {
        tracing::warn!("{note}");
    }
    runtime()?.block_on(async {
        let stop = CancellationToken::new();
        let signals = run::stop_on_signal(stop.clone())?;
        let path = UdpPath::bind(read.port).context("cannot open a UDP socket")?;
        let known = clock::judge(&options.state_dir);
        let seed = fastrand::u64(..);
        let site = Tunnel::site(read.settings.clone(), clock::bounds(known), Now::read(), seed);
        let (device, driver) =
            tunnel::open(&read.settings, read.table, options.interface, site, path)?;
        tracing::info!(interface = %options.interface, "the network device is up");
        let telling = follow_clock(&options.state_dir, known, async |judgement| {
            device.tell(Event::Clock(clock::bounds(judgement))).await;
        });
        tokio::select! {
            ended = driver.run(stop.cancelled_owned()) => ended?,
            () = telling => {}
            () = signals => {}
        }
        Ok(DONE)
    })
}

/// Tells every change of how far the clock can be believed. Never ends.
async fn follow_clock(state_dir: &Path, mut known: Judgement, tell: impl AsyncFn(Judgement)) {
    loop {
        sleep(LOOK_EVERY).await;
        let judgement = clock::judge(state_dir);
        if judgement != known {
            known = judgement;
            tell(judgement).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_becomes_of_the_clock_is_told_once() {
        let name = format!("edge-gateway-tunnel-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let known = clock::judge(&directory);
        let told = Cell::new(0);
        let following = follow_clock(&directory, known, async |judgement| {
            assert_ne!(judgement.floor, known.floor);
            told.set(told.get() + 1);
        });
        let mut following = Box::pin(following);

        assert!(timeout(LOOK_EVERY * 10, &mut following).await.is_err());
        assert_eq!(told.get(), 0);
        std::fs::write(directory.join("clock"), "2027-01-01T00:00:00Z\n").unwrap();
        assert!(timeout(LOOK_EVERY * 10, &mut following).await.is_err());

        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(told.get(), 1);
    }
}
