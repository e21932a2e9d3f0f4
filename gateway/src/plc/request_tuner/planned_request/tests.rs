use std::time::Duration;

use provisioning::plan;

use super::*;
use crate::plc::tests::support;

/// Returns the request that reads these holding registers.
fn planned(registers: &[u16]) -> PlannedRequest {
    let addresses: Vec<_> = registers.iter().map(|at| format!("holding:{at}")).collect();
    let tags: Vec<_> = addresses.iter().map(|at| (at.as_str(), 1000)).collect();
    let mut plc = support::plc("generic", &tags);
    plc.max_gap = 124;
    let plan = plan::plan(&plc);
    PlannedRequest::new(&plc, &plan.classes[0].requests[0])
}

fn ranges(planned: &PlannedRequest, now: Instant) -> (Vec<Range<usize>>, ProbeBudget) {
    let mut budget = ProbeBudget::new(now);
    (planned.ranges(&MaxLength::default(), &mut budget), budget)
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_quarantined_slot_is_read_alone_and_only_when_a_retry_is_due() {
    let now = Instant::now();
    let mut planned = planned(&[0, 1, 2]);
    assert_eq!(ranges(&planned, now).0.as_slice(), std::slice::from_ref(&(0..3)));
    assert_eq!(planned.on_refused(1..2, 2, now), (true, AnswerVerdict::Final));
    let (apart, budget) = ranges(&planned, now);
    assert_eq!((apart, budget.is_used()), (vec![0..1, 1..2, 2..3], true));
    assert_eq!(planned.quarantined().count(), 0, "one failure may be noise");
    planned.on_refused(1..2, 3, now);
    let (apart, budget) = ranges(&planned, now);
    assert_eq!((apart, budget.is_used()), (vec![0..1, 2..3], false));
    assert_eq!(planned.quarantined().collect::<Vec<_>>(), [(1, Rejection::Exception(3))]);
    assert_eq!(planned.next_retry(), Some(now + MINUTE));
    assert!(!planned.on_answer(&(0..1), now), "another slot");
    assert!(planned.on_answer(&(1..2), now));
    assert_eq!(ranges(&planned, now).0.as_slice(), std::slice::from_ref(&(0..3)));
}

#[test]
fn four_quarantined_slots_are_retried_in_a_cycle() {
    let now = Instant::now();
    let mut planned = planned(&[0, 1, 2, 3, 4, 5]);
    for slot in 0..6 {
        planned.on_refused(slot..slot + 1, 2, now);
    }
    assert_eq!(ranges(&planned, now).0, [0..1, 1..2, 2..3, 3..4]);
}

#[test]
fn one_split_point_is_crossed_in_a_cycle_when_its_retry_is_due() {
    let now = Instant::now();
    let mut planned = planned(&[0, 1, 2, 3, 4, 5]);
    planned.add_split_point(2, now);
    planned.add_split_point(4, now);
    assert_eq!(ranges(&planned, now).0, [0..4, 4..6]);
    planned.add_split_point(2, now);
    assert_eq!(ranges(&planned, now).0, [0..2, 2..6], "the other one is due");
    planned.add_split_point(4, now);
    let (apart, budget) = ranges(&planned, now);
    assert_eq!((apart, budget.is_used()), (vec![0..2, 2..4, 4..6], false));
    assert_eq!(ranges(&planned, now + MINUTE).0, [0..4, 4..6]);
    for neighbours in [0..2, 2..4] {
        assert!(!planned.on_answer(&neighbours, now), "{neighbours:?} crosses no split point");
    }
    assert!(planned.on_answer(&(0..4), now));
    assert_eq!(ranges(&planned, now).0, [0..4, 4..6]);
}

#[test]
fn a_slot_is_quarantined_by_its_third_refusal_if_others_are_answered_and_else_never() {
    let now = Instant::now();
    let refused = |planned: &mut PlannedRequest, slots, context| {
        planned.on_soft_refusal(slots, 4, context, now)
    };
    let final_verdict = |has_changed| (has_changed, AnswerVerdict::Final);
    let mut alone = planned(&[0]);
    for _ in 0..5000 {
        let verdict = refused(&mut alone, 0..1, RefusalContext::NothingAnswered);
        assert_eq!(verdict, final_verdict(false));
    }
    assert_eq!((alone.quarantined().count(), alone.next_retry()), (0, None));

    let mut planned = planned(&[0, 1, 2]);
    for expected in [false, false, true] {
        let verdict = refused(&mut planned, 1..2, RefusalContext::OthersAnswered);
        assert_eq!(verdict, final_verdict(expected));
    }
    // It is certain at once, and its retries are refused whatever else the PLC does.
    let exception = Rejection::Exception(4);
    assert_eq!(planned.quarantined().collect::<Vec<_>>(), [(1, exception)]);
    assert_eq!(planned.next_retry(), Some(now + MINUTE));
    for (context, minutes) in
        [(RefusalContext::NothingAnswered, 2), (RefusalContext::OthersAnswered, 4)]
    {
        assert_eq!(refused(&mut planned, 1..2, context), final_verdict(true));
        assert_eq!(planned.next_retry(), Some(now + MINUTE * minutes));
    }
}

#[test]
fn a_plc_that_answers_nothing_is_searched_less_and_less_often() {
    let now = Instant::now();
    let mut planned = planned(&[0, 1, 2]);
    let is_searched = |planned: &mut PlannedRequest| {
        let context = RefusalContext::NothingAnswered;
        let (_, verdict) = planned.on_soft_refusal(0..3, 4, context, now);
        verdict == AnswerVerdict::Split
    };
    let searched: Vec<_> = (1..=4100).filter(|_| is_searched(&mut planned)).collect();
    assert_eq!(searched, [4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3072, 4096]);
}

#[test]
fn no_tags_are_no_trial() {
    let now = Instant::now();
    let mut planned = planned(&[0, 1, 2]);
    planned.add_split_point(1, now);
    assert!(planned.is_join_trial(&(0..2)));
    for slots in [0..0, 1..1, 0..1, 1..2, 1..3] {
        assert!(!planned.is_join_trial(&slots), "{slots:?}");
    }
}

#[test]
fn a_gap_is_unsafe_after_a_second_failure() {
    let now = Instant::now();
    let mut planned = planned(&[0, 1, 10, 30]);
    planned.add_split_point(2, now);
    assert_eq!(planned.widest_safe_gap(), None);
    planned.add_split_point(2, now);
    assert_eq!(planned.widest_safe_gap(), Some(7), "8 registers lie in between");
    planned.add_split_point(3, now);
    planned.add_split_point(3, now);
    assert_eq!(planned.widest_safe_gap(), Some(7), "19 registers lie in the other gap");
    planned.add_split_point(1, now);
    planned.add_split_point(1, now);
    assert_eq!(planned.widest_safe_gap(), Some(7), "no register lies between neighbours");
}

#[test]
fn a_refused_range_is_split_at_a_known_point_or_in_the_middle() {
    let now = Instant::now();
    let mut planned = planned(&[0, 1, 2, 3, 4, 5]);
    let halves = |split: &SplitRequest| split.halves.each_ref().map(|half| half.range.tags.clone());
    assert_eq!(planned.on_refused(0..6, 2, now), (true, AnswerVerdict::Split));
    assert!(planned.is_searching() && ranges(&planned, now).0.is_empty());
    let split = planned.next_split(7).unwrap();
    assert_eq!((halves(&split), split.count, split.whole.planned), ([0..3, 3..6], 6, 7));
    assert!(!planned.is_searching() && planned.next_split(7).is_none());
    planned.add_split_point(5, now);
    planned.add_split_point(6, now);
    planned.on_refused(0..6, 2, now);
    assert_eq!(halves(&planned.next_split(7).unwrap()), [0..5, 5..6]);
    planned.on_refused(0..5, 2, now);
    assert_eq!(halves(&planned.next_split(7).unwrap()), [0..2, 2..5]);
}

#[test]
fn half_of_a_refused_range_that_was_not_sent_is_split_later() {
    let now = Instant::now();
    let mut planned = planned(&[0, 1, 2, 3]);
    planned.on_refused(0..3, 2, now);
    planned.next_split(0).unwrap();
    planned.on_half_not_sent(0..1, 2);
    assert!(!planned.is_searching(), "a single slot is read in the next cycle");
    planned.on_half_not_sent(1..3, 3);
    assert_eq!(ranges(&planned, now).0, [0..1, 3..4]);
    let split = planned.next_split(0).unwrap();
    assert_eq!((split.whole.tags, split.code), (1..3, 3));
}

#[test]
fn a_slot_over_which_a_session_ends_while_its_range_is_split_is_read_once_more() {
    let now = Instant::now();
    let mut planned = planned(&[0, 1, 2, 3]);
    planned.on_refused(1..3, 2, now);
    planned.next_split(0).unwrap();
    planned.on_half_lost(1..2);
    planned.on_half_not_sent(2..3, 2);
    assert_eq!(planned.quarantined().count(), 0, "one loss may be noise");
    assert_eq!(ranges(&planned, now).0, [0..1, 2..4]);
    let search: Vec<_> = planned.search_ranges(now).collect();
    assert_eq!(search.as_slice(), std::slice::from_ref(&(1..2)));
    let lost = planned.on_lost(&(1..2), LostSession::TimedOut, false, now);
    assert_eq!(lost, LossVerdict::Suspected);
    let timed_out = Rejection::Failure(LostSession::TimedOut);
    assert_eq!(planned.quarantined().collect::<Vec<_>>(), [(1, timed_out)]);
    assert!(!planned.retry_quarantined(now), "each retry may cost a connection");
    assert_eq!(planned.next_retry(), Some(now + Duration::from_secs(15)));
    // A refusal that leaves the connection open makes it harmless again.
    planned.on_refused(1..2, 2, now);
    assert!(planned.retry_quarantined(now));
    assert_eq!(planned.next_retry(), Some(now));
}

#[test]
fn sessions_that_end_over_a_quarantined_slot_delay_its_retry() {
    let now = Instant::now();
    let mut planned = planned(&[0, 1, 2]);
    planned.on_answer(&(0..3), now);
    planned.on_refused(1..2, 2, now);
    let lost = |planned: &mut PlannedRequest, tags| {
        planned.on_lost(&tags, LostSession::Disconnected, false, now)
    };
    assert_eq!(lost(&mut planned, 0..1), LossVerdict::Unexplained, "it is not quarantined");
    for pause in [15, 60, 120] {
        assert_eq!(lost(&mut planned, 1..2), LossVerdict::Suspected);
        assert_eq!(planned.next_retry(), Some(now + Duration::from_secs(pause)));
    }
    assert_eq!(ranges(&planned, now + MINUTE * 60).0, [0..1, 2..3], "it is read last");
}
