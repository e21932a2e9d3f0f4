//! For how long a broker may still be away, at the rate of the last minutes. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::queue::Room;

/// The first readings come all at once and say nothing about the rate.
const SETTLED: Duration = Duration::from_secs(10);
/// The rate is a mean over ten of these: longer than any heartbeat that is usual.
const SLOT: Duration = Duration::from_secs(30);
const SLOTS: usize = 10;

/// What came into the queue lately.
#[derive(Debug)]
pub(super) struct Inflow {
    /// Oldest first; never empty.
    slots: VecDeque<Slot>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    since: Instant,
    came: Came,
}

/// Bytes, as they would lie on the disk and in memory.
#[derive(Clone, Copy, Debug, Default)]
struct Came {
    disk: u64,
    memory: u64,
}

impl Inflow {
    pub(super) fn new(now: Instant) -> Self {
        Self { slots: VecDeque::from([Slot { since: now, came: Came::default() }]) }
    }

    /// An entry came. One that was refused has no size on the disk: it would have taken what others
    /// of its size in memory take.
    pub(super) fn add(&mut self, disk: Option<u64>, memory: u64) {
        let all = self.came();
        let usual = memory.saturating_mul(all.disk).checked_div(all.memory);
        if let Some(Slot { came, .. }) = self.slots.back_mut() {
            came.disk = came.disk.saturating_add(disk.or(usual).unwrap_or(memory));
            came.memory = came.memory.saturating_add(memory);
        }
    }

    /// What came long ago does not count any more.
    pub(super) fn turn(&mut self, now: Instant) {
        let is_over = self.slots.back().is_none_or(|slot| now >= slot.since + SLOT);
        if is_over {
            self.slots.push_back(Slot { since: now, came: Came::default() });
        }
        if self.slots.len() > SLOTS {
            self.slots.pop_front();
        }
    }

    /// Seconds until this room is full; nothing in the first seconds, and while nothing comes.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn fills(&self, room: Room, now: Instant) -> Option<f64> {
        let first = self.slots.front()?;
        let elapsed = now.saturating_duration_since(first.since);
        let came = self.came();
        let (free, came) = match room {
            Room::Disk(free) => (free, came.disk),
            Room::Memory(free) => (free, came.memory),
        };
        let is_known = came > 0 && elapsed >= SETTLED;
        is_known.then(|| free as f64 / came as f64 * elapsed.as_secs_f64())
    }

    fn came(&self) -> Came {
        self.slots.iter().fold(Came::default(), |sum, Slot { came, .. }| Came {
            disk: sum.disk.saturating_add(came.disk),
            memory: sum.memory.saturating_add(came.memory),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const HOUR: f64 = 3600.0;

    /// A site that makes so many bytes a second, for the disk; twice as many in memory.
    struct Site {
        inflow: Inflow,
        now: Instant,
    }

    impl Site {
        fn new() -> Self {
            let now = Instant::now();
            Self { inflow: Inflow::new(now), now }
        }

        fn run(&mut self, seconds: u64, disk: Option<u64>, memory: u64) {
            for _ in 0..seconds {
                self.now += Duration::from_secs(1);
                self.inflow.turn(self.now);
                if memory > 0 {
                    self.inflow.add(disk, memory);
                }
            }
        }

        fn hours(&self, room: Room) -> Option<f64> {
            let seconds = self.inflow.fills(room, self.now)?;
            Some((seconds / HOUR * 10.0).round() / 10.0)
        }
    }

    #[test]
    fn a_mebibyte_an_hour_fills_sixteen_of_them_in_sixteen_hours() {
        let mut site = Site::new();
        site.run(9, Some(291), 582);
        assert_eq!(site.hours(Room::Disk(16 << 20)), None);

        site.run(600, Some(291), 582);

        assert_eq!(site.hours(Room::Disk(16 << 20)), Some(16.0));
        assert_eq!(site.hours(Room::Memory(16 << 20)), Some(8.0));
        assert_eq!(site.hours(Room::Disk(0)), Some(0.0));
    }

    #[test]
    fn it_is_the_present_rate_that_counts() {
        let mut site = Site::new();
        site.run(86_400, Some(KIB), 2 * KIB);
        site.run(330, Some(10 * KIB), 20 * KIB);

        assert_eq!(site.hours(Room::Disk(360 << 20)), Some(10.2));
        site.run(330, None, 0);
        assert_eq!(site.hours(Room::Disk(360 << 20)), None, "nothing comes");
    }

    #[test]
    fn what_is_refused_belongs_to_the_rate() {
        let (mut kept, mut refused) = (Site::new(), Site::new());
        kept.run(100, Some(KIB), 2 * KIB);
        refused.run(100, Some(KIB), 2 * KIB);
        kept.run(100, Some(KIB), 2 * KIB);
        refused.run(100, None, 2 * KIB);

        assert_eq!(kept.hours(Room::Disk(1 << 30)), refused.hours(Room::Disk(1 << 30)));
    }
}
