//! Weeks of what happens to a box that nobody looks after: two hubs, each with an address that leads
//! nowhere beside the one that works, and troubles that overlap.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tunnel::Event;
use virtual_time::{Conditions, World, clock, memory};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// MQTT's. What is answered needs no handshake to show that the hub lives, which costs a test the most.
const PING: Duration = Duration::from_secs(30);
/// A session is there so long after all is well again: the longest pause for each address of a hub, and
/// the way.
const BACK: Duration = Duration::from_secs(61);

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    LineCut,
    HubCut(usize),
    HubRestarts(usize),
    HubAway(usize),
    SiteRestarts,
    AddressChanges(u8),
    PortForgotten,
    OtherNetwork,
    Suspended(Duration),
    ClockSetLate(Duration),
    ClockAhead(Duration),
    HalfIsLost,
    NoDns,
    SlowAndReordered,
}

impl Trouble {
    fn any(random: &mut fastrand::Rng) -> Self {
        let hub = random.usize(..2);
        match random.u8(..14) {
            0 => Self::LineCut,
            1 => Self::HubCut(hub),
            2 => Self::HubRestarts(hub),
            3 => Self::HubAway(hub),
            4 => Self::SiteRestarts,
            5 => Self::AddressChanges(random.u8(..)),
            6 => Self::PortForgotten,
            7 => Self::OtherNetwork,
            8 => Self::Suspended(MINUTE * random.u32(1..600)),
            9 => Self::ClockSetLate(MINUTE * random.u32(1..600)),
            // By less than the quiet that follows, before the next restart.
            10 => Self::ClockAhead(MINUTE * random.u32(1..50)),
            11 => Self::HalfIsLost,
            12 => Self::NoDns,
            _ => Self::SlowAndReordered,
        }
    }

    fn begin(self, world: &mut World) {
        match self {
            Self::LineCut => world.network.cut.extend(hubs(world)),
            Self::HubCut(hub) => drop(world.network.cut.insert(hubs(world)[hub])),
            Self::HubRestarts(hub) => world.start_hub(hub),
            Self::HubAway(hub) => world.stop_hub(hub),
            Self::SiteRestarts => world.restart_site(),
            Self::AddressChanges(last) => world.outside.set_ip([203, 0, 113, last].into()),
            Self::PortForgotten => drop(world.network.dead.insert(world.outside)),
            Self::OtherNetwork => {
                world.network.dead.insert(world.outside);
                world.tell(Event::NetworkChanged);
            }
            Self::Suspended(time) => clock::sleep(time),
            Self::ClockSetLate(by) => {
                clock::step_back(by);
                world.restart_site();
            }
            Self::ClockAhead(by) => clock::step_forward(by),
            Self::HalfIsLost => world.network.impairment.conditions.loss = 0.5,
            Self::NoDns => world.names.clear(),
            Self::SlowAndReordered => {
                let conditions = &mut world.network.impairment.conditions;
                (conditions.delay, conditions.jitter) = (2 * SECOND, 2 * SECOND);
                (conditions.duplicate, conditions.corrupt) = (0.1, 0.05);
            }
        }
    }

    /// What does not end by itself.
    fn end(self, world: &mut World) {
        match self {
            Self::HubAway(hub) => world.start_hub(hub),
            Self::ClockSetLate(by) => clock::step_forward(by),
            Self::ClockAhead(by) => clock::step_back(by),
            _ => {}
        }
    }
}

fn hubs(world: &World) -> [IpAddr; 2] {
    [0, 1].map(|hub| world.hubs[hub].address.ip())
}

