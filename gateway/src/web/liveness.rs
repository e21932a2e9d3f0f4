//! Whether the tasks still move.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// A sign of life: touched by the loop that everything depends on, read by `/healthz` and by
/// whoever feeds the service manager's watchdog. Clones share it.
#[derive(Clone, Debug)]
pub struct Liveness {
    start: Instant,
    timeout: Duration,
    /// Milliseconds after `start`. An atomic, so that a reader never holds up the loop.
    last_touch: Arc<AtomicU64>,
}

impl Liveness {
    /// Alive from now on for as long as it is touched at least once per `patience`.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Self { start: Instant::now(), timeout: patience, last_touch: Arc::default() }
    }

    /// Tells that the loop has come round.
    pub fn touch(&self) {
        self.last_touch.store(self.elapsed_millis(), Ordering::Relaxed);
    }

    /// Whether it was touched within the last `patience`.
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
    async fn is_dead_after_its_patience_and_alive_again_after_a_touch() {
        let liveness = Liveness::new(Duration::from_secs(30));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(liveness.is_alive());

        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!liveness.is_alive());

        liveness.clone().touch();
        assert!(liveness.is_alive());
    }
}
