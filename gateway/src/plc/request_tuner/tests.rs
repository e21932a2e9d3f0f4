use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use provisioning::plan;

use super::*;
use crate::model::Registers;
use crate::plc::tests::support;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: u32 = 3600;

#[test]
fn a_bad_register_in_a_joined_request_costs_no_other_tag_its_value() {
    let mut world = TunerHarness::new(0..120);
    world.device.bad.insert(77);
    assert_eq!(world.cycle(), good(0..120, &[77]));
    // One for the whole, and at most two for each of the 7 levels.
    assert!(world.device.asked <= 15, "{} requests", world.device.asked);
    for _ in 0..10 {
        assert_eq!(world.cycle(), good(0..120, &[77]));
    }
    assert_eq!(world.requests_in_a_cycle(), 2);
    assert_eq!(world.quarantined(), [77]);
}

#[test]
fn a_group_is_read_whole_or_refused_whole() {
    let mut world = TunerHarness::new(0..60);
    world.group(&[10, 11, 40]);
    world.device.bad.insert(50);
    assert_eq!(world.cycle(), good(0..60, &[50]), "the group is not affected");
    world.device.bad.insert(11);
    world.run(5);
    assert_eq!(world.cycle(), good(0..60, &[10, 11, 40, 50]));
    assert_eq!(world.quarantined(), [10, 11, 40, 50]);
    world.device.bad.clear();
    world.run(2 * HOUR);
    assert_eq!(world.cycle(), good(0..60, &[]));
}

#[test]
fn a_single_refusal_without_reason_has_no_lasting_effect() {
    for noise in 1..8 {
        let mut world = TunerHarness::new(0..60);
        world.device.noise = [(noise, 2)].into();
        let bad_cycles = (0..20).filter(|_| world.cycle() != good(0..60, &[])).count();
        assert_eq!(bad_cycles, 0, "refusal of request {noise}");
        assert_eq!(world.requests_in_a_cycle(), 1, "refusal of request {noise}");
        assert_eq!(world.learned(), LearnedLimits::default());
    }
}

#[test]
fn refusals_without_reason_during_a_split_have_no_lasting_effect() {
    for second in 2..8 {
        for third in second + 1..12 {
            let mut world = TunerHarness::new(0..60);
            world.device.noise = [(1, 2), (second, 3), (third, 2)].into();
            world.run(200);
            assert_eq!(world.cycle(), good(0..60, &[]), "refusals of {second} and {third}");
            assert_eq!(world.requests_in_a_cycle(), 1, "refusals of {second} and {third}");
            assert_eq!(world.learned(), LearnedLimits::default());
        }
    }
}

#[test]
fn a_gap_that_the_device_refuses_separates_the_tags_around_it() {
    let tags: Vec<u16> = (0..20).chain(25..40).chain(42..60).collect();
    let mut world = TunerHarness::new(tags.iter().copied());
    world.device.bad = (20..25).collect();
    let all: BTreeSet<u16> = tags.into_iter().collect();
    for _ in 0..5 {
        assert_eq!(world.cycle(), all);
    }
    assert_eq!(world.requests_in_a_cycle(), 2);
    let learned = world.learned();
    assert_eq!((learned.quarantined.len(), learned.max_gap), (0, Some(4)));
}

#[test]
fn a_quarantined_tag_is_retried_for_ever() {
    let mut world = TunerHarness::new(0..10);
    world.device.bad.insert(4);
    let asked_before = world.run(12 * HOUR);
    // Two requests a cycle; and for the tag the splits, and the retries of twelve hours.
    let trials = asked_before - 2 * 12 * u64::from(HOUR);
    assert!((15..40).contains(&trials), "{trials} requests for one tag");
    world.device.bad.clear();
    world.run(HOUR + 10);
    assert_eq!(world.cycle(), good(0..10, &[]));
    assert_eq!(world.requests_in_a_cycle(), 1);
    assert_eq!(world.learned(), LearnedLimits::default());
}

#[test]
fn refused_tags_are_retried_on_a_new_connection_and_when_a_neighbour_recovers() {
    let mut world = TunerHarness::new(0..40);
    world.device.bad = (0..40).collect();
    world.run(3 * HOUR);
    assert_eq!(world.quarantined().len(), 40);
    world.device.bad.clear();
    world.learning.retry_quarantined(world.now);
    world.run(15);
    assert_eq!(world.cycle(), good(0..40, &[]));

    world.device.bad = (10..20).collect();
    world.run(5 * HOUR);
    assert_eq!(world.quarantined(), (10..20).collect::<Vec<_>>());
    world.device.bad.clear();
    let mut waited = 0;
    while world.cycle().len() == 30 {
        waited += 1;
    }
    assert!(waited <= HOUR);
    world.run(10);
    assert_eq!(world.cycle(), good(0..40, &[]));
}

