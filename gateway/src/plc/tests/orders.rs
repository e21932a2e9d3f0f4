//! Write orders at the poll task: when they are sent, and what is reported of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use provisioning::plc::Table;

use super::harness::plc;
use super::support::{FakePlc, WireEvent, echo_addresses};
use super::*;
use crate::model::{
    ImageContent, ImageState, MaskedWord, NotSentReason, OrderOutcome, OrderTask, TagImage,
};

#[tokio::test(start_paused = true)]
async fn an_order_is_written_and_read_back_without_waiting_for_a_cycle() {
    let fake = FakePlc::answering_with(echo_addresses).writing_with(|_, _| acknowledge());
    let mut world = PollerHarness::start(plc("M241", &[("%MW0", 60_000)]), fake);
    world.cycle().await;
    world.fake.take_log();
    world.orders.send(order(1, &[word(20, 7)])).await.unwrap();
    let report = world.report().await;
    assert_eq!((report.number, report.plc, report.outcome), (1, 0, OrderOutcome::Done));
    assert_eq!(report.images[0].state, ImageState::Written);
    // What the PLC holds afterwards may be something else than what was written.
    assert_eq!(report.images[0].read, Some(Registers::Words(vec![20])));
    assert_eq!(world.elapsed(), Duration::ZERO);
    let seen = [WireEvent::Write(20), WireEvent::Answered(20), WireEvent::Read(20)];
    assert_eq!(world.fake.wire_events()[..3], seen);
}

