use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn every_job_runs_at_the_start_and_then_in_its_phase() {
    let start = Instant::now();
    let mut schedule = Schedule::new([periodic("a", SECOND, 0), periodic("b", SECOND, 300)], start);
    assert_eq!(schedule.next_step(start), ScheduleStep::Run { job: "a", missed: 0 });
    assert_eq!(schedule.next_step(start), ScheduleStep::Run { job: "b", missed: 0 });
    assert_eq!(schedule.next_step(start), ScheduleStep::Wait(Some(start + SECOND * 3 / 10)));
    let second = start + SECOND * 3 / 10;
    assert_eq!(schedule.next_step(second), ScheduleStep::Run { job: "b", missed: 0 });
    assert_eq!(schedule.next_step(second), ScheduleStep::Wait(Some(start + SECOND)));
}

#[test]
fn missed_runs_are_counted_and_skipped() {
    let start = Instant::now();
    let mut schedule = Schedule::new([periodic("a", SECOND, 0)], start);
    assert_eq!(schedule.next_step(start), ScheduleStep::Run { job: "a", missed: 0 });
    let late = start + SECOND * 7 / 2;
    assert_eq!(schedule.next_step(late), ScheduleStep::Run { job: "a", missed: 2 });
    assert_eq!(schedule.next_step(late), ScheduleStep::Wait(Some(start + SECOND * 4)));
}

#[test]
fn runs_missed_before_the_first_one_count_too() {
    let start = Instant::now();
    let mut schedule = Schedule::new([periodic("a", SECOND, 250)], start);
    let late = start + SECOND * 2;
    assert_eq!(schedule.next_step(late), ScheduleStep::Run { job: "a", missed: 2 });
    assert_eq!(schedule.next_step(late), ScheduleStep::Wait(Some(start + SECOND * 9 / 4)));
}

#[test]
fn the_job_that_has_waited_longest_runs_first() {
    let start = Instant::now();
    let mut schedule =
        Schedule::new([periodic("slow", SECOND * 10, 0), periodic("fast", SECOND, 0)], start);
    schedule.next_step(start);
    schedule.next_step(start);
    let late = start + SECOND * 11;
    assert_eq!(schedule.next_step(late), ScheduleStep::Run { job: "fast", missed: 10 });
    assert_eq!(schedule.next_step(late), ScheduleStep::Run { job: "slow", missed: 0 });
}

#[test]
fn a_one_off_job_runs_once_and_before_the_periodic_jobs_that_are_due() {
    let start = Instant::now();
    let mut schedule = Schedule::new([periodic("a", SECOND, 0)], start);
    schedule.run_once("first");
    schedule.run_once("second");
    for job in ["first", "second", "a"] {
        assert_eq!(schedule.next_due_job(start), Some(job));
        assert_eq!(schedule.next_step(start), ScheduleStep::Run { job, missed: 0 });
    }
    assert_eq!(schedule.next_step(start), ScheduleStep::Wait(Some(start + SECOND)));
    // While nothing periodic is due, too; the periodic job keeps its time.
    schedule.run_once("third");
    let early = start + SECOND / 2;
    assert_eq!(schedule.next_step(early), ScheduleStep::Run { job: "third", missed: 0 });
    assert_eq!(schedule.next_step(early), ScheduleStep::Wait(Some(start + SECOND)));
}

#[test]
fn a_schedule_without_jobs_waits_forever() {
    let mut schedule = Schedule::new(Vec::<PeriodicJob<()>>::new(), Instant::now());
    assert_eq!(schedule.next_step(Instant::now()), ScheduleStep::Wait(None));
}

