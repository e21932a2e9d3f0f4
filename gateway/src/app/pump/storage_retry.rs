//! A place for the queue: where there is none at the start, one that comes later is taken up.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Pump;
use crate::queue::storage::DirStorage;

/// How often a directory that could not be used is tried.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// The directory of the queue, and whether it can be used now.
#[derive(Debug)]
pub(super) struct StorageRetry {
    dir: PathBuf,
    retry_at: Instant,
    /// It can, as soon as nothing is under way.
    opened: Option<DirStorage>,
}

impl StorageRetry {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, retry_at: Instant::now() + RETRY_INTERVAL, opened: None }
    }

    /// Whether nothing more may be handed out.
    pub(super) const fn is_open(&self) -> bool {
        self.opened.is_some()
    }
}

impl Pump {
    /// Tries the directory when it is due.
    pub(super) fn retry_storage(&mut self) {
        if !self.queue.lacks_storage()
            || self.storage_retry.is_open()
            || Instant::now() < self.storage_retry.retry_at
        {
            return;
        }
        self.storage_retry.retry_at = Instant::now() + RETRY_INTERVAL;
        match DirStorage::open(&self.storage_retry.dir) {
            Ok(files) => self.storage_retry.opened = Some(files),
            Err(error) => self.queue.on_storage_unavailable(&error),
        }
    }

    /// Moves in once no acknowledgement is expected.
    pub(super) fn attach_storage(&mut self) {
        if !self.storage_retry.is_open() {
            return;
        }
        if self.session.is_none() {
            self.queue.rewind(Instant::now());
        }
        if self.queue.nothing_in_flight()
            && let Some(files) = self.storage_retry.opened.take()
            && let Some(moved) = self.queue.attach_storage(files, Instant::now())
        {
            self.clock_history.renumber(|entry| moved.new_ticket(entry));
            let dir = self.storage_retry.dir.display();
            tracing::warn!(%dir, "the queue lies on the disk from now on");
        }
    }
}
