//! The gateway's face to this machine: the status socket and the service manager.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use sd_notify::NotifyState;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::AppError;
use crate::web;

/// How often it is checked that the socket is where it should be.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Where `edge-gateway status` finds the running gateway.
#[must_use]
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("status.sock")
}

/// Opens the status socket for the owner only.
///
/// A state directory that cannot be used is told and lived with: the machines must be read all the
/// same.
pub(super) async fn bind(state_dir: &Path) -> Result<Option<UnixListener>, AppError> {
    let path = socket_path(state_dir);
    if UnixStream::connect(&path).await.is_ok() {
        return Err(AppError::AlreadyRunning(state_dir.display().to_string()));
    }
    Ok(open_socket(state_dir, &path).inspect_err(|error| warn_unusable(state_dir, error)).ok())
}

/// Serves the router on the socket until `stop` fires, and opens it anew when it is gone from the
/// directory, or as soon as it can be had at all.
pub(super) async fn serve(
    state_dir: PathBuf,
    mut listener: Option<UnixListener>,
    router: Router,
    stop: CancellationToken,
) {
    let path = socket_path(&state_dir);
    loop {
        let gone = stop.child_token();
        match listener.take() {
            Some(open) => {
                let serving = web::serve(open, router.clone(), gone.clone());
                tokio::join!(serving, watch_socket_file(&path, &gone));
            }
            None => {
                let _ = timeout(CHECK_INTERVAL, stop.cancelled()).await;
            }
        }
        if stop.is_cancelled() {
            return;
        }
        listener = open_socket(&state_dir, &path).ok();
    }
}

/// Fires `gone` when the socket is not the one that was there at first.
async fn watch_socket_file(path: &Path, gone: &CancellationToken) {
    let inode = || std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let ours = inode();
    while timeout(CHECK_INTERVAL, gone.cancelled()).await.is_err() {
        if inode() != ours {
            gone.cancel();
        }
    }
}

fn warn_unusable(state_dir: &Path, error: &std::io::Error) {
    tracing::warn!(
        state_dir = %state_dir.display(), %error,
        "state_dir cannot be used; `edge-gateway status` will not find this gateway until it can"
    );
}

fn open_socket(state_dir: &Path, path: &Path) -> std::io::Result<UnixListener> {
    std::fs::create_dir_all(state_dir)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Tells the service manager that the gateway runs.
pub(super) fn notify_ready() {
    notify(NotifyState::Ready);
}

/// Tells the service manager that the gateway drains.
pub(super) fn notify_stopping() {
    notify(NotifyState::Stopping);
}

/// Feeds the service manager's watchdog.
pub(super) fn notify_watchdog() {
    notify(NotifyState::Watchdog);
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}
