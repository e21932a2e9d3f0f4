//! Requests of orders over which the session ends: they must not stop the polls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinSet;

use super::orders::{acknowledge, failures, order, word};
use super::*;
use crate::model::{ImageState, NotSentReason, OrderOutcome};

/// Two units behind a connection that ends over each write of word 500 while `is_broken`, and over
/// each read of word 600.
struct LosingPlc {
    world: PollerHarness,
    is_broken: Arc<AtomicBool>,
    /// Writes and reads over which the connection ended.
    losses: Arc<AtomicUsize>,
    good_cycles: usize,
    /// Whether a unit may be lost for a while.
    may_disconnect: bool,
}

impl LosingPlc {
    fn start(failure: fn() -> RequestError) -> Self {
        let (is_broken, losses) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (broken, writes, reads) = (is_broken.clone(), losses.clone(), losses.clone());
        let fake = FakePlc::answering_with(move |request| {
            if !covers(request, 600) {
                return echo_addresses(request);
            }
            reads.fetch_add(1, Ordering::Relaxed);
            lost(failure())
        });
        let fake = fake.writing_with(move |_, request| {
            let is_lost = covers(&request.to_read_request(), 500) && broken.load(Ordering::Relaxed);
            writes.fetch_add(usize::from(is_lost), Ordering::Relaxed);
            if is_lost { lost(failure()) } else { acknowledge() }
        });
        let unit = |unit_id| Plc {
            name: format!("unit{unit_id}"),
            unit_id,
            ..plc("generic", &[("holding:0", 1000)])
        };
        let world = PollerHarness::start_all(vec![unit(1), unit(2)], fake, 0.0);
        Self { world, is_broken, losses, good_cycles: 0, may_disconnect: false }
    }

    /// Sends an order a fifth of a second after the last report, and returns its report. Fails when
    /// a unit is not read meanwhile.
    async fn write(&mut self, write: &[u16]) -> OrderReport {
        let images: Vec<_> = write.iter().map(|first| word(*first, 7)).collect();
        self.carry_out(order(1, &images)).await
    }

    async fn carry_out(&mut self, order: PlcOrder) -> OrderReport {
        let orders = self.world.orders.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            time::sleep(SECOND / 5).await;
            orders.send(order).await.unwrap();
        });
        loop {
            match self.world.event().await {
                PlcEvent::Written(report) => return *report,
                PlcEvent::Cycle(cycle) => {
                    let is_good = cycle.results[0].outcome.is_ok();
                    assert!(is_good || self.may_disconnect, "{cycle:?}");
                    self.good_cycles += usize::from(is_good);
                }
                PlcEvent::State { state: PlcState::Disconnected { diagnosis, .. }, .. } => {
                    assert!(self.may_disconnect, "{diagnosis}");
                }
                PlcEvent::State { .. }
                | PlcEvent::Changed { .. }
                | PlcEvent::Throttled { .. }
                | PlcEvent::Learned { .. } => {}
            }
        }
    }
}

fn covers(request: &plan::ReadRequest, word: u16) -> bool {
    (request.first..request.first + request.count).contains(&word)
}

/// Returns a missing answer.
fn lost<T>(error: RequestError) -> (Duration, Result<T, RequestError>) {
    let took = if let RequestError::TimedOut(after) = error { after } else { Duration::ZERO };
    (took, Err(error))
}

