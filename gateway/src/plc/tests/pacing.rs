//! Pauses and rate limits.

use provisioning::config::Pacing;

use super::*;
use crate::plc::RateLimit;

fn paced(tags: &[(&str, u64)], pacing: Pacing) -> Plc {
    Plc { pacing, ..plc("generic", tags) }
}

#[tokio::test(start_paused = true)]
async fn pauses_follow_a_connect_and_each_request() {
    let tags = [("holding:0", 1000), ("holding:500", 1000), ("holding:900", 1000)];
    let pacing =
        Pacing { connect_pause: SECOND / 4, request_pause: SECOND / 100, ..Pacing::default() };
    let mut world =
        PollerHarness::start(paced(&tags, pacing), FakePlc::answering_with(echo_addresses));
    world.cycle().await;
    assert_eq!(world.elapsed(), SECOND / 4 + SECOND / 50);
    world.cycle().await;
    assert_eq!(world.elapsed(), SECOND + SECOND / 50);
}

#[tokio::test(start_paused = true)]
async fn reading_stays_within_max_share_and_the_limit_is_reported() {
    let answers = |request: &plan::ReadRequest| (SECOND * 3 / 4, echo_addresses(request).1);
    let pacing = Pacing { max_share: 20, ..Pacing::default() };
    let mut world = PollerHarness::start(
        paced(&[("holding:0", 1000)], pacing),
        FakePlc::answering_with(answers),
    );
    let (mut cycles, mut held, mut due) = (0, Vec::new(), 0);
    while world.elapsed() < SECOND * 600 {
        match world.event().await {
            PlcEvent::Cycle(cycle) => {
                cycles += 1;
                due = (world.elapsed() - cycle.took).as_secs() + 1;
                assert!(cycle.results[0].outcome.is_ok());
            }
            PlcEvent::Throttled { limit, .. } => held.push(limit),
            PlcEvent::State { .. }
            | PlcEvent::Changed { .. }
            | PlcEvent::Learned { .. }
            | PlcEvent::Written(_) => {}
        }
    }
    // A fifth of the time is 160 cycles of 0.75 s: two and a part of the third in ten seconds.
    assert!((120..=160).contains(&cycles), "{cycles} cycles");
    let waits = waits(&world.fake.log());
    assert!(waits.iter().skip(3).all(|wait| within(&waits, wait.1) <= SECOND * 2), "{waits:?}");
    assert_eq!(cycles + world.plc_metrics.cycles_missed.get(), due, "skipped cycles are counted");
    assert_eq!(held, [Some(RateLimit::Share(20))]);
}

#[tokio::test(start_paused = true)]
async fn long_and_short_jobs_together_stay_within_the_share_of_any_ten_seconds() {
    // Four seconds of waiting every five seconds, and a short request three times a second.
    let (long, short) = (SECOND / 5, SECOND / 200);
    let mut world = long_and_short(5000, 300, long, short);
    let mut spans: Vec<Duration> = Vec::new();
    while world.elapsed() < SECOND * 300 {
        let cycle = world.cycle().await;
        spans.extend((cycle.class == 1).then_some(cycle.took));
    }
    let waits = waits(&world.fake.log());
    let most = waits.iter().map(|wait| within(&waits, wait.1)).max().unwrap();
    assert!(most <= SECOND * 5 + long, "{most:?} of any ten seconds");
    let late: Vec<_> = waits.iter().filter(|wait| within(&waits, wait.1) > SECOND * 5).collect();
    assert!(late.len() <= 1, "only the first long job is unexpected: {late:?}");
    assert!(spans.len() >= 30, "{} long cycles", spans.len());
    // The first long job was spread; from then on its length is known.
    assert!(spans.iter().skip(1).all(|took| *took == SECOND * 4), "{spans:?}");
}

#[tokio::test(start_paused = true)]
async fn long_and_short_jobs_within_the_share_are_not_delayed() {
    let mut world = long_and_short(10_000, 300, SECOND / 5, SECOND / 200);
    while world.elapsed() < SECOND * 300 {
        let event = world.event().await;
        assert!(!matches!(event, PlcEvent::Throttled { .. }), "{event:?} at {:?}", world.elapsed());
    }
}

/// Returns twenty requests of one class, and one of another with a shorter period.
fn long_and_short(
    scan: u64,
    short_scan: u64,
    takes: Duration,
    short_takes: Duration,
) -> PollerHarness {
    let addresses: Vec<_> = (0..21).map(|n| format!("holding:{}", n * 300)).collect();
    let at_scan = |(n, at): (usize, &String)| (at.clone(), if n == 0 { short_scan } else { scan });
    let tags: Vec<_> = addresses.iter().enumerate().map(at_scan).collect();
    let tags: Vec<_> = tags.iter().map(|(at, scan)| (&**at, *scan)).collect();
    let fake = FakePlc::answering_with(move |request: &plan::ReadRequest| {
        (if request.first == 0 { short_takes } else { takes }, echo_addresses(request).1)
    });
    PollerHarness::start(paced(&tags, Pacing { max_requests: 900, ..Pacing::default() }), fake)
}

