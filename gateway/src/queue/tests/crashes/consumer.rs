//! The consumer: what it got, and what was announced to it.

use super::*;

/// Topic, epoch and number; of the names only the digits at the end.
pub(super) type EntryNumber = (u16, u32, u64);

#[derive(Clone, Default)]
pub(super) struct Consumer {
    received: BTreeSet<EntryNumber>,
    announced: BTreeSet<EntryNumber>,
    /// From which number on messages may be missing, by epoch and topic.
    loss_windows: BTreeMap<u32, BTreeMap<u16, u64>>,
}

impl Consumer {
    pub(super) fn receive(&mut self, number: EntryNumber) {
        self.received.insert(number);
    }

    pub(super) fn on_message(&mut self, message: &Message, own: u32) {
        if let Some(gap) = GapEvent::parse(&message.body) {
            let epoch = gap.epoch.as_deref().map_or(own, epoch);
            let topic = topic(&gap.topic);
            let lost = gap.first_seq..=gap.last_seq;
            self.announced.extend(lost.map(|seq| (topic, epoch, seq)));
        }
        if let Some(start) = UncleanShutdownEvent::parse(&message.body) {
            let known = start.next_seq.iter().map(|(name, seq)| (topic(name), *seq));
            self.loss_windows.insert(epoch(&start.epoch), known.collect());
        }
    }

    pub(super) fn is_accounted_for(&self, number: &EntryNumber) -> bool {
        self.received.contains(number) || self.announced.contains(number)
    }

    /// Returns whether it was announced that this may be missing.
    pub(super) fn may_miss(&self, (topic, epoch, seq): EntryNumber) -> bool {
        let window = self.loss_windows.get(&epoch);
        window.is_some_and(|window| seq >= window.get(&topic).copied().unwrap_or(0))
    }
}

pub(super) fn topic(name: &str) -> u16 {
    name.rsplit('/').next().unwrap().parse().unwrap_or(9)
}

pub(super) fn epoch(name: &str) -> u32 {
    name.strip_prefix('e').unwrap().parse().unwrap()
}
