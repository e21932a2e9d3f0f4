//! When drops are announced to the receiver, and which are logged. Pure.
//!
//! A broker that refuses messages may refuse the events that announce it too. Such an event becomes
//! a loss itself, so announcing it at once would go on for ever. One that accepts the events gets
//! fewer, longer ones as long as it refuses the same topics.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::pipeline::EVENT_TOPIC;
use crate::metrics::DropReason;
use crate::queue::{Gap, TopicId};

/// Pause before the next announcement after the broker did not take the last one; it doubles up to
/// [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(600);
/// Longest pause while the broker accepts the announcements and refuses the same topics again.
const MAX_REPEAT_PAUSE: Duration = Duration::from_secs(60);
/// Drops of a topic are over when a message of it was acknowledged, and this long after the last
/// drop.
const ACKNOWLEDGED_QUIET: Duration = Duration::from_secs(5);
/// Drops for which no acknowledgement shows the end, as of a full queue, are over after this time.
const QUIET: Duration = Duration::from_secs(60);

/// Topics from which messages are being dropped, and when drops are announced.
#[derive(Debug, Default)]
pub(super) struct DropReports {
    /// By topic and label of the reason.
    ongoing: BTreeMap<(TopicId, &'static str), Ongoing>,
    announce_at: Option<Instant>,
    pause: Duration,
    /// Whether the last announcement was refused itself.
    is_refused: bool,
}

/// Messages of a topic that are being dropped for one reason.
#[derive(Debug)]
struct Ongoing {
    reason: DropReason,
    samples: u64,
    last: Instant,
    /// Whether a message of the topic was acknowledged after the last drop.
    is_acknowledged: bool,
}

/// Drops that began or ended, of one or more topics for the same reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct DropReport {
    pub(super) reason: DropReason,
    /// The first of the topics.
    pub(super) topic: TopicId,
    pub(super) topics: usize,
    pub(super) samples: u64,
}

impl DropReports {
    /// Returns whether drops may be announced now.
    pub(super) fn may_announce(&self, now: Instant) -> bool {
        self.announce_at.is_none_or(|at| at <= now)
    }

    /// Records what was announced. Returns the drops that began with it.
    pub(super) fn on_announced(&mut self, gaps: &[Gap], now: Instant) -> Vec<DropReport> {
        if !gaps.is_empty() {
            let is_refused = |gap: &Gap| gap.topic == EVENT_TOPIC && is_by_broker(gap.reason);
            let is_known = |gap: &Gap| self.ongoing.contains_key(&(gap.topic, gap.reason.label()));
            let is_repeated = |gap: &Gap| is_by_broker(gap.reason) && is_known(gap);
            self.is_refused = gaps.iter().any(is_refused);
            self.pause = if self.is_refused {
                (self.pause * 2).clamp(MIN_PAUSE, MAX_PAUSE)
            } else if gaps.iter().all(is_repeated) {
                (self.pause * 2).clamp(MIN_PAUSE, MAX_REPEAT_PAUSE)
            } else {
                Duration::ZERO
            };
            self.announce_at = Some(now + self.pause);
        }
        let mut begun = BTreeMap::new();
        for gap in gaps {
            let key = (gap.topic, gap.reason.label());
            if let Some(ongoing) = self.ongoing.get_mut(&key) {
                ongoing.samples += gap.samples;
                ongoing.last = now;
                ongoing.is_acknowledged = false;
                continue;
            }
            let (reason, samples) = (gap.reason, gap.samples);
            let ongoing = Ongoing { reason, samples, last: now, is_acknowledged: false };
            self.ongoing.insert(key, ongoing);
            add(&mut begun, (gap.topic, reason, samples));
        }
        begun.into_values().collect()
    }

    /// Records that the broker acknowledged a message of this topic.
    pub(super) fn on_acknowledged(&mut self, topic: TopicId) {
        if topic == EVENT_TOPIC && self.is_refused {
            self.end_pause();
        }
        let of_topic =
            self.ongoing.range_mut((topic, "")..).take_while(|((at, _), _)| *at == topic);
        of_topic.for_each(|(_, ongoing)| ongoing.is_acknowledged = true);
    }

    /// Allows an announcement now: the broker accepts them again, or there is no later time.
    pub(super) const fn end_pause(&mut self) {
        (self.pause, self.announce_at, self.is_refused) = (Duration::ZERO, None, false);
    }

    /// Records a new session. No drop was seen before it.
    pub(super) fn on_connected(&mut self, now: Instant) {
        self.ongoing.values_mut().for_each(|ongoing| ongoing.last = now);
    }

    /// Returns the drops that have ended. Call it while a session stands.
    pub(super) fn take_ended(&mut self, now: Instant) -> Vec<DropReport> {
        let mut ended = BTreeMap::new();
        self.ongoing.retain(|(topic, _), ongoing| {
            let Ongoing { reason, samples, last, is_acknowledged } = *ongoing;
            let quiet = now.saturating_duration_since(last);
            let is_over = match is_by_broker(reason) {
                true => is_acknowledged && quiet >= ACKNOWLEDGED_QUIET.max(2 * self.pause),
                // Only an announcement shows a drop, and none may be due for long.
                false => quiet >= QUIET.max(2 * self.pause),
            };
            if is_over {
                add(&mut ended, (*topic, reason, samples));
            }
            !is_over
        });
        ended.into_values().collect()
    }
}

/// Returns whether it is the broker that does not take the message.
const fn is_by_broker(reason: DropReason) -> bool {
    matches!(reason, DropReason::Refused | DropReason::TooLarge)
}

