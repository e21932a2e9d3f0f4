//! The longest request that a PLC answers.

use std::time::Instant;

use provisioning::plan::MAX_BITS;

use crate::plc::failed_once;
use crate::schedule::RetryBackoff;

/// After so many closed connections in a row over one length, the length is to blame.
const MAX_PEER_CLOSES: u8 = 2;

/// What is known about the length of requests for one kind of table.
#[derive(Debug, Default)]
pub(super) struct MaxLength {
    /// Longest request that was answered.
    longest_answered: u16,
    /// Longest request to send, and the shortest that was too long.
    limit: Option<LengthLimit>,
    peer_closes: u8,
}

#[derive(Clone, Copy, Debug)]
struct LengthLimit {
    max_len: u16,
    min_rejected: u16,
    backoff: RetryBackoff,
}

impl MaxLength {
    /// Longest request to send, if that was learned.
    pub(super) fn max_len(&self) -> Option<u16> {
        self.limit.map(|limit| limit.max_len)
    }

    /// Whether a longer request is to be tried.
    pub(super) fn is_trial_due(&self, now: Instant) -> bool {
        self.limit.is_some_and(|limit| limit.backoff.is_due(now))
    }

    /// Longest request to send for a trial, if one is due.
    pub(super) fn trial_len(&self, now: Instant) -> Option<u16> {
        let LengthLimit { max_len: most, min_rejected: too_long, .. } =
            self.limit.filter(|limit| limit.backoff.is_due(now))?;
        // Once the limit is known exactly, only what was too long is left to try.
        let middle = most.midpoint(too_long);
        Some(if middle > most { middle } else { too_long })
    }

    /// Whether a request of this length goes beyond what is known to work.
    pub(super) fn exceeds_limit(&self, count: u16) -> bool {
        self.limit.is_some_and(|limit| count > limit.max_len)
    }

    /// No tags make a request as long as the one that is due for a trial: goes on to longer ones,
    /// and forgets the limit when there are none.
    pub(super) fn skip_trial(&mut self, now: Instant) {
        let trial = self.trial_len(now);
        if let (Some(limit), Some(trial)) = (&mut self.limit, trial) {
            limit.max_len = trial;
            if trial >= limit.min_rejected {
                limit.min_rejected = trial.saturating_mul(2);
            }
        }
        self.limit = self.limit.filter(|limit| limit.max_len < MAX_BITS);
    }

    /// A request of this length was answered. Tells whether that changes the requests.
    pub(super) fn on_answer(&mut self, count: u16, now: Instant) -> bool {
        self.peer_closes = 0;
        self.longest_answered = self.longest_answered.max(count);
        let Some(limit) = &mut self.limit else { return false };
        if count <= limit.max_len {
            return false;
        }
        limit.max_len = count;
        limit.backoff.retry_now(now);
        if limit.max_len >= limit.min_rejected {
            self.limit = None;
        }
        true
    }

    /// A request of this length was refused although each of its halves is answered. Tells
    /// whether its length may be the reason.
    pub(super) fn on_too_long(&mut self, count: u16, now: Instant) -> bool {
        let may_be = count > self.longest_answered && count > 1;
        if may_be {
            self.shorten(count, self.longest_answered.max(count / 2), now);
        }
        may_be
    }

    /// The connection was closed over a request of this length for so many tags. Tells whether
    /// that changes the requests.
    pub(super) fn on_peer_close(&mut self, count: u16, tags: usize, now: Instant) -> bool {
        if count <= self.longest_answered {
            return false;
        }
        if tags < 2 {
            // The shortest there can be: it was not the length.
            return self.longest_answered == 0 && self.limit.take().is_some();
        }
        self.peer_closes += 1;
        // A trial that fails needs no second one.
        let is_too_long = self.peer_closes >= MAX_PEER_CLOSES || self.exceeds_limit(count);
        if is_too_long {
            self.peer_closes = 0;
            self.shorten(count, self.longest_answered.max(count / 2), now);
            if let Some(limit) = &mut self.limit
                && limit.backoff.failures() <= 1
            {
                // A trial costs a connection.
                limit.backoff.on_failure(now, 0.0);
            }
        }
        is_too_long
    }

    fn shorten(&mut self, too_long: u16, most: u16, now: Instant) {
        let doubt = match self.limit {
            Some(LengthLimit { backoff: mut doubt, .. }) => {
                doubt.on_failure(now, 0.0);
                doubt
            }
            None => failed_once(now),
        };
        self.limit =
            Some(LengthLimit { max_len: most.max(1), min_rejected: too_long, backoff: doubt });
    }
}
