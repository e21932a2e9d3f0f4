//! When a unit that does not answer is tried again, so that the others on its connection keep
//! their rate. Pure: `now` and randomness are arguments.

use std::time::{Duration, Instant};

/// Pauses after the first, the second, ... failure in a row, and the last one from then on. The
/// first is short, since one answer may be lost; with the others a unit that is gone for good
/// costs about two time-outs a minute.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(12),
    Duration::from_secs(24),
    Duration::from_secs(30),
];
/// A pause is at least this much of what the table says.
const LEAST: f64 = 0.8;

/// Whether a unit is polled, or only tried now and then.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// In a row; whole cycles forgive.
    failures: u8,
    silence: Option<Silence>,
}

#[derive(Clone, Copy, Debug)]
struct Silence {
    /// When it was tried last.
    tried: Instant,
    /// When it is tried again at the earliest.
    due: Instant,
    cost: Cost,
}

/// What it costs to try a unit that is still silent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cost {
    /// The connection: it must be closed after a request without an answer.
    Connection,
    /// Nothing but the wait: something in between answers in place of the unit.
    Wait,
}

impl Standing {
    pub(super) const fn is_silent(&self) -> bool {
        self.silence.is_some()
    }

    /// It failed; `least` is the shortest pause, `random` is evenly spread in `[0, 1)`.
    pub(super) fn fail(&mut self, cost: Cost, least: Duration, now: Instant, random: f64) {
        let [.., longest] = PAUSES;
        let pause = PAUSES.get(usize::from(self.failures)).copied().unwrap_or(longest);
        let pause = pause.mul_f64(LEAST + (1.0 - LEAST) * random.clamp(0.0, 1.0));
        self.failures = self.failures.saturating_add(1);
        self.silence = Some(Silence { tried: now, due: now + pause.max(least), cost });
    }

    /// It answered: it is polled again.
    pub(super) const fn answer(&mut self) {
        self.silence = None;
    }

    /// A whole cycle was answered: what was before is forgotten.
    pub(super) const fn forgive(&mut self) {
        if self.silence.is_none() {
            self.failures = 0;
        }
    }

    /// The connection itself had been away, which explains the silence.
    pub(super) const fn hasten(&mut self, now: Instant) {
        if let Some(silence) = &mut self.silence {
            silence.due = now;
        }
    }

    /// What it costs to try it now, if that is due.
    pub(super) fn due(&self, now: Instant) -> Option<Cost> {
        self.silence.filter(|silence| silence.due <= now).map(|silence| silence.cost)
    }

    /// Whether it failed for the first time since a whole cycle.
    pub(super) const fn is_fresh(&self) -> bool {
        self.failures <= 1
    }

    /// When it was tried last, if it is silent.
    pub(super) fn tried(&self) -> Option<Instant> {
        self.silence.map(|silence| silence.tried)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_pauses_grow_to_the_cap_and_are_never_shorter_than_a_scan() {
        let start = Instant::now();
        let mut standing = Standing::default();
        let pause = |standing: &mut Standing, least, random| {
            standing.fail(Cost::Connection, least, start, random);
            standing.silence.unwrap().due - start
        };
        let pauses: Vec<_> = (0..5).map(|_| pause(&mut standing, SECOND / 10, 0.0)).collect();
        let tenths: Vec<_> = pauses.iter().map(|pause| pause.as_millis() / 100).collect();
        assert_eq!(tenths, [8, 96, 192, 240, 240]);
        assert!(pause(&mut standing, SECOND / 10, 0.999) <= SECOND * 30);
        assert_eq!(pause(&mut standing, SECOND * 60, 0.5), SECOND * 60);
    }

    #[test]
    fn an_answer_ends_the_silence_and_a_whole_cycle_the_grudge() {
        let start = Instant::now();
        let mut standing = Standing::default();
        for _ in 0..4 {
            standing.fail(Cost::Wait, SECOND, start, 0.0);
        }
        assert_eq!(
            (standing.due(start), standing.due(start + SECOND * 24)),
            (None, Some(Cost::Wait))
        );
        standing.forgive();
        assert!(standing.is_silent(), "a cycle of which nothing was read forgives nothing");
        standing.answer();
        standing.fail(Cost::Wait, SECOND, start, 0.0);
        assert_eq!(standing.due(start + SECOND * 23), None, "one answer is not enough");
        standing.answer();
        standing.forgive();
        standing.fail(Cost::Wait, SECOND, start, 0.0);
        assert_eq!(standing.due(start + SECOND), Some(Cost::Wait));
    }
}
