//! For how long a broker may still be away, at the rate of the last minutes. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::queue::Capacity;

/// The first readings come all at once and say nothing about the rate.
const WARM_UP: Duration = Duration::from_secs(10);
/// The rate is a mean over ten of these: longer than any heartbeat that is usual.
const SLOT_DURATION: Duration = Duration::from_secs(30);
const SLOT_COUNT: usize = 10;

/// What came into the queue lately.
#[derive(Debug)]
pub(super) struct FillRate {
    /// Oldest first; never empty.
    slots: VecDeque<RateSlot>,
}

#[derive(Clone, Copy, Debug)]
struct RateSlot {
    since: Instant,
    bytes: ByteCounts,
}

/// Bytes, as they would lie on the disk and in memory.
#[derive(Clone, Copy, Debug, Default)]
struct ByteCounts {
    disk: u64,
    memory: u64,
}

impl FillRate {
    pub(super) fn new(now: Instant) -> Self {
        Self { slots: VecDeque::from([RateSlot { since: now, bytes: ByteCounts::default() }]) }
    }

    /// An entry came. One that was refused has no size on the disk: it would have taken what others
    /// of its size in memory take.
    pub(super) fn add(&mut self, disk: Option<u64>, memory: u64) {
        let all = self.total();
        let usual = memory.saturating_mul(all.disk).checked_div(all.memory);
        if let Some(RateSlot { bytes: came, .. }) = self.slots.back_mut() {
            came.disk = came.disk.saturating_add(disk.or(usual).unwrap_or(memory));
            came.memory = came.memory.saturating_add(memory);
        }
    }

    /// What came long ago does not count any more.
    pub(super) fn rotate(&mut self, now: Instant) {
        let is_over = self.slots.back().is_none_or(|slot| now >= slot.since + SLOT_DURATION);
        if is_over {
            self.slots.push_back(RateSlot { since: now, bytes: ByteCounts::default() });
        }
        if self.slots.len() > SLOT_COUNT {
            self.slots.pop_front();
        }
    }

    /// Seconds until this room is full; nothing in the first seconds, and while nothing comes.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn seconds_until_full(&self, room: Capacity, now: Instant) -> Option<f64> {
        let first = self.slots.front()?;
        let elapsed = now.saturating_duration_since(first.since);
        let came = self.total();
        let (free, came) = match room {
            Capacity::Disk(free) => (free, came.disk),
            Capacity::Memory(free) => (free, came.memory),
        };
        let is_known = came > 0 && elapsed >= WARM_UP;
        is_known.then(|| free as f64 / came as f64 * elapsed.as_secs_f64())
    }

    fn total(&self) -> ByteCounts {
        self.slots.iter().fold(ByteCounts::default(), |sum, RateSlot { bytes: came, .. }| {
            ByteCounts {
                disk: sum.disk.saturating_add(came.disk),
                memory: sum.memory.saturating_add(came.memory),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const HOUR: f64 = 3600.0;

    /// A site that makes so many bytes a second, for the disk; twice as many in memory.
    struct SimulatedSite {
        fill_rate: FillRate,
        now: Instant,
    }

    impl SimulatedSite {
        fn new() -> Self {
            let now = Instant::now();
            Self { fill_rate: FillRate::new(now), now }
        }

        fn run(&mut self, seconds: u64, disk: Option<u64>, memory: u64) {
            for _ in 0..seconds {
                self.now += Duration::from_secs(1);
                self.fill_rate.rotate(self.now);
                if memory > 0 {
                    self.fill_rate.add(disk, memory);
                }
            }
        }

        fn hours(&self, room: Capacity) -> Option<f64> {
            let seconds = self.fill_rate.seconds_until_full(room, self.now)?;
            Some((seconds / HOUR * 10.0).round() / 10.0)
        }
    }

    #[test]
    fn a_mebibyte_an_hour_fills_sixteen_of_them_in_sixteen_hours() {
        let mut site = SimulatedSite::new();
        site.run(9, Some(291), 582);
        assert_eq!(site.hours(Capacity::Disk(16 << 20)), None);

        site.run(600, Some(291), 582);

        assert_eq!(site.hours(Capacity::Disk(16 << 20)), Some(16.0));
        assert_eq!(site.hours(Capacity::Memory(16 << 20)), Some(8.0));
        assert_eq!(site.hours(Capacity::Disk(0)), Some(0.0));
    }

    #[test]
    fn it_is_the_present_rate_that_counts() {
        let mut site = SimulatedSite::new();
        site.run(86_400, Some(KIB), 2 * KIB);
        site.run(330, Some(10 * KIB), 20 * KIB);

        assert_eq!(site.hours(Capacity::Disk(360 << 20)), Some(10.2));
        site.run(330, None, 0);
        assert_eq!(site.hours(Capacity::Disk(360 << 20)), None, "nothing comes");
    }

    #[test]
    fn what_is_refused_belongs_to_the_rate() {
        let (mut kept, mut refused) = (SimulatedSite::new(), SimulatedSite::new());
        kept.run(100, Some(KIB), 2 * KIB);
        refused.run(100, Some(KIB), 2 * KIB);
        kept.run(100, Some(KIB), 2 * KIB);
        refused.run(100, None, 2 * KIB);

        assert_eq!(kept.hours(Capacity::Disk(1 << 30)), refused.hours(Capacity::Disk(1 << 30)));
    }
}
