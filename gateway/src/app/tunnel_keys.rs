//! The key files of the tunnel, read again while it is not up.

use std::time::Duration;

use provisioning::config;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tunnel::{Settings, TunnelReport, TunnelState};

use super::watched_files::WatchedFiles;

/// Pause before each look at the files. Most faults of a tunnel end within it.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Cancels `restart` when the files hold other keys than the tunnel uses while it is not up: with
/// them it may be. Keys that cannot be used are reported, and the gateway goes on with those that
/// it has: the PLCs are read, and a start could fail.
pub(super) async fn follow(
    settings: Settings,
    mut files: WatchedFiles,
    mut reports: watch::Receiver<TunnelReport>,
    restart: CancellationToken,
    stop: CancellationToken,
) {
    let looking = async {
        while reports.wait_for(|report| report.state != TunnelState::Up).await.is_ok() {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if reports.borrow().state == TunnelState::Up {
                continue;
            }
            let running = settings.clone();
            let look = spawn_blocking(move || {
                let is_other = has_other_keys(&mut files, &running);
                (is_other, files)
            });
            let Ok((is_other, looked_at)) = look.await else { return };
            files = looked_at;
            if is_other {
                tracing::info!("The keys of the tunnel have changed. The gateway starts again.");
                restart.cancel();
                return;
            }
        }
    };
    stop.run_until_cancelled(looking).await;
    // The task of a stage ends at its stop.
    stop.cancelled().await;
}

/// Returns whether the files have changed since they were looked at and hold other keys.
fn has_other_keys(files: &mut WatchedFiles, running: &Settings) -> bool {
    let Some(config_file) = files.take_changed_names() else { return false };
    let Ok(loaded) = config::load(config_file) else {
        tracing::warn!(
            "a file with keys or a password has changed, and the configuration cannot be used \
             with it; the gateway goes on with what it has. `edge-gateway check {}` says why",
            config_file.display()
        );
        return false;
    };
    loaded.config.tunnel.is_some_and(|tunnel| !has_same_keys(&tunnel.settings, running))
}

fn has_same_keys(settings: &Settings, running: &Settings) -> bool {
    let preshared = |settings: &Settings| -> Vec<_> {
        settings.hubs.iter().map(|hub| hub.preshared_key.clone()).collect()
    };
    settings.private_key.public_key() == running.private_key.public_key()
        && preshared(settings) == preshared(running)
}