type RequestSpan = (time::Instant, time::Instant);

fn waits(log: &[(time::Instant, WireEvent)]) -> Vec<RequestSpan> {
    let pair = |pair: &[(time::Instant, WireEvent)]| match (pair[0], pair[1]) {
        ((from, WireEvent::Read(_)), (to, WireEvent::Answered(_))) => Some((from, to)),
        _ => None,
    };
    log.windows(2).filter_map(pair).collect()
}

/// Returns the time spent waiting in the ten seconds that end at `end`.
fn within(waits: &[RequestSpan], end: time::Instant) -> Duration {
    let begin = end.checked_sub(SECOND * 10);
    let from = |from: time::Instant| begin.map_or(from, |begin| begin.max(from));
    waits.iter().map(|wait| wait.1.min(end).saturating_duration_since(from(wait.0))).sum()
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_no_longer_reached_is_withdrawn() {
    let start = time::Instant::now();
    let answers = move |request: &plan::ReadRequest| {
        let took = if start.elapsed() < SECOND * 60 { SECOND * 3 / 4 } else { SECOND / 100 };
        (took, echo_addresses(request).1)
    };
    let config = paced(&[("holding:0", 1000)], Pacing::default());
    let mut world = PollerHarness::start(config, FakePlc::answering_with(answers));
    let mut held = Vec::new();
    while world.elapsed() < SECOND * 200 {
        if let PlcEvent::Throttled { limit, .. } = world.event().await {
            held.push((limit, world.elapsed()));
        }
    }
    let [(Some(RateLimit::Share(50)), _), (None, at)] = held[..] else { panic!("{held:?}") };
    assert!((SECOND * 110..SECOND * 130).contains(&at), "{at:?}");
}

#[tokio::test(start_paused = true)]
async fn units_beyond_max_requests_are_polled_in_turn() {
    let units = (1..=5).map(|unit| {
        let pacing = Pacing { max_requests: if unit == 3 { 2 } else { 900 }, ..Pacing::default() };
        let name = format!("p{unit}");
        Plc { name, unit_id: unit, ..paced(&[("holding:0", 1000)], pacing) }
    });
    let mut world =
        PollerHarness::start_all(units.collect(), FakePlc::answering_with(echo_addresses), 0.3);
    let mut cycles = [0; 5];
    let mut held = 0;
    while world.elapsed() < SECOND * 100 {
        match world.event().await {
            PlcEvent::Cycle(cycle) => cycles[usize::from(cycle.plc)] += 1,
            PlcEvent::Throttled { limit, .. } => {
                assert_eq!(limit, Some(RateLimit::Requests(2)), "the strictest holds for all");
                held += 1;
            }
            PlcEvent::State { .. }
            | PlcEvent::Changed { .. }
            | PlcEvent::Learned { .. }
            | PlcEvent::Written(_) => {}
        }
    }
    assert!(cycles.iter().all(|cycles| (30..=50).contains(cycles)), "{cycles:?}");
    assert_eq!(held, 5, "reported for each");
    let asked: Vec<_> =
        world.fake.log().into_iter().filter(|(_, seen)| *seen == WireEvent::Read(0)).collect();
    for window in asked.windows(3) {
        assert!(window[2].0 - window[0].0 >= SECOND, "three requests within a second");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cycle_with_more_requests_than_a_second_allows_is_read_completely() {
    let addresses: Vec<_> = (0..30).map(|n| format!("holding:{}", n * 300)).collect();
    let tags: Vec<_> = addresses.iter().map(|at| (&**at, 1000)).collect();
    let pacing = Pacing { max_requests: 10, ..Pacing::default() };
    let mut world =
        PollerHarness::start(paced(&tags, pacing), FakePlc::answering_with(echo_addresses));
    let cycle = world.cycle().await;
    assert!(cycle.results.iter().all(|read| read.outcome.is_ok()));
    assert_eq!(cycle.took, SECOND * 2);
}

#[tokio::test(start_paused = true)]
async fn the_default_limits_allow_a_scan_of_ten_milliseconds() {
    let answers = |request: &plan::ReadRequest| (SECOND / 500, echo_addresses(request).1);
    let config = paced(&[("holding:0", 10)], Pacing::default());
    let mut world = PollerHarness::start(config, FakePlc::answering_with(answers));
    while world.elapsed() < SECOND * 30 {
        world.event().await;
    }
    assert_eq!(world.plc_metrics.cycles_missed.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn stopping_does_not_wait_for_a_pause() {
    let pacing = Pacing { connect_pause: SECOND * 30, ..Pacing::default() };
    let mut world = PollerHarness::start(
        paced(&[("holding:0", 1000)], pacing),
        FakePlc::answering_with(echo_addresses),
    );
    world.stop_after(SECOND / 4).await;
    assert_eq!(world.elapsed(), SECOND / 4);
    assert_eq!(world.fake.wire_events(), [WireEvent::Connect, WireEvent::Closed]);
}
