//! The gateway's face to this machine: the status socket and the service manager.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sd_notify::NotifyState;
use tokio::net::{UnixListener, UnixStream};

use super::AppError;
use crate::web::Readiness;

/// Where `edge-gateway status` finds the running gateway.
#[must_use]
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("status.sock")
}

/// Opens the status socket for the owner only.
///
/// A state directory that cannot be used is told and lived with: the machines must be read all the
/// same.
pub(super) async fn bind(state_dir: &Path) -> Result<(Option<UnixListener>, Readiness), AppError> {
    let path = socket_path(state_dir);
    if UnixStream::connect(&path).await.is_ok() {
        return Err(AppError::AlreadyRunning(state_dir.display().to_string()));
    }
    match open(state_dir, &path) {
        Ok(listener) => Ok((Some(listener), Readiness::Ready)),
        Err(error) => {
            let state_dir = state_dir.display();
            tracing::warn!(
                %state_dir, %error,
                "state_dir cannot be used; `edge-gateway status` will not find this gateway"
            );
            Ok((None, Readiness::NotReady(format!("state_dir {state_dir}: {error}"))))
        }
    }
}

fn open(state_dir: &Path, path: &Path) -> std::io::Result<UnixListener> {
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
pub(super) fn ready() {
    notify(NotifyState::Ready);
}

/// Tells the service manager that the gateway drains.
pub(super) fn stopping() {
    notify(NotifyState::Stopping);
}

/// Feeds the service manager's watchdog.
pub(super) fn alive() {
    notify(NotifyState::Watchdog);
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}
