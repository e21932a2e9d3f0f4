//! What the queue has to remember beside its entries: numbers given, and losses to be told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::gap::GapSet;
use super::unclean::UncleanShutdown;
use super::{Gap, GapEvent, TopicId, TopicTable};
use crate::metrics::DropReason;
use crate::model::Message;

/// The part of the queue's state that every checkpoint of the log repeats.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) topics: TopicTable,
    /// The epoch under which numbers are given.
    pub(super) epoch: Arc<str>,
    pub(super) next_id: u64,
    pub(super) next_seq: BTreeMap<TopicId, u64>,
    /// Numbers of this epoch that are given to entries in memory alone.
    pub(super) memory_only_seqs: BTreeSet<(TopicId, u64)>,
    /// What is lost and was not told.
    pub(super) gaps: GapSet,
    /// Epochs that ended uncleanly and were not told.
    pub(super) uncleans: Vec<UncleanShutdown>,
    /// What is told by an entry, or is only lost as long as an entry is not durable: by its id.
    pub(super) announced_by: Vec<(u64, PendingAnnouncement)>,
    /// What is told by entries of the run before that may not be durable yet.
    pub(super) announced_by_last_run: Vec<PendingAnnouncement>,
}

/// Something that a receiver has to learn.
#[derive(Clone, Debug)]
pub(super) enum PendingAnnouncement {
    Gap(Gap),
    Unclean(UncleanShutdown),
}

impl Ledger {
    /// By topic, the first number of which a log that is read after a crash knows nothing: it was
    /// not given, or to an entry that is in memory alone.
    pub(super) fn first_unstored_seqs(&self) -> BTreeMap<TopicId, u64> {
        let first = |topic: TopicId| {
            let unstored = self.memory_only_seqs.range((topic, 0)..=(topic, u64::MAX)).next();
            unstored.map(|(_, seq)| *seq)
        };
        let known = |(topic, next): (&TopicId, &u64)| (*topic, first(*topic).unwrap_or(*next));
        self.next_seq.iter().map(known).collect()
    }

    /// Losses that the log does not know and may. It knows all numbers of a topic below one that it
    /// knows: what is lost behind a number that is in memory alone has to wait for that.
    pub(super) fn take_losses(&mut self) -> Vec<Gap> {
        let Self { gaps, memory_only_seqs: unstored, epoch, .. } = self;
        let is_behind = |gap: &Gap| {
            let below = (gap.topic, 0)..(gap.topic, gap.first_seq);
            gap.epoch == *epoch && unstored.range(below).next().is_some()
        };
        gaps.take_changed(|gap| !is_behind(gap))
    }

    /// What has to be told if nothing else survives.
    pub(super) fn pending_announcements(&self) -> (Vec<Gap>, Vec<UncleanShutdown>) {
        let mut gaps: Vec<Gap> = self.gaps.iter().cloned().collect();
        let mut uncleans = self.uncleans.clone();
        for untold in
            self.announced_by.iter().map(|(_, untold)| untold).chain(&self.announced_by_last_run)
        {
            match untold {
                PendingAnnouncement::Gap(gap) => gaps.push(gap.clone()),
                PendingAnnouncement::Unclean(unclean) => {
                    add_unclean(&mut uncleans, unclean.clone())
                }
            }
        }
        (gaps, uncleans)
    }

    /// What told this is lost.
    pub(super) fn requeue(&mut self, untold: PendingAnnouncement) {
        match untold {
            PendingAnnouncement::Gap(gap) => self.gaps.add(gap),
            PendingAnnouncement::Unclean(unclean) => add_unclean(&mut self.uncleans, unclean),
        }
    }

    /// How much of an epoch that ended uncleanly may be missing is not known.
    pub(super) fn clear_loss_window(&mut self, epoch: &Arc<str>) {
        let unclean = self.uncleans.iter_mut().find(|unclean| unclean.epoch == *epoch);
        unclean.into_iter().for_each(|unclean| unclean.seconds = None);
    }

    /// The next id, and the next number of this topic.
    pub(super) fn next_number(&mut self, topic: TopicId) -> (u64, u64) {
        let id = self.next_id;
        self.next_id += 1;
        let next_seq = self.next_seq.entry(topic).or_insert(0);
        let seq = *next_seq;
        *next_seq += 1;
        (id, seq)
    }
}

impl PendingAnnouncement {
    /// What an event tells that was sent in this epoch.
    pub(super) fn from_event(
        message: &Message,
        epoch: &Arc<str>,
        topics: &mut TopicTable,
    ) -> Option<Self> {
        if let Some(unclean) = UncleanShutdown::parse(&message.body, topics) {
            return Some(Self::Unclean(unclean));
        }
        let told = GapEvent::parse(&message.body)?;
        Some(Self::Gap(Gap {
            epoch: told.epoch.map_or_else(|| Arc::clone(epoch), Arc::from),
            topic: topics.intern(&told.topic.into()),
            first_seq: told.first_seq,
            last_seq: told.last_seq,
            samples: told.samples,
            reason: DropReason::from_label(&told.reason)?,
        }))
    }
}

/// An epoch is told once: several events may have told it.
fn add_unclean(uncleans: &mut Vec<UncleanShutdown>, unclean: UncleanShutdown) {
    if uncleans.iter().all(|known| known.epoch != unclean.epoch) {
        uncleans.push(unclean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_behind_a_number_in_memory_alone_waits_for_it() {
        let (topic, other) = (TopicId::new(1), TopicId::new(2));
        let mut ledger = Ledger { epoch: "e".into(), ..Ledger::default() };
        let gap = |topic, epoch: &str, seq| Gap {
            epoch: epoch.into(),
            topic,
            first_seq: seq,
            last_seq: seq,
            samples: 1,
            reason: DropReason::Refused,
        };
        ledger.memory_only_seqs.insert((topic, 2));
        for lost in
            [gap(topic, "e", 3), gap(topic, "e", 1), gap(topic, "old", 3), gap(other, "e", 3)]
        {
            ledger.gaps.add(lost);
        }

        let ready = [gap(topic, "e", 1), gap(topic, "old", 3), gap(other, "e", 3)];
        assert_eq!(ledger.take_losses(), ready);
        assert_eq!(ledger.take_losses(), []);
        ledger.memory_only_seqs.clear();
        assert_eq!(ledger.take_losses(), [gap(topic, "e", 3)]);
        assert!(!ledger.gaps.has_changed());
    }
}
