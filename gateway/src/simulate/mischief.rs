//! What a broken PLC, or the network before it, does to right answers. Pure: it says what to send
//! and when, `connection` does it.
//!
//! The same seed and the same requests in the same order give the same mischief.

mod trick;

use std::collections::VecDeque;
use std::time::Duration;

pub use trick::Trick;

use super::frame;

/// Longest that [`Trick::Late`] keeps an answer back: three times the time-out that a gateway has
/// by default, so that some answers come in time and some do not.
const LATE: Duration = Duration::from_secs(3);
/// Longest pause within an answer, and between one and what follows it unasked.
const PAUSE: Duration = Duration::from_millis(50);

/// Spoils answers, one trick for each at most.
#[derive(Clone, Debug)]
pub struct Mischief {
    choice: Choice,
    random: fastrand::Rng,
    /// The answers that [`Trick::Crossed`] keeps for the next one who asks.
    kept: Vec<u8>,
    spoiled: u64,
}

#[derive(Clone, Debug)]
enum Choice {
    /// For each answer in turn; then everything is right.
    Script(VecDeque<Option<Trick>>),
    /// Any of these, at this rate.
    Mixture(Vec<Trick>, f64),
}

/// One thing to do on a connection.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Step {
    Send(Vec<u8>),
    Pause(Duration),
    /// Never answers on this connection again.
    FallSilent,
    /// Breaks the connection as a crash does.
    Reset,
}

impl Mischief {
    /// Spoils answers with any of `tricks`, at a `rate` from 0.0, none, to 1.0, all. Without tricks
    /// everything is right.
    #[must_use]
    pub fn mixture(tricks: &[Trick], rate: f64, seed: u64) -> Self {
        Self::new(Choice::Mixture(tricks.to_vec(), rate), seed)
    }

    /// Spoils one answer after the other as told, and none after the last one.
    #[must_use]
    pub fn script(tricks: impl IntoIterator<Item = Option<Trick>>, seed: u64) -> Self {
        Self::new(Choice::Script(tricks.into_iter().collect()), seed)
    }

    fn new(choice: Choice, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { choice, random, kept: Vec::new(), spoiled: 0 }
    }

    /// What to do instead of sending `answers`, whole frames each.
    pub(super) fn spoil(&mut self, answers: &[u8]) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut rest = answers;
        while let Ok(Some((_, behind))) = frame::split_first(rest) {
            let (answer, _) = rest.split_at(rest.len() - behind.len());
            if !self.kept.is_empty() {
                steps.push(Step::Send(std::mem::take(&mut self.kept)));
            }
            match self.choose() {
                Some(trick) => self.play(trick, answer, &mut steps),
                None => steps.push(Step::Send(answer.to_vec())),
            }
            rest = behind;
        }
        steps
    }

    /// Answers spoiled so far.
    pub(super) const fn spoiled(&self) -> u64 {
        self.spoiled
    }

    fn choose(&mut self) -> Option<Trick> {
        let trick = match &mut self.choice {
            Choice::Script(tricks) => tricks.pop_front().flatten(),
            Choice::Mixture(tricks, rate) if self.random.f64() < *rate => {
                self.random.choice(&*tricks).copied()
            }
            Choice::Mixture(..) => None,
        };
        self.spoiled += u64::from(trick.is_some());
        trick
    }

    fn play(&mut self, trick: Trick, answer: &[u8], steps: &mut Vec<Step>) {
        let send = |bytes: &[u8]| Step::Send(bytes.to_vec());
        match trick {
            Trick::Late => steps.extend([self.pause(LATE), send(answer)]),
            Trick::Split => {
                let (start, rest) = self.cut(answer);
                let (middle, end) = rest.split_at(rest.len() / 2);
                steps.extend([send(start), self.pause(PAUSE), send(middle)]);
                steps.extend([self.pause(PAUSE), send(end)]);
            }
            Trick::SlowDrip => {
                steps.extend(answer.iter().flat_map(|byte| [self.pause(PAUSE), send(&[*byte])]));
            }
            Trick::Merged => {
                steps.push(Step::Send([answer, &trick::unasked(answer)].concat()));
            }
            Trick::Duplicated => steps.extend([send(answer), self.pause(PAUSE), send(answer)]),
            Trick::Unsolicited => {
                let unasked = trick::unasked(answer);
                let (first, second) =
                    if self.random.bool() { (answer, &*unasked) } else { (&*unasked, answer) };
                steps.extend([send(first), self.pause(PAUSE), send(second)]);
            }
            Trick::Crossed => self.kept.extend(answer),
            Trick::Truncated => {
                let (start, _) = self.cut(answer);
                steps.extend([send(start), Step::FallSilent]);
            }
            Trick::Silent => {}
            Trick::Reset => {
                let (start, _) = self.cut(answer);
                steps.extend(self.random.bool().then(|| send(start)));
                steps.push(Step::Reset);
            }
            Trick::WrongId
            | Trick::WrongProtocol
            | Trick::WrongUnit
            | Trick::WrongFunction
            | Trick::TooShort
            | Trick::TooLong
            | Trick::Oversize
            | Trick::Exception
            | Trick::MalformedException => {
                steps.push(Step::Send(trick::alter(trick, answer, &mut self.random)));
            }
        }
    }

    /// Up to this long.
    fn pause(&mut self, most: Duration) -> Step {
        Step::Pause(most.mul_f64(self.random.f64()))
    }

    /// At least one byte before the cut and one behind it.
    fn cut<'a>(&mut self, answer: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        answer.split_at(self.random.usize(1..answer.len()))
    }
}

#[cfg(test)]
mod tests;