#[tokio::test(start_paused = true)]
async fn an_order_passes_the_requests_of_a_long_cycle() {
    let slow = |request: &plan::ReadRequest| (SECOND / 10, echo_addresses(request).1);
    let tags: Vec<_> = (0..20).map(|at| (format!("%MW{}", at * 500), 5000)).collect();
    let tags: Vec<_> = tags.iter().map(|(at, scan)| (at.as_str(), *scan)).collect();
    let fake = FakePlc::answering_with(slow).writing_with(|_, _| acknowledge());
    let mut world = PollerHarness::start(plc("M241", &tags), fake);
    world.cycle().await;
    let start = world.elapsed();
    let orders = world.orders.clone();
    let send = async {
        time::sleep(SECOND * 5 - start + SECOND / 2 + SECOND / 20).await;
        orders.send(order(1, &[word(20, 7)])).await.unwrap();
    };
    let (report, ()) = tokio::join!(world.report(), send);
    assert_eq!(report.outcome, OrderOutcome::Done);
    let log = world.fake.log();
    let written = log.iter().position(|(_, seen)| *seen == WireEvent::Write(20)).unwrap();
    let (at, before) = (log[written].0, &log[written - 1]);
    assert_eq!(before.0, at, "it was sent when the answer before had arrived");
    let cycle = world.cycle().await;
    assert!(cycle.results.iter().all(|result| result.outcome.is_ok()), "the cycle is complete");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_orders_does_not_stop_the_polls() {
    let slow = |request: &plan::ReadRequest| (SECOND / 100, echo_addresses(request).1);
    for share in [100, 20] {
        let fake = FakePlc::answering_with(slow).writing_with(|_, _| (SECOND / 100, Ok(())));
        let mut config = plc("M241", &[("%MW0", 1000), ("%MW500", 1000)]);
        config.pacing.max_share = share;
        let mut world = PollerHarness::start(config, fake);
        let orders = world.orders.clone();
        let flood = async {
            for number in 0.. {
                orders.send(order(number, &[word(20, 7)])).await.unwrap();
            }
        };
        let (mut cycles, mut written) = (0, 0);
        let count = async {
            while world.elapsed() < SECOND * 60 {
                match world.event().await {
                    PlcEvent::Cycle(cycle) => {
                        assert!(cycle.results.iter().all(|result| result.outcome.is_ok()));
                        cycles += 1;
                    }
                    PlcEvent::Written(_) => written += 1,
                    PlcEvent::State { .. }
                    | PlcEvent::Changed { .. }
                    | PlcEvent::Throttled { .. }
                    | PlcEvent::Learned { .. } => {}
                }
            }
        };
        tokio::select! {
            () = flood => {}
            () = count => {}
        }
        assert!(cycles >= 50, "{cycles} cycles beside {written} orders at {share} %");
        assert!(written >= 100, "{written} orders at {share} %");
    }
}

#[tokio::test(start_paused = true)]
async fn orders_take_at_most_half_of_the_share_of_the_plc() {
    for took in [100, 500].map(Duration::from_millis) {
        let fake = FakePlc::answering_with(move |request| (took, echo_addresses(request).1))
            .writing_with(move |_, _| (took, Ok(())));
        let mut config = plc("M241", &[("%MW0", 60_000)]);
        config.pacing.max_share = 20;
        let mut world = PollerHarness::start(config, fake);
        let orders = world.orders.clone();
        let flood = async {
            for number in 0.. {
                orders.send(order(number, &[word(20, 7)])).await.unwrap();
            }
        };
        let end = time::Instant::now() + SECOND * 100;
        let drain = async {
            while time::Instant::now() < end {
                world.event().await;
            }
        };
        tokio::select! {
            () = flood => {}
            () = drain => {}
        }
        let is_sent = |seen: &WireEvent| matches!(seen, WireEvent::Read(20) | WireEvent::Write(20));
        let sent = world.fake.wire_events().iter().filter(|seen| is_sent(seen)).count();
        let busy = took * u32::try_from(sent).unwrap();
        // The last order, of three requests, is not followed by its pause.
        let tenth = SECOND * 8..=world.elapsed() / 10 + took * 3;
        assert!(tenth.contains(&busy), "{sent} requests of {took:?} in a tenth of 100 s");
    }
}

#[tokio::test(start_paused = true)]
async fn reads_of_all_tags_without_end_do_not_stop_the_polls_of_another_unit() {
    let fake = FakePlc::answering_with(|request| (SECOND / 50, echo_addresses(request).1));
    let tags: Vec<_> = (0..5).map(|at| (format!("holding:{}", at * 500), 1000)).collect();
    let tags: Vec<_> = tags.iter().map(|(at, scan)| (at.as_str(), *scan)).collect();
    let unit = |unit_id| {
        let mut unit = Plc { name: format!("u{unit_id}"), unit_id, ..plc("generic", &tags) };
        unit.pacing.max_share = 50;
        unit
    };
    let mut world = PollerHarness::start_all(vec![unit(1), unit(2)], fake, 0.0);
    let orders = world.orders.clone();
    let flood = async {
        for number in 0.. {
            let order = PlcOrder { task: OrderTask::ReadAll, ..order(number, &[]) };
            orders.send(order).await.unwrap();
        }
    };
    let (mut cycles, mut executions) = (0, 0);
    let count = async {
        while world.elapsed() < SECOND * 60 {
            match world.event().await {
                PlcEvent::Cycle(cycle) => cycles += usize::from(cycle.plc == 1),
                PlcEvent::Written(_) => executions += 1,
                PlcEvent::State { .. }
                | PlcEvent::Changed { .. }
                | PlcEvent::Throttled { .. }
                | PlcEvent::Learned { .. } => {}
            }
        }
    };
    tokio::select! {
        () = flood => {}
        () = count => {}
    }
    assert!(cycles >= 50, "{cycles} cycles beside {executions} orders");
    assert!((100..=160).contains(&executions), "{executions} orders of 0.1 s in a quarter of 60 s");
}

#[tokio::test(start_paused = true)]
async fn a_read_of_all_tags_that_a_stop_ends_is_reported() {
    let fake = FakePlc::answering_with(|request| (SECOND / 2, echo_addresses(request).1));
    let tags = [("holding:0", 60_000), ("holding:500", 60_000), ("holding:1000", 60_000)];
    let mut world = PollerHarness::start(plc("generic", &tags), fake);
    world.cycle().await;
    let order = PlcOrder { task: OrderTask::ReadAll, ..order(5, &[]) };
    world.orders.send(order).await.unwrap();
    let reports = world.reports_until_stop_after(SECOND).await;
    let outcomes: Vec<_> = reports.into_iter().map(|report| report.outcome).collect();
    assert_eq!(outcomes, [OrderOutcome::NotSent(NotSentReason::Stopping)]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_answer_is_never_followed_by_the_same_write_and_is_read_back() {
    for failure in failures() {
        let writes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&writes);
        let fake = FakePlc::answering_with(echo_addresses).writing_with(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            (SECOND, Err(failure()))
        });
        let mut world = PollerHarness::start(plc("M241", &[("%MW0", 1000)]), fake);
        world.cycle().await;
        world.orders.send(order(1, &[word(20, 7), word(500, 8)])).await.unwrap();
        let report = world.report().await;
        assert_eq!(report.outcome, OrderOutcome::Unknown);
        let states: Vec<_> = report.images.iter().map(|image| image.state).collect();
        assert_eq!(states, [ImageState::Unknown, ImageState::NotSent]);
        let read: Vec<_> = report.images.into_iter().map(|image| image.read).collect();
        let expected = [20, 500].map(|word| Some(Registers::Words(vec![word])));
        assert_eq!(read, expected, "read back on a new connection");
        for _ in 0..20 {
            assert!(world.cycle().await.results[0].outcome.is_ok());
        }
        assert_eq!(writes.load(Ordering::Relaxed), 1);
        assert_eq!(world.connects().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_plc_that_is_gone_after_the_write_is_reported_as_unknown_after_ten_seconds() {
    let is_gone = Arc::new(Mutex::new(false));
    let (gone, after) = (Arc::clone(&is_gone), Arc::clone(&is_gone));
    let fake = FakePlc::answering_with(move |request| {
        if *after.lock().unwrap() {
            (SECOND, Err(RequestError::TimedOut(SECOND)))
        } else {
            echo_addresses(request)
        }
    });
    let fake = fake.writing_with(move |_, _| {
        *gone.lock().unwrap() = true;
        (SECOND, Err(RequestError::TimedOut(SECOND)))
    });
    let mut world = PollerHarness::start(plc("M241", &[("%MW0", 1000)]), fake);
    world.cycle().await;
    world.orders.send(order(1, &[word(20, 7)])).await.unwrap();
    let report = world.report().await;
    assert_eq!(report.outcome, OrderOutcome::Unknown);
    assert_eq!((report.images[0].state, &report.images[0].read), (ImageState::Unknown, &None));
    assert!((SECOND * 10..SECOND * 14).contains(&world.elapsed()), "{:?}", world.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_plc_that_does_not_answer_fails_an_order_at_once_with_its_diagnosis() {
    let refused = || Err(ConnectError::Refused(io::ErrorKind::ConnectionRefused.into()));
    let fake = FakePlc::answering_with(echo_addresses)
        .connecting_with((0..100).map(|_| (Duration::ZERO, refused())));
    let mut world = PollerHarness::start(plc("M241", &[("%MW0", 60_000)]), fake);
    world.state().await;
    world.orders.send(order(1, &[word(20, 7)])).await.unwrap();
    let report = world.report().await;
    let OrderOutcome::NotSent(NotSentReason::Unreachable(sentence)) = report.outcome else {
        panic!("{:?}", report.outcome);
    };
    assert_eq!(sentence.detail.code, "modicon_refused");
    assert_eq!(report.images[0].state, ImageState::NotSent);
    assert_eq!(world.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_order_for_a_silent_unit_does_not_cost_the_others_their_connection() {
    let fake = FakePlc::with_units(|unit, request| match unit {
        2 => (SECOND, Err(RequestError::TimedOut(SECOND))),
        _ => echo_addresses(request),
    })
    .writing_with(|_, _| acknowledge());
    let units = [1, 2].map(|unit| Plc {
        name: format!("unit{unit}"),
        unit_id: unit,
        ..plc("generic", &[("holding:0", 1000)])
    });
    let mut world = PollerHarness::start_all(units.to_vec(), fake, 0.0);
    while world.elapsed() < SECOND * 10 {
        world.cycle().await;
    }
    let connects = world.connects().len();
    let start = world.elapsed();
    world.orders.send(PlcOrder { plc: 1, ..order(1, &[word(20, 7)]) }).await.unwrap();
    world.orders.send(order(2, &[word(20, 7)])).await.unwrap();
    let report = world.report().await;
    assert!(
        matches!(report.outcome, OrderOutcome::NotSent(NotSentReason::Unreachable(_))),
        "{report:?}"
    );
    assert_eq!(world.report().await.outcome, OrderOutcome::Done);
    assert_eq!((world.elapsed(), world.connects().len()), (start, connects));
}

#[tokio::test(start_paused = true)]
async fn an_order_is_not_sent_after_its_time() {
    let fake = FakePlc::answering_with(echo_addresses).writing_with(|_, _| acknowledge());
    let mut config = plc("M241", &[("%MW0", 60_000)]);
    config.pacing.request_pause = SECOND * 2;
    let mut world = PollerHarness::start(config, fake);
    world.cycle().await;
    let limit = time::Instant::now().into_std() + SECOND;
    let late = PlcOrder { not_after: Some(limit), ..order(1, &[word(20, 7)]) };
    world.orders.send(late).await.unwrap();
    let report = world.report().await;
    assert_eq!(report.outcome, OrderOutcome::NotSent(NotSentReason::Expired));
    assert!(!world.fake.wire_events().contains(&WireEvent::Write(20)));
}

#[tokio::test(start_paused = true)]
async fn an_order_is_not_sent_to_another_program() {
    let answers = |request: &plan::ReadRequest| {
        let mut words = vec![0; request.count.into()];
        if request.first == PLC_R {
            (words[0], words[1], words[12], words[28]) = (0x101A, 7, 2, 5);
        }
        (Duration::ZERO, Ok(Registers::Words(words)))
    };
    let fake = FakePlc::answering_with(answers).writing_with(|_, _| acknowledge());
    let mut world = PollerHarness::start(plc("M251", &[("%MW0", 60_000)]), fake);
    world.cycle().await;
    for (signature, is_accepted) in [([5, 0, 0, 0], true), ([6, 0, 0, 0], false)] {
        let program = Some(ProgramSignature(signature));
        world.orders.send(PlcOrder { program, ..order(1, &[word(20, 7)]) }).await.unwrap();
        let outcome = world.report().await.outcome;
        let refused = OrderOutcome::NotSent(NotSentReason::ProgramChanged);
        assert_eq!(outcome, if is_accepted { OrderOutcome::Done } else { refused });
    }
}

#[tokio::test(start_paused = true)]
async fn an_exception_is_reported_with_its_code_and_the_value_that_is_there() {
    for code in [1, 2, 3, 4, 6] {
        let fake = FakePlc::answering_with(echo_addresses)
            .writing_with(move |_, _| (Duration::ZERO, Err(RequestError::Refused(code))));
        let mut world = PollerHarness::start(plc("M241", &[("%MW0", 60_000)]), fake);
        world.cycle().await;
        world.orders.send(order(1, &[word(20, 7)])).await.unwrap();
        let report = world.report().await;
        assert_eq!(report.outcome, OrderOutcome::Refused(code));
        assert_eq!(report.images[0].state, ImageState::Refused(code));
        assert_eq!(report.images[0].read, Some(Registers::Words(vec![20])));
        assert_eq!(world.connects().len(), 1, "an exception is an answer");
    }
}

#[tokio::test(start_paused = true)]
async fn an_exception_that_does_not_say_whether_it_was_written_is_no_refusal() {
    for code in [5, 0x0B] {
        let fake = FakePlc::answering_with(echo_addresses)
            .writing_with(move |_, _| (Duration::ZERO, Err(RequestError::Refused(code))));
        let mut world = PollerHarness::start(plc("generic", &[("holding:0", 1000)]), fake);
        world.cycle().await;
        world.orders.send(order(1, &[word(20, 7)])).await.unwrap();
        let report = world.report().await;
        assert_eq!(report.outcome, OrderOutcome::Unknown);
        assert_eq!(report.images[0].read, Some(Registers::Words(vec![20])));
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_tried_with_a_read_before_a_write() {
    let closes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&closes);
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&writes);
    let fake = FakePlc::answering_with(echo_addresses)
        .writing_with(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            acknowledge()
        })
        .closing_when(move || {
            count.load(Ordering::Relaxed) == 1 && {
                count.store(2, Ordering::Relaxed);
                true
            }
        });
    let mut world = PollerHarness::start(plc("generic", &[("holding:0", 60_000)]), fake);
    world.cycle().await;
    let orders = world.orders.clone();
    let send = async {
        time::sleep(SECOND * 30).await;
        closes.store(1, Ordering::Relaxed);
        orders.send(order(1, &[word(20, 7)])).await.unwrap();
    };
    let (report, ()) = tokio::join!(world.report(), send);
    assert_eq!(report.outcome, OrderOutcome::Done);
    assert_eq!((writes.load(Ordering::Relaxed), world.connects().len()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn orders_that_wait_when_the_gateway_stops_are_reported_as_not_sent() {
    let fake = FakePlc::answering_with(|request| (SECOND / 2, echo_addresses(request).1))
        .writing_with(|_, _| (SECOND / 2, Ok(())));
    let mut world = PollerHarness::start(plc("generic", &[("holding:0", 60_000)]), fake);
    world.cycle().await;
    for number in 0..5 {
        world.orders.send(order(number, &[word(20, 7)])).await.unwrap();
    }
    let reports = world.reports_until_stop_after(SECOND * 6 / 5).await;
    let numbers: Vec<_> = reports.iter().map(|report| report.number).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4], "each exactly once");
    assert_eq!(reports[0].outcome, OrderOutcome::Done);
    for report in &reports[2..] {
        assert_eq!(report.outcome, OrderOutcome::NotSent(NotSentReason::Stopping));
    }
}

#[tokio::test(start_paused = true)]
async fn all_tags_are_read_upon_an_order_each_scan_class_once() {
    let fake = FakePlc::answering_with(echo_addresses).writing_with(|_, _| acknowledge());
    let tags = [("%MW0", 1000), ("%MW500", 60_000)];
    let mut world = PollerHarness::start(plc("M241", &tags), fake);
    world.cycle().await;
    world.cycle().await;
    let order = PlcOrder { task: OrderTask::ReadAll, ..order(5, &[]) };
    world.orders.send(order).await.unwrap();
    let mut classes = Vec::new();
    let report = loop {
        match world.event().await {
            PlcEvent::Cycle(cycle) => {
                assert!(cycle.results[0].outcome.is_ok());
                classes.push(cycle.class);
            }
            PlcEvent::Written(report) => break report,
            PlcEvent::State { .. }
            | PlcEvent::Changed { .. }
            | PlcEvent::Throttled { .. }
            | PlcEvent::Learned { .. } => {}
        }
    };
    assert_eq!((report.number, report.outcome), (5, OrderOutcome::Done));
    assert_eq!((classes, world.elapsed()), (vec![0, 1], Duration::ZERO));
}

pub(super) fn failures() -> [fn() -> RequestError; 3] {
    [
        || RequestError::TimedOut(SECOND),
        || RequestError::Garbled(AnswerMismatch::OtherWrite),
        || RequestError::Disconnected(io::ErrorKind::ConnectionReset.into()),
    ]
}

pub(super) fn acknowledge() -> (Duration, Result<(), RequestError>) {
    (Duration::ZERO, Ok(()))
}

pub(super) fn word(first: u16, value: u16) -> TagImage {
    let content = ImageContent::Words(vec![MaskedWord::whole(value)]);
    TagImage { tag: None, table: Table::HoldingRegister, first, content }
}

pub(super) fn order(number: u64, write: &[TagImage]) -> PlcOrder {
    PlcOrder {
        number,
        plc: 0,
        expect: Vec::new(),
        write: write.to_vec(),
        task: OrderTask::Write,
        program: None,
        not_after: None,
    }
}