/// A world that lives.
struct Life {
    world: World,
    random: fastrand::Rng,
    names: std::collections::BTreeMap<String, Vec<IpAddr>>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed, 2);
        let broken: IpAddr = "2001:db8::1".parse().expect("an address");
        for addresses in world.names.values_mut() {
            addresses.insert(0, broken);
        }
        let names = world.names.clone();
        world.restart_site();
        Self { world, random: fastrand::Rng::with_seed(seed), names }
    }

    /// One to three troubles that overlap, and then a good line.
    fn suffer(&mut self) -> Vec<Trouble> {
        let count = self.random.usize(1..4);
        let mut troubles: Vec<_> = (0..count).map(|_| Trouble::any(&mut self.random)).collect();
        if troubles.iter().any(|trouble| matches!(trouble, Trouble::ClockAhead(_))) {
            // Whoever starts with a clock that is ahead has to wait until it is right: no cure is known.
            troubles.retain(|trouble| {
                !matches!(trouble, Trouble::SiteRestarts | Trouble::ClockSetLate(_))
            });
        }
        self.world.talk = Some(PING);
        for trouble in &troubles {
            trouble.begin(&mut self.world);
            self.world.run_for(SECOND * self.random.u32(1..1_800));
        }
        for trouble in &troubles {
            trouble.end(&mut self.world);
        }
        let network = &mut self.world.network;
        network.cut.clear();
        network.dead.clear();
        network.impairment.conditions = Conditions::default();
        self.world.names.clone_from(&self.names);
        troubles
    }

    /// Whether something is answered soon.
    fn is_back(&mut self) -> bool {
        self.world.talk = Some(SECOND);
        self.world.heard_within(BACK)
    }

    /// An hour or more of which each loses a packet at most: that of a change back to the first hub.
    fn be_calm(&mut self, troubles: &[Trouble]) {
        for _ in 0..self.random.u32(1..4) {
            self.world.talk = None;
            // What was sent on a slow line is still under way.
            self.world.run_for(10 * SECOND);
            self.world.received.clear();
            let sent = self.world.pinged();
            self.world.talk = Some(PING);
            self.world.run_for(HOUR);
            self.world.talk = None;
            self.world.run_for(2 * SECOND);
            let lost = self.world.pinged() - sent - self.world.received.len() as u64;
            assert!(lost <= 1, "{lost} lost in an hour after {troubles:?}");
        }
        (self.world.received, self.world.arrived) = (Vec::new(), Vec::new());
    }
}

fn live(seed: u64) {
    let mut life = Life::new(seed);
    let start = Instant::now();
    let (mut suffered, mut settled) = (0, None);
    while start.elapsed() < 24 * DAY {
        let troubles = life.suffer();
        assert!(life.is_back(), "seed {seed}, {troubles:?}: {:?}", life.world.report());
        life.be_calm(&troubles);
        suffered += troubles.len();
        if start.elapsed() > 2 * DAY {
            settled.get_or_insert_with(memory::held);
        }
    }
    let grown = memory::held() - settled.unwrap_or_default();
    assert!(grown < 16 * 1024, "seed {seed}: {grown} bytes in {suffered} troubles");
    assert!(suffered > 300, "seed {seed}: {suffered}");
    assert_eq!(life.world.report().counters.panics, 0);
}

/// A setting of the environment.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// `E2E_SEED` chooses the life, and `E2E_LIVES` how many are lived from there on.
#[test]
fn in_24_days_of_trouble_a_session_is_there_61_s_after_each_and_memory_does_not_grow() {
    let first = number("E2E_SEED", 80);
    for seed in first..first + number("E2E_LIVES", 1) {
        live(seed);
    }
}

#[test]
fn a_tunnel_that_nearly_nothing_happens_to_for_twelve_days_does_not_grow() {
    let mut world = World::with(81, 1, |settings| settings.keep_alive = None);
    world.talk = Some(10 * MINUTE);
    world.run_for(2 * DAY);
    (world.received, world.arrived) = (Vec::new(), Vec::new());
    let before = memory::held();
    world.run_for(10 * DAY);
    assert_eq!(world.received.len(), 10 * 24 * 6);
    (world.received, world.arrived) = (Vec::new(), Vec::new());
    let grown = memory::held() - before;
    assert!(grown < 1024, "{grown} bytes");
}