#[test]
fn the_longest_request_is_learned_from_exception_3() {
    for most in [1, 7, 50, 99] {
        let mut world = TunerHarness::new(0..100);
        world.device.longest = Some((most, LongRequest::Refuses(3)));
        world.run(if most == 1 { 10 } else { 0 });
        for _ in 0..10 {
            assert_eq!(world.cycle(), good(0..100, &[]), "{most}");
        }
        world.run(6 * HOUR);
        assert_eq!(
            world.learned(),
            LearnedLimits { max_words: Some(most), ..LearnedLimits::default() }
        );
        assert_eq!(world.requests_in_a_cycle(), 100_u64.div_ceil(u64::from(most)));
        world.device.longest = None;
        world.run(3 * HOUR);
        assert_eq!(world.requests_in_a_cycle(), 1);
        assert_eq!(world.learned(), LearnedLimits::default());
    }
}

#[test]
fn the_longest_request_is_learned_from_connections_that_are_closed() {
    let mut world = TunerHarness::new(0..100);
    world.device.longest = Some((50, LongRequest::Closes));
    world.run(10);
    assert_eq!(world.cycle(), good(0..100, &[]));
    world.run(24 * HOUR);
    assert_eq!(world.learned(), LearnedLimits { max_words: Some(50), ..LearnedLimits::default() });
    let lost = world.device.closes;
    assert!(lost < 45, "{lost} connections in a day");
}

#[test]
fn a_device_that_closes_every_connection_limits_no_length() {
    let mut world = TunerHarness::new(0..100);
    world.device.longest = Some((0, LongRequest::Closes));
    world.run(600);
    world.device.longest = None;
    world.run(HOUR);
    assert_eq!(world.cycle(), good(0..100, &[]));
    assert_eq!(world.requests_in_a_cycle(), 1);
}

#[test]
fn a_request_that_breaks_the_connection_while_it_is_split_is_quarantined() {
    let mut world = TunerHarness::new(0..16);
    world.device.bad.insert(3);
    world.device.deadly.insert(3);
    // The joined request is refused; read alone, the register breaks the connection.
    world.run(20);
    let lost = world.device.closes;
    world.run(6 * HOUR);
    assert_eq!(world.cycle(), good(0..16, &[3]));
    assert!(lost <= 4 && world.device.closes <= lost + 20, "{}", world.device.closes);
}

