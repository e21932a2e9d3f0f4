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
    world.device.bad.insert(77, DeviceReply::Refused(2));
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
    world.device.bad.insert(50, DeviceReply::Refused(2));
    assert_eq!(world.cycle(), good(0..60, &[50]), "the group is not affected");
    world.device.bad.insert(11, DeviceReply::Refused(2));
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
    world.device.refuse(20..25);
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
    world.device.bad.insert(4, DeviceReply::Refused(2));
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
    world.device.refuse(0..40);
    world.run(3 * HOUR);
    assert_eq!(world.quarantined().len(), 40);
    world.device.bad.clear();
    world.learning.retry_quarantined(world.now);
    world.run(15);
    assert_eq!(world.cycle(), good(0..40, &[]));

    world.device.refuse(10..20);
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
        world.device.longest = Some((most, DeviceReply::Refused(3)));
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
fn the_longest_request_is_learned_from_requests_that_are_not_answered() {
    for rejected in
        [DeviceReply::Lost(LostSession::TimedOut), DeviceReply::Refused(4), DeviceReply::Refused(0)]
    {
        for most in [7, 16, 50, 99] {
            let mut world = TunerHarness::new(0..100);
            world.device.longest = Some((most, rejected));
            world.run(10);
            assert_eq!(world.cycle(), good(0..100, &[]), "{most} with {rejected:?}");
            let lost = world.device.lost;
            world.run(if most == 16 { 4 * HOUR } else { HOUR / 4 });
            if most != 16 {
                continue;
            }
            let learned = LearnedLimits { max_words: Some(most), ..LearnedLimits::default() };
            assert_eq!(world.learned(), learned, "{rejected:?}");
            assert!(world.device.lost < lost + 40, "{} connections", world.device.lost);
            world.device.longest = None;
            world.run(3 * HOUR);
            assert_eq!(world.requests_in_a_cycle(), 1);
            assert_eq!(world.learned(), LearnedLimits::default());
        }
    }
}

#[test]
fn the_longest_requests_of_registers_and_of_bits_are_learned_apart() {
    let all: BTreeSet<u16> = (0..100).chain(1000..1100).collect();
    for (words, bits) in [(100, 20), (30, 10)] {
        let mut world = TunerHarness::with_bits(0..100, 1000..1100);
        world.device.longest = Some((words, DeviceReply::Refused(3)));
        world.device.longest_bits = Some((bits, DeviceReply::Refused(3)));
        world.run(2 * HOUR);
        assert_eq!(world.cycle(), all);
        let expected = 100_u64.div_ceil(words.into()) + 100_u64.div_ceil(bits.into());
        assert_eq!(world.requests_in_a_cycle(), expected, "{words} registers, {bits} bits");
        // What is reported is for the settings of the PLC, and bits have none.
        assert_eq!(world.learned().max_words, (words < 100).then_some(words));
        (world.device.longest, world.device.longest_bits) = (None, None);
        world.run(HOUR);
        assert_eq!(world.requests_in_a_cycle(), 2);
    }
}

#[test]
fn a_longer_request_that_is_not_answered_costs_one_connection_and_no_search() {
    let mut world = TunerHarness::new(0..100);
    world.device.longest = Some((16, DeviceReply::Lost(LostSession::TimedOut)));
    world.run(60);
    let mut trials = 0;
    for _ in 0..HOUR {
        let lost = world.device.lost;
        world.cycle();
        if world.device.lost == lost {
            continue;
        }
        trials += 1;
        assert_eq!(world.device.lost, lost + 1);
        let longest = world.learned().max_words.unwrap();
        assert_eq!(world.requests_in_a_cycle(), 100_u64.div_ceil(longest.into()));
    }
    assert!(trials > 1, "{trials} trials");
}