#[test]
fn pauses_grow_from_the_second_failure_to_the_maximum_and_never_end() {
    const POLICY: RetryPolicy = RetryPolicy {
        first: Duration::ZERO,
        second: SECOND.saturating_mul(60),
        max: SECOND.saturating_mul(3600),
        jitter: 0.0,
    };
    let now = Instant::now();
    let mut backoff = RetryBackoff::new(&POLICY);
    assert!(backoff.is_due(now) && backoff.next_try().is_none());
    let mut minutes = Vec::new();
    for failures in 1..=40 {
        backoff.on_failure(now, 0.5);
        assert_eq!(backoff.failures(), failures);
        minutes.push((backoff.next_try().unwrap() - now).as_secs() / 60);
        assert_eq!(backoff.is_due(now), failures == 1);
    }
    assert_eq!(minutes[..9], [0, 1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(minutes[39], 60);
    backoff.retry_now(now);
    assert!(backoff.is_due(now) && backoff.failures() == 40);
    backoff.reset();
    assert!(backoff.is_due(now) && backoff.failures() == 0);
}

#[test]
fn jitter_shortens_a_pause_by_at_most_its_part() {
    const POLICY: RetryPolicy =
        RetryPolicy { first: SECOND, second: SECOND, max: SECOND, jitter: 0.2 };
    let pause = |random| RetryBackoff::new(&POLICY).next_pause(random);
    assert_eq!([0.0, 0.5, 1.0].map(pause), [1000, 900, 800].map(Duration::from_millis));
}

proptest! {
    /// However long jobs take: every due time is either run or counted as missed, no job runs
    /// before it is due, and each stays on its own grid.
    #[test]
    fn every_due_time_is_run_or_counted_and_nothing_drifts(
        jobs in proptest::collection::vec((1_u64..5_000, 0_u64..5_000), 1..5),
        durations in proptest::collection::vec(0_u64..12_000, 1..80),
    ) {
        let start = Instant::now();
        let jobs = jobs.into_iter().map(|(period, phase)| (period, phase % period));
        let jobs: Vec<_> = jobs.collect();
        let millis = Duration::from_millis;
        let entries = jobs.iter().enumerate().map(|(index, &(period, phase))| PeriodicJob {
            job: index, period: millis(period), phase: millis(phase),
        });
        let mut schedule = Schedule::new(entries, start);
        let mut now = start;
        let mut runs = vec![0_u64; jobs.len()];
        let mut durations = durations.into_iter();
        loop {
            let due = schedule.next_due_job(now);
            match schedule.next_step(now) {
                ScheduleStep::Run { job, missed } => {
                    prop_assert_eq!(due, Some(job));
                    let (period, phase) = jobs[job];
                    let first_on_grid = if phase == 0 { period } else { phase };
                    runs[job] += u64::from(missed) + 1;
                    // Due times up to and including now: the start, and the grid after it.
                    let elapsed = u64::try_from((now - start).as_millis()).unwrap();
                    let due = 1 + (elapsed + period - first_on_grid) / period;
                    prop_assert_eq!(runs[job], due);
                    let Some(took) = durations.next() else { break };
                    now += millis(took);
                }
                ScheduleStep::Wait(until) => {
                    prop_assert_eq!(due, None);
                    let until = until.unwrap();
                    prop_assert!(until > now);
                    now = until;
                }
            }
        }
    }

    #[test]
    fn a_pause_with_jitter_is_never_zero_and_never_above_its_maximum(
        base in 1_u64..10_000,
        cap in 1_u64..100_000,
        randoms in proptest::collection::vec(0.0..1.0_f64, 1..40),
    ) {
        let (base, cap) = (Duration::from_millis(base), Duration::from_millis(cap));
        let policy: &RetryPolicy = Box::leak(Box::new(RetryPolicy::full_jitter(base, cap)));
        let mut backoff = RetryBackoff::new(policy);
        for (attempt, random) in (0_u32..).zip(randoms) {
            let ceiling = base.saturating_mul(2_u32.saturating_pow(attempt)).min(cap);
            let pause = backoff.next_pause(random);
            prop_assert!(pause > Duration::ZERO && pause <= ceiling, "{pause:?} of {ceiling:?}");
        }
        backoff.reset();
        prop_assert!(backoff.next_pause(0.0) <= base.min(cap));
    }

    #[test]
    fn no_minute_has_more_events_than_the_budget(
        most in 1_usize..10,
        steps in proptest::collection::vec(0_u64..30_000, 1..100),
    ) {
        let mut budget = RateBudget::per_minute(most);
        let mut now = Instant::now();
        let mut taken: Vec<Instant> = Vec::new();
        for step in steps {
            now += Duration::from_millis(step);
            match budget.take(now) {
                Ok(()) => taken.push(now),
                Err(free) => {
                    prop_assert!(free > now);
                    prop_assert!(budget.clone().take(free).is_ok());
                }
            }
        }
        for window in taken.windows(most + 1) {
            prop_assert!(window[most] - window[0] >= Duration::from_secs(60));
        }
    }
}

fn periodic<J>(job: J, period: Duration, phase_millis: u64) -> PeriodicJob<J> {
    PeriodicJob { job, period, phase: Duration::from_millis(phase_millis) }
}
