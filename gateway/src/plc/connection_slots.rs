//! How many connections to PLCs may be open at once: as many as leave descriptors for the broker,
//! the queue and the pages.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Slots for connections, shared by all poll tasks.
#[derive(Clone, Debug)]
pub struct ConnectionSlots(Arc<Semaphore>);

/// The slot of one connection, from its first name look-up to its end.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    _permit: OwnedSemaphorePermit,
}

impl ConnectionSlots {
    /// Returns this many slots.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))))
    }

    /// Returns a slot, if one is free.
    pub(super) fn take(&self) -> Option<ConnectionSlot> {
        let permit = Arc::clone(&self.0).try_acquire_owned().ok()?;
        Some(ConnectionSlot { _permit: permit })
    }
}