#[test]
fn a_length_that_is_rejected_in_one_scan_class_is_not_sent_in_another() {
    let registers = |numbers: Range<u16>, period| {
        numbers.map(move |number| (format!("holding:{number}"), period))
    };
    let mut world =
        TunerHarness::with_periods(registers(0..50, 1000).chain(registers(1000..1050, 2000)));
    world.device.longest = Some((20, DeviceReply::Refused(3)));
    for cycle in 0..200 {
        world.class = cycle % 2;
        world.cycle();
    }
    let mut trials = 0;
    for _ in 0..HOUR {
        // The cycle of this class ends before its requests are sent.
        world.class = 0;
        let unsent = world.learning.next_requests(0, world.now + SECOND).unwrap();
        world.class = 1;
        world.cycle();
        let (max, now) = (&world.learning.max_words, world.now);
        let (Some(longest), false) = (max.max_len(), max.is_trial_due(now)) else { continue };
        trials += u64::from(unsent.requests.iter().any(|request| request.count > longest));
        let list = world.learning.next_requests(0, now).unwrap();
        assert!(list.requests.iter().all(|request| request.count <= longest), "{longest}");
    }
    assert!(trials > 2, "{trials} trials");
}

#[test]
fn the_narrowest_gap_that_is_refused_counts_and_sixteen_bits_are_a_register() {
    let registers: Vec<u16> = (0..20).chain(25..40).collect();
    let coils: Vec<u16> = (1000..1020).chain(1070..1090).collect();
    let gaps = [20..25, 1020..1070];
    for (refused, expected) in [(&gaps[..1], 4), (&gaps[1..], 3), (&gaps[..], 3)] {
        let mut world = TunerHarness::with_bits(registers.clone(), coils.clone());
        let bad = refused.iter().cloned().flatten();
        world.device.bad = bad.map(|at| (at, DeviceReply::Refused(2))).collect();
        world.run(5);
        assert_eq!(world.learned().max_gap, Some(expected), "{refused:?}");
        assert_eq!(world.requests_in_a_cycle(), 2 + refused.len() as u64);
    }
}

#[test]
fn a_gap_over_which_the_session_ends_separates_the_tags_around_it() {
    for before in [15, 17, 18, 20] {
        let others: Vec<u16> = (1000..1000 + before).chain(1025..1040).collect();
        let mut world = TunerHarness::new((0..60).chain(others.iter().copied()));
        let lost = DeviceReply::Lost(LostSession::TimedOut);
        world.device.bad = (1020..1025).map(|at| (at, lost)).collect();
        world.run(100);
        let lost = world.device.lost;
        assert_eq!(world.cycle(), (0..60).chain(others).collect());
        world.run(100);
        let learned = world.learned();
        assert_eq!((learned.quarantined.len(), learned.max_words), (0, None));
        assert_eq!(learned.max_gap, Some(24 - before));
        // Whether they can be joined by now is tried after a minute, and then less and less often.
        assert!(world.device.lost - lost <= 2, "{} connections", world.device.lost - lost);
    }
}

/// Returns the first request of each of these cycles, all of which end over it.
fn scouts(world: &mut TunerHarness, cycles: usize) -> Vec<(u16, u16)> {
    let mut next_scout = || {
        world.learning.on_first_request_lost();
        let list = world.learning.next_requests(0, world.now).unwrap();
        assert!(list.starts_with_scout);
        (list.requests[0].first, list.requests[0].count)
    };
    (0..cycles).map(|_| next_scout()).collect()
}

#[test]
fn scouts_of_a_plc_that_never_answered_are_of_every_range_and_of_places_far_apart() {
    let mut world = TunerHarness::new((0..10).chain(1000..1010));
    let scouts = scouts(&mut world, 8);
    // The first of each range, the last of each, and others.
    assert_eq!(scouts[..4], [(1000, 1), (0, 1), (1009, 1), (9, 1)]);
    assert_eq!(scouts.iter().collect::<BTreeSet<_>>().len(), 8, "{scouts:?}");
}

#[test]
fn a_scout_is_a_register_that_was_answered_before() {
    let mut world = TunerHarness::new((0..10).chain(1000..1010));
    world.device.bad = (0..10).map(|at| (at, DeviceReply::Refused(4))).collect();
    world.run(1);
    assert_eq!(scouts(&mut world, 6), [(1000, 1); 6]);
}

