//! Device names of units without PLC_R.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_device_name_is_requested_once_a_session() {
    let naming = PlcIdentity { vendor: "Acme".into(), product: "M1".into(), revision: "2".into() };
    let (named, mut asked) = (naming.clone(), 0);
    let fake = FakePlc::answering_with(echo_addresses).identifying_with(move |_| {
        asked += 1;
        assert_eq!(asked, 1);
        (SECOND / 100, Ok(named.clone()))
    });
    let mut world = PollerHarness::start(plc("generic", &[("holding:0", 1000)]), fake);
    assert_eq!(world.state().await, PlcState::Connected { identity: None, program: None });
    let identity = Some(naming);
    assert_eq!(world.state().await, PlcState::Connected { identity, program: None });
    for _ in 0..100 {
        assert_eq!(world.words(&[0]).await, [Ok(0)]);
    }
}

/// Six units of a server that breaks the connection over each request for a device name.
#[tokio::test(start_paused = true)]
async fn a_server_that_breaks_over_device_names_costs_few_connects_a_day_and_no_value() {
    const DAY: Duration = SECOND.saturating_mul(86_400);
    let failures: [fn() -> RequestError; 3] = [
        || RequestError::TimedOut(SECOND),
        || RequestError::Garbled(AnswerMismatch::NotModbus),
        || RequestError::Disconnected(io::ErrorKind::ConnectionReset.into()),
    ];
    for failure in failures {
        let start = time::Instant::now();
        let is_well = move || start.elapsed() > DAY * 2;
        let naming = PlcIdentity { vendor: "Acme".into(), ..PlcIdentity::default() };
        let fake = FakePlc::with_units(|_, request| echo_addresses(request)).without_read_log();
        let fake = fake.identifying_with(move |_| {
            (SECOND / 2, if is_well() { Ok(naming.clone()) } else { Err(failure()) })
        });
        let units = (1..=6).map(|unit| Plc {
            name: format!("p{unit}"),
            unit_id: unit,
            ..plc("generic", &[("holding:0", 300_000)])
        });
        let mut world = PollerHarness::start_all(units.collect(), fake, 0.0);
        let mut named = 0;
        let mut until = async |world: &mut PollerHarness, end: Duration| {
            while world.elapsed() < end {
                match world.event().await {
                    PlcEvent::Cycle(cycle) => assert!(cycle.results[0].outcome.is_ok()),
                    PlcEvent::State { state: PlcState::Connected { identity, .. }, .. } => {
                        named += u32::from(identity.is_some());
                    }
                    event @ (PlcEvent::State { .. }
                    | PlcEvent::Changed { .. }
                    | PlcEvent::Throttled { .. }
                    | PlcEvent::Learned { .. }
                    | PlcEvent::Written(_)) => panic!("{event:?}"),
                }
            }
            world.take_connects().len()
        };
        let days = [until(&mut world, DAY).await, until(&mut world, DAY * 2).await];
        assert!((20..=31).contains(&days[0]) && (20..=24).contains(&days[1]), "{days:?}");
        let connects = until(&mut world, DAY * 2 + SECOND * 4200).await;
        assert_eq!((connects, named), (0, 6), "each is asked again, and named");
    }
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_always_breaks_over_its_name_delays_no_other() {
    let naming = PlcIdentity { vendor: "Acme".into(), ..PlcIdentity::default() };
    let fake =
        FakePlc::with_units(|_, request| echo_addresses(request)).identifying_with(move |unit| {
            match unit {
                1 => (SECOND / 2, Err(RequestError::TimedOut(SECOND / 2))),
                _ => (SECOND / 100, Ok(naming.clone())),
            }
        });
    let units = (1..=3).map(|unit| Plc {
        name: format!("p{unit}"),
        unit_id: unit,
        ..plc("generic", &[("holding:0", 1000)])
    });
    let mut world = PollerHarness::start_all(units.collect(), fake, 0.0);
    let mut named = [false; 3];
    while world.elapsed() < SECOND * 70 {
        if let PlcEvent::State { plc, state: PlcState::Connected { identity: Some(_), .. } } =
            world.event().await
        {
            named[usize::from(plc)] = true;
        }
    }
    assert_eq!(named, [false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_fell_silent_in_its_cycle_is_not_asked_for_its_name() {
    let fake = FakePlc::with_units(|unit, request| match (unit, request.first) {
        (1, 500) => (SECOND / 100, Err(RequestError::Refused(0x0B))),
        _ => echo_addresses(request),
    });
    let fake = fake.identifying_with(|unit| {
        assert_ne!(unit, 1, "it is silent");
        (SECOND / 100, Err(RequestError::Refused(1)))
    });
    let units = (1..=2).map(|unit| Plc {
        name: format!("p{unit}"),
        unit_id: unit,
        ..plc("generic", &[("holding:0", 1000), ("holding:500", 1000)])
    });
    let mut world = PollerHarness::start_all(units.collect(), fake, 0.0);
    while world.elapsed() < SECOND * 100 {
        world.event().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_refuses_its_name_is_not_asked_again() {
    let mut asked = 0;
    let fake = FakePlc::answering_with(echo_addresses).identifying_with(move |_| {
        asked += 1;
        assert_eq!(asked, 1);
        (Duration::ZERO, Err(RequestError::Refused(1)))
    });
    let mut turn = 0;
    let fake = fake.closing_when(move || {
        turn += 1;
        turn % 20 == 0
    });
    let mut world = PollerHarness::start(plc("generic", &[("holding:0", 1000)]), fake);
    while world.elapsed() < SECOND * 300 {
        world.event().await;
    }
    assert!(world.connects().len() > 5, "{} connects", world.connects().len());
}