fn loses_connection() -> OrderOutcome {
    OrderOutcome::NotSent(NotSentReason::LosesConnection)
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_writes_that_lose_the_connection_does_not_stop_the_polls() {
    for failure in failures() {
        let mut plc = LosingPlc::start(failure);
        let (mut unknown, mut not_sent) = (0, 0);
        // Each is one request.
        let orders = [&[500][..], &[499, 500], &[500, 501], &[498, 499, 500]];
        let mut orders = orders.iter().cycle();
        while plc.world.elapsed() < SECOND * 600 {
            let report = plc.write(orders.next().unwrap()).await;
            if report.outcome == OrderOutcome::Unknown {
                assert!(report.images[0].read.is_some(), "it is read back");
                unknown += 1;
            } else {
                assert_eq!(report.outcome, loses_connection());
                assert_eq!(report.images[0].state, ImageState::NotSent);
                not_sent += 1;
            }
        }
        assert_eq!(unknown, plc.losses.load(Ordering::Relaxed), "each was sent once");
        assert!((20..=32).contains(&unknown) && not_sent > 1_000, "{unknown} and {not_sent}");
        assert!(plc.good_cycles > 1_100, "{} cycles of two units in 600 s", plc.good_cycles);
        assert_connects_are_bounded(&plc.world.connects());
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_acknowledged_again_is_no_longer_held_back() {
    let mut plc = LosingPlc::start(failures()[2]);
    while plc.write(&[500]).await.outcome != loses_connection() {}
    assert_eq!(plc.write(&[20]).await.outcome, OrderOutcome::Done, "another address");
    plc.is_broken.store(false, Ordering::Relaxed);
    let start = plc.world.elapsed();
    while plc.write(&[500]).await.outcome != OrderOutcome::Done {}
    assert!(plc.world.elapsed() < start + SECOND * 31, "{:?}", plc.world.elapsed() - start);
    for _ in 0..100 {
        assert_eq!(plc.write(&[500]).await.outcome, OrderOutcome::Done);
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_of_which_a_part_is_held_back_reports_what_was_written_and_what_is_there() {
    let mut plc = LosingPlc::start(failures()[2]);
    while plc.write(&[500]).await.outcome != loses_connection() {}
    let report = plc.write(&[20, 500]).await;
    assert_eq!(report.outcome, OrderOutcome::Partial(NotSentReason::LosesConnection));
    let states: Vec<_> = report.images.iter().map(|image| image.state).collect();
    assert_eq!(states, [ImageState::Written, ImageState::NotSent]);
    let read: Vec<_> = report.images.into_iter().map(|image| image.read).collect();
    assert_eq!(read, [20, 500].map(|word| Some(Registers::Words(vec![word]))));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_orders_whose_registers_cannot_be_read_does_not_stop_the_polls() {
    for failure in failures() {
        let mut plc = LosingPlc::start(failure);
        // One loss may be that of a unit that has failed.
        plc.may_disconnect = true;
        let first = plc.write(&[600]).await;
        assert_eq!((first.outcome, &first.images[0].read), (OrderOutcome::Done, &None));
        let start = plc.world.elapsed() + SECOND * 60;
        while plc.world.elapsed() < start {
            plc.write(&[20]).await;
        }
        (plc.may_disconnect, plc.good_cycles) = (false, 0);
        let (mut done, mut not_sent) = (0, 0);
        while plc.world.elapsed() < start + SECOND * 600 {
            let report = plc.write(&[600]).await;
            assert_eq!((report.outcome, &report.images[0].read), (OrderOutcome::Done, &None));
            done += 1;
            let expect = PlcOrder { expect: vec![word(600, 600)], ..order(2, &[word(20, 7)]) };
            let report = plc.carry_out(expect).await;
            assert_eq!(report.outcome, loses_connection());
            not_sent += 1;
        }
        assert!(done > 500 && not_sent > 500, "{done} and {not_sent}");
        let losses = plc.losses.load(Ordering::Relaxed);
        // One that the server might have closed by itself and its repetition, twelve at once, and
        // two in each of eleven minutes.
        assert!((20..=2 + 12 + 22).contains(&losses), "{losses} connections");
        assert!(plc.good_cycles > 1_100, "{} cycles of two units in 600 s", plc.good_cycles);
        assert_connects_are_bounded(&plc.world.connects());
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_that_was_begun_in_time_is_completed_after_it() {
    let fake = FakePlc::answering_with(echo_addresses).writing_with(|_, _| acknowledge());
    let mut config = plc("M241", &[("%MW0", 60_000)]);
    config.pacing.request_pause = SECOND * 2;
    let mut world = PollerHarness::start(config, fake);
    world.cycle().await;
    let limit = time::Instant::now().into_std() + SECOND * 3;
    let order = PlcOrder { not_after: Some(limit), ..order(1, &[word(20, 7), word(500, 8)]) };
    world.orders.send(order).await.unwrap();
    let report = world.report().await;
    assert_eq!(report.outcome, OrderOutcome::Done);
    assert!(world.elapsed() > SECOND * 3, "the second write came after the limit");
    assert!(report.images.iter().all(|image| image.state == ImageState::Written));
}

#[tokio::test(start_paused = true)]
async fn an_order_that_a_stop_cuts_in_two_is_reported_once_and_as_what_it_is() {
    let fake = FakePlc::answering_with(echo_addresses).writing_with(|_, _| acknowledge());
    let mut config = plc("M241", &[("%MW0", 60_000)]);
    config.pacing.request_pause = SECOND * 2;
    let mut world = PollerHarness::start(config, fake);
    world.cycle().await;
    world.orders.send(order(1, &[word(20, 7), word(500, 8)])).await.unwrap();
    let reports = world.reports_until_stop_after(SECOND * 3).await;
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!(report.outcome, OrderOutcome::Partial(NotSentReason::Stopping));
    let states: Vec<_> = report.images.iter().map(|image| image.state).collect();
    assert_eq!(states, [ImageState::Written, ImageState::NotSent]);
}
