//! A roll-out: bundles are offered to some sites first, then wave by wave, and not at all after the
//! first site that does not confirm. Pure: reports and time are arguments.

mod offer;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use super::site_report::{SiteState, SiteVerdict};

pub use offer::{OfferError, offer_of_site};

/// Sizes of waves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WaveSizes {
    /// Sites of the first wave; at least 1.
    pub canary: usize,
    /// Sites of each later wave; by default a tenth of the sites that are not current, but no
    /// fewer than the first.
    pub wave: Option<usize>,
}

/// A site that the roll-out is for.
#[derive(Clone, Debug)]
pub struct RolloutTarget {
    /// Its id.
    pub site: String,
    /// Counter of the bundle that it shall run.
    pub counter: u64,
    /// How it stands now.
    pub verdict: SiteVerdict,
    phase: TargetPhase,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum TargetPhase {
    /// Its wave has not begun.
    Waiting,
    /// It has an offer, and its wave waits for it.
    Offered,
    /// It runs its bundle.
    Confirmed,
    /// It was not reachable. It has an offer, for which nothing waits.
    OfferedUnreachable,
}

/// What to do, or what has happened. A target is given by its position.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RolloutStep {
    /// A wave begins; the first one is 1.
    Wave {
        /// Number of the wave.
        number: usize,
        /// Its sites.
        sites: usize,
    },
    /// Publish the offer of a site.
    Offer(usize),
    /// Publish the offer of an unreachable site: it accepts it when it is back.
    OfferUnreachable(usize),
    /// Remove the offer of a site that has not taken it.
    Clear(usize),
    /// The state of a site of this wave has changed.
    Changed(usize),
    /// Nothing follows.
    End(RolloutEnd),
}

/// How a roll-out ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RolloutEnd {
    /// Every reachable site runs its bundle.
    Done,
    /// A site has failed.
    Failed {
        /// The site.
        target: usize,
        /// What it did.
        failure: RolloutFailure,
    },
    /// No site was reachable, so nothing shows whether the bundles work. The first ones have
    /// offers.
    NoSiteReachable,
}

/// What a site did instead of confirming its bundle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RolloutFailure {
    /// It rolled back to the previous bundle.
    Reverted,
    /// It refused the bundle.
    Refused,
    /// It runs a newer bundle.
    Ahead,
    /// It did nothing of this in time.
    TimedOut,
}

/// A roll-out under way.
#[derive(Clone, Debug)]
pub struct RolloutPlan {
    targets: Vec<RolloutTarget>,
    canary: usize,
    wave: usize,
    timeout: Duration,
    /// Number of the wave under way; 0 before the first.
    number: usize,
    /// Sites of the wave that have not confirmed their bundles.
    open: usize,
    deadline: Option<Instant>,
    steps: VecDeque<RolloutStep>,
    is_ended: bool,
}

impl RolloutTarget {
    /// Creates a target.
    #[must_use]
    pub const fn new(site: String, counter: u64, verdict: SiteVerdict) -> Self {
        Self { site, counter, verdict, phase: TargetPhase::Waiting }
    }

    /// Returns how the bundle failed at this site; `None` if it did not.
    fn failure(&self) -> Option<RolloutFailure> {
        match self.verdict.state {
            SiteState::Reverted => Some(RolloutFailure::Reverted),
            SiteState::Refused => Some(RolloutFailure::Refused),
            SiteState::Ahead => Some(RolloutFailure::Ahead),
            SiteState::Current
            | SiteState::Behind
            | SiteState::Trying
            | SiteState::Offline
            | SiteState::Silent
            | SiteState::NeverSeen => None,
        }
    }

    const fn is_current(&self) -> bool {
        matches!(self.verdict.state, SiteState::Current)
    }
}

impl RolloutPlan {
    /// Creates the plan for these sites; each wave has `timeout`. Nothing happens before
    /// [`Self::start`].
    #[must_use]
    pub fn new(targets: Vec<RolloutTarget>, sizes: WaveSizes, timeout: Duration) -> Self {
        let open = targets.iter().filter(|target| !target.is_current()).count();
        let canary = sizes.canary.max(1);
        let wave = sizes.wave.unwrap_or_else(|| open.div_ceil(10).max(canary)).max(1);
        Self {
            targets,
            canary,
            wave,
            timeout,
            number: 0,
            open: 0,
            deadline: None,
            steps: VecDeque::new(),
            is_ended: false,
        }
    }

    /// Begins with the first wave. If the bundle of a site has failed already, nothing is offered:
    /// another site would only repeat that.
    pub fn start(&mut self, now: Instant) {
        for target in &mut self.targets {
            if target.is_current() {
                target.phase = TargetPhase::Confirmed;
            }
        }
        let failed = self.targets.iter().enumerate();
        let failed = failed.map(|(at, target)| (at, target.failure()));
        match failed.into_iter().find_map(|(at, failure)| Some((at, failure?))) {
            Some((target, failure)) => self.stop(target, failure),
            None => self.advance(now),
        }
    }

