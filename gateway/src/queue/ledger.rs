//! What the queue has to remember besides its entries: numbers given, and losses to announce.

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
    /// Numbers of this epoch that belong to entries in memory only.
    pub(super) memory_only_seqs: BTreeSet<(TopicId, u64)>,
    /// Losses that are not announced.
    pub(super) gaps: GapSet,
    /// Epochs that ended uncleanly, not announced.
    pub(super) uncleans: Vec<UncleanShutdown>,
    /// What an event announces that is not durable yet, by the id of the event; and messages that
    /// are lost unless their moved copy becomes durable, by the id of the copy.
    pub(super) announced_by: Vec<(u64, PendingAnnouncement)>,
    /// What events of the last run announce that may not be durable yet.
    pub(super) announced_by_last_run: Vec<PendingAnnouncement>,
}

/// Something to announce to the receiver.
#[derive(Clone, Debug)]
pub(super) enum PendingAnnouncement {
    Gap(Gap),
    Unclean(UncleanShutdown),
}

impl Ledger {
    /// Returns the first number of each topic that is not in the log: it was not given yet, or
    /// belongs to an entry in memory only.
    pub(super) fn first_unstored_seqs(&self) -> BTreeMap<TopicId, u64> {
        let first = |topic: TopicId| {
            let unstored = self.memory_only_seqs.range((topic, 0)..=(topic, u64::MAX)).next();
            unstored.map(|(_, seq)| *seq)
        };
        let known = |(topic, next): (&TopicId, &u64)| (*topic, first(*topic).unwrap_or(*next));
        self.next_seq.iter().map(known).collect()
    }

    /// Returns the losses that are to be recorded in the log and are not.
    ///
    /// The log knows every number of a topic below one that it knows, so that the first unknown
    /// number describes a crash. A loss behind a number in memory only has to wait for that number.
    pub(super) fn take_losses(&mut self) -> Vec<Gap> {
        let Self { gaps, memory_only_seqs, epoch, .. } = self;
        let is_behind = |gap: &Gap| {
            let below = (gap.topic, 0)..(gap.topic, gap.first_seq);
            gap.epoch == *epoch && memory_only_seqs.range(below).next().is_some()
        };
        gaps.take_changed(|gap| !is_behind(gap))
    }

    /// Returns what the next run has to announce if only a checkpoint survives.
    pub(super) fn pending_announcements(&self) -> (Vec<Gap>, Vec<UncleanShutdown>) {
        let mut gaps: Vec<Gap> = self.gaps.iter().cloned().collect();
        let mut uncleans = self.uncleans.clone();
        let announced = self.announced_by.iter().map(|(_, announced)| announced);
        for announcement in announced.chain(&self.announced_by_last_run) {
            match announcement {
                PendingAnnouncement::Gap(gap) => gaps.push(gap.clone()),
                PendingAnnouncement::Unclean(unclean) => {
                    add_unclean(&mut uncleans, unclean.clone());
                }
            }
        }
        (gaps, uncleans)
    }

    /// Records that the event that announced this is lost: it has to be announced again.
    pub(super) fn requeue(&mut self, announcement: PendingAnnouncement) {
        match announcement {
            PendingAnnouncement::Gap(gap) => self.gaps.add(gap),
            PendingAnnouncement::Unclean(unclean) => add_unclean(&mut self.uncleans, unclean),
        }
    }

    /// Records that it is not known how much of an epoch that ended uncleanly may be missing.
    pub(super) fn clear_loss_window(&mut self, epoch: &Arc<str>) {
        let unclean = self.uncleans.iter_mut().find(|unclean| unclean.epoch == *epoch);
        unclean.into_iter().for_each(|unclean| unclean.seconds = None);
    }

    /// Returns the next id and the next number of this topic.
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
    /// Returns what an event announces that was sent in this epoch; `None` for any other message.
    pub(super) fn from_event(
        message: &Message,
        epoch: &Arc<str>,
        topics: &mut TopicTable,
    ) -> Option<Self> {
        if let Some(unclean) = UncleanShutdown::parse(&message.body, topics) {
            return Some(Self::Unclean(unclean));
        }
        let event = GapEvent::parse(&message.body)?;
        Some(Self::Gap(Gap {
            epoch: event.epoch.map_or_else(|| Arc::clone(epoch), Arc::from),
            topic: topics.intern(&event.topic.into()),
            first_seq: event.first_seq,
            last_seq: event.last_seq,
            samples: event.samples,
            reason: DropReason::from_label(&event.reason)?,
        }))
    }
}

/// Adds an epoch once: several events may have announced it.
fn add_unclean(uncleans: &mut Vec<UncleanShutdown>, unclean: UncleanShutdown) {
    if uncleans.iter().all(|known| known.epoch != unclean.epoch) {
        uncleans.push(unclean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_behind_a_number_in_memory_only_waits_for_it() {
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
