use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const ACK_TIME: Duration = Duration::from_millis(20);

fn acknowledge_many(pace: &mut CongestionWindow, start: Instant, count: u32, took: Duration) {
    for n in 0..count {
        let sent = start + ACK_TIME * n;
        pace.on_acknowledged(sent, true, sent + took);
    }
}

#[test]
fn the_window_grows_while_acknowledgements_are_fast_and_leaves_room_for_live_entries() {
    let mut pace = CongestionWindow::new();
    acknowledge_many(&mut pace, Instant::now(), 100, ACK_TIME);
    assert!((10..20).contains(&pace.max_in_flight()), "{pace:?}");
    acknowledge_many(&mut pace, Instant::now(), 10_000, ACK_TIME);
    assert_eq!(pace.max_in_flight(), MAX_IN_FLIGHT);
}

#[test]
fn the_window_is_halved_once_for_everything_in_flight_when_acknowledgements_become_slow() {
    let mut pace = CongestionWindow::new();
    let start = Instant::now();
    acknowledge_many(&mut pace, start, 10_000, ACK_TIME);
    let sent = start + ACK_TIME * 10_000;
    for _ in 0..MAX_IN_FLIGHT {
        pace.on_acknowledged(sent, true, sent + ACK_TIME * 20);
    }
    assert_eq!(pace.max_in_flight(), MAX_IN_FLIGHT / 2);
    pace.on_acknowledged(sent + ACK_TIME * 20, true, sent + ACK_TIME * 40);
    assert_eq!(pace.max_in_flight(), MAX_IN_FLIGHT / 4);
}

#[test]
fn a_fast_link_that_stays_slower_is_accepted_without_rests() {
    let mut pace = CongestionWindow::new();
    acknowledge_many(&mut pace, Instant::now(), 100, ACK_TIME);
    acknowledge_many(&mut pace, Instant::now(), 10_000, ACK_TIME * 9 / 4);
    assert_eq!(pace.throttled_until(Instant::now()), None);
    assert!(pace.max_in_flight() > INITIAL_IN_FLIGHT, "{pace:?}");
}

#[test]
fn encoding_takes_an_eighth_of_the_time() {
    let (mut pace, start) = (CongestionWindow::new(), Instant::now());
    let (mut now, mut encoded) = (start, Duration::ZERO);
    while now < start + Duration::from_secs(1) {
        let took = Duration::from_micros(200);
        now += took;
        encoded += took;
        pace.on_encoded(took, now);
        // A timer has whole milliseconds.
        if let Some(until) = pace.throttled_until(now) {
            let millis = (until - start).as_micros().div_ceil(1000);
            now = start + Duration::from_millis(millis.try_into().unwrap());
        }
    }
    assert!((120..=130).contains(&encoded.as_millis()), "{encoded:?}");
}

#[test]
fn the_backlog_never_stops() {
    let (mut pace, mut sent) = (CongestionWindow::new(), Instant::now());
    let mut least = pace.max_in_flight();
    pace.on_acknowledged(sent, true, sent);
    for n in 1..1000 {
        sent += Duration::from_secs(n);
        let now = sent + Duration::from_secs(n);
        pace.on_acknowledged(sent, true, now);
        least = least.min(pace.max_in_flight());
        let rest = pace.throttled_until(now).map_or(Duration::ZERO, |until| until - now);
        assert!(rest <= Duration::from_secs(n) * MAX_REST, "{rest:?} after {n} s");
    }
    assert_eq!(least, 1);
}

/// A link with 40 ms of delay that takes one message every 5 ms.
#[test]
fn live_entries_wait_less_than_twice_as_long_on_a_link_of_200_messages_a_second() {
    let mut line = SimulatedLink { transmit_ms: 5.0, delay_ms: 40.0, ..SimulatedLink::default() };

    let totals = line.run();

    assert!(totals.history_sent > 180.0 * RUN_SECONDS, "{totals:?}");
    assert!(totals.live_ack_ms < 2.0 * 45.0, "{totals:?}");
}

/// A cellular link: 30 ms at least and 90 on average, regardless of other traffic.
#[test]
fn a_link_with_jitter_is_used() {
    let mut line = SimulatedLink { delay_ms: 30.0, jitter_ms: 60.0, ..SimulatedLink::default() };

    let totals = line.run();

    let one_by_one = RUN_SECONDS * 1000.0 / 90.0;
    assert!(totals.history_sent > 8.0 * one_by_one, "{totals:?}");
}

