//! Retries a queue directory that could not be opened at the start.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::task::spawn_blocking;

use crate::queue::storage::{DirStorage, DirStorageError};

/// Pause between two attempts to open the directory.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// The directory of the queue, and the attempts to open it.
#[derive(Debug)]
pub(super) struct StorageRetry {
    dir: PathBuf,
    state: RetryState,
}

#[derive(Debug)]
enum RetryState {
    Waiting { until: Instant },
    Opening(oneshot::Receiver<Result<DirStorage, DirStorageError>>),
    Open(DirStorage),
}

impl StorageRetry {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, state: RetryState::Waiting { until: Instant::now() + RETRY_INTERVAL } }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts an attempt when one is due, and returns the error of one that failed.
    pub(super) fn poll(&mut self, now: Instant) -> Option<DirStorageError> {
        let waiting = RetryState::Waiting { until: now + RETRY_INTERVAL };
        match &mut self.state {
            RetryState::Waiting { until } if *until <= now => {
                self.state = RetryState::Opening(open_in_background(self.dir.clone()));
                None
            }
            RetryState::Waiting { .. } | RetryState::Open(_) => None,
            RetryState::Opening(attempt) => {
                let (state, error) = match attempt.try_recv() {
                    Err(TryRecvError::Empty) => return None,
                    Err(TryRecvError::Closed) => (waiting, None),
                    Ok(Ok(storage)) => (RetryState::Open(storage), None),
                    Ok(Err(error)) => (waiting, Some(error)),
                };
                self.state = state;
                error
            }
        }
    }

    /// Returns whether the directory is open and the queue has not taken it yet. Until then no
    /// entry may be handed out: attaching the storage renumbers the entries.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, RetryState::Open(_))
    }

    /// Returns the open directory, once.
    pub(super) fn take(&mut self) -> Option<DirStorage> {
        if !self.is_open() {
            return None;
        }
        let waiting = RetryState::Waiting { until: Instant::now() + RETRY_INTERVAL };
        match std::mem::replace(&mut self.state, waiting) {
            RetryState::Open(storage) => Some(storage),
            RetryState::Waiting { .. } | RetryState::Opening(_) => None,
        }
    }
}

/// Opens the directory on a thread of its own: an SD card may take seconds, and everything else
/// shares the thread of the runtime.
fn open_in_background(dir: PathBuf) -> oneshot::Receiver<Result<DirStorage, DirStorageError>> {
    let (sender, attempt) = oneshot::channel();
    spawn_blocking(move || {
        // The receiver is gone only when the gateway is stopping.
        let _ = sender.send(DirStorage::open(&dir));
    });
    attempt
}
