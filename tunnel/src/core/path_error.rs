//! Reports that a datagram did not leave this host, or did not arrive.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Errors during this time, without a datagram that had none, show that the way out is blocked.
const BLOCKED_AFTER: Duration = Duration::from_secs(2);
/// An error that follows the last one later than this shows nothing: little was sent in between.
const MAX_ERROR_GAP: Duration = Duration::from_secs(10);
/// Time for the ICMP error of another host to arrive. Routers send about one a second.
const ERROR_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a datagram did not arrive. Those of other hosts can be forged and must only affect the
/// diagnosis.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PathError {
    /// Its destination.
    pub to: SocketAddr,
    /// What was reported.
    pub cause: PathErrorCause,
    /// The host that reports it; `None` for this one.
    pub reporter: Option<IpAddr>,
}

/// What is reported about a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PathErrorCause {
    /// Nothing listens on the port, or a firewall pretends so (ICMP port unreachable).
    PortUnreachable,
    /// A firewall forbids it (ICMP administratively prohibited, EPERM).
    Prohibited,
    /// There is no route, or the next host does not answer.
    NoRoute,
}

/// Errors for one datagram after another. The way out may be blocked while datagrams of the hub
/// still arrive: a firewall lets pass what belongs to a connection that it knows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PathErrorStreak {
    /// When the first and the last one came.
    errors: Option<(Instant, Instant)>,
    /// When data was first sent after the last one.
    sent_since: Option<Instant>,
}

impl PathErrorStreak {
    pub(super) const NONE: Self = Self { errors: None, sent_since: None };

    /// Records an error.
    pub(super) fn on_error(&mut self, now: Instant) {
        let first = if self.lasts(now) { self.errors.map(|(first, _)| first) } else { None };
        *self = Self { errors: Some((first.unwrap_or(now), now)), sent_since: None };
    }

    /// Records that data was sent.
    pub(super) fn on_sent(&mut self, now: Instant) {
        self.sent_since.get_or_insert(now);
    }

    /// Records an authentic datagram. It may answer data that was sent after the last error.
    pub(super) const fn on_received(&mut self) {
        if self.sent_since.is_some() {
            *self = Self::NONE;
        }
    }

    /// Returns whether nothing that is sent arrives.
    pub(super) fn is_blocked(&self, now: Instant) -> bool {
        self.lasts(now) && self.errors.is_some_and(|(first, last)| last >= first + BLOCKED_AFTER)
    }

    /// Returns whether an error now would continue the last one.
    fn lasts(&self, now: Instant) -> bool {
        self.errors.is_some_and(|(_, last)| now < last + MAX_ERROR_GAP)
            && self.sent_since.is_none_or(|sent| now < sent + ERROR_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn errors_for_2_s_block_the_way_out_until_something_passes() {
        let (mut streak, start) = (PathErrorStreak::NONE, Instant::now());
        for step in 0..20 {
            let now = start + SECOND * step / 4;
            streak.on_sent(now);
            // A datagram of the hub that was under way.
            if step == 10 {
                streak.on_error(now);
                streak.on_received();
            }
            streak.on_error(now);
            assert_eq!(streak.is_blocked(now), step >= 8, "{step}");
        }
        let last = start + SECOND * 19 / 4;
        // No error comes for the next one.
        streak.on_sent(last + SECOND);
        assert!(streak.is_blocked(last + 5 * SECOND / 2));
        assert!(!streak.is_blocked(last + 3 * SECOND));
        streak.on_error(last + 3 * SECOND);
        assert!(!streak.is_blocked(last + 4 * SECOND));
    }

    #[test]
    fn an_answer_and_a_long_pause_end_it() {
        let (mut streak, start) = (PathErrorStreak::NONE, Instant::now());
        (0..4).for_each(|second| streak.on_error(start + second * SECOND));
        let blocked = streak;
        assert!(!blocked.is_blocked(start + 3 * SECOND + MAX_ERROR_GAP));
        streak.on_sent(start + 4 * SECOND);
        streak.on_received();
        assert!(!streak.is_blocked(start + 4 * SECOND));
        // One error now and then is none.
        for minute in 0..10 {
            streak.on_error(start + 60 * minute * SECOND);
            assert!(!streak.is_blocked(start + 60 * minute * SECOND));
        }
    }
}