#[test]
fn consecutive_scouts_are_far_apart_in_a_range_of_any_length() {
    for len in 8..300 {
        let places: Vec<usize> = (0..6).map(|number| spread(number, len)).collect();
        assert_eq!(places[..2], [0, len - 1]);
        assert!(places.iter().all(|place| *place < len));
        // On a ring, where the last is next to the first.
        let is_far = |pair: &[usize]| {
            let apart = pair[0].abs_diff(pair[1]);
            apart.min(len - apart) >= len / 8
        };
        assert!(places[1..].windows(2).all(is_far), "{places:?} of {len}");
    }
    assert_eq!([0, 1, 2].map(|number| spread(number, 1)), [0, 0, 0]);
}

#[test]
fn a_refused_request_is_unresolved_until_it_is_split() {
    let mut world = TunerHarness::new(0..10);
    let list = world.learning.next_requests(0, world.now).unwrap();
    let refused = Err(ReadFailure::Refused(2));
    let verdict = world.learning.on_answer(0, &list.ranges[0], &refused, world.now);
    assert_eq!(verdict, AnswerVerdict::Split);
    let unresolved: Vec<_> = world.learning.unresolved_requests(0).collect();
    assert_eq!(unresolved[..], list.requests[..]);
    world.learning.next_split(0).unwrap();
    assert_eq!(world.learning.unresolved_requests(0).count(), 0);
}

#[test]
fn nothing_is_built_again_while_nothing_is_learned() {
    let mut world = TunerHarness::new(0..60);
    world.device.bad.insert(7, DeviceReply::Refused(2));
    world.run(20);
    let [one, other] = [1, 2].map(|seconds| {
        world.learning.next_requests(0, world.now + SECOND * seconds).unwrap().requests
    });
    assert!(Arc::ptr_eq(&one, &other));
}

#[test]
fn a_plc_that_answers_others_is_searched_after_the_third_refusal() {
    for code in [1, 4] {
        let mut world = TunerHarness::new((0..10).chain(1000..1010));
        world.run(5);
        world.device.bad.insert(1005, DeviceReply::Refused(code));
        let all: BTreeSet<u16> = (0..10).chain(1000..1010).filter(|at| *at != 1005).collect();
        let without = (0..10).filter(|_| world.cycle() != all).count();
        assert_eq!(without, 2, "exception {code}");
        assert_eq!(world.quarantined(), [1005]);
    }
}

#[test]
fn a_device_that_loses_every_session_limits_no_length_and_quarantines_nothing() {
    let mut world = TunerHarness::new(0..100);
    world.device.longest = Some((0, DeviceReply::Lost(LostSession::Disconnected)));
    world.run(600);
    assert_eq!(world.learned(), LearnedLimits::default());
    world.device.longest = None;
    assert_eq!(world.cycle(), good(0..100, &[]));
    world.run(1);
    assert_eq!(world.requests_in_a_cycle(), 1);
}

#[test]
fn a_register_that_ends_the_session_alone_and_is_refused_in_company_is_quarantined() {
    let mut world = TunerHarness::new(0..16);
    world.device.bad.insert(3, DeviceReply::Refused(2));
    world.device.deadly.insert(3);
    world.run(20);
    let lost = world.device.lost;
    world.run(6 * HOUR);
    assert_eq!(world.cycle(), good(0..16, &[3]));
    assert!(lost <= 4 && world.device.lost <= lost + 20, "{}", world.device.lost);
}

#[test]
fn an_exception_that_may_be_temporary_splits_nothing_at_once() {
    for code in [0, 1, 4, 7, 8, 244] {
        let mut world = TunerHarness::new(0..60);
        world.device.noise = [(1, code), (2, code)].into();
        assert_eq!(world.cycle(), BTreeSet::new());
        assert_eq!(world.device.asked, 1);
        assert_eq!(world.cycle(), BTreeSet::new());
        assert_eq!(world.cycle(), good(0..60, &[]));
        assert_eq!(world.learned(), LearnedLimits::default());
    }
}

#[test]
fn a_plc_that_refuses_everything_for_a_time_has_nothing_in_quarantine_afterwards() {
    for code in [1, 4] {
        let mut world = TunerHarness::new(0..60);
        world.run(5);
        world.device.longest = Some((0, DeviceReply::Refused(code)));
        let asked = world.run(HOUR);
        assert!(asked < 2 * u64::from(HOUR), "{asked} requests");
        assert_eq!(world.learned(), LearnedLimits::default());
        world.device.longest = None;
        assert_eq!(world.cycle(), good(0..60, &[]));
    }
}

