//! Identity and program state, with a simulated Modicon in virtual time.

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::faults::InMemoryConnector;
use provisioning::plan::plan;

use super::*;
use crate::simulate::{
    Handle, RunState as Mode, SimulatedPlc, SimulatedProgram as Simulated, SimulatorSettings, serve,
};

/// Longest time until a change is noticed: the time between two status reads, and a request.
const MAX_NOTICE_DELAY: Duration = Duration::from_secs(11);

struct SimulatedModicon {
    handle: Handle,
    events: mpsc::Receiver<PlcEvent>,
    start: time::Instant,
    _tasks: JoinSet<()>,
}

impl SimulatedModicon {
    async fn new(mode: Mode) -> Self {
        let mut settings = SimulatorSettings::new("M241".parse().unwrap()).unwrap();
        (settings.program, settings.mast, settings.state) = (Simulated::Idle, Duration::ZERO, mode);
        let simulated = SimulatedPlc::new(settings);
        let handle = simulated.handle();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(simulated, listener, CancellationToken::new()));
        let config = plc("M241", &[("%MW0", 1000)]);
        let (events_in, events) = mpsc::channel(1);
        let (_, metrics) = support::metrics(&config);
        let memory = InMemoryConnector::new(&handle, &config);
        let spec = PlcSpec { plc: 0, plan: plan(&config), config, metrics };
        let endpoint = Endpoint { plcs: vec![spec], phase: 0.0 };
        let poller = Poller::new(
            endpoint,
            memory,
            support::without_orders(events_in),
            fastrand::Rng::with_seed(7),
            CancellationToken::new(),
        );
        tasks.spawn(poller.run());
        Self { handle, events, start: time::Instant::now(), _tasks: tasks }
    }

    async fn event(&mut self) -> PlcEvent {
        self.events.recv().await.expect("the poller runs")
    }

    /// Returns the next change, within [`MAX_NOTICE_DELAY`].
    async fn change(&mut self) -> PlcChange {
        let since = time::Instant::now();
        loop {
            assert!(since.elapsed() < MAX_NOTICE_DELAY, "not noticed");
            if let PlcEvent::Changed { change, .. } = self.event().await {
                return change;
            }
        }
    }

    /// Returns the program of the next state.
    async fn program(&mut self) -> ProgramStatus {
        loop {
            if let PlcEvent::State { state, .. } = self.event().await {
                let PlcState::Connected { program, .. } = state else { panic!("{state:?}") };
                return program.expect("a Modicon has a program state");
            }
        }
    }

    async fn is_stopped(&mut self) -> bool {
        loop {
            if let PlcEvent::Cycle(cycle) = self.event().await {
                assert!(cycle.results[0].outcome.is_ok(), "a stopped PLC answers");
                return cycle.is_stopped;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_that_stops_halts_or_starts_is_noticed_in_the_next_cycle_of_unchanged_values() {
    let mut site = SimulatedModicon::new(Mode::Running).await;
    let program = site.program().await;
    assert_eq!((program.state, program.last_stop), (ProgramState::Running, None));
    assert!(!site.is_stopped().await);

    let (mut was, running) = (ProgramState::Running, ProgramState::Running);
    for (mode, is, cause) in [
        (Mode::Stopped, ProgramState::Stopped, Some(StopCause::User)),
        (Mode::Halted, ProgramState::Halted, Some(StopCause::Exception)),
        (Mode::Running, running, None),
    ] {
        site.handle.set_state(mode).await.unwrap();
        let before = site.start.elapsed();
        let reported = site.program().await;
        assert_eq!(reported.state, is);
        assert_eq!(site.change().await, PlcChange::State { was, is, cause });
        assert_eq!(site.is_stopped().await, is != running);
        assert!(site.start.elapsed() - before <= SECOND);
        was = is;
    }
    assert_eq!(site.handle.counts().await.unwrap().connects, 1);
}

#[tokio::test(start_paused = true)]
async fn the_values_of_a_plc_that_is_stopped_from_the_start_are_never_good() {
    let mut site = SimulatedModicon::new(Mode::Stopped).await;
    assert_eq!(site.program().await.state, ProgramState::Stopped);
    assert!(site.is_stopped().await);
}

#[tokio::test(start_paused = true)]
async fn another_program_and_another_device_are_reported_once() {
    let mut site = SimulatedModicon::new(Mode::Running).await;
    let first = site.program().await.signature.unwrap();
    site.handle.set_signature([1, 2, 3, 4]).await.unwrap();
    let (is, next) = (ProgramSignature([1, 2, 3, 4]), ProgramSignature([1, 2, 3, 5]));
    assert_eq!(site.change().await, PlcChange::Program { was: first, is });

    // A download closes the connection; the changes are noticed all the same.
    site.handle.switch_off().await.unwrap();
    site.handle.set_signature([1, 2, 3, 5]).await.unwrap();
    site.handle.set_serial_number(4711).await.unwrap();
    site.is_unreachable().await;
    site.handle.switch_on().await.unwrap();
    let (mut changes, back) = (Vec::new(), time::Instant::now());
    while back.elapsed() < SECOND * 60 {
        if let PlcEvent::Changed { change, .. } = site.event().await {
            changes.push(change);
        }
    }
    let device = PlcChange::Device { was: 80_201_001, is: 4711 };
    assert_eq!(changes, [device, PlcChange::Program { was: is, is: next }]);
}

impl SimulatedModicon {
    async fn is_unreachable(&mut self) {
        loop {
            if let PlcEvent::Cycle(cycle) = self.event().await
                && cycle.results[0].outcome.is_err()
            {
                return;
            }
        }
    }
}

/// Returns a running M241 whose program counts a thousand cycles a second until `stops`.
fn counting(stops: Duration) -> FakePlc {
    let start = time::Instant::now();
    FakePlc::answering_with(move |request| {
        let ran = start.elapsed().min(stops);
        let count = u16::try_from(ran.as_millis() % 60_000).unwrap();
        let mut words = vec![count; request.count.into()];
        let status = if start.elapsed() >= stops { 1 } else { 2 };
        match request.first {
            PLC_R => (words[0], words[12]) = (0x101A, status),
            _ if request.first == PLC_R + 12 => words[0] = status,
            _ => {}
        }
        if request.first >= PLC_R {
            let signature = if request.first == PLC_R { 28 } else { 16 };
            words[signature..].fill(7);
        }
        (SECOND / 1000, Ok(Registers::Words(words)))
    })
}

fn status_reads(world: &PollerHarness) -> usize {
    let looks =
        world.fake.wire_events().into_iter().filter(|seen| *seen == WireEvent::Read(PLC_R + 12));
    looks.count()
}

#[tokio::test(start_paused = true)]
async fn after_a_stop_only_the_last_values_of_the_program_are_good() {
    for (scan, offset) in
        [(1000, 0), (1000, 499), (2000, 1900), (10_000, 3), (60_000, 100), (200, 50)]
    {
        let stops = SECOND * 120 + Duration::from_millis(offset);
        let mut world = PollerHarness::start(plc("M241", &[("%MW0", scan)]), counting(stops));
        let mut stale = Vec::new();
        while world.elapsed() < SECOND * 400 {
            if let PlcEvent::Cycle(cycle) = world.event().await {
                let is_late = world.elapsed() - cycle.took > stops;
                stale.extend((is_late && !cycle.is_stopped).then(|| world.elapsed() - stops));
            }
        }
        // One cycle reads the last values for the first time; a fast scan reads the state once a
        // second.
        let most = if scan >= 1000 { 1 } else { 5 };
        assert!(stale.len() <= most, "scan of {scan} ms: {stale:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_program_state_is_read_every_ten_seconds_and_every_second_while_values_are_unchanged() {
    let never = SECOND * 100_000;
    let mut world = PollerHarness::start(plc("M241", &[("%MW0", 100)]), counting(never));
    while world.elapsed() < SECOND * 1000 {
        world.event().await;
    }
    let moving = status_reads(&world);
    assert!((99..=101).contains(&moving), "{moving}");

    let mut world = PollerHarness::start(plc("M241", &[("%MW0", 100)]), counting(SECOND));
    while world.elapsed() < SECOND * 1000 {
        world.event().await;
    }
    let still = status_reads(&world);
    assert!((900..=1112).contains(&still), "{still}");
}

#[tokio::test(start_paused = true)]
async fn the_program_state_of_a_server_that_closes_idle_connections_is_read_all_the_same() {
    let mut last = time::Instant::now();
    let answers = move |request: &plan::ReadRequest| {
        let was_idle = std::mem::replace(&mut last, time::Instant::now()).elapsed() > SECOND * 5;
        if was_idle {
            return (
                Duration::ZERO,
                Err(RequestError::Disconnected(io::ErrorKind::UnexpectedEof.into())),
            );
        }
        let mut words = vec![0; request.count.into()];
        match request.first {
            PLC_R => (words[0], words[12]) = (0x101A, 1),
            _ if request.first == PLC_R + 12 => words[0] = 1,
            _ => {}
        }
        (SECOND / 100, Ok(Registers::Words(words)))
    };
    let mut world =
        PollerHarness::start(plc("M241", &[("%MW0", 60_000)]), FakePlc::answering_with(answers));
    while world.elapsed() < SECOND * 7200 {
        match world.event().await {
            PlcEvent::Cycle(cycle) => assert!(cycle.is_stopped && cycle.results[0].outcome.is_ok()),
            PlcEvent::State { state: PlcState::Connected { program, .. }, .. } => {
                assert!(program.is_some(), "at {:?}", world.elapsed());
            }
            event @ (PlcEvent::State { .. }
            | PlcEvent::Changed { .. }
            | PlcEvent::Throttled { .. }
            | PlcEvent::Learned { .. }
            | PlcEvent::Written(_)) => panic!("{event:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_plc_that_breaks_over_its_program_state_costs_few_connections_and_no_value() {
    let failures: [fn() -> RequestError; 2] = [
        || RequestError::TimedOut(SECOND),
        || RequestError::Disconnected(io::ErrorKind::ConnectionReset.into()),
    ];
    for failure in failures {
        let answers = move |request: &plan::ReadRequest| {
            let mut words = vec![0; request.count.into()];
            match request.first {
                PLC_R => (words[0], words[12]) = (0x101A, 1),
                _ if request.first == PLC_R + 12 => return (SECOND / 2, Err(failure())),
                _ => {}
            }
            (SECOND / 100, Ok(Registers::Words(words)))
        };
        let mut world =
            PollerHarness::start(plc("M241", &[("%MW0", 2000)]), FakePlc::answering_with(answers));
        let (mut bad, mut stopped) = (0, 0);
        while world.elapsed() < SECOND * 3600 * 4 {
            if let PlcEvent::Cycle(cycle) = world.event().await {
                bad += u32::from(cycle.results[0].outcome.is_err());
                stopped += u32::from(cycle.is_stopped);
            }
        }
        let connects = world.connects().len();
        assert!((8..20).contains(&connects) && bad < 20, "{connects} connects, {bad} bad");
        assert!(stopped < 10, "{stopped}: a state that cannot be read is unknown");
    }
}

#[tokio::test(start_paused = true)]
async fn quarantined_tags_are_retried_after_a_download() {
    let start = time::Instant::now();
    let is_loaded = move || start.elapsed() > SECOND * 7230;
    let answers = move |request: &plan::ReadRequest| {
        if request.first == 900 && !is_loaded() {
            return (Duration::ZERO, Err(RequestError::Refused(2)));
        }
        let mut words: Vec<u16> = (request.first..).take(request.count.into()).collect();
        if request.first == PLC_R {
            (words[0], words[12], words[28]) = (0x101A, 2, u16::from(is_loaded()));
        } else if request.first == PLC_R + 12 {
            (words[0], words[16]) = (2, u16::from(is_loaded()));
        }
        (Duration::ZERO, Ok(Registers::Words(words)))
    };
    let tags = [("%MW0", 1000), ("%MW900", 1000)];
    let mut world = PollerHarness::start(plc("M241", &tags), FakePlc::answering_with(answers));
    while world.elapsed() < SECOND * 7230 + MAX_NOTICE_DELAY + SECOND * 3 {
        world.event().await;
    }
    assert_eq!(world.words(&[0, 1]).await, [Ok(0), Ok(900)]);
    assert_eq!(world.plc_metrics.tags_quarantined.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_state_of_a_plc_without_a_signature_is_read_without_one() {
    let answers = |request: &plan::ReadRequest| {
        let end = request.first + request.count;
        if end > PLC_R + 15 {
            return (Duration::ZERO, Err(RequestError::Refused(2)));
        }
        let mut words = vec![0; request.count.into()];
        match request.first {
            PLC_R => (words[0], words[12]) = (0x101A, 2),
            _ if request.first == PLC_R + 12 => words[0] = 1,
            _ => {}
        }
        (Duration::ZERO, Ok(Registers::Words(words)))
    };
    let mut world =
        PollerHarness::start(plc("M251", &[("%MW0", 1000)]), FakePlc::answering_with(answers));
    let mut states = Vec::new();
    while world.elapsed() < SECOND * 35 {
        if let PlcEvent::State { state: PlcState::Connected { program, .. }, .. } =
            world.event().await
        {
            let ProgramStatus { state, signature, .. } = program.expect("it has a state");
            states.push((state, signature));
        }
    }
    assert_eq!(states, [(ProgramState::Running, None), (ProgramState::Stopped, None)]);
    let asked =
        world.fake.wire_events().into_iter().filter(|seen| *seen == WireEvent::Read(PLC_R)).count();
    assert_eq!(asked, 2);
}

#[tokio::test(start_paused = true)]
async fn a_plc_that_does_not_answer_its_identity_is_polled_all_the_same() {
    let answers = |request: &plan::ReadRequest| match request.first {
        PLC_R => (SECOND, Err(RequestError::TimedOut(SECOND))),
        _ => echo_addresses(request),
    };
    let mut world =
        PollerHarness::start(plc("M241", &[("%MW3", 1000)]), FakePlc::answering_with(answers));
    let mut good = 0;
    while world.elapsed() < SECOND * 3600 {
        if let PlcEvent::Cycle(cycle) = world.event().await {
            good += u32::from(cycle.results[0].outcome.is_ok());
        }
    }
    assert!(good > 3500, "{good}");
    assert!(world.connects().len() < 12, "{} connects", world.connects().len());
}
