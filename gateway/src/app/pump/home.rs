//! A place for the queue: where there is none at the start, one that comes later is taken up.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Pump;
use crate::queue::storage::Files;

/// How often a directory that could not be used is tried.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The directory of the queue, and whether it can be used now.
#[derive(Debug)]
pub(super) struct Home {
    dir: PathBuf,
    look_at: Instant,
    /// It can, as soon as nothing is under way.
    found: Option<Files>,
}

impl Home {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, look_at: Instant::now() + LOOK_EVERY, found: None }
    }

    /// Whether nothing more may be handed out.
    pub(super) const fn is_found(&self) -> bool {
        self.found.is_some()
    }
}

impl Pump {
    /// Tries the directory when it is due.
    pub(super) fn look_for_home(&mut self) {
        if !self.queue.is_homeless() || self.home.is_found() || Instant::now() < self.home.look_at {
            return;
        }
        self.home.look_at = Instant::now() + LOOK_EVERY;
        match Files::open(&self.home.dir) {
            Ok(files) => self.home.found = Some(files),
            Err(error) => self.queue.miss(&error),
        }
    }

    /// Moves in once no acknowledgement is expected.
    pub(super) fn move_in(&mut self) {
        if !self.home.is_found() {
            return;
        }
        if self.session.is_none() {
            self.queue.rewind(Instant::now());
        }
        if self.queue.is_idle()
            && let Some(files) = self.home.found.take()
            && let Some(moved) = self.queue.take_up(files, Instant::now())
        {
            self.eras.renumber(|entry| moved.ticket(entry));
            let dir = self.home.dir.display();
            tracing::warn!(%dir, "the queue lies on the disk from now on");
        }
    }
}
