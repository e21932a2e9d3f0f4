//! Weeks of random, overlapping faults: two hubs, each with one address that works and one that
//! does not.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tunnel::TunnelEvent;
use virtual_time::{NetworkConditions, World, clock, memory};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Interval of MQTT's pings. A reply proves that the hub is up without a handshake, which is what
/// takes the most time in a test.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Time to a session after all faults have ended: the longest pause for each address of a hub, and
/// the network's delay.
const RECOVERY_LIMIT: Duration = Duration::from_secs(61);

/// A fault.
#[derive(Clone, Copy, Debug)]
enum Fault {
    LinkDown,
    HubUnreachable(usize),
    HubRestarts(usize),
    HubStopped(usize),
    SiteRestarts,
    SiteAddressChanges(u8),
    PortForgotten,
    NetworkChanges,
    MachineSuspended(Duration),
    ClockSetLate(Duration),
    ClockAhead(Duration),
    HalfOfPacketsLost,
    DnsUnavailable,
    SlowAndReordered,
}

impl Fault {
    fn random(random: &mut fastrand::Rng) -> Self {
        let hub = random.usize(..2);
        match random.u8(..14) {
            0 => Self::LinkDown,
            1 => Self::HubUnreachable(hub),
            2 => Self::HubRestarts(hub),
            3 => Self::HubStopped(hub),
            4 => Self::SiteRestarts,
            5 => Self::SiteAddressChanges(random.u8(..)),
            6 => Self::PortForgotten,
            7 => Self::NetworkChanges,
            8 => Self::MachineSuspended(MINUTE * random.u32(1..600)),
            9 => Self::ClockSetLate(MINUTE * random.u32(1..600)),
            // Less than the calm that follows, so that it is over before the next restart.
            10 => Self::ClockAhead(MINUTE * random.u32(1..50)),
            11 => Self::HalfOfPacketsLost,
            12 => Self::DnsUnavailable,
            _ => Self::SlowAndReordered,
        }
    }

    fn begin(self, world: &mut World) {
        match self {
            Self::LinkDown => world.network.unreachable_hosts.extend(hubs(world)),
            Self::HubUnreachable(hub) => {
                world.network.unreachable_hosts.insert(hubs(world)[hub]);
            }
            Self::HubRestarts(hub) => world.start_hub(hub),
            Self::HubStopped(hub) => world.stop_hub(hub),
            Self::SiteRestarts => world.restart_site(),
            Self::SiteAddressChanges(last) => world.site_address.set_ip([203, 0, 113, last].into()),
            Self::PortForgotten => drop(world.network.forgotten_ports.insert(world.site_address)),
            Self::NetworkChanges => {
                world.network.forgotten_ports.insert(world.site_address);
                world.send_event(TunnelEvent::NetworkChanged);
            }
            Self::MachineSuspended(time) => clock::suspend(time),
            Self::ClockSetLate(by) => {
                clock::step_back(by);
                world.restart_site();
            }
            Self::ClockAhead(by) => clock::step_forward(by),
            Self::HalfOfPacketsLost => world.network.impairment.conditions.loss = 0.5,
            Self::DnsUnavailable => world.dns.clear(),
            Self::SlowAndReordered => {
                let conditions = &mut world.network.impairment.conditions;
                (conditions.delay, conditions.jitter) = (2 * SECOND, 2 * SECOND);
                (conditions.duplicate, conditions.corrupt) = (0.1, 0.05);
            }
        }
    }

    /// Ends a fault that does not end without help.
    fn end(self, world: &mut World) {
        match self {
            Self::HubStopped(hub) => world.start_hub(hub),
            Self::ClockSetLate(by) => clock::step_forward(by),
            Self::ClockAhead(by) => clock::step_back(by),
            _ => {}
        }
    }
}

fn hubs(world: &World) -> [IpAddr; 2] {
    [0, 1].map(|hub| world.hubs[hub].address.ip())
}

/// A world with random faults.
struct FaultedWorld {
    world: World,
    random: fastrand::Rng,
    names: std::collections::BTreeMap<String, Vec<IpAddr>>,
}

