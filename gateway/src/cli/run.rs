//! `run`: runs the gateway.

mod attempts;
mod watched_files;

use std::path::Path;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{EXIT_NEGATIVE, EXIT_OK, block_on};
use crate::logging::Logging;

/// Runs the gateway until SIGTERM or SIGINT.
pub(super) fn run(path: &Path) -> anyhow::Result<u8> {
    // Passwords and keys are in memory, and a core dump would put them on the disk.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let log = Logging::start()?;
    block_on(run_until_signal(path, &log)).or_else(|error| {
        log.print_error(&error);
        Ok(EXIT_NEGATIVE)
    })
}

async fn run_until_signal(path: &Path, log: &Logging) -> anyhow::Result<u8> {
    let stop = CancellationToken::new();
    let signals = stop_on_signal(stop.clone())?;
    ignore_stray_signals()?;
    tokio::select! {
        code = attempts::run(path, log, &stop) => Ok(code),
        () = signals => Ok(EXIT_OK),
    }
}

/// Returns a future that cancels `stop` on the first signal and ends on the second.
pub(super) fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut next = async move || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(async move {
        next().await;
        tracing::info!("stopping; a second signal stops at once");
        stop.cancel();
        next().await;
    })
}

/// Ignores the signals that end a process by default, mean nothing to the gateway, and are sent by
/// mistake: by a closed terminal, by a tool that takes it for a daemon that reloads its files. A
/// stop without a drain would cost what is in memory.
fn ignore_stray_signals() -> anyhow::Result<()> {
    let stray = [
        SignalKind::hangup(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
        SignalKind::alarm(),
        // A file at its limit (`LimitFSIZE`) is an error of the write, as a full disk is.
        SignalKind::from_raw(libc::SIGXFSZ),
    ];
    for kind in stray {
        // tokio's handler stays after the listener is gone, and does nothing then.
        drop(signal(kind)?);
    }
    Ok(())
}
