//! Units that share one connection.

use std::sync::{Arc, Mutex};

use super::support::ScriptedAnswer;
use super::*;

const HOUR: Duration = Duration::from_secs(3600);
/// The longest pause, one scan, and the time-out of the request on the wire.
const MAX_RECOVERY: Duration = Duration::from_secs(30 + 1 + 1);

/// Units 1 to `count`, each with two registers every second.
fn units(count: u8) -> Vec<Plc> {
    let unit = |unit| {
        let plc = plc("generic", &[("holding:0", 1000), ("holding:500", 1000)]);
        Plc { name: format!("p{unit}"), unit_id: unit, ..plc }
    };
    (1..=count).map(unit).collect()
}

/// Answers with the unit id in every register.
fn of_unit(unit: u8, request: &plan::ReadRequest) -> ScriptedAnswer {
    let words = vec![u16::from(unit); request.count.into()];
    (SECOND / 100, Ok(Registers::Words(words)))
}

fn silent() -> ScriptedAnswer {
    (SECOND, Err(RequestError::TimedOut(SECOND)))
}

/// Results of the cycles of one unit.
#[derive(Debug, Default)]
struct CycleTally {
    good: u64,
    bad: u64,
}

impl PollerHarness {
    /// Counts cycles until this time. No value may be that of another unit.
    async fn tally(&mut self, until: Duration) -> Vec<CycleTally> {
        let mut tallies = Vec::new();
        while self.elapsed() < until {
            let PlcEvent::Cycle(cycle) = self.event().await else { continue };
            let unit = usize::from(cycle.plc);
            tallies.resize_with(tallies.len().max(unit + 1), CycleTally::default);
            let all_good = cycle.results.iter().all(|read| read.outcome.is_ok());
            if all_good {
                tallies[unit].good += 1;
            } else {
                tallies[unit].bad += 1;
            }
            for read in cycle.results.into_iter().filter_map(|read| read.outcome.ok()) {
                assert_eq!(usize::from(first_word(read)), unit + 1);
            }
        }
        tallies
    }
}

