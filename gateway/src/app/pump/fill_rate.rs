//! Estimates when the queue is full, from the rate of the last five minutes. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::queue::Capacity;

/// No estimate before this: the first readings come all at once and would show a rate far too high.
const WARM_UP: Duration = Duration::from_secs(10);
/// The rate is a mean over ten of these, five minutes: longer than any usual heartbeat.
const SLOT_DURATION: Duration = Duration::from_secs(30);
const SLOT_COUNT: usize = 10;

/// Bytes that were pushed into the queue in the last five minutes.
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

/// Sizes in bytes, on disk and in memory.
#[derive(Clone, Copy, Debug, Default)]
struct ByteCounts {
    disk: u64,
    memory: u64,
}

impl FillRate {
    pub(super) fn new(now: Instant) -> Self {
        Self { slots: VecDeque::from([RateSlot { since: now, bytes: ByteCounts::default() }]) }
    }

    /// Records an entry by its sizes in bytes. A refused entry has no size on `disk`; it counts
    /// with the usual ratio of disk to memory, so that a full queue does not look like a slow site.
    pub(super) fn add(&mut self, disk: Option<u64>, memory: u64) {
        let all = self.total();
        let usual = memory.saturating_mul(all.disk).checked_div(all.memory);
        if let Some(RateSlot { bytes, .. }) = self.slots.back_mut() {
            bytes.disk = bytes.disk.saturating_add(disk.or(usual).unwrap_or(memory));
            bytes.memory = bytes.memory.saturating_add(memory);
        }
    }

    /// Begins a new slot when the last one is over, and forgets the oldest.
    pub(super) fn rotate(&mut self, now: Instant) {
        let is_over = self.slots.back().is_none_or(|slot| now >= slot.since + SLOT_DURATION);
        if is_over {
            self.slots.push_back(RateSlot { since: now, bytes: ByteCounts::default() });
        }
        if self.slots.len() > SLOT_COUNT {
            self.slots.pop_front();
        }
    }

    /// Returns the seconds until `capacity` is used up; `None` in the first 10 seconds and while no
    /// entries come.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn seconds_until_full(&self, capacity: Capacity, now: Instant) -> Option<f64> {
        let first = self.slots.front()?;
        let elapsed = now.saturating_duration_since(first.since);
        let pushed = self.total();
        let (free, pushed) = match capacity {
            Capacity::Disk(free) => (free, pushed.disk),
            Capacity::Memory(free) => (free, pushed.memory),
        };
        let is_known = pushed > 0 && elapsed >= WARM_UP;
        is_known.then(|| free as f64 / pushed as f64 * elapsed.as_secs_f64())
    }

    fn total(&self) -> ByteCounts {
        self.slots.iter().fold(ByteCounts::default(), |sum, RateSlot { bytes, .. }| ByteCounts {
            disk: sum.disk.saturating_add(bytes.disk),
            memory: sum.memory.saturating_add(bytes.memory),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const HOUR: f64 = 3600.0;

    /// A site that produces entries at a constant rate.
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

        fn hours(&self, capacity: Capacity) -> Option<f64> {
            let seconds = self.fill_rate.seconds_until_full(capacity, self.now)?;
            Some((seconds / HOUR * 10.0).round() / 10.0)
        }
    }

    #[test]
    fn one_mebibyte_per_hour_fills_sixteen_in_sixteen_hours() {
        let mut site = SimulatedSite::new();
        site.run(9, Some(291), 582);
        assert_eq!(site.hours(Capacity::Disk(16 << 20)), None);

        site.run(600, Some(291), 582);

        assert_eq!(site.hours(Capacity::Disk(16 << 20)), Some(16.0));
        assert_eq!(site.hours(Capacity::Memory(16 << 20)), Some(8.0));
        assert_eq!(site.hours(Capacity::Disk(0)), Some(0.0));
    }

    #[test]
    fn only_the_last_five_minutes_count() {
        let mut site = SimulatedSite::new();
        site.run(86_400, Some(KIB), 2 * KIB);
        site.run(330, Some(10 * KIB), 20 * KIB);

        assert_eq!(site.hours(Capacity::Disk(360 << 20)), Some(10.2));
        site.run(330, None, 0);
        assert_eq!(site.hours(Capacity::Disk(360 << 20)), None, "no entries come");
    }

    #[test]
    fn refused_entries_count_for_the_rate() {
        let (mut kept, mut refused) = (SimulatedSite::new(), SimulatedSite::new());
        kept.run(100, Some(KIB), 2 * KIB);
        refused.run(100, Some(KIB), 2 * KIB);
        kept.run(100, Some(KIB), 2 * KIB);
        refused.run(100, None, 2 * KIB);

        assert_eq!(kept.hours(Capacity::Disk(1 << 30)), refused.hours(Capacity::Disk(1 << 30)));
    }
}