fn add(
    reports: &mut BTreeMap<&'static str, DropReport>,
    (topic, reason, samples): (TopicId, DropReason, u64),
) {
    let new = DropReport { reason, topic, topics: 0, samples: 0 };
    let report = reports.entry(reason.label()).or_insert(new);
    report.topics += 1;
    report.samples += samples;
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DATA: TopicId = TopicId::new(1);

    fn gap(topic: TopicId, reason: DropReason) -> Gap {
        Gap { epoch: "e".into(), topic, first_seq: 0, last_seq: 0, samples: 2, reason }
    }

    #[test]
    fn a_broker_that_refuses_everything_for_a_day_costs_two_lines_and_150_events() {
        let (mut reports, start) = (DropReports::default(), Instant::now());
        let (mut lines, mut announcements) = (0, 0);
        // Twenty PLCs; from the second announcement on, the events are refused too.
        for second in 0..86_400 {
            let now = start + SECOND * second;
            lines += reports.take_ended(now).len();
            if !reports.may_announce(now) {
                continue;
            }
            let mut gaps: Vec<_> =
                (1..=20).map(|topic| gap(TopicId::new(topic), DropReason::Refused)).collect();
            gaps.extend((second > 0).then(|| gap(EVENT_TOPIC, DropReason::Refused)));
            announcements += 1;
            lines += reports.on_announced(&gaps, now).len();
        }
        // The data topics, then the event topic.
        assert_eq!(lines, 2);
        assert!((140..160).contains(&announcements), "{announcements}");

        let end = start + SECOND * 86_400;
        (0..=20).for_each(|topic| reports.on_acknowledged(TopicId::new(topic)));
        assert!(reports.may_announce(end));
        let ended = reports.take_ended(end + MAX_PAUSE);
        assert_eq!(ended.iter().map(|report| report.topics).collect::<Vec<_>>(), [21]);
        assert_eq!(reports.take_ended(end + MAX_PAUSE), []);
    }

    #[test]
    fn a_broker_that_refuses_data_for_a_day_and_takes_events_costs_a_line_and_an_event_a_minute() {
        let (mut reports, start) = (DropReports::default(), Instant::now());
        let (mut lines, mut events) = (0, 0);
        for second in 0..86_400 {
            let now = start + SECOND * second;
            // The broker takes every tenth message of the topic.
            if second % 10 == 0 {
                reports.on_acknowledged(DATA);
            }
            lines += reports.take_ended(now).len();
            if reports.may_announce(now) {
                lines += reports.on_announced(&[gap(DATA, DropReason::Refused)], now).len();
                events += 1;
                reports.on_acknowledged(EVENT_TOPIC);
            }
        }
        assert_eq!(lines, 1);
        assert!((1_440..1_460).contains(&events), "{events}");

        // Another topic is announced with the next event, and then at once.
        let end = start + SECOND * 86_400 + MAX_REPEAT_PAUSE;
        let other = gap(TopicId::new(2), DropReason::Refused);
        assert_eq!(reports.on_announced(&[gap(DATA, DropReason::Refused), other], end).len(), 1);
        assert!(reports.may_announce(end));
        reports.on_announced(&[gap(DATA, DropReason::Refused)], end);
        assert!(!reports.may_announce(end));
        reports.end_pause();
        assert!(reports.may_announce(end));
    }

    #[test]
    fn drops_by_the_broker_end_with_an_acknowledgement_and_others_with_time() {
        let (mut reports, now) = (DropReports::default(), Instant::now());
        let gaps = [gap(DATA, DropReason::TooLarge), gap(DATA, DropReason::Full)];
        assert_eq!(reports.on_announced(&gaps, now).len(), 2);
        assert_eq!(reports.on_announced(&gaps, now + SECOND), []);

        let ended = reports.take_ended(now + SECOND + QUIET);
        let full = DropReport { reason: DropReason::Full, topic: DATA, topics: 1, samples: 4 };
        assert_eq!(ended, [full]);
        reports.on_acknowledged(EVENT_TOPIC);
        assert_eq!(reports.take_ended(now + 2 * QUIET), []);
        reports.on_acknowledged(DATA);
        let too_large = DropReport { reason: DropReason::TooLarge, ..full };
        assert_eq!(reports.take_ended(now + 2 * QUIET), [too_large]);
    }

    #[test]
    fn announcements_that_are_taken_are_not_delayed() {
        let (mut reports, now) = (DropReports::default(), Instant::now());
        reports.on_announced(&[gap(DATA, DropReason::Full)], now);
        assert!(reports.may_announce(now));
        let refused = [gap(EVENT_TOPIC, DropReason::Refused)];
        reports.on_announced(&refused, now);
        assert!(!reports.may_announce(now) && reports.may_announce(now + SECOND));
        reports.on_announced(&refused, now);
        assert!(!reports.may_announce(now + SECOND) && reports.may_announce(now + 2 * SECOND));
        // The last event was taken: the next loss is that of data alone.
        reports.on_announced(&[gap(DATA, DropReason::Full)], now);
        assert!(reports.may_announce(now));
    }

    #[test]
    fn nothing_ends_because_the_connection_was_lost() {
        let (mut reports, now) = (DropReports::default(), Instant::now());
        reports.on_announced(&[gap(DATA, DropReason::Full)], now);
        reports.on_connected(now + 10 * QUIET);
        assert_eq!(reports.take_ended(now + 10 * QUIET), []);
    }
}
