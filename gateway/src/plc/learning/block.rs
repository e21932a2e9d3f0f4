//! The longest request that a PLC answers.

use std::time::Instant;

use provisioning::plan::MAX_BITS;

use super::doubt::Doubt;

/// After so many closed connections in a row over one length, the length is to blame.
const HANG_UPS: u8 = 2;

/// What is known about the length of requests for one kind of table.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// Longest request that was answered.
    answered: u16,
    /// Longest request to send, and the shortest that was too long.
    learned: Option<Limit>,
    hang_ups: u8,
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    most: u16,
    too_long: u16,
    doubt: Doubt,
}

impl Block {
    /// Longest request to send, if that was learned.
    pub(super) fn limit(&self) -> Option<u16> {
        self.learned.map(|limit| limit.most)
    }

    /// Whether a longer request is to be tried.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.learned.is_some_and(|limit| limit.doubt.is_due(now))
    }

    /// Longest request to send for a trial, if one is due.
    pub(super) fn trial(&self, now: Instant) -> Option<u16> {
        let Limit { most, too_long, .. } = self.learned.filter(|limit| limit.doubt.is_due(now))?;
        // Once the limit is known exactly, only what was too long is left to try.
        let middle = most.midpoint(too_long);
        Some(if middle > most { middle } else { too_long })
    }

    /// Whether a request of this length goes beyond what is known to work.
    pub(super) fn is_trial(&self, count: u16) -> bool {
        self.learned.is_some_and(|limit| count > limit.most)
    }

    /// No tags make a request as long as the one that is due for a trial: goes on to longer ones,
    /// and forgets the limit when there are none.
    pub(super) fn pass_over(&mut self, now: Instant) {
        let trial = self.trial(now);
        if let (Some(limit), Some(trial)) = (&mut self.learned, trial) {
            limit.most = trial;
            if trial >= limit.too_long {
                limit.too_long = trial.saturating_mul(2);
            }
        }
        self.learned = self.learned.filter(|limit| limit.most < MAX_BITS);
    }

    /// A request of this length was answered. Tells whether that changes the requests.
    pub(super) fn answered(&mut self, count: u16, now: Instant) -> bool {
        self.hang_ups = 0;
        self.answered = self.answered.max(count);
        let Some(limit) = &mut self.learned else { return false };
        if count <= limit.most {
            return false;
        }
        limit.most = count;
        limit.doubt.hasten(now);
        if limit.most >= limit.too_long {
            self.learned = None;
        }
        true
    }

    /// A request of this length was refused although each of its halves is answered. Tells
    /// whether its length may be the reason.
    pub(super) fn too_long(&mut self, count: u16, now: Instant) -> bool {
        let may_be = count > self.answered && count > 1;
        if may_be {
            self.shorten(count, self.answered.max(count / 2), now);
        }
        may_be
    }

    /// The connection was closed over a request of this length for so many tags. Tells whether
    /// that changes the requests.
    pub(super) fn hung_up(&mut self, count: u16, tags: usize, now: Instant) -> bool {
        if count <= self.answered {
            return false;
        }
        if tags < 2 {
            // The shortest there can be: it was not the length.
            return self.answered == 0 && self.learned.take().is_some();
        }
        self.hang_ups += 1;
        // A trial that fails needs no second one.
        let is_too_long = self.hang_ups >= HANG_UPS || self.is_trial(count);
        if is_too_long {
            self.hang_ups = 0;
            self.shorten(count, self.answered.max(count / 2), now);
            if let Some(limit) = &mut self.learned
                && !limit.doubt.is_confirmed()
            {
                // A trial costs a connection.
                limit.doubt.fail(now);
            }
        }
        is_too_long
    }

    fn shorten(&mut self, too_long: u16, most: u16, now: Instant) {
        let doubt = match self.learned {
            Some(Limit { mut doubt, .. }) => {
                doubt.fail(now);
                doubt
            }
            None => Doubt::new(now),
        };
        self.learned = Some(Limit { most: most.max(1), too_long, doubt });
    }
}
