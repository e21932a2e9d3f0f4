//! Many silent units behind one connection with one that answers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::*;
use crate::plc::silent_units;

/// One scan, and the time-outs of a probe and of the request on the wire.
const SLACK: Duration = Duration::from_secs(1 + 1 + 1);

/// Units of which some are silent.
struct SilentUnitsSite {
    world: PollerHarness,
    silent: Arc<Mutex<BTreeSet<u8>>>,
    /// Complete cycles of each unit.
    good: Vec<u32>,
    retry_within: Vec<Option<Duration>>,
}

impl SilentUnitsSite {
    /// Units 1 to `count` are silent, and one more answers.
    fn new(count: u8, silence: fn() -> RequestError) -> Self {
        let silent = Arc::new(Mutex::new((1..=count).collect::<BTreeSet<_>>()));
        let is_silent = Arc::clone(&silent);
        let fake = FakePlc::with_units(move |unit, request| {
            if is_silent.lock().unwrap().contains(&unit) {
                return (SECOND, Err(silence()));
            }
            (SECOND / 100, echo_addresses(request).1)
        });
        let unit = |unit| Plc {
            name: format!("p{unit}"),
            unit_id: unit,
            ..plc("generic", &[("holding:0", 1000)])
        };
        let units: Vec<_> = (1..=count + 1).map(unit).collect();
        let good = vec![0; units.len()];
        let tried_within = vec![None; units.len()];
        let world = PollerHarness::start_all(units, fake.without_read_log(), 0.4);
        Self { world, silent, good, retry_within: tried_within }
    }

    async fn event(&mut self) {
        match self.world.event().await {
            PlcEvent::Cycle(cycle) => {
                let is_good = cycle.results.iter().all(|read| read.outcome.is_ok());
                self.good[usize::from(cycle.plc)] += u32::from(is_good);
            }
            PlcEvent::State {
                plc,
                state: PlcState::Disconnected { retry_within: tried_within, .. },
            } => {
                self.retry_within[usize::from(plc)] = tried_within;
            }
            PlcEvent::State { .. }
            | PlcEvent::Changed { .. }
            | PlcEvent::Throttled { .. }
            | PlcEvent::Learned { .. }
            | PlcEvent::Written(_) => {}
        }
    }

    async fn until(&mut self, end: Duration) {
        while self.world.elapsed() < end {
            self.event().await;
        }
    }

    /// Lets a unit answer again. Returns the time until it is read.
    async fn revive(&mut self, unit: u8, at_most: Duration) -> Duration {
        let (back, before) = (self.world.elapsed(), self.good[usize::from(unit) - 1]);
        self.silent.lock().unwrap().remove(&unit);
        while self.good[usize::from(unit) - 1] == before {
            self.event().await;
            let took = self.world.elapsed() - back;
            assert!(took <= at_most, "unit {unit} has not recovered after {took:?}");
        }
        self.world.elapsed() - back
    }
}

/// Silent units recover within the reported time, and the unit that answers keeps its rate.
#[tokio::test(start_paused = true)]
async fn any_number_of_silent_units_recovers_within_the_reported_time() {
    let silences: [fn() -> RequestError; 2] =
        [|| RequestError::TimedOut(SECOND), || RequestError::Refused(0x0B)];
    for (count, silence) in
        [1, 2, 3, 4, 5, 9, 16, 23, 30].into_iter().zip(silences.into_iter().cycle())
    {
        let mut site = SilentUnitsSite::new(count, silence);
        // Six connects a minute.
        site.until(SECOND * 61 * u32::from(count / 6 + 1)).await;
        assert!(site.good[usize::from(count)] > 0, "the one that answers is found among {count}");
        let round = silent_units::worst_round(u32::from(count), SECOND);
        site.until(round * 2 + SECOND * 60).await;
        assert_eq!(site.retry_within[usize::from(count) - 1], Some(round), "of {count}");
        let (good, from) = (site.good[usize::from(count)], site.world.elapsed());
        for unit in [1, count.div_ceil(2), count] {
            if site.silent.lock().unwrap().contains(&unit) {
                site.revive(unit, round + SLACK).await;
            }
            // Then it is silent again.
            site.silent.lock().unwrap().insert(unit);
            site.until(site.world.elapsed() + SECOND * 45).await;
        }
        let (good, of) =
            (site.good[usize::from(count)] - good, (site.world.elapsed() - from).as_secs());
        assert!(u64::from(good) >= of * 85 / 100, "{count} silent: {good} of {of} cycles");
        assert_at_most_six_a_minute(&site.world.take_connects());
    }
}

/// Units that answer a probe and then break the connection, again and again, delay a silent unit by
/// at most a minute each.
#[tokio::test(start_paused = true)]
async fn units_that_fail_and_recover_do_not_keep_silent_ones_from_recovering() {
    let mut site = SilentUnitsSite::new(8, || RequestError::TimedOut(SECOND));
    let mut random = fastrand::Rng::with_seed(5);
    // Four of them keep changing between answering and silence.
    let (start, revived) = (site.world.elapsed() + SECOND * 600, 1);
    let mut back = None;
    while site.world.elapsed() < start + SECOND * 60 * 8 + SLACK {
        site.event().await;
        for unit in 5..=8 {
            if random.u32(0..20) == 0 {
                let mut silent = site.silent.lock().unwrap();
                if !silent.remove(&unit) {
                    silent.insert(unit);
                }
            }
        }
        if site.world.elapsed() >= start && site.silent.lock().unwrap().remove(&revived) {
            site.good[0] = 0;
        }
        if back.is_none() && site.good[0] > 0 {
            back = Some(site.world.elapsed());
        }
    }
    assert!(back.is_some(), "it did not recover");
    assert_at_most_six_a_minute(&site.world.take_connects());
}
