use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const ACK_TIME: Duration = Duration::from_millis(20);

fn acknowledge_many(pace: &mut CongestionWindow, start: Instant, count: u32, took: Duration) {
    for n in 0..count {
        let sent = start + ACK_TIME * n;
        pace.on_acknowledged(sent, sent + took);
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
        pace.on_acknowledged(sent, sent + ACK_TIME * 20);
    }
    assert_eq!(pace.max_in_flight(), MAX_IN_FLIGHT / 2);
    pace.on_acknowledged(sent + ACK_TIME * 20, sent + ACK_TIME * 40);
    assert_eq!(pace.max_in_flight(), MAX_IN_FLIGHT / 4);
}

#[test]
fn a_link_that_stays_slow_is_accepted() {
    let mut pace = CongestionWindow::new();
    acknowledge_many(&mut pace, Instant::now(), 100, ACK_TIME);
    acknowledge_many(&mut pace, Instant::now(), 10_000, ACK_TIME * 5);
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
fn one_entry_is_always_in_flight() {
    let (mut pace, mut sent) = (CongestionWindow::new(), Instant::now());
    let mut least = pace.max_in_flight();
    pace.on_acknowledged(sent, sent);
    for n in 1..1000 {
        sent += Duration::from_secs(n);
        pace.on_acknowledged(sent, sent + Duration::from_secs(n));
        least = least.min(pace.max_in_flight());
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

/// Ten live messages a second.
const LIVE_INTERVAL: Duration = Duration::from_millis(100);
const RUN_SECONDS: f64 = 120.0;

/// A link to which an endless backlog is sent.
#[derive(Debug, Default)]
struct SimulatedLink {
    /// Time that the link is busy with one message.
    transmit_ms: f64,
    delay_ms: f64,
    /// Average of an exponential distribution.
    jitter_ms: f64,
    free_at: Option<Instant>,
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
        let (mut now, mut next_live, mut under_way) = (start, start, 0);
        let (mut late, mut lives, mut live_took) = (0.0, 0.0, 0.0);
        // When it is acknowledged, when it was sent, and whether it is of the backlog.
        let mut on_the_way = BinaryHeap::new();
        while now < start + Duration::from_secs_f64(RUN_SECONDS) {
            while under_way < pace.max_in_flight() {
                on_the_way.push(Reverse((self.acknowledged_at(now, &mut random), now, true)));
                under_way += 1;
            }
            let Some(Reverse((at, sent, is_late))) = on_the_way.pop() else { break };
            if next_live <= at {
                on_the_way.push(Reverse((at, sent, is_late)));
                now = next_live;
                on_the_way.push(Reverse((self.acknowledged_at(now, &mut random), now, false)));
                next_live += LIVE_INTERVAL;
                continue;
            }
            now = at;
            pace.on_acknowledged(sent, now);
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