impl FaultedWorld {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed, 2);
        let broken: IpAddr = "2001:db8::1".parse().expect("an address");
        for addresses in world.dns.values_mut() {
            addresses.insert(0, broken);
        }
        let names = world.dns.clone();
        world.restart_site();
        Self { world, random: fastrand::Rng::with_seed(seed), names }
    }

    /// Injects one to three faults that overlap, then ends them.
    fn inject_faults(&mut self) -> Vec<Fault> {
        let count = self.random.usize(1..4);
        let mut faults: Vec<_> = (0..count).map(|_| Fault::random(&mut self.random)).collect();
        if faults.iter().any(|fault| matches!(fault, Fault::ClockAhead(_))) {
            // A site that starts with a clock that is ahead must wait until it is right.
            faults.retain(|fault| !matches!(fault, Fault::SiteRestarts | Fault::ClockSetLate(_)));
        }
        self.world.ping_interval = Some(PING_INTERVAL);
        for fault in &faults {
            fault.begin(&mut self.world);
            self.world.run_for(SECOND * self.random.u32(1..1_800));
        }
        for fault in &faults {
            fault.end(&mut self.world);
        }
        let network = &mut self.world.network;
        network.unreachable_hosts.clear();
        network.forgotten_ports.clear();
        network.impairment.conditions = NetworkConditions::default();
        self.world.dns.clone_from(&self.names);
        faults
    }

    /// Returns whether a packet is answered within [`RECOVERY_LIMIT`].
    fn recovers(&mut self) -> bool {
        self.world.ping_interval = Some(SECOND);
        self.world.is_answered_within(RECOVERY_LIMIT)
    }

    /// Runs for some hours, in each of which at most one packet is lost: when the first hub is used
    /// again.
    fn assert_calm(&mut self, faults: &[Fault]) {
        for _ in 0..self.random.u32(1..4) {
            self.world.ping_interval = None;
            // Datagrams of a slow link are still in flight.
            self.world.run_for(10 * SECOND);
            self.world.received_at_site.clear();
            let sent = self.world.pings_sent();
            self.world.ping_interval = Some(PING_INTERVAL);
            self.world.run_for(HOUR);
            self.world.ping_interval = None;
            self.world.run_for(2 * SECOND);
            let lost = self.world.pings_sent() - sent - self.world.received_at_site.len() as u64;
            assert!(lost <= 1, "{lost} lost in an hour after {faults:?}");
        }
        (self.world.received_at_site, self.world.received_at_hubs) = (Vec::new(), Vec::new());
    }
}

fn run_scenario(seed: u64) {
    let mut faulted = FaultedWorld::new(seed);
    let start = Instant::now();
    let (mut injected, mut baseline) = (0, None);
    while start.elapsed() < 24 * DAY {
        let faults = faulted.inject_faults();
        assert!(faulted.recovers(), "seed {seed}, {faults:?}: {:?}", faulted.world.report());
        faulted.assert_calm(&faults);
        injected += faults.len();
        if start.elapsed() > 2 * DAY {
            baseline.get_or_insert_with(memory::allocated_bytes);
        }
    }
    let grown = memory::allocated_bytes() - baseline.unwrap_or_default();
    assert!(grown < 16 * 1024, "seed {seed}: {grown} bytes in {injected} faults");
    assert!(injected > 300, "seed {seed}: {injected}");
    assert_eq!(faulted.world.report().counters.panics, 0);
}

/// `E2E_SEED` sets the first seed, and `E2E_LIVES` the number of seeds.
#[test]
fn in_24_days_of_faults_a_session_is_up_61_s_after_each_and_memory_does_not_grow() {
    let first = test_settings::SEED.number_or(80);
    for seed in first..first + test_settings::LIVES.number() {
        run_scenario(seed);
    }
}

#[test]
fn memory_does_not_grow_in_twelve_almost_idle_days() {
    let mut world = World::with_settings(81, 1, |settings| settings.keep_alive = None);
    world.ping_interval = Some(10 * MINUTE);
    world.run_for(2 * DAY);
    (world.received_at_site, world.received_at_hubs) = (Vec::new(), Vec::new());
    let before = memory::allocated_bytes();
    world.run_for(10 * DAY);
    assert_eq!(world.received_at_site.len(), 10 * 24 * 6);
    (world.received_at_site, world.received_at_hubs) = (Vec::new(), Vec::new());
    let grown = memory::allocated_bytes() - before;
    assert!(grown < 1024, "{grown} bytes");
}
