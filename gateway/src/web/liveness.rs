//! Whether the event loop still runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// A sign of life of the event loop, read by `/healthz`. Clones share it.
#[derive(Clone, Debug)]
pub struct Liveness {
    start: Instant,
    timeout: Duration,
    /// Milliseconds after `start`. An atomic, so that a reader never blocks the loop.
    last_touch: Arc<AtomicU64>,
}

impl Liveness {
    /// Returns a sign of life that lasts as long as it is touched at least once per `timeout`.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self { start: Instant::now(), timeout, last_touch: Arc::default() }
    }

    /// Records that the loop runs.
    pub fn touch(&self) {
        self.last_touch.store(self.elapsed_millis(), Ordering::Relaxed);
    }

    /// Returns whether it was touched within the last `timeout`.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let silence = self.elapsed_millis().saturating_sub(self.last_touch.load(Ordering::Relaxed));
        Duration::from_millis(silence) <= self.timeout
    }

    fn elapsed_millis(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_dead_after_the_timeout_and_alive_after_a_touch() {
        let liveness = Liveness::new(Duration::from_secs(30));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(liveness.is_alive());

        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!liveness.is_alive());

        liveness.clone().touch();
        assert!(liveness.is_alive());
    }
}
