//! The poll task against a simulated PLC with fault injection, in memory and virtual time.

use std::sync::Arc;

use provisioning::plan::{ReadRequest, plan};
use provisioning::plc::{IecType, Table};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::modbus::{ModbusConnector, ModbusSession};
use super::session::Connector;
use super::*;
use crate::simulate::{
    Fault, FaultInjector, Handle, SimulatedPlc, SimulatedProgram, SimulatorSettings, serve,
};

/// Longer than the slowest cycle, so that memory can change between two cycles and not within one.
const SCAN: Duration = Duration::from_secs(20);
/// The longest pause between connects, one cycle, and the time-out of a request on the wire.
const RECOVERY: Duration = Duration::from_secs(30 + 20 + 1);
const REQUESTS_PER_FAULT: u64 = 1_000;

#[tokio::test(start_paused = true)]
async fn a_plc_without_faults_returns_every_value_in_every_cycle() {
    let mut site = FaultyPlc::new("generic", None).await;
    site.poll_until_requests(REQUESTS_PER_FAULT).await;
    assert_eq!((site.seen.unreachable, site.seen.refused), (0, 0));
    assert!(site.seen.good >= REQUESTS_PER_FAULT);
}

#[tokio::test(start_paused = true)]
async fn each_fault_alone_costs_values_only_and_only_while_it_lasts() {
    for fault in Fault::ALL {
        let faults = FaultInjector::random(&[fault], 0.3, 7);
        let mut site = FaultyPlc::new("generic", Some(faults)).await;
        site.poll_until_requests(REQUESTS_PER_FAULT).await;
        assert!(site.handle.counts().await.unwrap().faulty > 100, "{fault:?}: {:?}", site.seen);
        let costs_nothing = fault == Fault::Split;
        let is_clean = site.seen.unreachable + site.seen.refused == 0;
        assert_eq!(is_clean, costs_nothing, "{fault:?}: {:?}", site.seen);
        site.recover().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_plc_whose_answers_are_all_faulty_is_polled_again_when_they_are_right() {
    for fault in Fault::ALL {
        let mut site = FaultyPlc::new("M241", Some(FaultInjector::random(&[fault], 1.0, 3))).await;
        site.poll_cycles(60).await;
        site.recover().await;
    }
}

#[tokio::test(start_paused = true)]
async fn rare_faults_in_35_000_requests_publish_nothing_wrong() {
    mixture("generic", 0.02, 1, 35_000).await;
}

#[tokio::test(start_paused = true)]
async fn faults_in_a_tenth_of_25_000_requests_publish_nothing_wrong() {
    mixture("generic", 0.1, 2, 25_000).await;
}

#[tokio::test(start_paused = true)]
async fn faults_in_a_tenth_of_25_000_requests_of_an_m241_publish_nothing_wrong() {
    mixture("M241", 0.1, 3, 25_000).await;
}

#[tokio::test(start_paused = true)]
async fn faults_in_a_third_of_15_000_requests_publish_nothing_wrong() {
    mixture("generic", 0.35, 4, 15_000).await;
}

/// Polls with all faults at this rate, next to a PLC without faults in the same process.
async fn mixture(model: &str, rate: f64, seed: u64, requests: u64) {
    let mut neighbour = FaultyPlc::new("M251", None).await;
    let mut site =
        FaultyPlc::new(model, Some(FaultInjector::random(&Fault::ALL, rate, seed))).await;
    tokio::select! {
        () = site.poll_until_requests(requests) => {}
        () = neighbour.poll_cycles(u32::MAX) => {}
    }
    assert!(neighbour.cycles + 1 >= site.cycles, "{} < {}", neighbour.cycles, site.cycles);
    assert_eq!((neighbour.seen.unreachable, neighbour.seen.refused, neighbour.late), (0, 0, 0));
    assert!(site.seen.good > 0 && site.seen.unreachable > 0, "{:?}", site.seen);
    site.recover().await;
}

/// A simulated PLC, its poll task, and what was read.
struct FaultyPlc {
    handle: Handle,
    events: mpsc::Receiver<PlcEvent>,
    requests_of_a_cycle: Vec<ReadRequest>,
    /// Number of the cycle; the memory of the PLC is a function of it and the address.
    generation: u16,
    start: time::Instant,
    cycles: u32,
    requests: u64,
    seen: ReadCounts,
    /// Cycles that did not run when they were due.
    late: u64,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct ReadCounts {
    good: u64,
    unreachable: u64,
    refused: u64,
}

/// Connects in memory, without a port.
pub(super) struct InMemoryConnector {
    handle: Handle,
    connector: ModbusConnector,
}

impl InMemoryConnector {
    pub(super) fn new(handle: &Handle, plc: &Plc) -> Self {
        let connector =
            ModbusConnector::new(plc.address.clone(), plc.timeout, ConnectionSlots::new(1));
        Self { handle: handle.clone(), connector }
    }
}

impl Connector for InMemoryConnector {
    type Session = ModbusSession;

    async fn connect(&mut self) -> Result<ModbusSession, ConnectError> {
        let stream = self.handle.connect().await.map_err(io::Error::other);
        let slot = self.connector.take_slot()?;
        Ok(self.connector.new_session(stream.map_err(ConnectError::Failed)?, slot))
    }
}

impl FaultyPlc {
    async fn new(model: &str, faults: Option<FaultInjector>) -> Self {
        let mut settings = SimulatorSettings::new("M241".parse().unwrap()).unwrap();
        settings.program = SimulatedProgram::Idle;
        settings.mast = Duration::ZERO;
        settings.faults = faults;
        let simulated = SimulatedPlc::new(settings);
        let handle = simulated.handle();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(simulated, listener, CancellationToken::new()));

        let config = plc_with_all_tables(model);
        let plan = plan(&config);
        assert_eq!(plan.classes.len(), 1);
        let requests_of_a_cycle = plan.classes[0].requests.clone();
        let (events_in, events) = mpsc::channel(1);
        let (_, metrics) = support::metrics(&config);
        let memory = InMemoryConnector::new(&handle, &config);
        let spec = PlcSpec { plc: 0, config, plan, metrics };
        let endpoint = Endpoint { plcs: vec![spec], phase: 0.0 };
        let poller = Poller::new(
            endpoint,
            memory,
            support::without_orders(events_in),
            fastrand::Rng::with_seed(7),
            CancellationToken::new(),
        );

        let mut site = Self {
            handle,
            events,
            requests_of_a_cycle,
            generation: 0,
            start: time::Instant::now(),
            cycles: 0,
            requests: 0,
            seen: ReadCounts::default(),
            late: 0,
            _tasks: JoinSet::new(),
        };
        site.fill_memory().await;
        tasks.spawn(poller.run());
        site._tasks = tasks;
        site
    }

    /// Polls until the PLC has answered this number of requests.
    async fn poll_until_requests(&mut self, requests: u64) {
        while self.requests < requests {
            self.poll_cycles(10).await;
            self.requests = self.handle.counts().await.unwrap().requests;
        }
    }

    async fn poll_cycles(&mut self, cycles: u32) {
        for _ in 0..cycles {
            self.cycle().await;
        }
    }

    /// Ends the faults; within [`RECOVERY`] and two connects every value is read again.
    async fn recover(&mut self) {
        self.handle.set_faults(None).await.unwrap();
        let (end, connects) = (time::Instant::now(), self.connects().await);
        while !self.cycle().await {
            assert!(end.elapsed() <= RECOVERY, "not recovered after {:?}", end.elapsed());
        }
        let connects = self.connects().await - connects;
        assert!(connects <= 2, "{connects} connects");
        for _ in 0..10 {
            assert!(self.cycle().await, "it stays recovered");
        }
    }

    async fn connects(&self) -> u64 {
        self.handle.counts().await.unwrap().connects
    }

    /// Awaits the next cycle, and checks its values. Returns whether all were read.
    async fn cycle(&mut self) -> bool {
        let cycle = loop {
            if let PlcEvent::Cycle(cycle) = self.events.recv().await.expect("the poller runs") {
                break cycle;
            }
        };
        self.late += u64::from(time::Instant::now() != self.start + SCAN * self.cycles);
        self.cycles += 1;
        assert!(cycle.took < SCAN, "memory may have changed within the cycle");
        assert_eq!(cycle.results.len(), cycle.requests.len());
        let mut is_good = true;
        for (read, request) in cycle.results.iter().zip(&*cycle.requests) {
            is_good &= read.outcome.is_ok();
            match &read.outcome {
                Ok(registers) => {
                    assert_eq!(*registers, right_values(request, self.generation));
                    self.seen.good += 1;
                }
                Err(ReadFailure::Unreachable) => self.seen.unreachable += 1,
                Err(ReadFailure::Refused(_) | ReadFailure::Busy | ReadFailure::Pending) => {
                    self.seen.refused += 1;
                }
            }
        }
        self.generation = self.generation.wrapping_add(1);
        self.fill_memory().await;
        is_good
    }

    async fn fill_memory(&self) {
        for request in &self.requests_of_a_cycle {
            match right_values(request, self.generation) {
                Registers::Words(words) => {
                    self.handle.set_registers(request.first, &words).await.unwrap();
                }
                Registers::Bits(bits) => {
                    for (at, bit) in (request.first..).zip(bits) {
                        if request.table == Table::Coil {
                            self.handle.set_output(at, bit).await.unwrap();
                        } else {
                            self.handle.set_input(at, bit).await.unwrap();
                        }
                    }
                }
            }
        }
    }
}

/// Returns values that differ between addresses and between generations.
fn right_values(request: &ReadRequest, generation: u16) -> Registers {
    let addresses = request.first..request.first + request.count;
    let word = |at: u16| at.wrapping_mul(40_503).wrapping_add(generation.wrapping_mul(30_011));
    if request.table.holds_bits() {
        Registers::Bits(addresses.map(|at| word(at).count_ones() % 2 == 1).collect())
    } else {
        Registers::Words(addresses.map(word).collect())
    }
}

/// Returns two long requests of equal length, three short ones, and bits.
fn plc_with_all_tables(model: &str) -> Plc {
    let scan = SCAN.as_secs() * 1000;
    let at = |address: u16| match model {
        "generic" => format!("holding:{address}"),
        _ => format!("%MW{address}"),
    };
    let addresses = [0, 60, 119, 500, 560, 619, 1000, 1200, 1400].map(at);
    let tags: Vec<_> = addresses.iter().map(|at| (&**at, scan)).collect();
    let mut plc = plc(model, &tags);
    plc.max_gap = 64;
    for (at_generic, at_modicon) in
        [("coil:0", "%QX0.0"), ("coil:7", "%QX0.7"), ("discrete:0", "%IX0.0")]
    {
        let at = if model == "generic" { at_generic } else { at_modicon };
        let mut tag = plc.tags[0].clone();
        tag.location = plc.model.locate(at, IecType::Bool).unwrap();
        tag.data_type = IecType::Bool.into();
        Arc::make_mut(&mut plc.tags).push(tag);
    }
    plc
}
