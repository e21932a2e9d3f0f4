//! A poll task under test, its fake PLC, and its events.

use super::support::{self, FakePlc, WireEvent};
use super::*;

pub(super) struct PollerHarness {
    poller: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
    pub(super) fake: FakePlc,
    pub(super) events: mpsc::Receiver<PlcEvent>,
    pub(super) orders: mpsc::Sender<PlcOrder>,
    stop: CancellationToken,
    pub(super) metrics: Metrics,
    /// Of the first PLC.
    pub(super) plc_metrics: PlcMetrics,
    start: time::Instant,
}

impl PollerHarness {
    pub(super) fn start(plc: Plc, fake: FakePlc) -> Self {
        Self::start_at(plc, fake, 0.0)
    }

    pub(super) fn start_at(config: Plc, fake: FakePlc, phase: f64) -> Self {
        Self::start_all(vec![config], fake, phase)
    }

    /// PLCs that share a connection.
    pub(super) fn start_all(plcs: Vec<Plc>, fake: FakePlc, phase: f64) -> Self {
        let (events_in, events) = mpsc::channel(1);
        let (orders, orders_out) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let config = support::config(plcs);
        let metrics = Metrics::new(&config, "0").unwrap();
        let mut endpoints = group_by_address(config.plcs, &metrics, 0.0);
        let endpoint = Endpoint { phase, ..endpoints.pop().unwrap() };
        assert!(endpoints.is_empty(), "all have the same address");
        let link_metrics = endpoint.plcs[0].metrics.clone();
        let random = fastrand::Rng::with_seed(7);
        let channels = PollChannels { orders: orders_out, events: events_in };
        let poller = Poller::new(endpoint, fake.clone(), channels, random, stop.clone()).run();
        let poller = Box::pin(poller);
        Self {
            poller,
            fake,
            events,
            orders,
            stop,
            metrics,
            plc_metrics: link_metrics,
            start: time::Instant::now(),
        }
    }

    pub(super) async fn event(&mut self) -> PlcEvent {
        tokio::select! {
            biased;
            Some(event) = self.events.recv() => event,
            () = &mut self.poller => panic!("the poller ended"),
        }
    }

    /// Returns the next state; skips other events.
    pub(super) async fn state(&mut self) -> PlcState {
        loop {
            if let PlcEvent::State { state, .. } = self.event().await {
                return state;
            }
        }
    }

    /// Returns the next cycle; skips other events.
    pub(super) async fn cycle(&mut self) -> Cycle {
        loop {
            if let PlcEvent::Cycle(cycle) = self.event().await {
                return cycle;
            }
        }
    }

    /// Returns the next report of an order; skips other events.
    pub(super) async fn report(&mut self) -> OrderReport {
        loop {
            if let PlcEvent::Written(report) = self.event().await {
                return *report;
            }
        }
    }

    /// Stops the task after a pause. Returns all reports.
    pub(super) async fn reports_until_stop_after(&mut self, pause: Duration) -> Vec<OrderReport> {
        let stop = self.stop.clone();
        let cancel = async {
            time::sleep(pause).await;
            stop.cancel();
        };
        let mut reports = Vec::new();
        let receive = async {
            while let Some(event) = self.events.recv().await {
                if let PlcEvent::Written(report) = event {
                    reports.push(*report);
                }
            }
        };
        tokio::join!(cancel, receive, &mut self.poller);
        reports
    }

    /// Returns the first word of each result of the next cycle.
    pub(super) async fn words(&mut self, reads: &[usize]) -> Vec<Result<u16, ReadFailure>> {
        let cycle = self.cycle().await;
        assert_eq!(cycle.results.len(), reads.len());
        cycle.results.into_iter().map(|read| read.outcome.map(first_word)).collect()
    }

    pub(super) async fn stop_after(&mut self, pause: Duration) {
        let stop = self.stop.clone();
        let cancel = async {
            time::sleep(pause).await;
            stop.cancel();
        };
        let receive = async { while self.events.recv().await.is_some() {} };
        tokio::join!(cancel, receive, &mut self.poller);
    }

    /// Drops the receiver of the events, and waits for the task to end.
    pub(super) async fn end_without_listeners(self) {
        drop(self.events);
        self.poller.await;
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Returns the connects since the last call, and frees their memory.
    pub(super) fn take_connects(&self) -> Vec<time::Instant> {
        let log = self.fake.take_log();
        log.into_iter()
            .filter_map(|(at, seen)| (seen == WireEvent::Connect).then_some(at))
            .collect()
    }

    pub(super) fn connects(&self) -> Vec<time::Instant> {
        let connect = |(at, seen)| (seen == WireEvent::Connect).then_some(at);
        self.fake.log().into_iter().filter_map(connect).collect()
    }
}

pub(super) fn first_word(registers: Registers) -> u16 {
    match registers {
        Registers::Words(words) => words[0],
        Registers::Bits(bits) => bits[0].into(),
    }
}

pub(super) fn assert_at_most_six_a_minute(connects: &[time::Instant]) {
    for window in connects.windows(7) {
        assert!(window[6] - window[0] >= SECOND * 60);
    }
}

/// Asserts that the connects are those of the server, six a minute, and those of the search for
/// rejected tags, at most twelve at once and two a minute.
pub(super) fn assert_connects_are_bounded(connects: &[time::Instant]) {
    for (in_all, length) in [(6 + 12 + 2, 60), (6 * 10 + 12 + 20, 600)] {
        for window in connects.windows(in_all + 1) {
            assert!(window[in_all] - window[0] >= SECOND * length, "{in_all} in {length} s");
        }
    }
}

/// Returns a PLC with an INT at each address, read with a period in milliseconds and
/// `max_share = 100`.
pub(super) fn plc(model: &str, tags: &[(&str, u64)]) -> Plc {
    let mut plc = support::plc(model, tags);
    plc.pacing.max_share = 100;
    plc
}
