//! What a PLC tells of itself and of its program, as bytes of a simulated one, in virtual time.

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::under_mischief::Memory;
use provisioning::plan::plan;

use super::*;
use crate::simulate::{Handle, Program as Simulated, Settings, SimulatedPlc, State as Mode, serve};

/// Longest until a change is noticed: the time between two looks, and a request.
const NOTICED: Duration = Duration::from_secs(11);

struct Site {
    handle: Handle,
    events: mpsc::Receiver<Event>,
    start: time::Instant,
    _tasks: JoinSet<()>,
}

impl Site {
    async fn new(mode: Mode) -> Self {
        let mut settings = Settings::new("M241".parse().unwrap()).unwrap();
        (settings.program, settings.mast, settings.state) = (Simulated::Idle, Duration::ZERO, mode);
        let simulated = SimulatedPlc::new(settings);
        let handle = simulated.handle();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(simulated, listener, CancellationToken::new()));
        let config = plc("M241", &[("%MW0", 1000)]);
        let (events_in, events) = mpsc::channel(1);
        let (_, metrics) = support::metrics(&config);
        let memory = Memory::new(&handle, &config);
        let target = Target { plc: 0, plan: plan(&config), config, metrics };
        let link = Link { targets: vec![target], phase: 0.0 };
        let poller = Poller::new(link, memory, events_in, fastrand::Rng::with_seed(7));
        tasks.spawn(poller.run(CancellationToken::new()));
        Self { handle, events, start: time::Instant::now(), _tasks: tasks }
    }

    async fn event(&mut self) -> Event {
        self.events.recv().await.expect("the poller runs")
    }

    /// The next thing that changed; within a bounded time.
    async fn change(&mut self) -> Change {
        let since = time::Instant::now();
        loop {
            assert!(since.elapsed() < NOTICED, "not noticed");
            if let Event::Changed { change, .. } = self.event().await {
                return change;
            }
        }
    }

    /// The next state that is told.
    async fn program(&mut self) -> Program {
        loop {
            if let Event::State { state, .. } = self.event().await {
                let State::Connected { program, .. } = state else { panic!("{state:?}") };
                return program.expect("a Modicon tells");
            }
        }
    }

    async fn is_stopped(&mut self) -> bool {
        loop {
            if let Event::Cycle(cycle) = self.event().await {
                assert!(cycle.reads[0].outcome.is_ok(), "a stopped PLC answers");
                return cycle.is_stopped;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_halting_and_starting_a_program_is_noticed_within_ten_seconds() {
    let mut site = Site::new(Mode::Running).await;
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
        let told = site.program().await;
        assert_eq!(told.state, is);
        assert_eq!(site.change().await, Change::State { was, is, cause });
        assert_eq!(site.is_stopped().await, is != running);
        was = is;
    }
    assert_eq!(site.handle.counts().await.unwrap().connects, 1);
}

#[tokio::test(start_paused = true)]
async fn a_plc_that_does_not_run_from_the_start_never_gives_a_good_value() {
    let mut site = Site::new(Mode::Stopped).await;
    assert_eq!(site.program().await.state, ProgramState::Stopped);
    assert!(site.is_stopped().await);
}

#[tokio::test(start_paused = true)]
async fn another_program_and_another_plc_are_told_once() {
    let mut site = Site::new(Mode::Running).await;
    let first = site.program().await.signature.unwrap();
    site.handle.set_signature([1, 2, 3, 4]).await.unwrap();
    let (is, next) = (Signature([1, 2, 3, 4]), Signature([1, 2, 3, 5]));
    assert_eq!(site.change().await, Change::Program { was: first, is });

    // A download takes the connection with it; what is noticed is noticed all the same.
    site.handle.switch_off().await.unwrap();
    site.handle.set_signature([1, 2, 3, 5]).await.unwrap();
    site.handle.set_serial_number(4711).await.unwrap();
    site.is_unreachable().await;
    site.handle.switch_on().await.unwrap();
    let (mut changes, back) = (Vec::new(), time::Instant::now());
    while back.elapsed() < SECOND * 60 {
        if let Event::Changed { change, .. } = site.event().await {
            changes.push(change);
        }
    }
    let device = Change::Device { was: 80_201_001, is: 4711 };
    assert_eq!(changes, [device, Change::Program { was: is, is: next }]);
}

impl Site {
    async fn is_unreachable(&mut self) {
        loop {
            if let Event::Cycle(cycle) = self.event().await
                && cycle.reads[0].outcome.is_err()
            {
                return;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_at_the_program_is_one_request_in_ten_seconds() {
    let mut site = Site::new(Mode::Running).await;
    while site.start.elapsed() < SECOND * 1000 {
        site.event().await;
    }
    let requests = site.handle.counts().await.unwrap().requests;
    assert!((1095..=1105).contains(&requests), "{requests}");
}

#[tokio::test(start_paused = true)]
async fn a_download_lets_tags_that_were_refused_be_tried_soon() {
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
    let mut world = World::start(plc("M241", &tags), FakePlc::answering(answers));
    while world.elapsed() < SECOND * 7230 + NOTICED + SECOND * 3 {
        world.event().await;
    }
    assert_eq!(world.words(&[0, 1]).await, [Ok(0), Ok(900)]);
    assert_eq!(world.link_metrics.tags_quarantined.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_plc_without_a_signature_tells_its_state_and_is_not_asked_for_more() {
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
    let mut world = World::start(plc("M251", &[("%MW0", 1000)]), FakePlc::answering(answers));
    let mut states = Vec::new();
    while world.elapsed() < SECOND * 35 {
        if let Event::State { state: State::Connected { program, .. }, .. } = world.event().await {
            let Program { state, signature, .. } = program.expect("it tells");
            states.push((state, signature));
        }
    }
    assert_eq!(states, [(ProgramState::Running, None), (ProgramState::Stopped, None)]);
    let asked = world.fake.seen().into_iter().filter(|seen| *seen == Seen::Read(PLC_R)).count();
    assert_eq!(asked, 2);
}

#[tokio::test(start_paused = true)]
async fn a_plc_that_is_silent_about_itself_is_read_all_the_same() {
    let answers = |request: &plan::ReadRequest| match request.first {
        PLC_R => (SECOND, Err(RequestError::TimedOut(SECOND))),
        _ => right(request),
    };
    let mut world = World::start(plc("M241", &[("%MW3", 1000)]), FakePlc::answering(answers));
    let mut good = 0;
    while world.elapsed() < SECOND * 3600 {
        if let Event::Cycle(cycle) = world.event().await {
            good += u32::from(cycle.reads[0].outcome.is_ok());
        }
    }
    assert!(good > 3500, "{good}");
    assert!(world.connects().len() < 12, "{} connects", world.connects().len());
}
