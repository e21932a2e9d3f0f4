//! Which commands may have waited at the broker. Pure.

use std::time::{Duration, Instant};

/// After this time without a command the broker has sent what it had kept.
const QUIET_TIME: Duration = Duration::from_secs(5);
/// After this time no command counts as kept, also if they arrive without a pause.
const LONGEST_BACKLOG: Duration = Duration::from_secs(60);
/// A command that waited no longer than this, while the connection was lost, is not old.
const SHORT_ABSENCE: Duration = Duration::from_secs(10);

/// Tells the commands that the broker kept while the gateway was away from those that are sent now:
/// nothing in a message does.
#[derive(Debug, Default)]
pub(super) struct BacklogWatch {
    is_connected: bool,
    /// When the last session ended; `None` before the first one of this process.
    away_since: Option<Instant>,
    /// Since when the broker sends what it had kept, and when the last command arrived.
    backlog: Option<Backlog>,
}

#[derive(Clone, Copy, Debug)]
struct Backlog {
    began: Instant,
    last_arrival: Instant,
}

impl BacklogWatch {
    /// Records that a session began, and whether the broker had kept it.
    pub(super) fn on_connected(&mut self, session_present: bool, now: Instant) {
        self.is_connected = true;
        let was_away = self.away_since.is_none_or(|since| now >= since + SHORT_ABSENCE);
        let is_backlog = session_present && was_away;
        self.backlog = is_backlog.then_some(Backlog { began: now, last_arrival: now });
    }

    /// Records that the session ended, or that an attempt to connect failed.
    pub(super) fn on_disconnected(&mut self, now: Instant) {
        self.backlog = None;
        if std::mem::take(&mut self.is_connected) {
            self.away_since = Some(now);
        }
    }

    /// Records that a command arrived. Returns whether it may have waited at the broker.
    pub(super) fn on_message(&mut self, now: Instant) -> bool {
        let Some(backlog) = &mut self.backlog else { return false };
        let is_over =
            now >= backlog.last_arrival + QUIET_TIME || now >= backlog.began + LONGEST_BACKLOG;
        if is_over {
            self.backlog = None;
            return false;
        }
        backlog.last_arrival = now;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_arrives_soon_after_a_start_with_a_kept_session_may_be_old() {
        let (mut watch, start) = (BacklogWatch::default(), Instant::now());
        watch.on_disconnected(start);
        watch.on_connected(true, start);
        assert!(watch.on_message(start + SECOND));
        // A long backlog, with pauses of the line.
        assert!(watch.on_message(start + 5 * SECOND));
        assert!(!watch.on_message(start + 10 * SECOND));
        assert!(!watch.on_message(start + 11 * SECOND));
    }

    #[test]
    fn a_sender_without_a_pause_is_heard_after_a_minute() {
        let (mut watch, start) = (BacklogWatch::default(), Instant::now());
        watch.on_connected(true, start);
        let kept = (0..100).filter(|second| watch.on_message(start + SECOND * *second)).count();
        assert_eq!(kept, 60);
    }

    #[test]
    fn a_clean_session_and_a_short_absence_bring_nothing_old() {
        let (mut watch, start) = (BacklogWatch::default(), Instant::now());
        watch.on_connected(false, start);
        assert!(!watch.on_message(start));
        watch.on_disconnected(start + SECOND);
        watch.on_disconnected(start + 5 * SECOND);
        watch.on_connected(true, start + 6 * SECOND);
        assert!(!watch.on_message(start + 6 * SECOND));
        watch.on_disconnected(start + 7 * SECOND);
        watch.on_connected(true, start + 17 * SECOND);
        assert!(watch.on_message(start + 17 * SECOND));
    }
}
