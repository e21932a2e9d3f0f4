//! `run`: runs the gateway.

use std::io::{self, IsTerminal};
use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::{EXIT_NEGATIVE, EXIT_OK, block_on, configuration};
use crate::app;

/// Runs the gateway until SIGTERM or SIGINT.
pub(super) fn run(path: &Path) -> anyhow::Result<u8> {
    init_logging();
    let Some(loaded) = configuration::load(path)? else { return Ok(EXIT_NEGATIVE) };
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
        Ok(EXIT_OK)
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

/// Log filter unless `RUST_LOG` is set. boringtun is silenced: it warns about every unanswered
/// handshake, thousands a day while a hub is down, and reports an idle tunnel as an error. The
/// tunnel itself logs each change of its state once.
const DEFAULT_LOG_FILTER: &str = "info,boringtun=off";

/// Starts logging to standard error, filtered by `RUST_LOG`; without a time where systemd's
/// journal adds one.
pub(super) fn init_logging() {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG_FILTER));
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    /// Collects the log.
    #[derive(Clone, Default)]
    struct CapturedLog(Arc<Mutex<Vec<u8>>>);

    impl io::Write for CapturedLog {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let Self(lines) = self;
            lines.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn boringtun_is_logged_only_on_request() {
        let logged = |filter: &str| {
            let lines = CapturedLog::default();
            let writer = lines.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_env_filter(EnvFilter::new(filter))
                .with_writer(move || writer.clone())
                .finish();
            tracing::subscriber::with_default(subscriber, || {
                tracing::info!("ours");
                tracing::error!(target: "boringtun::noise::timers", "theirs");
                tracing::warn!(target: "boringtun::noise", "theirs");
            });
            let bytes = lines.0.lock().unwrap().clone();
            String::from_utf8(bytes).unwrap()
        };
        let text = logged(DEFAULT_LOG_FILTER);
        assert!(text.contains("ours") && !text.contains("theirs"), "{text}");
        assert!(logged("info").contains("theirs"));
    }
}