    /// Records how a site stands now.
    pub fn on_verdict(&mut self, position: usize, verdict: SiteVerdict, now: Instant) {
        let Some(target) = self.targets.get_mut(position).filter(|_| !self.is_ended) else {
            return;
        };
        let is_news = target.verdict.state != verdict.state
            || target.verdict.runs != verdict.runs
            || target.verdict.reason != verdict.reason && target.verdict.state.is_reachable();
        target.verdict = verdict;
        let failure = target.failure();
        let was_offered = target.phase == TargetPhase::Offered;
        if target.is_current() && target.phase != TargetPhase::OfferedUnreachable {
            target.phase = TargetPhase::Confirmed;
            self.open -= usize::from(was_offered);
        }
        if is_news && (was_offered || failure.is_some()) {
            self.steps.push_back(RolloutStep::Changed(position));
        }
        match failure {
            Some(failure) => self.stop(position, failure),
            None => self.advance(now),
        }
    }

    /// Ends the wave if its time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.is_ended || self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        let open = self.positions(TargetPhase::Offered).next();
        if let Some(target) = open {
            self.stop(target, RolloutFailure::TimedOut);
        }
    }

    /// Returns when [`Self::handle_timeout`] has something to do; `None` when nothing is waited
    /// for.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline.filter(|_| !self.is_ended)
    }

    /// Returns the next thing to do or to report.
    pub fn poll_step(&mut self) -> Option<RolloutStep> {
        self.steps.pop_front()
    }

    /// Returns the sites in their order.
    #[must_use]
    pub fn targets(&self) -> &[RolloutTarget] {
        &self.targets
    }

    /// Returns the sites of each wave if every site that is there confirms its bundle, and behind
    /// them those that are not there.
    #[must_use]
    pub fn preview(&self, now: Instant) -> (Vec<Vec<usize>>, Vec<usize>) {
        let mut plan = self.clone();
        plan.start(now);
        let (mut waves, mut unreachable) = (Vec::new(), Vec::new());
        while let Some(step) = plan.poll_step() {
            match step {
                RolloutStep::Wave { .. } => waves.push(Vec::new()),
                RolloutStep::Offer(at) => {
                    waves.last_mut().map(|wave: &mut Vec<usize>| wave.push(at)).unwrap_or_default();
                    let runs = plan.targets.get(at).map(|target| target.counter);
                    let (state, since, reason) = (SiteState::Current, None, None);
                    plan.on_verdict(at, SiteVerdict { state, runs, since, reason }, now);
                }
                RolloutStep::OfferUnreachable(at) => unreachable.push(at),
                RolloutStep::Clear(_) | RolloutStep::Changed(_) | RolloutStep::End(_) => {}
            }
        }
        (waves, unreachable)
    }

    fn positions(&self, phase: TargetPhase) -> impl Iterator<Item = usize> {
        let targets = self.targets.iter().enumerate();
        targets.filter(move |(_, target)| target.phase == phase).map(|(position, _)| position)
    }

    /// Begins the next wave if this one is complete.
    fn advance(&mut self, now: Instant) {
        if self.is_ended || self.open > 0 {
            return;
        }
        self.deadline = None;
        let waiting: Vec<usize> = self.positions(TargetPhase::Waiting).collect();
        let is_reachable = |position: &usize| {
            self.targets.get(*position).is_some_and(|target| target.verdict.state.is_reachable())
        };
        let (reachable, unreachable): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(is_reachable);
        if reachable.is_empty() {
            self.offer_unreachable(unreachable);
            return;
        }
        let size = if self.number == 0 { self.canary } else { self.wave };
        let members: Vec<usize> = reachable.into_iter().take(size).collect();
        self.number += 1;
        self.open = members.len();
        self.deadline = Some(now + self.timeout);
        self.steps.push_back(RolloutStep::Wave { number: self.number, sites: members.len() });
        for position in members {
            self.set_phase(position, TargetPhase::Offered);
            self.steps.push_back(RolloutStep::Offer(position));
        }
    }

    /// Publishes offers for the unreachable sites, and ends.
    fn offer_unreachable(&mut self, unreachable: Vec<usize>) {
        let is_proven = self.positions(TargetPhase::Confirmed).next().is_some();
        let is_done = is_proven || unreachable.is_empty();
        // Without a site that has confirmed its bundle, all would come back to something untried.
        let count = if is_done { unreachable.len() } else { self.canary };
        for position in unreachable.into_iter().take(count) {
            self.set_phase(position, TargetPhase::OfferedUnreachable);
            self.steps.push_back(RolloutStep::OfferUnreachable(position));
        }
        self.end(if is_done { RolloutEnd::Done } else { RolloutEnd::NoSiteReachable });
    }

    fn stop(&mut self, target: usize, failure: RolloutFailure) {
        let offered: Vec<usize> = self.positions(TargetPhase::Offered).collect();
        for position in offered {
            // A trial under way ends by itself.
            let state = self.targets.get(position).map(|target| target.verdict.state);
            if state != Some(SiteState::Trying) {
                self.steps.push_back(RolloutStep::Clear(position));
            }
        }
        self.end(RolloutEnd::Failed { target, failure });
    }

    fn end(&mut self, end: RolloutEnd) {
        self.is_ended = true;
        self.steps.push_back(RolloutStep::End(end));
    }

    fn set_phase(&mut self, position: usize, phase: TargetPhase) {
        if let Some(target) = self.targets.get_mut(position) {
            target.phase = phase;
        }
    }
}

/// Shows the failure as the end of a sentence about a bundle of a site: `ID: ...`.
impl fmt::Display for RolloutFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reverted => "rolled back to the previous bundle",
            Self::Refused => "refused the bundle",
            Self::Ahead => "runs a newer bundle than this one",
            Self::TimedOut => "did not confirm the bundle in time",
        })
    }
}
