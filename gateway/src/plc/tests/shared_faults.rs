//! Two units behind one connection with fault injection: no value is ever that of the other unit.

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::faults::InMemoryConnector;
use super::*;
use crate::simulate::{
    Fault, FaultInjector, Handle, SimulatedPlc, SimulatedProgram as Simulated, SimulatorSettings,
    serve,
};

/// Longer than the slowest cycle of both, so that memory changes between two cycles of a unit.
const SCAN: Duration = Duration::from_secs(20);
/// The longest pause of a unit, one cycle, and the time-out of a request on the wire.
const RECOVERY: Duration = Duration::from_secs(30 + 20 + 2);
/// The embedded server of an M241, and its slave device.
const UNITS: [u8; 2] = [255, 1];

struct SharedFaultyPlc {
    handle: Handle,
    events: mpsc::Receiver<PlcEvent>,
    generations: [u16; 2],
    good: [u64; 2],
    bad: u64,
    _tasks: JoinSet<()>,
}

#[tokio::test(start_paused = true)]
async fn two_units_without_faults_are_read_over_one_connection() {
    let mut site = SharedFaultyPlc::new(None).await;
    site.poll_until_requests(2_000).await;
    assert!(site.bad == 0 && site.good.iter().all(|good| *good > 500), "{:?}", site.good);
    assert_eq!(site.handle.counts().await.unwrap().connects, 1);
}

#[tokio::test(start_paused = true)]
async fn answers_of_the_wrong_unit_are_never_accepted_at_any_rate() {
    for (rate, seed) in [(0.1, 1), (0.5, 2), (1.0, 3)] {
        let mut site =
            SharedFaultyPlc::new(Some(FaultInjector::random(&[Fault::WrongUnit], rate, seed)))
                .await;
        for _ in 0..500 {
            site.cycle().await;
        }
        assert!(site.handle.counts().await.unwrap().faulty > 50);
        site.recover().await;
    }
}

#[tokio::test(start_paused = true)]
async fn faults_in_a_tenth_of_20_000_requests_to_two_units_publish_nothing_wrong() {
    let mut site = SharedFaultyPlc::new(Some(FaultInjector::random(&Fault::ALL, 0.1, 5))).await;
    site.poll_until_requests(20_000).await;
    assert!(site.bad > 0);
    site.recover().await;
}

#[tokio::test(start_paused = true)]
async fn faults_in_a_third_of_5_000_requests_to_two_units_publish_nothing_wrong() {
    let mut site = SharedFaultyPlc::new(Some(FaultInjector::random(&Fault::ALL, 0.35, 6))).await;
    site.poll_until_requests(5_000).await;
    site.recover().await;
}

impl SharedFaultyPlc {
    async fn new(faults: Option<FaultInjector>) -> Self {
        let mut settings = SimulatorSettings::new("M241".parse().unwrap()).unwrap();
        (settings.program, settings.mast) = (Simulated::Idle, Duration::ZERO);
        settings.faults = faults;
        let simulated = SimulatedPlc::new(settings);
        let handle = simulated.handle();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(simulated, listener, CancellationToken::new()));
        let config = support::config(UNITS.map(one_unit).to_vec());
        let metrics = Metrics::new(&config, "0").unwrap();
        let endpoint = group_by_address(config.plcs.clone(), &metrics, 0.3).pop().unwrap();
        assert_eq!(endpoint.plcs.len(), 2);
        let (events_in, events) = mpsc::channel(1);
        let memory = InMemoryConnector::new(&handle, &config.plcs[0]);
        let poller = Poller::new(
            endpoint,
            memory,
            support::without_orders(events_in),
            fastrand::Rng::with_seed(7),
            CancellationToken::new(),
        );
        let (generations, good) = ([0; 2], [0; 2]);
        let mut site = Self { handle, events, generations, good, bad: 0, _tasks: JoinSet::new() };
        site.fill(0).await;
        site.fill(1).await;
        tasks.spawn(poller.run());
        site._tasks = tasks;
        site
    }

    async fn poll_until_requests(&mut self, requests: u64) {
        while self.handle.counts().await.unwrap().requests < requests {
            for _ in 0..20 {
                self.cycle().await;
            }
        }
    }

    /// Ends the faults; then every value of both units is read again.
    async fn recover(&mut self) {
        self.handle.set_faults(None).await.unwrap();
        let end = time::Instant::now();
        let mut in_a_row = 0;
        while in_a_row < 4 {
            in_a_row = if self.cycle().await { in_a_row + 1 } else { 0 };
            assert!(
                end.elapsed() <= RECOVERY + SCAN * 2,
                "not recovered after {:?}",
                end.elapsed()
            );
        }
        for _ in 0..20 {
            assert!(self.cycle().await, "it stays recovered");
        }
    }

    /// Awaits the next cycle of either unit, and checks its values. Returns whether all were read.
    async fn cycle(&mut self) -> bool {
        let cycle = loop {
            if let PlcEvent::Cycle(cycle) = self.events.recv().await.expect("the poller runs") {
                break cycle;
            }
        };
        let unit = usize::from(cycle.plc);
        assert!(cycle.took < SCAN, "memory may have changed within the cycle");
        let mut is_good = true;
        for (read, request) in cycle.results.iter().zip(&*cycle.requests) {
            is_good &= read.outcome.is_ok();
            match &read.outcome {
                Ok(registers) => {
                    assert_eq!(
                        *registers,
                        Registers::Words(self.right(unit, request.first, request.count))
                    );
                    self.good[unit] += 1;
                }
                Err(_) => self.bad += 1,
            }
        }
        self.generations[unit] = self.generations[unit].wrapping_add(1);
        self.fill(unit).await;
        is_good
    }

    /// Returns values that differ between units, addresses and generations.
    fn right(&self, unit: usize, first: u16, count: u16) -> Vec<u16> {
        let salt =
            self.generations[unit].wrapping_mul(30_011).wrapping_add(u16::from(UNITS[unit]) * 77);
        (first..first + count).map(|at| at.wrapping_mul(40_503).wrapping_add(salt)).collect()
    }

    async fn fill(&self, unit: usize) {
        let values = self.right(unit, 0, 80);
        match UNITS[unit] {
            1 => self.handle.set_slave_registers(0, &values).await.unwrap(),
            _ => self.handle.set_registers(0, &values).await.unwrap(),
        }
    }
}

/// Returns two requests, the same for both units.
fn one_unit(unit_id: u8) -> Plc {
    let scan = SCAN.as_secs() * 1000;
    let tags = [("holding:0", scan), ("holding:9", scan), ("holding:60", scan)];
    let mut plc = plc("generic", &tags);
    (plc.name, plc.unit_id, plc.max_gap) = (format!("unit{unit_id}"), unit_id, 16);
    plc
}