#[test]
fn whatever_the_plc_does_with_one_register_the_others_are_read_and_it_is_named() {
    for tags in [0..13, 0..120] {
        for bad in [tags.start, tags.end / 2, tags.end - 1] {
            for answer in REJECTIONS {
                let mut world = TunerHarness::new(tags.clone());
                world.device.bad.insert(bad, answer);
                world.run(10);
                for _ in 0..10 {
                    assert_eq!(world.cycle(), good(tags.clone(), &[bad]), "{bad}: {answer:?}");
                }
                assert_eq!(world.quarantined(), [bad], "{answer:?}");
                let list = world.learning.next_requests(0, world.now).unwrap();
                let failure = match answer {
                    DeviceReply::Refused(code) => ReadFailure::Refused(code),
                    DeviceReply::Lost(_) => ReadFailure::Unreachable,
                };
                assert_eq!(list.locations[usize::from(bad - tags.start)], Err(failure));
                let lost = world.device.lost;
                assert!(lost <= 7, "{lost} connections for register {bad} with {answer:?}");
            }
        }
    }
}

#[test]
fn a_rejected_register_is_retried_rarely_and_for_ever() {
    for answer in [DeviceReply::Refused(4), DeviceReply::Lost(LostSession::TimedOut)] {
        let mut world = TunerHarness::new(0..6);
        world.device.bad.insert(3, answer);
        world.run(10 * HOUR);
        assert!(world.device.lost < 25, "{} connections in ten hours", world.device.lost);
        world.device.bad.clear();
        world.run(HOUR + 30);
        assert_eq!(world.cycle(), good(0..6, &[]), "{answer:?}");
        assert_eq!(world.learned(), LearnedLimits::default());
    }
}

#[test]
fn a_register_that_was_answered_before_is_suspected_after_several_sessions() {
    for answer in REJECTIONS {
        let mut world = TunerHarness::new(0..40);
        world.run(10);
        world.device.bad.insert(7, answer);
        world.run(20);
        assert_eq!(world.cycle(), good(0..40, &[7]), "{answer:?}");
        assert_eq!(world.quarantined(), [7], "{answer:?}");
    }
}

#[test]
fn a_lost_session_without_reason_has_no_lasting_effect() {
    for noise in 1..8 {
        let mut world = TunerHarness::new(0..60);
        world.device.lost_at.insert(noise);
        world.run(100);
        assert_eq!(world.cycle(), good(0..60, &[]), "loss of request {noise}");
        assert_eq!(world.requests_in_a_cycle(), 1, "loss of request {noise}");
        assert_eq!(world.learned(), LearnedLimits::default());
    }
}

/// What a PLC may do with a request that it does not like.
const REJECTIONS: [DeviceReply; 10] = [
    DeviceReply::Refused(2),
    DeviceReply::Refused(3),
    DeviceReply::Refused(1),
    DeviceReply::Refused(4),
    DeviceReply::Refused(7),
    DeviceReply::Refused(0),
    DeviceReply::Refused(244),
    DeviceReply::Lost(LostSession::TimedOut),
    DeviceReply::Lost(LostSession::Disconnected),
    DeviceReply::Lost(LostSession::Garbled),
];

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
        world.device.bad = bad.iter().map(|at| (*at, DeviceReply::Refused(code))).collect();
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
    /// The scan class that is read.
    class: u16,
    /// What was reported of it last.
    reported: LearnedLimits,
    device: FakeDevice,
    /// Whether the session has answered; absent without one.
    session: Option<bool>,
    now: Instant,
}

#[derive(Default)]
struct FakeDevice {
    bad: BTreeMap<u16, DeviceReply>,
    /// Registers that end the session when they are read alone.
    deadly: BTreeSet<u16>,
    /// Longest request of registers, and the answer to longer ones.
    longest: Option<(u16, DeviceReply)>,
    /// The same for coils.
    longest_bits: Option<(u16, DeviceReply)>,
    /// Requests that are refused without reason, counted from 1, with their exception codes.
    noise: BTreeMap<u64, u8>,
    /// Requests over which the session ends without reason, counted from 1.
    lost_at: BTreeSet<u64>,
    asked: u64,
    lost: u64,
}

