//! Ten days of virtual time.

use super::*;

/// The PLC changes at random between answering, silence, closing the connection, and refusing, each
/// for up to an hour.
#[tokio::test(start_paused = true)]
async fn ten_days_with_a_plc_that_fails_and_recovers() {
    const DAYS: Duration = SECOND.saturating_mul(10 * 86_400);
    let start = time::Instant::now();
    let mut random = fastrand::Rng::with_seed(11);
    let (mut mood, mut until) = (0, start);
    let answers = move |request: &plan::ReadRequest| {
        if time::Instant::now() >= until {
            mood = random.u32(0..5);
            until = time::Instant::now() + SECOND * random.u32(1..3600);
        }
        // The PLC answers in the last two hours: everything must have recovered at the end.
        match if start.elapsed() + SECOND * 7200 > DAYS { 0 } else { mood } {
            1 => (SECOND, Err(RequestError::TimedOut(SECOND))),
            2 => {
                let closed = io::ErrorKind::ConnectionReset.into();
                (Duration::ZERO, Err(RequestError::Disconnected(closed)))
            }
            3 => (SECOND / 100, Err(RequestError::Refused(2))),
            _ => (SECOND / 100, echo_addresses(request).1),
        }
    };
    let tags = [("holding:0", 10_000), ("holding:1", 10_000), ("holding:500", 10_000)];
    let mut world = PollerHarness::start(plc("generic", &tags), FakePlc::answering_with(answers));
    let (mut cycles, mut last) = (0_u64, None);
    while world.elapsed() < DAYS {
        if let PlcEvent::Cycle(cycle) = world.event().await {
            (cycles, last) = (cycles + 1, Some(cycle));
        }
    }
    assert_eq!(
        cycles + world.plc_metrics.cycles_missed.get(),
        86_401,
        "every cycle is reported or counted"
    );
    let last = last.unwrap();
    assert!(last.results.iter().all(|read| read.outcome.is_ok()), "{last:?}");
    let served: usize = last.requests.iter().map(|request| request.tags.len()).sum();
    assert_eq!((served, world.plc_metrics.tags_quarantined.get()), (3, 0));
    let connects = world.connects();
    assert_connects_are_bounded(&connects);
    assert!((200..30_000).contains(&connects.len()), "{} connects", connects.len());
    // One request for each range in each cycle, and few more for splits and retries.
    let asked =
        world.fake.wire_events().iter().filter(|seen| matches!(seen, WireEvent::Read(_))).count();
    assert!(asked < 3 * 86_400, "{asked} requests");
}

/// Three units behind one connection; the server and each unit fail and recover independently.
///
/// Nothing grows: the heap of the task after ten days is not larger than after two.
#[tokio::test(start_paused = true)]
async fn ten_days_with_units_that_fail_and_recover_take_no_more_memory_than_two_days() {
    const DAY: Duration = SECOND.saturating_mul(86_400);
    let mut random = fastrand::Rng::with_seed(12);
    let start = time::Instant::now();
    let mut moods = [(0, start); 4];
    let answers = move |unit: u8, request: &plan::ReadRequest| {
        let mut mood = |index: usize| {
            let (mood, until) = &mut moods[index];
            if time::Instant::now() >= *until {
                // Half of the time there is no fault.
                *mood = random.u32(0..8);
                *until = time::Instant::now() + SECOND * random.u32(1..3600);
            }
            *mood
        };
        match (mood(0), mood(usize::from(unit))) {
            (4, _) | (_, 4) => (SECOND, Err(RequestError::TimedOut(SECOND))),
            (5, _) | (_, 5) => {
                let closed = io::ErrorKind::ConnectionReset;
                (Duration::ZERO, Err(RequestError::Disconnected(closed.into())))
            }
            (_, 6) => (SECOND / 2, Err(RequestError::Refused(0x0B))),
            (_, 7) => (SECOND / 100, Err(RequestError::Refused(2))),
            _ => (SECOND / 100, echo_addresses(request).1),
        }
    };
    let units = (1..=3).map(|unit| Plc {
        name: format!("p{unit}"),
        unit_id: unit,
        ..plc("generic", &[("holding:0", 20_000), ("holding:1", 20_000), ("holding:500", 60_000)])
    });
    let fake = FakePlc::with_units(answers).without_read_log();
    let mut world = PollerHarness::start_all(units.collect(), fake, 0.3);
    let (mut connects, mut last) = (0, Vec::with_capacity(8));
    // For each day the largest heap.
    let mut most = [0; 10];
    for (day, most) in (1..).zip(&mut most) {
        while world.elapsed() < DAY * day {
            drop(world.event().await);
            for connect in world.take_connects() {
                connects += 1;
                last.truncate(6);
                last.insert(0, connect);
                let minute = last.len() < 7 || connect - last[6] >= SECOND * 60;
                assert!(minute, "seven connects within a minute");
            }
            *most = heap::live().max(*most);
        }
    }
    assert!(most[9] <= most[1] + 512, "{most:?}");
    assert!((1_000..30_000).contains(&connects), "{connects} connects");
}
