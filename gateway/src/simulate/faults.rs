//! Injects the faults of a broken PLC, or of the network in front of it, into answers. Pure: it
//! returns what to send and when; `connection` does it.
//!
//! The same seed and the same requests in the same order give the same faults.

mod fault;

use std::collections::VecDeque;
use std::time::Duration;

pub use fault::Fault;

use super::frame;

/// Longest delay of [`Fault::Late`]: three times the gateway's default time-out, so that some
/// answers are in time and some are not.
const MAX_DELAY: Duration = Duration::from_secs(3);
/// Longest pause within an answer, and before an unsolicited one.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// Injects faults into answers, at most one into each.
#[derive(Clone, Debug)]
pub struct FaultInjector {
    source: FaultSource,
    random: fastrand::Rng,
    /// The answers that [`Fault::Crossed`] holds back for the next request.
    held_back: Vec<u8>,
    faulty: u64,
}

#[derive(Clone, Debug)]
enum FaultSource {
    /// One entry for each answer in turn, then no more faults.
    Script(VecDeque<Option<Fault>>),
    /// One entry for each answer to a write.
    WriteScript(VecDeque<Option<Fault>>),
    /// Any of these faults, at this rate.
    Random(Vec<Fault>, f64),
}

/// One step of sending an answer.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum AnswerStep {
    Send(Vec<u8>),
    Pause(Duration),
    /// Never sends on this connection again.
    GoSilent,
    /// Resets the connection, as a crash does.
    Reset,
}

impl FaultInjector {
    /// Injects any of `faults` at a `rate` from 0.0, no answer, to 1.0, every answer. Without
    /// faults it changes nothing.
    #[must_use]
    pub fn random(faults: &[Fault], rate: f64, seed: u64) -> Self {
        Self::new(FaultSource::Random(faults.to_vec(), rate), seed)
    }

    /// Injects the given faults into one answer after the other, and none after the last one.
    #[must_use]
    pub fn script(faults: impl IntoIterator<Item = Option<Fault>>, seed: u64) -> Self {
        Self::new(FaultSource::Script(faults.into_iter().collect()), seed)
    }

    /// Injects the given faults into one answer to a write after the other, and none into others.
    /// The write itself takes effect.
    #[must_use]
    pub fn on_writes(faults: impl IntoIterator<Item = Option<Fault>>, seed: u64) -> Self {
        Self::new(FaultSource::WriteScript(faults.into_iter().collect()), seed)
    }

    fn new(source: FaultSource, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { source, random, held_back: Vec::new(), faulty: 0 }
    }

    /// Returns what to do instead of sending `answers`, which are whole frames.
    pub(super) fn apply(&mut self, answers: &[u8]) -> Vec<AnswerStep> {
        let mut steps = Vec::new();
        let mut rest = answers;
        while let Ok(Some((whole, after))) = frame::split_first(rest) {
            let function = whole.pdu.first().copied().unwrap_or_default();
            let (answer, _) = rest.split_at(rest.len() - after.len());
            if !self.held_back.is_empty() {
                steps.push(AnswerStep::Send(std::mem::take(&mut self.held_back)));
            }
            match self.next_fault(function) {
                Some(fault) => self.inject(fault, answer, &mut steps),
                None => steps.push(AnswerStep::Send(answer.to_vec())),
            }
            rest = after;
        }
        steps
    }

    /// Returns the number of answers with a fault so far.
    pub(super) const fn faulty(&self) -> u64 {
        self.faulty
    }

    fn next_fault(&mut self, function: u8) -> Option<Fault> {
        let fault = match &mut self.source {
            FaultSource::Script(faults) => faults.pop_front().flatten(),
            FaultSource::WriteScript(faults) if is_write(function) => faults.pop_front().flatten(),
            FaultSource::WriteScript(_) => None,
            FaultSource::Random(faults, rate) if self.random.f64() < *rate => {
                self.random.choice(&*faults).copied()
            }
            FaultSource::Random(..) => None,
        };
        self.faulty += u64::from(fault.is_some());
        fault
    }

    fn inject(&mut self, fault: Fault, answer: &[u8], steps: &mut Vec<AnswerStep>) {
        let send = |bytes: &[u8]| AnswerStep::Send(bytes.to_vec());
        match fault {
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
                steps.extend([send(answer), self.random_pause(MAX_PAUSE), send(answer)]);
            }
            Fault::Unsolicited => {
                let unsolicited = fault::unsolicited(answer);
                let (first, second) = if self.random.bool() {
                    (answer, &*unsolicited)
                } else {
                    (&*unsolicited, answer)
                };
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
                steps.push(AnswerStep::Send(fault::corrupt(fault, answer, &mut self.random)));
            }
        }
    }

    /// Returns a random pause of at most `max`.
    fn random_pause(&mut self, max: Duration) -> AnswerStep {
        AnswerStep::Pause(max.mul_f64(self.random.f64()))
    }

    /// Splits an answer at random, with at least one byte on each side.
    fn random_split<'a>(&mut self, answer: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        answer.split_at(self.random.usize(1..answer.len()))
    }
}

/// Returns whether a function code, also that of an exception, is one that writes.
const fn is_write(function: u8) -> bool {
    matches!(function & 0x7F, 5 | 6 | 15 | 16 | 22 | 23)
}

#[cfg(test)]
mod tests;
