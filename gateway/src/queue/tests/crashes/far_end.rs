//! What the far end got and heard.

use super::*;

/// Topic, epoch, number: of their names what is at the end.
pub(super) type Number = (u16, u32, u64);

#[derive(Clone, Default)]
pub(super) struct FarEnd {
    received: BTreeSet<Number>,
    announced: BTreeSet<Number>,
    /// By epoch and topic, from where on numbers may be missing.
    windows: BTreeMap<u32, BTreeMap<u16, u64>>,
}

impl FarEnd {
    pub(super) fn receive(&mut self, number: Number) {
        self.received.insert(number);
    }

    pub(super) fn hear(&mut self, message: &Message, own: u32) {
        if let Some(gap) = Announcement::parse(&message.body) {
            let epoch = gap.epoch.as_deref().map_or(own, epoch);
            let topic = topic(&gap.topic);
            let lost = gap.first_seq..=gap.last_seq;
            self.announced.extend(lost.map(|seq| (topic, epoch, seq)));
        }
        if let Some(start) = UncleanStart::parse(&message.body) {
            let known = start.next_seq.iter().map(|(name, seq)| (topic(name), *seq));
            self.windows.insert(epoch(&start.epoch), known.collect());
        }
    }

    pub(super) fn knows(&self, number: &Number) -> bool {
        self.received.contains(number) || self.announced.contains(number)
    }

    /// Whether it knows that this may be missing.
    pub(super) fn may_miss(&self, (topic, epoch, seq): Number) -> bool {
        let window = self.windows.get(&epoch);
        window.is_some_and(|window| seq >= window.get(&topic).copied().unwrap_or(0))
    }
}

pub(super) fn topic(name: &str) -> u16 {
    name.rsplit('/').next().unwrap().parse().unwrap_or(9)
}

pub(super) fn epoch(name: &str) -> u32 {
    name.strip_prefix('e').unwrap().parse().unwrap()
}