/// What a PLC does in place of a good answer.
#[derive(Clone, Copy, Debug)]
enum DeviceReply {
    Refused(u8),
    Lost(LostSession),
}

impl TunerHarness {
    fn new(registers: impl IntoIterator<Item = u16>) -> Self {
        Self::with_bits(registers, [])
    }

    /// Returns a PLC with these registers and these coils, of which no two have the same number.
    fn with_bits(
        registers: impl IntoIterator<Item = u16>,
        coils: impl IntoIterator<Item = u16>,
    ) -> Self {
        let registers = registers.into_iter().map(|n| format!("holding:{n}"));
        let coils = coils.into_iter().map(|n| format!("coil:{n}"));
        Self::with_periods(registers.chain(coils).map(|at| (at, 1000)))
    }

    /// Returns a PLC with a tag at each address, read with a period in milliseconds.
    fn with_periods(tags: impl IntoIterator<Item = (String, u64)>) -> Self {
        let tags: Vec<_> = tags.into_iter().collect();
        let tags: Vec<_> = tags.iter().map(|(at, period)| (at.as_str(), *period)).collect();
        let mut plc = support::plc("generic", &tags);
        plc.max_gap = 124;
        let learning = RequestTuner::new(&plc, &plan::plan(&plc));
        let device = FakeDevice::default();
        let reported = LearnedLimits::default();
        Self { plc, learning, class: 0, reported, device, session: None, now: Instant::now() }
    }

    /// Puts these registers into a group, before the first cycle.
    fn group(&mut self, registers: &[u16]) {
        for tag in Arc::make_mut(&mut self.plc.tags) {
            if registers.contains(&tag.location.first) {
                tag.group = Some("group".into());
            }
        }
        self.learning = RequestTuner::new(&self.plc, &plan::plan(&self.plc));
    }

    /// Runs one cycle as the poll task does. Returns the registers of tags with a value; fails when
    /// a tag is read twice.
    fn cycle(&mut self) -> BTreeSet<u16> {
        self.now += SECOND;
        let list = self.learning.next_requests(self.class, self.now).unwrap();
        self.check_locations(&list);
        let mut got = BTreeSet::new();
        let mut has_ended = false;
        let requests: Vec<_> = list.requests.iter().zip(list.ranges.iter()).collect();
        let (regular, search) = requests.split_at(list.regular);
        self.ask_all(regular, &mut got, &mut has_ended);
        self.split_all(&mut got, &mut has_ended);
        self.ask_all(search, &mut got, &mut has_ended);
        if !has_ended {
            self.learning.on_complete_cycle();
        }
        if let Some(changed) = self.learning.take_changes(&self.plc) {
            assert_ne!(changed, self.reported, "only changes are reported");
            self.reported = changed;
        }
        let learned = self.learning.learned_limits(&self.plc);
        assert_eq!(self.reported, learned, "every change is reported at once");
        got
    }

    /// Fails unless each tag is found in the request that reads it.
    fn check_locations(&self, list: &RequestList) {
        for (index, location) in list.locations.iter().enumerate() {
            let tag = self.learning.classes[usize::from(self.class)].tags[index];
            let mut reading = list.requests.iter().filter(|request| request.tags.contains(&tag));
            let read = reading.next().zip(location.ok());
            assert!(reading.next().is_none());
            let Some((request, TagLocation { result, offset })) = read else {
                assert!(location.is_err() && !list.requests.iter().any(|r| r.tags.contains(&tag)));
                continue;
            };
            assert_eq!(&list.requests[usize::from(result)], request);
            assert_eq!(request.first + offset, self.plc.tags[usize::from(tag)].location.first);
        }
    }

