//! Finds the longest request that a PLC answers.

use std::time::Instant;

use provisioning::plan::MAX_BITS;

use crate::plc::failed_once;
use crate::schedule::RetryBackoff;

/// What is known about the length of requests for one kind of table.
#[derive(Debug, Default)]
pub(super) struct MaxLength {
    /// Longest request that was answered.
    longest_answered: u16,
    /// Absent while no request was too long.
    limit: Option<LengthLimit>,
}

/// What a request that is too long costs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LengthCost {
    /// Nothing: the PLC answers with an exception. The next trial may follow at once.
    Request,
    /// The connection.
    Connection,
}

#[derive(Clone, Copy, Debug)]
struct LengthLimit {
    /// Longest request to send.
    max_len: u16,
    /// Shortest request that was too long.
    min_rejected: u16,
    /// When to try a longer one.
    backoff: RetryBackoff,
}

impl MaxLength {
    /// Returns the longest request to send, if there is a limit.
    pub(super) fn max_len(&self) -> Option<u16> {
        self.limit.map(|limit| limit.max_len)
    }

    /// Returns whether a longer request is to be tried.
    pub(super) fn is_trial_due(&self, now: Instant) -> bool {
        self.limit.is_some_and(|limit| limit.backoff.is_due(now))
    }

    /// Returns the longest request to try, if a trial is due.
    pub(super) fn trial_len(&self, now: Instant) -> Option<u16> {
        let LengthLimit { max_len, min_rejected, .. } =
            self.limit.filter(|limit| limit.backoff.is_due(now))?;
        // Once the limit is known exactly, only the length that was rejected is left to try.
        let middle = max_len.midpoint(min_rejected);
        Some(if middle > max_len { middle } else { min_rejected })
    }

    /// Returns whether no request of this length was ever answered.
    pub(super) const fn is_unproven(&self, count: u16) -> bool {
        count > self.longest_answered
    }

    /// Returns whether a request of this length exceeds the limit.
    pub(super) fn exceeds_limit(&self, count: u16) -> bool {
        self.limit.is_some_and(|limit| count > limit.max_len)
    }

    /// Skips the trial that is due, because no request has its length: takes the length for
    /// accepted, so that the next trial is longer. Drops a limit beyond the longest request of the
    /// protocol.
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

    /// Records the answer to a request of this length. Returns whether that changes the requests.
    pub(super) fn on_answer(&mut self, count: u16, now: Instant) -> bool {
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

    /// Records that a request of this length was rejected although each of its parts is answered.
    /// Returns whether its length may be the reason.
    pub(super) fn on_too_long(&mut self, count: u16, cost: LengthCost, now: Instant) -> bool {
        let may_be = count > self.longest_answered && count > 1;
        if may_be {
            self.shorten(count, self.longest_answered.max(count / 2), now);
            if cost == LengthCost::Connection
                && let Some(limit) = &mut self.limit
                && limit.backoff.failures() <= 1
            {
                limit.backoff.on_failure(now, 0.0);
            }
        }
        may_be
    }

    fn shorten(&mut self, min_rejected: u16, max_len: u16, now: Instant) {
        let backoff = match self.limit {
            Some(LengthLimit { mut backoff, .. }) => {
                backoff.on_failure(now, 0.0);
                backoff
            }
            None => failed_once(now),
        };
        self.limit = Some(LengthLimit { max_len: max_len.max(1), min_rejected, backoff });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limited(len: u16, now: Instant) -> MaxLength {
        let mut max = MaxLength::default();
        assert!(max.on_too_long(len, LengthCost::Request, now));
        max
    }

    #[test]
    fn trials_halve_the_distance_to_the_rejected_length() {
        let now = Instant::now();
        let mut max = limited(100, now);
        assert_eq!((max.max_len(), max.trial_len(now)), (Some(50), Some(75)));
        assert!(!max.exceeds_limit(50) && max.exceeds_limit(51));
        assert!(!max.on_answer(50, now), "as long as the limit");
        assert!(max.on_answer(75, now));
        assert_eq!((max.max_len(), max.trial_len(now)), (Some(75), Some(87)));
        assert!(max.on_answer(99, now));
        assert_eq!(max.trial_len(now), Some(100), "only the rejected length is left");
        assert!(max.on_answer(100, now));
        assert_eq!((max.max_len(), max.trial_len(now)), (None, None));
    }

    #[test]
    fn only_a_length_that_was_never_answered_can_be_too_long() {
        let now = Instant::now();
        let mut max = MaxLength::default();
        max.on_answer(60, now);
        assert!(!max.on_too_long(60, LengthCost::Request, now) && !max.is_unproven(60));
        assert!(max.on_too_long(61, LengthCost::Request, now) && max.is_unproven(61));
        assert_eq!(max.max_len(), Some(60), "not less than what was answered");
        let is_long = MaxLength::default().on_too_long(1, LengthCost::Request, now);
        assert!(!is_long, "nothing is shorter than one register");
        assert_eq!(limited(2, now).max_len(), Some(1));
    }

    #[test]
    fn a_trial_that_costs_a_connection_waits_for_a_minute_and_then_longer() {
        let now = Instant::now();
        let mut max = MaxLength::default();
        assert!(max.on_too_long(100, LengthCost::Connection, now));
        assert_eq!(max.max_len(), Some(50));
        let minute = now + Duration::from_secs(60);
        assert!(!max.is_trial_due(now) && max.is_trial_due(minute));
        assert!(max.on_too_long(75, LengthCost::Connection, minute));
        assert_eq!((max.max_len(), max.trial_len(minute)), (Some(37), None));
        assert!(!max.is_trial_due(minute + Duration::from_secs(119)));
        assert!(max.is_trial_due(minute + Duration::from_secs(120)));
    }

    #[test]
    fn trials_without_a_request_of_their_length_go_on_to_the_end() {
        let now = Instant::now();
        let limits = |rejected| {
            let mut max = limited(rejected, now);
            let mut limits = Vec::new();
            while let Some(limit) = max.max_len() {
                limits.push(limit);
                max.skip_trial(now);
            }
            limits
        };
        assert_eq!(limits(100)[..9], [50, 75, 87, 93, 96, 98, 99, 100, 150]);
        for rejected in [100, 125, 1000, MAX_BITS] {
            let limits = limits(rejected);
            assert!(
                limits.is_sorted() && limits.iter().all(|limit| *limit < MAX_BITS),
                "{limits:?}"
            );
        }
    }
}
