use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const TAKES: Duration = Duration::from_millis(20);

fn after(pace: &mut Pace, start: Instant, count: u32, took: Duration) {
    for n in 0..count {
        let sent = start + TAKES * n;
        pace.acknowledged(sent, sent + took);
    }
}

#[test]
fn it_rises_while_acknowledgements_are_quick_and_never_takes_the_whole_window() {
    let mut pace = Pace::new();
    after(&mut pace, Instant::now(), 100, TAKES);
    assert!((10..20).contains(&pace.most()), "{pace:?}");
    after(&mut pace, Instant::now(), 10_000, TAKES);
    assert_eq!(pace.most(), MOST);
}

#[test]
fn it_falls_to_half_once_for_all_that_was_under_way_when_they_became_slow() {
    let mut pace = Pace::new();
    let start = Instant::now();
    after(&mut pace, start, 10_000, TAKES);
    let sent = start + TAKES * 10_000;
    for _ in 0..MOST {
        pace.acknowledged(sent, sent + TAKES * 20);
    }
    assert_eq!(pace.most(), MOST / 2);
    pace.acknowledged(sent + TAKES * 20, sent + TAKES * 40);
    assert_eq!(pace.most(), MOST / 4);
}

#[test]
fn a_line_that_stays_slow_is_believed_in_the_end() {
    let mut pace = Pace::new();
    after(&mut pace, Instant::now(), 100, TAKES);
    after(&mut pace, Instant::now(), 10_000, TAKES * 5);
    assert!(pace.most() > FIRST, "{pace:?}");
}

#[test]
fn encoding_takes_its_share_of_the_time_and_no_more() {
    let (mut pace, start) = (Pace::new(), Instant::now());
    let (mut now, mut encoded) = (start, Duration::ZERO);
    while now < start + Duration::from_secs(1) {
        let took = Duration::from_micros(200);
        now += took;
        encoded += took;
        pace.encoded(took, now);
        // As a timer of whole milliseconds wakes one up.
        if let Some(until) = pace.rests(now) {
            let millis = (until - start).as_micros().div_ceil(1000);
            now = start + Duration::from_millis(millis.try_into().unwrap());
        }
    }
    assert!((120..=130).contains(&encoded.as_millis()), "{encoded:?}");
}

#[test]
fn something_is_always_under_way() {
    let (mut pace, mut sent) = (Pace::new(), Instant::now());
    let mut least = pace.most();
    pace.acknowledged(sent, sent);
    for n in 1..1000 {
        sent += Duration::from_secs(n);
        pace.acknowledged(sent, sent + Duration::from_secs(n));
        least = least.min(pace.most());
    }
    assert_eq!(least, 1);
}

/// 40 ms away, one message every 5 ms, no more.
#[test]
fn what_is_new_waits_less_than_twice_as_long_on_a_line_of_200_messages_a_second() {
    let mut line = Line { passes: 5.0, away: 40.0, ..Line::default() };

    let told = line.carry();

    assert!(told.late > 180.0 * SECONDS, "{told:?}");
    assert!(told.live_takes < 2.0 * 45.0, "{told:?}");
}

/// Over the air: 30 ms at least, 90 in the mean, whatever else is under way.
#[test]
fn a_line_that_hesitates_by_itself_is_used() {
    let mut line = Line { away: 30.0, hesitates: 60.0, ..Line::default() };

    let told = line.carry();

    let one_by_one = SECONDS * 1000.0 / 90.0;
    assert!(told.late > 8.0 * one_by_one, "{told:?}");
}

/// Ten messages a second are new.
const LIVE_EVERY: Duration = Duration::from_millis(100);
const SECONDS: f64 = 120.0;

/// A line with a backlog without end at one side. All in milliseconds.
#[derive(Debug, Default)]
struct Line {
    /// For one message, one after the other.
    passes: f64,
    away: f64,
    /// In the mean, exponentially distributed.
    hesitates: f64,
    free: Option<Instant>,
}

/// What became of it.
#[derive(Debug)]
struct Carried {
    /// Messages of the backlog.
    late: f64,
    /// What an acknowledgement of a new one took, in the mean.
    live_takes: f64,
}

impl Line {
    fn carry(&mut self) -> Carried {
        let (start, mut pace, mut random) =
            (Instant::now(), Pace::new(), fastrand::Rng::with_seed(1));
        let (mut now, mut next_live, mut under_way) = (start, start, 0);
        let (mut late, mut lives, mut live_took) = (0.0, 0.0, 0.0);
        // When it is acknowledged and was sent, and whether it is late.
        let mut on_the_way = BinaryHeap::new();
        while now < start + Duration::from_secs_f64(SECONDS) {
            while under_way < pace.most() {
                on_the_way.push(Reverse((self.acknowledges(now, &mut random), now, true)));
                under_way += 1;
            }
            let Some(Reverse((at, sent, is_late))) = on_the_way.pop() else { break };
            if next_live <= at {
                on_the_way.push(Reverse((at, sent, is_late)));
                now = next_live;
                on_the_way.push(Reverse((self.acknowledges(now, &mut random), now, false)));
                next_live += LIVE_EVERY;
                continue;
            }
            now = at;
            pace.acknowledged(sent, now);
            if is_late {
                under_way -= 1;
                late += 1.0;
            } else {
                lives += 1.0;
                live_took += (now - sent).as_secs_f64() * 1e3;
            }
        }
        Carried { late, live_takes: live_took / lives }
    }

    fn acknowledges(&mut self, sent: Instant, random: &mut fastrand::Rng) -> Instant {
        let millis = |millis: f64| Duration::from_secs_f64(millis / 1e3);
        let passed = self.free.map_or(sent, |free| free.max(sent)) + millis(self.passes);
        self.free = Some(passed);
        let hesitates = -self.hesitates * (1.0 - random.f64()).ln();
        passed + millis(self.away + hesitates)
    }
}