    fn ask_all(
        &mut self,
        requests: &[(&ReadRequest, &TagRange)],
        got: &mut BTreeSet<u16>,
        has_ended: &mut bool,
    ) {
        for (request, range) in requests {
            if *has_ended {
                break;
            }
            match self.ask(request) {
                Ok(outcome) => {
                    let verdict = self.learning.on_answer(self.class, range, &outcome, self.now);
                    if verdict == AnswerVerdict::Final {
                        self.take(request, &outcome, got);
                    }
                }
                Err((_, false)) => {
                    self.learning.on_first_request_lost();
                    *has_ended = true;
                }
                Err((failure, true)) => {
                    let verdict = self.learning.on_lost(self.class, range, failure, self.now);
                    *has_ended = verdict == LossVerdict::Unexplained;
                    // The poll task reads something again that was answered in this cycle.
                    self.session = (!got.is_empty()).then_some(true);
                }
            }
        }
    }

    fn split_all(&mut self, got: &mut BTreeSet<u16>, has_ended: &mut bool) {
        for _ in 0..16 {
            let Some(split) = (!*has_ended).then(|| self.learning.next_split(self.class)).flatten()
            else {
                break;
            };
            let requests = split.halves.each_ref().map(|half| half.request.clone());
            let outcomes = requests.each_ref().map(|request| {
                if *has_ended {
                    return Err(ReadFailure::Pending);
                }
                self.ask(request).unwrap_or_else(|_| {
                    *has_ended = true;
                    Err(ReadFailure::Unreachable)
                })
            });
            let verdicts =
                self.learning.on_split_answers(self.class, split, outcomes.each_ref(), self.now);
            for ((request, outcome), verdict) in requests.iter().zip(&outcomes).zip(verdicts) {
                if verdict == AnswerVerdict::Final {
                    self.take(request, outcome, got);
                }
            }
        }
    }

    fn take(&self, request: &ReadRequest, outcome: &ReadOutcome, got: &mut BTreeSet<u16>) {
        if outcome.is_ok() {
            let tags =
                request.tags.iter().map(|&tag| self.plc.tags[usize::from(tag)].location.first);
            tags.for_each(|tag| assert!(got.insert(tag), "{tag} was read twice"));
        }
    }

    /// Sends a request, in a new session if there is none. Returns how the session ended, if it
    /// did, and whether it had answered before.
    fn ask(&mut self, request: &ReadRequest) -> Result<ReadOutcome, (LostSession, bool)> {
        let has_answered = self.session.take().unwrap_or(false);
        match self.device.answer(request) {
            Ok(outcome) => {
                self.session = Some(true);
                Ok(outcome)
            }
            Err(failure) => Err((failure, has_answered)),
        }
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
    /// Refuses these registers from now on as illegal addresses.
    fn refuse(&mut self, registers: Range<u16>) {
        self.bad = registers.map(|at| (at, DeviceReply::Refused(2))).collect();
    }

    fn answer(&mut self, request: &ReadRequest) -> Result<ReadOutcome, LostSession> {
        self.asked += 1;
        let answer = self.rejection(request);
        self.lost += u64::from(matches!(answer, Some(DeviceReply::Lost(_))));
        match answer {
            Some(DeviceReply::Refused(code)) => Ok(Err(ReadFailure::Refused(code))),
            Some(DeviceReply::Lost(failure)) => Err(failure),
            None if request.table.holds_bits() => {
                Ok(Ok(Registers::Bits(vec![false; request.count.into()])))
            }
            None => Ok(Ok(Registers::Words(vec![0; request.count.into()]))),
        }
    }

    fn rejection(&self, request: &ReadRequest) -> Option<DeviceReply> {
        if let Some(&code) = self.noise.get(&self.asked) {
            return Some(DeviceReply::Refused(code));
        }
        let closed = DeviceReply::Lost(LostSession::Disconnected);
        if self.lost_at.contains(&self.asked)
            || request.count == 1 && self.deadly.contains(&request.first)
        {
            return Some(closed);
        }
        let longest = if request.table.holds_bits() { self.longest_bits } else { self.longest };
        let too_long = longest.filter(|(most, _)| request.count > *most);
        let mut bad = self.bad.range(request.first..request.first + request.count);
        too_long.map(|(_, answer)| answer).or_else(|| Some(*bad.next()?.1))
    }
}

fn good(registers: Range<u16>, bad: &[u16]) -> BTreeSet<u16> {
    registers.filter(|register| !bad.contains(register)).collect()
}
