use proptest::prelude::*;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(1800);

fn verdict(state: SiteState) -> SiteVerdict {
    SiteVerdict { state, runs: None, since: None, reason: None }
}

fn plan(states: &[SiteState], canary: usize, wave: Option<usize>) -> RolloutPlan {
    let target = |(at, state): (usize, &SiteState)| {
        RolloutTarget::new(format!("site-{at}"), 18, verdict(*state))
    };
    let targets = states.iter().enumerate().map(target).collect();
    RolloutPlan::new(targets, WaveSizes { canary, wave }, TIMEOUT)
}

fn steps(plan: &mut RolloutPlan) -> Vec<RolloutStep> {
    std::iter::from_fn(|| plan.poll_step()).collect()
}

#[test]
fn the_next_wave_waits_until_every_site_of_this_one_has_confirmed() {
    use RolloutStep::{Changed, End, Offer, Wave};

    let now = Instant::now();
    let mut plan = plan(&[SiteState::Behind; 4], 1, Some(2));
    plan.start(now);
    assert_eq!(steps(&mut plan), [Wave { number: 1, sites: 1 }, Offer(0)]);
    plan.on_verdict(0, verdict(SiteState::Trying), now);
    assert_eq!(steps(&mut plan), [Changed(0)]);
    // A gateway that restarts is away for a moment.
    plan.on_verdict(0, verdict(SiteState::Offline), now);
    plan.on_verdict(0, verdict(SiteState::Offline), now);
    assert_eq!(steps(&mut plan), [Changed(0)]);
    plan.on_verdict(0, verdict(SiteState::Current), now);
    let second = [Changed(0), Wave { number: 2, sites: 2 }, Offer(1), Offer(2)];
    assert_eq!(steps(&mut plan), second);
    plan.on_verdict(2, verdict(SiteState::Current), now);
    assert_eq!(steps(&mut plan), [Changed(2)]);
    plan.on_verdict(1, verdict(SiteState::Current), now);
    assert_eq!(steps(&mut plan), [Changed(1), Wave { number: 3, sites: 1 }, Offer(3)]);
    plan.on_verdict(3, verdict(SiteState::Current), now);
    assert_eq!(steps(&mut plan), [Changed(3), End(RolloutEnd::Done)]);
    assert_eq!(plan.next_deadline(), None);
}

#[test]
fn a_failure_stops_everything_and_clears_what_was_not_taken() {
    use RolloutStep::{Changed, Clear, End};

    let now = Instant::now();
    let mut plan = plan(&[SiteState::Behind; 9], 4, None);
    plan.start(now);
    steps(&mut plan);
    plan.on_verdict(0, verdict(SiteState::Current), now);
    plan.on_verdict(1, verdict(SiteState::Trying), now);
    steps(&mut plan);
    plan.on_verdict(2, verdict(SiteState::Reverted), now);
    let end = RolloutEnd::Failed { target: 2, failure: RolloutFailure::Reverted };
    assert_eq!(steps(&mut plan), [Changed(2), Clear(2), Clear(3), End(end)]);
    plan.on_verdict(1, verdict(SiteState::Current), now);
    plan.handle_timeout(now + TIMEOUT);
    assert_eq!(steps(&mut plan), []);
}

#[test]
fn a_wave_has_its_time() {
    use RolloutStep::{Clear, End};

    let now = Instant::now();
    let mut plan = plan(&[SiteState::Behind; 2], 2, None);
    plan.start(now);
    steps(&mut plan);
    assert_eq!(plan.next_deadline(), Some(now + TIMEOUT));
    plan.handle_timeout(now + TIMEOUT - Duration::from_millis(1));
    assert_eq!(steps(&mut plan), []);
    plan.handle_timeout(now + TIMEOUT);
    let end = RolloutEnd::Failed { target: 0, failure: RolloutFailure::TimedOut };
    assert_eq!(steps(&mut plan), [Clear(0), Clear(1), End(end)]);
}

#[test]
fn absent_sites_get_their_offers_behind_all_others() {
    use RolloutStep::{Changed, End, Offer, OfferUnreachable, Wave};

    let now = Instant::now();
    let states = [SiteState::Offline, SiteState::Behind, SiteState::Silent, SiteState::Current];
    let mut plan = plan(&states, 1, None);
    plan.start(now);
    assert_eq!(steps(&mut plan), [Wave { number: 1, sites: 1 }, Offer(1)]);
    // One that comes back in time gets a wave of its own.
    plan.on_verdict(2, verdict(SiteState::Behind), now);
    plan.on_verdict(1, verdict(SiteState::Current), now);
    assert_eq!(steps(&mut plan), [Changed(1), Wave { number: 2, sites: 1 }, Offer(2)]);
    plan.on_verdict(2, verdict(SiteState::Current), now);
    assert_eq!(steps(&mut plan), [Changed(2), OfferUnreachable(0), End(RolloutEnd::Done)]);
}

#[test]
fn a_fleet_of_which_no_site_is_there_gets_no_more_offers_than_a_first_wave() {
    use RolloutStep::{End, OfferUnreachable};

    let mut plan = plan(&[SiteState::Offline; 5], 2, None);
    plan.start(Instant::now());
    assert_eq!(
        steps(&mut plan),
        [OfferUnreachable(0), OfferUnreachable(1), End(RolloutEnd::NoSiteReachable)]
    );
}

