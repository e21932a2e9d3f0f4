//! The storage of the queue: where there is none at the start, one that appears later is attached.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::Pump;
use crate::queue::storage::{DirStorage, DirStorageError};

/// Interval in which a directory that could not be used is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// The directory of the queue, and the attempt to open it.
#[derive(Debug)]
pub(super) struct StorageRetry {
    dir: PathBuf,
    retry_at: Instant,
    /// The running attempt: a device that does not answer must not block this thread.
    opening: Option<oneshot::Receiver<Result<DirStorage, DirStorageError>>>,
    /// The open storage, until no entry is handed out.
    opened: Option<DirStorage>,
}

impl StorageRetry {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, retry_at: Instant::now() + RETRY_INTERVAL, opening: None, opened: None }
    }

    /// Returns whether a storage waits to be attached, so that nothing more may be handed out.
    pub(super) const fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    fn begin(&mut self, now: Instant) {
        self.retry_at = now + RETRY_INTERVAL;
        let (sender, receiver) = oneshot::channel();
        let dir = self.dir.clone();
        spawn_blocking(move || sender.send(DirStorage::open(&dir)));
        self.opening = Some(receiver);
    }

    /// Returns the result of the running attempt, if it has ended.
    fn take_result(&mut self) -> Option<Result<DirStorage, DirStorageError>> {
        let result = self.opening.as_mut()?.try_recv();
        if !matches!(result, Err(oneshot::error::TryRecvError::Empty)) {
            self.opening = None;
        }
        result.ok()
    }
}

impl Pump {
    /// Tries to open the directory when that is due.
    pub(super) fn retry_storage(&mut self) {
        if !self.queue.lacks_storage() || self.storage_retry.is_open() {
            return;
        }
        match self.storage_retry.take_result() {
            Some(Ok(storage)) => self.storage_retry.opened = Some(storage),
            Some(Err(error)) => self.queue.on_storage_unavailable(&error),
            None => {}
        }
        let now = Instant::now();
        let retry = &mut self.storage_retry;
        if !retry.is_open() && retry.opening.is_none() && now >= retry.retry_at {
            retry.begin(now);
        }
    }

    /// Attaches the storage once no entry is handed out.
    pub(super) fn attach_storage(&mut self) {
        if !self.storage_retry.is_open() {
            return;
        }
        if self.session.is_none() {
            self.queue.rewind(Instant::now());
        }
        if self.queue.nothing_in_flight()
            && let Some(storage) = self.storage_retry.opened.take()
            && let Some(moved) = self.queue.attach_storage(storage, Instant::now())
        {
            self.clock_history.renumber(|entry| moved.new_ticket(entry));
            let dir = self.storage_retry.dir.display();
            tracing::warn!(%dir, "the queue is stored on disk from now on");
        }
    }
}
