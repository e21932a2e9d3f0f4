//! `run`: runs the gateway.

mod attempts;

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{EXIT_NEGATIVE, EXIT_OK, block_on};
use crate::logging::Logging;

/// Name of the process in lists such as that of ps(1).
const PROCESS_NAME: &str = "edge-gateway";

/// How the process ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ProcessEnd {
    /// With this exit code.
    Exit(u8),
    /// It starts again, with another configuration.
    Restart,
}

/// Runs the gateway until SIGTERM or SIGINT.
pub(super) fn run(path: &Path) -> anyhow::Result<u8> {
    // After `exec_again` it would be called "exe" in lists of processes. Without /proc it has none.
    let _ = std::fs::write("/proc/self/comm", PROCESS_NAME);
    // Passwords and keys are in memory, and a core dump would put them on the disk.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let log = Logging::start()?;
    let end = block_on(run_until_signal(path, &log)).unwrap_or_else(|error| {
        log.print_error(&error);
        ProcessEnd::Exit(EXIT_NEGATIVE)
    });
    // Writes what is left in it.
    drop(log);
    match end {
        ProcessEnd::Exit(code) => Ok(code),
        ProcessEnd::Restart => Err(exec_again()).context("cannot start again"),
    }
}

/// Replaces this process by a new one of the same program. Returns only if that fails. The process
/// id stays, so a service manager, a container or a shell sees no end.
fn exec_again() -> io::Error {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "edge-gateway".into());
    // Also after an update has replaced the file: the trial is one of the configuration.
    Command::new("/proc/self/exe").arg0(name).args(arguments).exec()
}

async fn run_until_signal(path: &Path, log: &Logging) -> anyhow::Result<ProcessEnd> {
    let stop = CancellationToken::new();
    let signals = stop_on_signal(stop.clone())?;
    ignore_stray_signals()?;
    tokio::select! {
        end = attempts::run(path, log, &stop) => Ok(end),
        () = signals => Ok(ProcessEnd::Exit(EXIT_OK)),
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