#[test]
fn a_bundle_that_failed_before_is_offered_to_no_site() {
    let mut plan = plan(&[SiteState::Behind, SiteState::Reverted], 1, None);
    plan.start(Instant::now());
    let end = RolloutEnd::Failed { target: 1, failure: RolloutFailure::Reverted };
    assert_eq!(steps(&mut plan), [RolloutStep::End(end)]);
}

#[test]
fn the_default_wave_is_a_tenth_and_no_smaller_than_the_first() {
    let sizes = |sites: usize, canary| {
        let (waves, unreachable) =
            plan(&vec![SiteState::Behind; sites], canary, None).preview(Instant::now());
        assert!(unreachable.is_empty());
        waves.iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(sizes(31, 2), [2, 4, 4, 4, 4, 4, 4, 4, 1]);
    assert_eq!(sizes(5, 2), [2, 2, 1]);
    assert_eq!(sizes(1, 3), [1]);
    assert!(sizes(0, 1).is_empty());
}

/// What a site does with its offer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Behaviour {
    Confirms,
    Reverts,
    Refuses,
    Sleeps,
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    prop_oneof![
        12 => Just(Behaviour::Confirms),
        1 => Just(Behaviour::Reverts),
        1 => Just(Behaviour::Refuses),
        1 => Just(Behaviour::Sleeps),
    ]
}

fn first_state() -> impl Strategy<Value = SiteState> {
    prop_oneof![
        6 => Just(SiteState::Behind),
        1 => Just(SiteState::Current),
        1 => Just(SiteState::Offline),
        1 => Just(SiteState::NeverSeen),
    ]
}

/// What a plan has asked for so far.
#[derive(Debug, Default)]
struct PlanRecord {
    /// Sites with an offer that they have not confirmed.
    offered: Vec<usize>,
    cleared: Vec<usize>,
    unreachable: Vec<usize>,
    first_wave: Option<usize>,
    end: Option<RolloutEnd>,
}

impl PlanRecord {
    /// Takes all steps of the plan. A wave begins only when every site before it has confirmed.
    fn follow(&mut self, plan: &mut RolloutPlan) -> Result<(), TestCaseError> {
        while let Some(step) = plan.poll_step() {
            match step {
                RolloutStep::Wave { sites, .. } => {
                    prop_assert!(self.offered.is_empty(), "{:?}", self.offered);
                    self.first_wave.get_or_insert(sites);
                }
                RolloutStep::Offer(at) => self.offered.push(at),
                RolloutStep::OfferUnreachable(at) => self.unreachable.push(at),
                RolloutStep::Clear(at) => self.cleared.push(at),
                RolloutStep::Changed(_) => {}
                RolloutStep::End(end) => self.end = Some(end),
            }
        }
        Ok(())
    }
}

impl Behaviour {
    const fn outcome(self) -> SiteState {
        match self {
            Self::Confirms => SiteState::Current,
            Self::Reverts => SiteState::Reverted,
            Self::Refuses => SiteState::Refused,
            Self::Sleeps => SiteState::Behind,
        }
    }
}

proptest! {
    #[test]
    fn no_more_sites_than_a_wave_ever_run_something_unconfirmed(
        sites in prop::collection::vec((first_state(), behaviour()), 1..60),
        canary in 1_usize..5,
        wave in prop::option::of(1_usize..9),
        order in any::<u64>(),
    ) {
        let states: Vec<_> = sites.iter().map(|(state, _)| *state).collect();
        let mut plan = plan(&states, canary, wave);
        let open = states.iter().filter(|state| **state != SiteState::Current).count();
        let largest = wave.unwrap_or_else(|| open.div_ceil(10).max(canary)).max(canary);
        let mut random = fastrand::Rng::with_seed(order);
        let (mut now, mut record) = (Instant::now(), PlanRecord::default());
        plan.start(now);
        record.follow(&mut plan)?;
        while record.end.is_none() {
            prop_assert!((1..=largest).contains(&record.offered.len()), "{:?}", record);
            prop_assert!(record.offered.iter().all(|site| states[*site] == SiteState::Behind));
            let at = random.usize(..record.offered.len());
            let site = record.offered[at];
            let outcome = sites[site].1.outcome();
            if outcome == SiteState::Current {
                record.offered.swap_remove(at);
            }
            now += Duration::from_secs(random.u64(..300));
            plan.on_verdict(site, verdict(outcome), now);
            plan.handle_timeout(now);
            record.follow(&mut plan)?;
        }
        prop_assert!(record.first_wave.is_none_or(|first| first <= canary));
        match record.end.unwrap() {
            RolloutEnd::Done => {
                prop_assert!(record.offered.is_empty() && record.cleared.is_empty());
                let absent = states.iter().filter(|state| !state.is_reachable()).count();
                prop_assert_eq!(record.unreachable.len(), absent);
            }
            RolloutEnd::Failed { target, failure } => {
                prop_assert!(record.offered.contains(&target) && record.unreachable.is_empty());
                let is_right = match failure {
                    RolloutFailure::Reverted => sites[target].1 == Behaviour::Reverts,
                    RolloutFailure::Refused => sites[target].1 == Behaviour::Refuses,
                    // It may not have come to its turn.
                    RolloutFailure::TimedOut => true,
                    RolloutFailure::Ahead => false,
                };
                prop_assert!(is_right, "{:?} of {:?}", failure, sites[target].1);
                record.cleared.sort_unstable();
                record.offered.sort_unstable();
                prop_assert_eq!(record.cleared, record.offered);
            }
            RolloutEnd::NoSiteReachable => {
                prop_assert!(record.first_wave.is_none() && record.unreachable.len() <= canary);
            }
        }
    }
}
