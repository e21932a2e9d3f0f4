//! The status socket: how `edge-gateway status` reaches the running gateway.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::AppError;
use crate::web;

/// How often the gateway checks that the socket file is still its own, or tries to create it.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Returns the path of the status socket of the gateway with this `state_dir`.
#[must_use]
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("status.sock")
}

/// Opens the status socket, for its owner only.
///
/// An unusable `state_dir` is logged and returns `None`: the PLCs must be read all the same.
pub(super) async fn bind(state_dir: &Path) -> Result<Option<UnixListener>, AppError> {
    if UnixStream::connect(socket_path(state_dir)).await.is_ok() {
        return Err(AppError::AlreadyRunning(state_dir.display().to_string()));
    }
    Ok(open_socket(state_dir).await.inspect_err(|error| warn_unusable(state_dir, error)).ok())
}

/// Serves the router on the socket until `stop` fires. Creates the socket again when its file was
/// removed or replaced, and as soon as `state_dir` becomes usable.
pub(super) async fn serve(
    state_dir: PathBuf,
    mut listener: Option<UnixListener>,
    router: Router,
    stop: CancellationToken,
) {
    let path = socket_path(&state_dir);
    loop {
        let replaced = stop.child_token();
        match listener.take() {
            Some(open) => {
                let serving = web::serve(open, router.clone(), replaced.clone());
                tokio::join!(serving, watch_socket_file(&path, &replaced));
            }
            None => {
                // Either outcome ends the wait: the loop checks `stop` next.
                let _ = timeout(CHECK_INTERVAL, stop.cancelled()).await;
            }
        }
        if stop.is_cancelled() {
            return;
        }
        listener = open_socket(&state_dir).await.ok();
    }
}

/// Cancels `replaced` when the socket file is no longer the one that was there at first.
async fn watch_socket_file(path: &Path, replaced: &CancellationToken) {
    let own = inode(path).await;
    while timeout(CHECK_INTERVAL, replaced.cancelled()).await.is_err() {
        if inode(path).await != own {
            replaced.cancel();
        }
    }
}

/// Returns device and inode number of a file, `None` when it is missing.
async fn inode(path: &Path) -> Option<(u64, u64)> {
    let path = path.to_owned();
    let metadata = spawn_blocking(|| std::fs::symlink_metadata(path)).await.ok()?.ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn warn_unusable(state_dir: &Path, error: &io::Error) {
    tracing::warn!(
        state_dir = %state_dir.display(), %error,
        "state_dir cannot be used; `edge-gateway status` will not reach this gateway until it can"
    );
}

/// Creates the socket on a thread of its own: an SD card may take seconds, and everything else
/// shares the thread of the runtime.
async fn open_socket(state_dir: &Path) -> io::Result<UnixListener> {
    let state_dir = state_dir.to_owned();
    let created = spawn_blocking(move || create_socket(&state_dir)).await;
    UnixListener::from_std(created.map_err(io::Error::other)??)
}

fn create_socket(state_dir: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let path = socket_path(state_dir);
    // Its files are for this user only, also where no package has made the directory.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
    // A socket file outlives a killed process, and bind(2) fails on an existing file.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