#[test]
fn other_exceptions_split_nothing() {
    for code in [1, 4, 6, 10, 11] {
        let mut world = TunerHarness::new(0..60);
        world.device.noise = [(1, code)].into();
        assert_eq!(world.cycle(), BTreeSet::new());
        assert_eq!(world.device.asked, 1);
        assert_eq!(world.cycle(), good(0..60, &[]));
        assert_eq!(world.learned(), LearnedLimits::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// For any bad registers, every good tag is soon read in every cycle, and only bad ones are
    /// quarantined, with few requests; when the registers recover, so do the tags.
    #[test]
    fn only_bad_tags_are_quarantined_and_recovered_ones_return(
        tags in proptest::collection::btree_set(0_u16..200, 1..60),
        bad in proptest::collection::btree_set(0_u16..200, 0..30),
        code in 2_u8..=3,
    ) {
        let mut world = TunerHarness::new(tags.iter().copied());
        world.device.bad = bad.clone();
        world.device.code = code;
        let good: BTreeSet<u16> = tags.difference(&bad).copied().collect();
        let asked = world.run(200);
        // The plan has at most two requests. Each bad register divides one of them once or twice,
        // and costs one or two sequences of splits.
        let (n, facts) = (tags.len() as u64, 2 * bad.len() as u64 + 2);
        let bound = 200 * facts.min(n) + 4 * facts * (2 * u64::from(n.ilog2()) + 3) + 8 * n;
        prop_assert!(asked <= bound, "{asked} requests of {bound}");
        for _ in 0..100 {
            prop_assert_eq!(&world.cycle(), &good);
        }
        let expected: Vec<u16> = tags.intersection(&bad).copied().collect();
        prop_assert_eq!(world.quarantined(), expected);

        world.device.bad.clear();
        world.run(HOUR + HOUR / 4);
        prop_assert_eq!(world.cycle(), tags);
        prop_assert_eq!(world.learned(), LearnedLimits::default());
    }
}

/// A PLC with bad registers that is read once a second.
struct TunerHarness {
    plc: Plc,
    learning: RequestTuner,
    device: FakeDevice,
    now: Instant,
}

#[derive(Default)]
struct FakeDevice {
    bad: BTreeSet<u16>,
    /// Registers that close the connection when they are read alone.
    deadly: BTreeSet<u16>,
    /// Exception code for bad registers.
    code: u8,
    /// Longest request, and the answer to longer ones.
    longest: Option<(u16, LongRequest)>,
    /// Requests that are refused without reason, counted from 1, with their exception codes.
    noise: BTreeMap<u64, u8>,
    asked: u64,
    closes: u64,
}

#[derive(Clone, Copy)]
enum LongRequest {
    Refuses(u8),
    Closes,
}

impl TunerHarness {
    fn new(registers: impl IntoIterator<Item = u16>) -> Self {
        let addresses: Vec<_> = registers.into_iter().map(|n| format!("holding:{n}")).collect();
        let tags: Vec<_> = addresses.iter().map(|at| (at.as_str(), 1000)).collect();
        let mut plc = support::plc("generic", &tags);
        plc.max_gap = 124;
        let learning = RequestTuner::new(&plc, &plan::plan(&plc));
        let device = FakeDevice { code: 2, ..FakeDevice::default() };
        Self { plc, learning, device, now: Instant::now() }
    }

    /// Puts these registers into a group, before the first cycle.
    fn group(&mut self, registers: &[u16]) {
        for tag in Arc::make_mut(&mut self.plc.tags) {
            if registers.contains(&tag.location.first) {
                tag.group = Some("group".to_owned());
            }
        }
        self.learning = RequestTuner::new(&self.plc, &plan::plan(&self.plc));
    }

    /// Runs one cycle. Returns the registers of tags with a value; fails when a tag is read twice.
    fn cycle(&mut self) -> BTreeSet<u16> {
        self.now += SECOND;
        let now = self.now;
        let agenda = self.learning.next_requests(0, now).unwrap();
        let mut got = BTreeSet::new();
        let mut take = |request: &ReadRequest, outcome: &ReadOutcome| {
            if outcome.is_ok() {
                let tags = request.tags.iter().map(|&tag| self.plc.tags[tag].location.first);
                tags.for_each(|tag| assert!(got.insert(tag), "{tag} was read twice"));
            }
        };
        let mut is_connected = true;
        for (request, part) in agenda.requests.iter().zip(agenda.ranges.iter()) {
            if !is_connected {
                break;
            }
            let outcome = self.device.answer(request);
            is_connected = outcome != Err(ReadFailure::Unreachable);
            if !is_connected {
                self.learning.on_peer_close(0, part, now);
            }
            if self.learning.on_answer(0, part, &outcome, now) == AnswerVerdict::Final {
                take(request, &outcome);
            }
        }
        for _ in 0..16 {
            let Some(split) = is_connected.then(|| self.learning.next_split(0)).flatten() else {
                break;
            };
            let requests = split.halves.each_ref().map(|half| half.request.clone());
            let outcomes = requests.each_ref().map(|request| {
                let outcome = match is_connected {
                    true => self.device.answer(request),
                    false => Err(ReadFailure::Unreachable),
                };
                is_connected &= outcome != Err(ReadFailure::Unreachable);
                outcome
            });
            let verdicts = self.learning.on_split_answers(0, split, outcomes.each_ref(), now);
            for ((request, outcome), verdict) in requests.iter().zip(&outcomes).zip(verdicts) {
                if verdict == AnswerVerdict::Final {
                    take(request, outcome);
                }
            }
        }
        if !is_connected {
            self.learning.retry_quarantined(now);
        }
        got
    }

    /// Runs this number of cycles. Returns the number of their requests.
    fn run(&mut self, cycles: u32) -> u64 {
        let before = self.device.asked;
        for _ in 0..cycles {
            self.cycle();
        }
        self.device.asked - before
    }

    fn requests_in_a_cycle(&mut self) -> u64 {
        self.run(1)
    }

    fn learned(&self) -> LearnedLimits {
        self.learning.learned_limits(&self.plc)
    }

    fn quarantined(&self) -> Vec<u16> {
        let addresses = self.learned().quarantined.into_iter().map(|quarantined| quarantined.at);
        addresses.map(|at| at.strip_prefix("holding:").unwrap().parse().unwrap()).collect()
    }
}

impl FakeDevice {
    fn answer(&mut self, request: &ReadRequest) -> ReadOutcome {
        self.asked += 1;
        if let Some(&code) = self.noise.get(&self.asked) {
            return Err(ReadFailure::Refused(code));
        }
        if let Some((most, then)) = self.longest
            && request.count > most
        {
            return match then {
                LongRequest::Refuses(code) => Err(ReadFailure::Refused(code)),
                LongRequest::Closes => self.close(),
            };
        }
        if request.count == 1 && self.deadly.contains(&request.first) {
            return self.close();
        }
        let mut registers = request.first..request.first + request.count;
        if registers.any(|register| self.bad.contains(&register)) {
            return Err(ReadFailure::Refused(self.code));
        }
        Ok(Registers::Words(vec![0; request.count.into()]))
    }

    fn close(&mut self) -> ReadOutcome {
        self.closes += 1;
        Err(ReadFailure::Unreachable)
    }
}

fn good(registers: Range<u16>, bad: &[u16]) -> BTreeSet<u16> {
    registers.filter(|register| !bad.contains(register)).collect()
}
