//! Something bad that was learned and is not believed for ever.

use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// How often something has failed in a row, and when it is tried again: in the next cycle after
/// the first failure, then after a minute, and at last once an hour.
#[derive(Clone, Copy, Debug)]
pub(in crate::plc) struct Doubt {
    failures: u32,
    due: Instant,
}

impl Doubt {
    /// It has failed for the first time.
    pub(in crate::plc) const fn new(now: Instant) -> Self {
        Self { failures: 1, due: now }
    }

    /// It has failed and is not to be tried again in the next cycle.
    pub(in crate::plc) fn confirmed(now: Instant) -> Self {
        let mut doubt = Self::new(now);
        doubt.fail(now);
        doubt
    }

    /// It has failed once more.
    pub(in crate::plc) fn fail(&mut self, now: Instant) {
        let doublings = self.failures.saturating_sub(1).min(16);
        self.failures = self.failures.saturating_add(1);
        self.due = now + FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    }

    /// It is to be tried again at the next opportunity.
    pub(in crate::plc) const fn hasten(&mut self, now: Instant) {
        self.due = now;
    }

    /// Whether it failed more than once in a row.
    pub(in crate::plc) const fn is_confirmed(&self) -> bool {
        self.failures > 1
    }

    pub(in crate::plc) const fn due(&self) -> Instant {
        self.due
    }

    pub(in crate::plc) fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_grow_from_a_minute_to_an_hour_and_never_end() {
        let now = Instant::now();
        let mut doubt = Doubt::new(now);
        assert!(doubt.is_due(now) && !doubt.is_confirmed());
        let pauses: Vec<_> = (0..40)
            .map(|_| {
                doubt.fail(now);
                (doubt.due() - now).as_secs() / 60
            })
            .collect();
        assert_eq!(pauses[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pauses[39], 60);
        assert!(doubt.is_confirmed());
    }
}
