//! A poller under test, what it polls, and what it tells.

use super::support::{self, FakePlc, WireEvent};
use super::*;

pub(super) struct PollerHarness {
    poller: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
    pub(super) fake: FakePlc,
    pub(super) events: mpsc::Receiver<PlcEvent>,
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
        let stop = CancellationToken::new();
        let config = support::config(plcs);
        let metrics = Metrics::new(&config, "0").unwrap();
        let mut links = group_by_address(config.plcs, &metrics, 0.0);
        let link = Endpoint { phase, ..links.pop().unwrap() };
        assert!(links.is_empty(), "all have the same address");
        let link_metrics = link.plcs[0].metrics.clone();
        let random = fastrand::Rng::with_seed(7);
        let poller = Poller::new(link, fake.clone(), events_in, random).run(stop.clone());
        let poller = Box::pin(poller);
        Self {
            poller,
            fake,
            events,
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

    /// The next change of state.
    pub(super) async fn state(&mut self) -> PlcState {
        loop {
            if let PlcEvent::State { state, .. } = self.event().await {
                return state;
            }
        }
    }

    /// The next cycle; what is told before it is passed over.
    pub(super) async fn cycle(&mut self) -> Cycle {
        loop {
            if let PlcEvent::Cycle(cycle) = self.event().await {
                return cycle;
            }
        }
    }

    /// The first word of each read of the next cycle.
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

    /// Nobody listens any more; returns when the poller has noticed.
    pub(super) async fn end_without_listeners(self) {
        drop(self.events);
        self.poller.await;
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The connects since the last call; their memory is given back.
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

/// A PLC with an INT at each address, read every so many milliseconds, whose time may all be taken.
pub(super) fn plc(model: &str, tags: &[(&str, u64)]) -> Plc {
    let mut plc = support::plc(model, tags);
    plc.pacing.max_share = 100;
    plc
}