/// A link that takes 20 messages a second, of which live entries need a quarter to two thirds.
#[test]
fn live_entries_wait_less_than_twice_as_long_on_a_link_of_20_messages_a_second() {
    for (live_interval_ms, jitter_ms) in [(200, 0.0), (150, 0.0), (100, 0.0), (75, 60.0)] {
        let mut line = SimulatedLink {
            transmit_ms: 50.0,
            delay_ms: 40.0,
            jitter_ms,
            live_interval_ms,
            ..SimulatedLink::default()
        };

        let totals = line.run();

        assert!(totals.history_sent > 2.0 * RUN_SECONDS, "{totals:?}");
        assert!(totals.live_ack_ms < 2.0 * (90.0 + jitter_ms), "{totals:?}");
    }
}

/// After 20 s each acknowledgement takes five times as long; there are no live entries.
#[test]
fn a_slower_link_is_learned_during_rests() {
    let mut line = SimulatedLink {
        delay_ms: 20.0,
        later_delay_ms: Some(100.0),
        live_interval_ms: 1_000_000,
        ..SimulatedLink::default()
    };

    let totals = line.run();

    // With one in flight it would be ten a second after the change, with 56 it is 560.
    assert!(totals.history_sent > 20.0 * 2_500.0 + 100.0 * 250.0, "{totals:?}");
}

const RUN_SECONDS: f64 = 120.0;
const CHANGE_SECONDS: f64 = 20.0;

/// A link to which an endless backlog is sent.
#[derive(Debug)]
struct SimulatedLink {
    /// Time that the link is busy with one message.
    transmit_ms: f64,
    delay_ms: f64,
    /// Delay from [`CHANGE_SECONDS`] on, if it changes.
    later_delay_ms: Option<f64>,
    live_interval_ms: u64,
    /// Average of an exponential distribution.
    jitter_ms: f64,
    free_at: Option<Instant>,
}

impl Default for SimulatedLink {
    fn default() -> Self {
        Self {
            transmit_ms: 0.0,
            delay_ms: 0.0,
            later_delay_ms: None,
            live_interval_ms: 100,
            jitter_ms: 0.0,
            free_at: None,
        }
    }
}

/// What was sent over a link.
#[derive(Debug)]
struct LinkTotals {
    /// Messages of the backlog that were acknowledged.
    history_sent: f64,
    /// Average time to the acknowledgement of a live message.
    live_ack_ms: f64,
}

impl SimulatedLink {
    fn run(&mut self) -> LinkTotals {
        let (start, mut pace, mut random) =
            (Instant::now(), CongestionWindow::new(), fastrand::Rng::with_seed(1));
        let live_interval = Duration::from_millis(self.live_interval_ms);
        let (mut now, mut next_live, mut under_way) = (start, start, 0);
        let (mut late, mut lives, mut live_took) = (0.0, 0.0, 0.0);
        // When it is acknowledged, when it was sent, and whether it is of the backlog.
        let mut on_the_way = BinaryHeap::new();
        while now < start + Duration::from_secs_f64(RUN_SECONDS) {
            if now >= start + Duration::from_secs_f64(CHANGE_SECONDS) {
                self.delay_ms = self.later_delay_ms.unwrap_or(self.delay_ms);
            }
            while under_way < pace.max_in_flight() && pace.throttled_until(now).is_none() {
                on_the_way.push(Reverse((self.acknowledged_at(now, &mut random), now, true)));
                pace.on_sent(now);
                under_way += 1;
            }
            let next_ack = on_the_way.peek().map(|Reverse((at, ..))| *at);
            let next = next_ack.map_or(next_live, |at| at.min(next_live));
            let rested = pace.throttled_until(now).filter(|_| under_way < pace.max_in_flight());
            if let Some(rested) = rested.filter(|rested| *rested < next) {
                now = rested;
                continue;
            }
            now = next;
            if next == next_live {
                on_the_way.push(Reverse((self.acknowledged_at(now, &mut random), now, false)));
                next_live += live_interval;
                continue;
            }
            let Some(Reverse((_, sent, is_late))) = on_the_way.pop() else { break };
            pace.on_acknowledged(sent, is_late, now);
            if is_late {
                under_way -= 1;
                late += 1.0;
            } else {
                lives += 1.0;
                live_took += (now - sent).as_secs_f64() * 1e3;
            }
        }
        LinkTotals { history_sent: late, live_ack_ms: live_took / lives }
    }

    fn acknowledged_at(&mut self, sent: Instant, random: &mut fastrand::Rng) -> Instant {
        let millis = |millis: f64| Duration::from_secs_f64(millis / 1e3);
        let passed = self.free_at.map_or(sent, |free| free.max(sent)) + millis(self.transmit_ms);
        self.free_at = Some(passed);
        let hesitates = -self.jitter_ms * (1.0 - random.f64()).ln();
        passed + millis(self.delay_ms + hesitates)
    }
}
