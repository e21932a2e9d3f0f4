//! `run`: the appliance.

use std::io::{self, IsTerminal};
use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::{DONE, NO, block_on, configuration};
use crate::app;

/// Runs the gateway until SIGTERM or SIGINT.
pub(super) fn run(path: &Path) -> anyhow::Result<u8> {
    log();
    let Some(loaded) = configuration::load(path)? else { return Ok(NO) };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        file = %path.display(),
        configuration = loaded.hash,
        plcs = loaded.config.plcs.len(),
        "starting"
    );
    for note in loaded.notes.lines() {
        tracing::warn!("{note}");
    }
    block_on(async {
        let stop = CancellationToken::new();
        let signals = stop_on_signal(stop.clone())?;
        tokio::select! {
            done = app::run(loaded, stop) => done?,
            () = signals => {}
        }
        Ok(DONE)
    })
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

/// Logs to standard error; `RUST_LOG` chooses what. The journal stamps its lines itself.
pub(super) fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal());
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        lines.without_time().init();
    } else {
        lines.init();
    }
}
