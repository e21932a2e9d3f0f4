//! What a broken PLC, or the network before it, does to right answers. Pure: it says what to send
//! and when, `connection` does it.
//!
//! The same seed and the same requests in the same order give the same mischief.

mod fault;

use std::collections::VecDeque;
use std::time::Duration;

pub use fault::Fault;

use super::frame;

/// Longest that [`Trick::Late`] keeps an answer back: three times the time-out that a gateway has
/// by default, so that some answers come in time and some do not.
const MAX_DELAY: Duration = Duration::from_secs(3);
/// Longest pause within an answer, and between one and what follows it unasked.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// Spoils answers, one trick for each at most.
#[derive(Clone, Debug)]
pub struct FaultInjector {
    source: FaultSource,
    random: fastrand::Rng,
    /// The answers that [`Trick::Crossed`] keeps for the next one who asks.
    held_back: Vec<u8>,
    faulty: u64,
}

#[derive(Clone, Debug)]
enum FaultSource {
    /// For each answer in turn; then everything is right.
    Script(VecDeque<Option<Fault>>),
    /// Any of these, at this rate.
    Random(Vec<Fault>, f64),
}

/// One thing to do on a connection.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum AnswerStep {
    Send(Vec<u8>),
    Pause(Duration),
    /// Never answers on this connection again.
    GoSilent,
    /// Breaks the connection as a crash does.
    Reset,
}

impl FaultInjector {
    /// Spoils answers with any of `tricks`, at a `rate` from 0.0, none, to 1.0, all. Without tricks
    /// everything is right.
    #[must_use]
    pub fn random(tricks: &[Fault], rate: f64, seed: u64) -> Self {
        Self::new(FaultSource::Random(tricks.to_vec(), rate), seed)
    }

    /// Spoils one answer after the other as told, and none after the last one.
    #[must_use]
    pub fn script(tricks: impl IntoIterator<Item = Option<Fault>>, seed: u64) -> Self {
        Self::new(FaultSource::Script(tricks.into_iter().collect()), seed)
    }

    fn new(choice: FaultSource, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { source: choice, random, held_back: Vec::new(), faulty: 0 }
    }

    /// What to do instead of sending `answers`, whole frames each.
    pub(super) fn apply(&mut self, answers: &[u8]) -> Vec<AnswerStep> {
        let mut steps = Vec::new();
        let mut rest = answers;
        while let Ok(Some((_, behind))) = frame::split_first(rest) {
            let (answer, _) = rest.split_at(rest.len() - behind.len());
            if !self.held_back.is_empty() {
                steps.push(AnswerStep::Send(std::mem::take(&mut self.held_back)));
            }
            match self.next_fault() {
                Some(trick) => self.inject(trick, answer, &mut steps),
                None => steps.push(AnswerStep::Send(answer.to_vec())),
            }
            rest = behind;
        }
        steps
    }

    /// Answers spoiled so far.
    pub(super) const fn faulty(&self) -> u64 {
        self.faulty
    }

    fn next_fault(&mut self) -> Option<Fault> {
        let trick = match &mut self.source {
            FaultSource::Script(tricks) => tricks.pop_front().flatten(),
            FaultSource::Random(tricks, rate) if self.random.f64() < *rate => {
                self.random.choice(&*tricks).copied()
            }
            FaultSource::Random(..) => None,
        };
        self.faulty += u64::from(trick.is_some());
        trick
    }

    fn inject(&mut self, trick: Fault, answer: &[u8], steps: &mut Vec<AnswerStep>) {
        let send = |bytes: &[u8]| AnswerStep::Send(bytes.to_vec());
        match trick {
            Fault::Late => steps.extend([self.random_pause(MAX_DELAY), send(answer)]),
            Fault::Split => {
                let (start, rest) = self.random_split(answer);
                let (middle, end) = rest.split_at(rest.len() / 2);
                steps.extend([send(start), self.random_pause(MAX_PAUSE), send(middle)]);
                steps.extend([self.random_pause(MAX_PAUSE), send(end)]);
            }
            Fault::SlowDrip => {
                steps.extend(
                    answer.iter().flat_map(|byte| [self.random_pause(MAX_PAUSE), send(&[*byte])]),
                );
            }
            Fault::Merged => {
                steps.push(AnswerStep::Send([answer, &fault::unsolicited(answer)].concat()));
            }
            Fault::Duplicated => {
                steps.extend([send(answer), self.random_pause(MAX_PAUSE), send(answer)])
            }
            Fault::Unsolicited => {
                let unasked = fault::unsolicited(answer);
                let (first, second) =
                    if self.random.bool() { (answer, &*unasked) } else { (&*unasked, answer) };
                steps.extend([send(first), self.random_pause(MAX_PAUSE), send(second)]);
            }
            Fault::Crossed => self.held_back.extend(answer),
            Fault::Truncated => {
                let (start, _) = self.random_split(answer);
                steps.extend([send(start), AnswerStep::GoSilent]);
            }
            Fault::Silent => {}
            Fault::Reset => {
                let (start, _) = self.random_split(answer);
                steps.extend(self.random.bool().then(|| send(start)));
                steps.push(AnswerStep::Reset);
            }
            Fault::WrongId
            | Fault::WrongProtocol
            | Fault::WrongUnit
            | Fault::WrongFunction
            | Fault::TooShort
            | Fault::TooLong
            | Fault::Oversize
            | Fault::Exception
            | Fault::MalformedException => {
                steps.push(AnswerStep::Send(fault::corrupt(trick, answer, &mut self.random)));
            }
        }
    }

    /// Up to this long.
    fn random_pause(&mut self, most: Duration) -> AnswerStep {
        AnswerStep::Pause(most.mul_f64(self.random.f64()))
    }

    /// At least one byte before the cut and one behind it.
    fn random_split<'a>(&mut self, answer: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        answer.split_at(self.random.usize(1..answer.len()))
    }
}

#[cfg(test)]
mod tests;