#[tokio::test(start_paused = true)]
async fn units_share_one_connection_and_requests_never_overlap() {
    let mut world = PollerHarness::start_all(units(5), FakePlc::with_units(of_unit), 0.4);
    let tallies = world.tally(SECOND * 60).await;
    assert!(tallies.iter().all(|tally| tally.good >= 59 && tally.bad == 0), "{tallies:?}");
    assert_eq!(world.connects().len(), 1);
    let seen = world.fake.wire_events();
    for pair in seen[1..].chunks(2) {
        assert!(
            matches!(pair, [WireEvent::Read(_), WireEvent::Answered(_)] | [WireEvent::Read(_)]),
            "{seen:?}"
        );
    }
    let metrics = world.metrics.render().unwrap();
    assert!(metrics.contains(r#"edge_plc_connects_total{plc="p5"} 1"#), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn one_silent_unit_among_five_costs_the_others_less_than_one_cycle_in_twenty() {
    let fake = FakePlc::with_units(|unit, request| match unit {
        3 => silent(),
        unit => of_unit(unit, request),
    });
    let mut world = PollerHarness::start_all(units(5), fake, 0.4);
    let tallies = world.tally(HOUR).await;
    for (index, tally) in tallies.iter().enumerate() {
        match index {
            2 => assert_eq!(tally.good, 0),
            _ => assert!(tally.good >= 3600 * 95 / 100, "{index}: {tally:?}"),
        }
    }
    let connects = world.connects();
    assert_at_most_six_a_minute(&connects);
    assert!((100..180).contains(&connects.len()), "{} connects", connects.len());
}

#[tokio::test(start_paused = true)]
async fn a_gateway_exception_costs_no_connection_and_has_its_own_diagnosis() {
    for code in [0x0A, 0x0B] {
        let fake = FakePlc::with_units(move |unit, request| match unit {
            3 => (SECOND / 2, Err(RequestError::Refused(code))),
            unit => of_unit(unit, request),
        });
        let mut world = PollerHarness::start_all(units(5), fake, 0.4);
        let PlcState::Disconnected { diagnosis, .. } = (loop {
            if let PlcEvent::State { plc: 2, state } = world.event().await {
                break state;
            }
        }) else {
            panic!("unit 3 answers")
        };
        assert!(
            diagnosis.to_string().contains(&format!("unit_id 3 (exception {code})")),
            "{diagnosis}"
        );
        let tallies = world.tally(HOUR).await;
        for (index, tally) in tallies.iter().enumerate() {
            match index {
                2 => assert_eq!(tally.good, 0),
                _ => assert!(tally.good >= 3600 * 97 / 100, "{index}: {tally:?}"),
            }
        }
        assert_eq!(world.connects().len(), 1);
        let metrics = world.metrics.render().unwrap();
        assert!(metrics.contains(r#"edge_plc_tags_quarantined{plc="p3"} 0"#));
        assert!(metrics.contains(r#"edge_plc_up{plc="p3"} 0"#));
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_unit_behind_a_gateway_is_probed_with_one_request_and_recovers() {
    let start = time::Instant::now();
    let dead = SECOND * 1000;
    let fake = FakePlc::with_units(move |unit, request| {
        if start.elapsed() < dead {
            return (SECOND / 2, Err(RequestError::Refused(0x0B)));
        }
        of_unit(unit, request)
    });
    let mut world = PollerHarness::start_all(units(1), fake, 0.0);
    let tallies = world.tally(dead).await;
    assert_eq!(tallies[0].good, 0);
    let asked =
        world.fake.wire_events().iter().filter(|seen| matches!(seen, WireEvent::Read(_))).count();
    assert!((30..60).contains(&asked), "{asked} requests");
    let tallies = world.tally(dead + MAX_RECOVERY).await;
    assert!(tallies[0].good > 0, "{tallies:?}");
}

/// One silent unit recovers again and again, at any moment of its pauses.
#[tokio::test(start_paused = true)]
async fn a_silent_unit_recovers_within_one_pause_and_one_scan() {
    let is_dead = Arc::new(Mutex::new(false));
    let dead = Arc::clone(&is_dead);
    let fake = FakePlc::with_units(move |unit, request| match unit {
        2 if *dead.lock().unwrap() => silent(),
        unit => of_unit(unit, request),
    });
    let mut world = PollerHarness::start_all(units(3), fake, 0.4);
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..60 {
        *is_dead.lock().unwrap() = true;
        world.tally(world.elapsed() + SECOND * random.u32(1..300)).await;
        *is_dead.lock().unwrap() = false;
        let back = world.elapsed();
        while world.tally(world.elapsed() + SECOND).await.get(1).is_none_or(|t| t.good == 0) {
            assert!(world.elapsed() <= back + MAX_RECOVERY, "{:?}", world.elapsed() - back);
        }
    }
    assert_at_most_six_a_minute(&world.connects());
}

#[tokio::test(start_paused = true)]
async fn two_silent_units_are_probed_in_turn_and_the_others_keep_their_connection() {
    let is_dead = Arc::new(Mutex::new(vec![2, 4]));
    let dead = Arc::clone(&is_dead);
    let fake = FakePlc::with_units(move |unit, request| {
        if dead.lock().unwrap().contains(&unit) { silent() } else { of_unit(unit, request) }
    });
    let mut world = PollerHarness::start_all(units(5), fake, 0.4);
    let tallies = world.tally(HOUR).await;
    for unit in [0, 2, 4] {
        assert!(tallies[unit].good >= 3600 * 90 / 100, "{tallies:?}");
    }
    assert_at_most_six_a_minute(&world.connects());
    is_dead.lock().unwrap().clear();
    world.tally(HOUR + MAX_RECOVERY * 2).await;
    let tallies = world.tally(HOUR + MAX_RECOVERY * 2 + SECOND * 10).await;
    assert!(tallies.iter().all(|tally| tally.good >= 9), "{tallies:?}");
}

#[tokio::test(start_paused = true)]
async fn the_only_unit_that_answers_is_found_among_silent_ones() {
    for alive in 1..=4 {
        let fake =
            FakePlc::with_units(
                move |unit, request| {
                    if unit == alive { of_unit(unit, request) } else { silent() }
                },
            );
        let mut world = PollerHarness::start_all(units(4), fake, 0.4);
        world.tally(SECOND * 120).await;
        let tallies = world.tally(SECOND * 1200).await;
        let good = tallies[usize::from(alive) - 1].good;
        assert!(good >= 1080 * 85 / 100, "{alive}: {tallies:?}");
        assert_at_most_six_a_minute(&world.connects());
    }
}

/// After an outage of the server all units recover within its longest pause and one scan.
#[tokio::test(start_paused = true)]
async fn all_units_recover_together_after_an_outage_of_the_server() {
    let is_away = Arc::new(Mutex::new(true));
    let away = Arc::clone(&is_away);
    let fake =
        FakePlc::with_units(
            move |unit, request| {
                if *away.lock().unwrap() { silent() } else { of_unit(unit, request) }
            },
        );
    let mut world = PollerHarness::start_all(units(5), fake, 0.4);
    for _ in 0..20 {
        *is_away.lock().unwrap() = true;
        world.tally(world.elapsed() + SECOND * 300).await;
        *is_away.lock().unwrap() = false;
        world.tally(world.elapsed() + MAX_RECOVERY + SECOND).await;
        let tallies = world.tally(world.elapsed() + SECOND * 10).await;
        assert!(tallies.iter().all(|tally| tally.good >= 9), "{tallies:?}");
    }
    assert_at_most_six_a_minute(&world.connects());
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_fails_over_one_request_answers_its_others() {
    let fake = FakePlc::with_units(|unit, request| match (unit, request.first) {
        (2, 500) => silent(),
        _ => of_unit(unit, request),
    });
    let mut world = PollerHarness::start_all(units(3), fake, 0.4);
    let mut good = [0; 2];
    while world.elapsed() < SECOND * 600 {
        let cycle = world.cycle().await;
        for (good, read) in good.iter_mut().zip(&cycle.results) {
            *good += u32::from(cycle.plc == 1 && read.outcome.is_ok());
        }
    }
    assert!(good[0] > 10 && good[1] == 0, "{good:?}");
    assert_at_most_six_a_minute(&world.connects());
}

#[tokio::test(start_paused = true)]
async fn equal_addresses_in_different_notation_share_a_connection() {
    let at = |host: &str, port| config::HostPort { host: host.to_owned(), port };
    let hosts = [
        at("PLC.example.net", 502),
        at("plc.example.net.", 502),
        at("plc.example.net", 503),
        at("fd00::1", 502),
        at("FD00:0:0::0:1", 502),
        at("::ffff:10.0.0.1", 502),
        at("10.0.0.1", 502),
    ];
    let named = |(index, address)| Plc { name: format!("p{index}"), address, ..plc("M241", &[]) };
    let config = support::config(hosts.into_iter().enumerate().map(named).collect());
    let endpoints =
        group_by_address(config.plcs.clone(), &Metrics::new(&config, "0").unwrap(), 0.0);
    let plcs = endpoints.iter().map(|endpoint| endpoint.plcs.iter().map(|spec| spec.plc).collect());
    assert_eq!(plcs.collect::<Vec<Vec<u16>>>(), [vec![0, 1], vec![2], vec![3, 4], vec![5, 6]]);
}
