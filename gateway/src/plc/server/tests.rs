use std::io;

use provisioning::config::Plc;

use super::*;
use crate::clock::Anchor;
use crate::metrics::Metrics;
use crate::model::UnixTime;
use crate::plc::ReadOutcome;
use crate::plc::cycle::{CompleteCycle, CycleValues, FollowUp};
use crate::plc::tests::support;
use crate::plc::{PlcState, Registers, group_by_address};

const SECOND: Duration = Duration::from_secs(1);

/// Returns a server with a session, whose units each read two ranges of registers.
fn server(model: &str, units: u8, now: Instant) -> ServerState {
    let tags: [(&str, u64); 2] = match model {
        "generic" => [("holding:0", 1000), ("holding:500", 1000)],
        _ => [("%MW0", 1000), ("%MW500", 1000)],
    };
    let unit = |unit_id| Plc { name: format!("p{unit_id}"), unit_id, ..support::plc(model, &tags) };
    let config = support::config((1..=units).map(unit).collect());
    let metrics = Metrics::new(&config, "0").unwrap();
    let endpoint = group_by_address(config.plcs, &metrics, 0.0).remove(0);
    let mut server = ServerState::new(endpoint.plcs);
    server.on_connected(true);
    for unit in 0..usize::from(units) {
        assert!(server.start_session(unit, now).is_some());
        server.on_identified(unit, now);
    }
    server
}

fn exchange(sent: Instant, answer: Result<Registers, RequestError>) -> Exchange {
    let received_at = UnixTime::from_micros(0);
    Exchange {
        sent,
        received_at,
        took: SECOND / 100,
        answer: Some(answer),
        is_first_after_outage: false,
        is_repeated: false,
    }
}

fn words(word: u16) -> Result<Registers, RequestError> {
    Ok(Registers::Words(vec![word]))
}

fn closed() -> Result<Registers, RequestError> {
    Err(RequestError::Disconnected(io::ErrorKind::ConnectionReset.into()))
}

/// Judges a cycle of a unit in which the first requests were answered like this.
fn read(
    server: &mut ServerState,
    unit: usize,
    answers: impl IntoIterator<Item = Result<Registers, RequestError>>,
    now: Instant,
) -> (CycleValues, Option<Blame>) {
    let mut values = server.begin_cycle(unit, 0, (now, Anchor::new(now))).unwrap();
    let mut blame = None;
    for answer in answers {
        let position = values.next_position().unwrap();
        blame = server.on_read(unit, &mut values, position, exchange(now, answer), 0.5).or(blame);
    }
    values.skip_rest(now);
    (values, blame)
}

fn outcomes(cycle: &CompleteCycle) -> Vec<ReadOutcome> {
    cycle.results.iter().map(|result| result.outcome.clone()).collect()
}

#[test]
fn an_answer_and_a_lost_connection_in_a_cycle_are_reported_in_their_order() {
    let now = Instant::now();
    let mut server = server("generic", 1, now);
    read(&mut server, 0, [words(7), words(7)], now);
    let (values, blame) = read(&mut server, 0, [words(7), closed()], now);
    assert_eq!(blame, Some(Blame::Server), "no other unit answers, and it was answered before");
    let (cycle, follow_up) = server.on_cycle(0, values, now).unwrap();
    let lost = Err(ReadFailure::Unreachable);
    assert_eq!(
        (outcomes(&cycle), follow_up),
        (vec![Ok(Registers::Words(vec![7])), lost], FollowUp::Nothing)
    );
    server.end_cycle(0, cycle, now);
    let events = server.take_events();
    let [
        PlcEvent::State { state: PlcState::Connected { .. }, .. },
        PlcEvent::State { state: PlcState::Disconnected { diagnosis, .. }, .. },
        PlcEvent::Cycle(_),
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert!(matches!(diagnosis, PlcDiagnosis::Closed { .. }), "{diagnosis:?}");
    assert_eq!(server.unit(0).unwrap().next_start(0), 2, "after the request that was lost");
    assert!(!server.is_reachable(0) && !server.is_silent(0), "a single unit is always polled");
}

#[test]
fn a_unit_is_blamed_for_a_lost_connection_while_another_answers() {
    let now = Instant::now();
    let mut server = server("generic", 2, now);
    assert_eq!(read(&mut server, 1, [words(1), words(2)], now).1, None);
    let (_, blame) = read(&mut server, 0, [closed()], now);
    assert_eq!(blame, Some(Blame::Unit));
    assert!(server.is_silent(0) && !server.is_silent(1));
    server.on_connected(false);
    assert!(server.is_reachable(1) && !server.is_reachable(0));
    assert!(server.start_session(1, now).is_some(), "each session identifies each unit");
}

#[test]
fn a_gateway_exception_costs_no_connection_and_teaches_nothing() {
    let now = Instant::now();
    let mut server = server("generic", 1, now);
    let (values, blame) = read(&mut server, 0, [Err(RequestError::Refused(0x0B))], now);
    assert_eq!((blame, server.is_silent(0)), (None, true));
    let (cycle, _) = server.on_cycle(0, values, now).unwrap();
    assert_eq!(outcomes(&cycle), [Err(ReadFailure::Unreachable), Err(ReadFailure::Unreachable)]);
    let unit = server.unit_mut(0).unwrap();
    assert_eq!(unit.tuner.next_requests(0, now).unwrap().requests.len(), 2);
}

#[test]
fn unchanged_values_of_a_modicon_are_followed_by_a_read_of_its_program_state() {
    let now = Instant::now();
    let mut server = server("M241", 1, now);
    let mut plc_r = vec![0; 36];
    (plc_r[0], plc_r[12]) = (0x101A, 2);
    let identity = Ok(Registers::Words(plc_r));
    server.unit_mut(0).unwrap().identity_probe.on_identity_answer(&identity, true, now);
    let mut follow_up = |first, second| {
        let (values, _) = read(&mut server, 0, [words(first), words(second)], now);
        server.on_cycle(0, values, now).unwrap().1
    };
    assert_eq!(follow_up(1, 2), FollowUp::Nothing, "there is no cycle before");
    assert_eq!(follow_up(3, 4), FollowUp::Nothing);
    assert_eq!(follow_up(5, 4), FollowUp::ReadProgramState, "one of two is unchanged");
    assert_eq!(follow_up(6, 7), FollowUp::Nothing);
}

#[test]
fn units_whose_request_broke_fewer_sessions_are_named_first() {
    let now = Instant::now();
    let mut server = server("generic", 2, now);
    for unit in 0..2 {
        read(&mut server, unit, [words(1), words(2)], now);
    }
    assert!(server.wants_device_name(0, true, now) && !server.wants_device_name(0, false, now));
    assert!(server.start_device_name(0).is_some());
    assert!(!server.wants_device_name(0, true, now), "once a session");
    let answer = Some(Err(RequestError::TimedOut(SECOND)));
    let lost = Exchange {
        sent: now,
        received_at: UnixTime::from_micros(0),
        took: SECOND,
        answer,
        is_first_after_outage: false,
        is_repeated: false,
    };
    server.on_device_name(0, lost, now);
    assert!(!server.wants_device_name(1, true, now), "the session is lost");
    server.on_connected(false);
    for unit in 0..2 {
        read(&mut server, unit, [words(1), words(2)], now);
    }
    let later = now + SECOND * 60;
    assert!(!server.wants_device_name(1, true, now), "the server gets a pause");
    assert!(server.wants_device_name(1, true, later) && !server.wants_device_name(0, true, later));
}
