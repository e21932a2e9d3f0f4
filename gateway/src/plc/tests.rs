pub(super) mod support;

mod device_name;
mod faults;
mod harness;
mod heap;
mod long_run;
mod lost_writes;
mod on_the_wire;
mod orders;
mod pacing;
mod program_state;
mod shared_connection;
mod shared_faults;
mod silent_units;
mod stretches;
mod unsent_writes;
mod writes;

use std::io;
use std::time::Duration;

use harness::{
    PollerHarness, assert_at_most_six_a_minute, assert_connects_are_bounded, first_word, plc,
};
use provisioning::config::Plc;
use provisioning::plan;
use support::{FakePlc, WireEvent, echo_addresses};
use tokio::time;

use super::session::{AnswerMismatch, ConnectError, RequestError};
use super::*;
use crate::metrics::Metrics;

const SECOND: Duration = Duration::from_secs(1);
const PLC_R: u16 = 60_000;

#[tokio::test(start_paused = true)]
async fn the_first_cycle_is_read_at_once_and_completely() {
    let plc = plc("M241", &[("%MW0", 1000), ("%MW500", 1000)]);
    let mut world = PollerHarness::start(plc, FakePlc::answering_with(echo_addresses));
    assert_eq!(world.state().await, PlcState::Connected { identity: None, program: None });
    assert_eq!(world.words(&[0, 1]).await, [Ok(0), Ok(500)]);
    assert_eq!(world.elapsed(), Duration::ZERO);
    assert_eq!(world.words(&[0, 1]).await, [Ok(0), Ok(500)]);
    assert_eq!(world.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn identity_and_program_state_of_a_modicon_are_read() {
    let answers = |request: &plan::ReadRequest| {
        let mut words = vec![0; request.count.into()];
        if request.first == PLC_R {
            (words[0], words[1], words[12]) = (0x101A, 7, 1);
        }
        (Duration::ZERO, Ok(Registers::Words(words)))
    };
    let mut world =
        PollerHarness::start(plc("M251", &[("%MW0", 1000)]), FakePlc::answering_with(answers));
    let PlcState::Connected { identity: Some(identity), program } = world.state().await else {
        panic!("no identity");
    };
    assert_eq!(identity.product, "16#0007, serial 0");
    assert_eq!(program.unwrap().state, ProgramState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_modicon_that_refuses_its_identity_is_polled_all_the_same() {
    let answers = |request: &plan::ReadRequest| match request.first {
        PLC_R => (Duration::ZERO, Err(RequestError::Refused(2))),
        _ => echo_addresses(request),
    };
    let mut world =
        PollerHarness::start(plc("M241", &[("%MW3", 1000)]), FakePlc::answering_with(answers));
    assert_eq!(world.state().await, PlcState::Connected { identity: None, program: None });
    assert_eq!(world.words(&[0]).await, [Ok(3)]);
    assert_eq!(
        world.fake.wire_events().iter().filter(|&&seen| seen == WireEvent::Connect).count(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_does_not_stop_the_others() {
    let answers = |request: &plan::ReadRequest| match request.first {
        500 => (Duration::ZERO, Err(RequestError::Refused(2))),
        _ => echo_addresses(request),
    };
    let tags = [("%MW0", 1000), ("%MW500", 1000), ("%MW900", 1000)];
    let mut world = PollerHarness::start(plc("M241", &tags), FakePlc::answering_with(answers));
    world.state().await;
    for _ in 0..2 {
        assert_eq!(world.words(&[0, 1, 2]).await, [Ok(0), Err(ReadFailure::Refused(2)), Ok(900)]);
    }
    // It is quarantined, and not read until the next retry.
    let PlcEvent::Learned { learned, .. } = world.event().await else { panic!("not learned") };
    let quarantined = QuarantinedTag {
        tag: "%MW500".into(),
        at: "%MW500".into(),
        rejection: Rejection::Exception(2),
    };
    assert_eq!(learned.quarantined, [quarantined]);
    for _ in 0..59 {
        assert_eq!(world.words(&[0, 1]).await, [Ok(0), Ok(900)]);
    }
    assert_eq!(world.words(&[0, 1, 2]).await, [Ok(0), Err(ReadFailure::Refused(2)), Ok(900)]);
    let metrics = world.metrics.render().unwrap();
    assert!(metrics.contains(r#"edge_plc_requests_total{outcome="refused",plc="pump6"} 3"#));
    assert!(metrics.contains(r#"edge_plc_tags_quarantined{plc="pump6"} 1"#));
    assert!(metrics.contains(r#"edge_plc_connects_total{plc="pump6"} 1"#));
    assert!(metrics.contains(r#"edge_plc_up{plc="pump6"} 1"#));
}

#[tokio::test(start_paused = true)]
async fn a_closed_port_is_reported_once_and_every_due_cycle_is_unreachable() {
    let refused = || Err(ConnectError::Refused(io::ErrorKind::ConnectionRefused.into()));
    let fake = FakePlc::answering_with(echo_addresses)
        .connecting_with((0..100).map(|_| (Duration::ZERO, refused())));
    let mut world = PollerHarness::start(plc("M241", &[("%MW0", 1000)]), fake);
    let PlcState::Disconnected { diagnosis, .. } = world.state().await else { panic!("connected") };
    assert!(diagnosis.to_string().contains("Modbus server may be off"), "{diagnosis}");
    for _ in 0..600 {
        assert_eq!(world.words(&[0]).await, [Err(ReadFailure::Unreachable)]);
    }
    assert_eq!(world.elapsed(), SECOND * 599);
    let connects = world.connects();
    assert!((20..=60).contains(&connects.len()), "{} connects in 10 minutes", connects.len());
    assert_at_most_six_a_minute(&connects);
}

#[tokio::test(start_paused = true)]
async fn a_time_out_drops_the_session_and_the_rest_of_the_cycle_is_read_in_a_new_one() {
    let mut silent = true;
    let answers = move |request: &plan::ReadRequest| {
        if request.first == 500 && std::mem::take(&mut silent) {
            return (SECOND, Err(RequestError::TimedOut(SECOND)));
        }
        echo_addresses(request)
    };
    let tags = [("holding:0", 5000), ("holding:500", 5000), ("holding:900", 5000)];
    let mut world = PollerHarness::start(plc("generic", &tags), FakePlc::answering_with(answers));
    let gone = Err(ReadFailure::Unreachable);
    assert_eq!(world.words(&[0, 1, 2]).await, [Ok(0), gone, Ok(900)]);
    assert_eq!(world.elapsed(), SECOND);
    assert_eq!(world.words(&[0, 1, 2]).await, [Ok(0), Ok(900), Ok(500)], "what was lost is last");
    assert_eq!(world.words(&[0, 1, 2]).await, [Ok(0), Ok(500), Ok(900)]);
    let is_read = |seen: &WireEvent| matches!(seen, WireEvent::Read(_));
    let order: Vec<_> = world.fake.wire_events().into_iter().filter(is_read).collect();
    let first_two_cycles = [0, 500, 0, 900, 0, 900, 500].map(WireEvent::Read);
    assert_eq!(order[..7], first_two_cycles, "0 shows that the PLC answers again");
}

#[tokio::test(start_paused = true)]
async fn a_request_over_which_the_plc_fails_does_not_hide_those_after_it() {
    let answers = |request: &plan::ReadRequest| match request.first {
        0 => (SECOND, Err(RequestError::TimedOut(SECOND))),
        _ => echo_addresses(request),
    };
    let tags = [("holding:0", 10_000), ("holding:500", 10_000), ("holding:900", 10_000)];
    let mut world = PollerHarness::start(plc("generic", &tags), FakePlc::answering_with(answers));
    let gone = Err(ReadFailure::Unreachable);
    assert_eq!(world.words(&[0, 1, 2]).await, [gone, gone, gone]);
    for _ in 0..20 {
        let cycle = world.cycle().await;
        let value = |location: &Result<TagLocation, ReadFailure>| {
            let result = &cycle.results[usize::from((*location)?.result)];
            result.outcome.clone().map(first_word)
        };
        let values: Vec<_> = cycle.locations.iter().map(value).collect();
        assert_eq!(values, [gone, Ok(500), Ok(900)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_the_server_closed_while_idle_costs_no_value() {
    let mut turn = 0;
    let answers = move |request: &plan::ReadRequest| {
        turn += 1;
        if turn % 2 == 1 {
            return echo_addresses(request);
        }
        (Duration::ZERO, Err(RequestError::Disconnected(io::ErrorKind::UnexpectedEof.into())))
    };
    let plc = plc("generic", &[("holding:3", 60_000)]);
    let mut world = PollerHarness::start(plc, FakePlc::answering_with(answers));
    assert!(matches!(
        world.event().await,
        PlcEvent::State { state: PlcState::Connected { .. }, .. }
    ));
    for minute in 0..10 {
        let PlcEvent::Cycle(cycle) = world.event().await else { panic!("nothing changed") };
        assert_eq!(cycle.results[0].outcome, Ok(Registers::Words(vec![3])));
        assert_eq!(world.elapsed(), SECOND * 60 * minute);
    }
    assert_eq!(world.connects().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_accepts_the_connection_and_does_not_answer_is_never_connected() {
    let answers = |_: &plan::ReadRequest| (SECOND, Err(RequestError::TimedOut(SECOND)));
    let mut world = PollerHarness::start(
        plc("generic", &[("holding:0", 1000)]),
        FakePlc::answering_with(answers),
    );
    let PlcState::Disconnected { diagnosis, .. } = world.state().await else { panic!("connected") };
    assert!(diagnosis.to_string().contains("unit_id 255"), "{diagnosis}");
    for _ in 0..100 {
        assert_eq!(world.words(&[0]).await, [Err(ReadFailure::Unreachable)]);
    }
}

#[tokio::test(start_paused = true)]
async fn missed_cycles_of_a_slow_plc_are_counted_and_requests_never_overlap() {
    let answers = |request: &plan::ReadRequest| (SECOND * 5 / 2, echo_addresses(request).1);
    let mut world = PollerHarness::start(
        plc("generic", &[("holding:0", 1000)]),
        FakePlc::answering_with(answers),
    );
    world.state().await;
    for _ in 0..4 {
        world.words(&[0]).await;
    }
    assert_eq!(world.elapsed(), SECOND * 10);
    // Due at 1 to 2, 3 to 5, 6 to 7 and 8 to 10 s; read at 2.5, 5, 7.5 and 10 s.
    assert_eq!(world.plc_metrics.cycles_missed.get(), 1 + 2 + 1 + 2);
    let seen = world.fake.wire_events();
    for pair in seen[1..].chunks(2) {
        assert!(
            matches!(pair, [WireEvent::Read(_), WireEvent::Answered(_)] | [WireEvent::Read(_)]),
            "{seen:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_the_request_on_the_wire_and_then_closes() {
    let answers = |request: &plan::ReadRequest| (SECOND / 2, echo_addresses(request).1);
    let tags = [("holding:0", 1000), ("holding:500", 1000)];
    let mut world = PollerHarness::start(plc("generic", &tags), FakePlc::answering_with(answers));
    world.stop_after(SECOND / 4).await;
    assert_eq!(
        world.fake.wire_events(),
        [WireEvent::Connect, WireEvent::Read(0), WireEvent::Answered(0), WireEvent::Closed]
    );
    assert_eq!(world.elapsed(), SECOND / 2);
}

#[tokio::test(start_paused = true)]
async fn stopping_does_not_wait_for_a_connect_or_for_the_next_cycle() {
    let endless = (SECOND * 1000, Ok(()));
    let fake = FakePlc::answering_with(echo_addresses).connecting_with([endless]);
    let mut world = PollerHarness::start(plc("M241", &[("%MW0", 1000)]), fake);
    world.stop_after(SECOND / 4).await;
    assert_eq!(world.elapsed(), SECOND / 4);

    let mut world = PollerHarness::start(
        plc("M241", &[("%MW0", 60_000)]),
        FakePlc::answering_with(echo_addresses),
    );
    world.stop_after(SECOND / 4).await;
    assert_eq!(world.elapsed(), SECOND / 4);
    assert_eq!(world.fake.wire_events().last(), Some(&WireEvent::Closed));
}

#[tokio::test(start_paused = true)]
async fn the_poll_task_ends_when_its_receiver_is_dropped() {
    let world = PollerHarness::start(
        plc("M241", &[("%MW0", 60_000)]),
        FakePlc::answering_with(echo_addresses),
    );
    world.end_without_listeners().await;
}

#[tokio::test(start_paused = true)]
async fn the_second_cycle_runs_in_the_phase_of_the_connection() {
    let plc = plc("generic", &[("holding:0", 1000)]);
    let mut world = PollerHarness::start_at(plc, FakePlc::answering_with(echo_addresses), 0.25);
    world.words(&[0]).await;
    assert_eq!(world.elapsed(), Duration::ZERO);
    world.words(&[0]).await;
    assert_eq!(world.elapsed(), SECOND / 4);
    world.words(&[0]).await;
    assert_eq!(world.elapsed(), SECOND * 5 / 4);
}
