//! Decides which lines are logged, so that no peer, cable or disk can fill the log. Pure.
//!
//! A topic is one thing that changes its state: a PLC, the broker, the storage. The first lines of
//! a topic are logged at once. While it flaps, lines are held back; the latest one is logged later
//! with the number of lines that were left out, so the log always ends with the state that is true.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Lines that a topic may log after a calm time, also while others flap: a state begins and ends.
const CALM: Rate = Rate { burst: 2, interval: Duration::from_secs(4 * 3600) };
/// Further lines of one topic, as far as [`SHARED`] allows.
const PER_TOPIC: Rate = Rate { burst: 3, interval: Duration::from_secs(600) };
/// Further lines of all topics together.
const SHARED: Rate = Rate { burst: 10, interval: Duration::from_secs(150) };
/// Most topics that are distinguished: a hundred PLCs on each of a hundred machines have fewer.
/// Lines of further subjects share the topic of their target.
const MAX_TOPICS: usize = 16_384;

/// What a line is about. Lines with the same topic follow each other as states of one thing.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct LineTopic {
    /// The target of the event: its module, unless the call site names another.
    pub(super) target: &'static str,
    /// Name of the PLC, the MQTT topic or the like; empty without one.
    pub(super) subject: String,
}

impl LineTopic {
    /// Returns the topic of all subjects of this target.
    const fn whole(&self) -> Self {
        Self { target: self.target, subject: String::new() }
    }
}

/// What to do with a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Admission {
    /// Log it, and report how many lines of its topic were left out since the last one.
    Log { left_out: u64 },
    /// Hold it back in [`LineLimiter::hold`].
    Hold,
}

/// A line that is logged late.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct LateLine {
    pub(super) text: String,
    /// Lines of the topic that were left out before it.
    pub(super) left_out: u64,
    /// How long it was held back.
    pub(super) age: Duration,
}

/// The lines that every topic has logged lately.
#[derive(Debug, Default)]
pub(super) struct LineLimiter {
    topics: BTreeMap<LineTopic, TopicLines>,
    shared: Bucket,
}

#[derive(Debug, Default)]
struct TopicLines {
    calm: Bucket,
    own: Bucket,
    held: Option<HeldLine>,
    /// Lines held back since the last one that was logged.
    held_count: u64,
}

#[derive(Debug)]
struct HeldLine {
    text: String,
    since: Instant,
}

/// A number of lines at once, and one more after each interval.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    interval: Duration,
}

/// How much of a [`Rate`] is used: the time at which all of it is available again.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket(Option<Instant>);

impl Bucket {
    /// Returns whether one more line fits.
    fn has_room(self, rate: Rate, now: Instant) -> bool {
        let Self(full_at) = self;
        full_at.is_none_or(|full_at| {
            full_at.saturating_duration_since(now) + rate.interval <= rate.interval * rate.burst
        })
    }

    fn take(&mut self, rate: Rate, now: Instant) {
        let Self(full_at) = self;
        *full_at = Some(full_at.map_or(now, |full_at| full_at.max(now)) + rate.interval);
    }
}

impl TopicLines {
    /// Uses up one line, if there is room for one.
    fn take(&mut self, shared: &mut Bucket, now: Instant) -> bool {
        if self.calm.has_room(CALM, now) {
            self.calm.take(CALM, now);
            return true;
        }
        let has_room = self.own.has_room(PER_TOPIC, now) && shared.has_room(SHARED, now);
        if has_room {
            self.own.take(PER_TOPIC, now);
            shared.take(SHARED, now);
        }
        has_room
    }
}

impl LineLimiter {
    /// Returns whether a line is logged now. One that was held back before is then obsolete.
    pub(super) fn admit(&mut self, topic: &LineTopic, now: Instant) -> Admission {
        let Self { topics, shared } = self;
        let is_full = topics.len() >= MAX_TOPICS;
        let shown =
            if is_full && !topics.contains_key(topic) { topic.whole() } else { topic.clone() };
        let lines = topics.entry(shown).or_default();
        if !lines.take(shared, now) {
            return Admission::Hold;
        }
        lines.held = None;
        Admission::Log { left_out: std::mem::take(&mut lines.held_count) }
    }

    /// Holds a line back that [`LineLimiter::admit`] did not allow, in place of an earlier one.
    pub(super) fn hold(&mut self, topic: &LineTopic, text: String, now: Instant) {
        let whole = topic.whole();
        let known = if self.topics.contains_key(topic) { topic } else { &whole };
        let Some(lines) = self.topics.get_mut(known) else { return };
        lines.held = Some(HeldLine { text, since: now });
        lines.held_count += 1;
    }

    /// Returns the held lines that may be logged by now, the oldest first.
    pub(super) fn release(&mut self, now: Instant) -> Vec<LateLine> {
        let Self { topics, shared } = self;
        let mut waiting: Vec<&mut TopicLines> =
            topics.values_mut().filter(|lines| lines.held.is_some()).collect();
        waiting.sort_by_key(|lines| lines.held.as_ref().map(|held| held.since));
        let mut released = Vec::new();
        for lines in waiting {
            if lines.take(shared, now)
                && let Some(HeldLine { text, since }) = lines.held.take()
            {
                let left_out = std::mem::take(&mut lines.held_count).saturating_sub(1);
                let age = now.saturating_duration_since(since);
                released.push(LateLine { text, left_out, age });
            }
        }
        released
    }
}

#[cfg(test)]
mod tests;
