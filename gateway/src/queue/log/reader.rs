//! A segment that was read back, entry by entry. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::checkpoint::RunContext;
use super::entry_codec::{self, EntrySummary, NameMapping, StoredContent, WrittenIn};
use super::frame::{self, FrameKind, LogFrame, LogFrames, Salt};
use super::segment::{EntryCounts, Segment};
use crate::metrics::DropReason;
use crate::model::Message;
use crate::queue::range_set::RangeSet;
use crate::queue::{ConfigNames, Entry, Gap, TopicId, TopicTable};

/// The entries of one segment that wait, in order.
#[derive(Debug)]
pub(in crate::queue) struct SegmentReader {
    number: u64,
    epoch: Arc<str>,
    bytes: Vec<u8>,
    written_in: WrittenIn,
    names: BTreeMap<u16, NameMapping>,
    /// Today's numbers of the topics, by their stored numbers.
    topics: BTreeMap<u16, TopicId>,
    /// By id; taken from the front.
    offsets: Vec<EntryOffset>,
    next: usize,
    /// Ids that should be there and are not.
    missing_ids: Vec<u64>,
}

/// Where an entry is in the segment. A segment may hold very many small entries, so this is small
/// and the frame is parsed again.
#[derive(Clone, Copy, Debug)]
struct EntryOffset {
    id: u64,
    at: u32,
}

/// An entry that was read back from disk.
#[derive(Debug)]
pub(in crate::queue) struct StoredEntry<C = StoredContent> {
    pub(in crate::queue) id: u64,
    pub(in crate::queue) topic: TopicId,
    pub(in crate::queue) seq: u64,
    pub(in crate::queue) epoch: Arc<str>,
    /// Bytes on disk.
    pub(in crate::queue) bytes: u64,
    /// Samples that were stored.
    pub(in crate::queue) samples: u64,
    pub(in crate::queue) content: C,
}

/// What the entries of a segment are compared with.
#[derive(Clone, Copy)]
pub(super) struct Today<'a> {
    /// The names of this configuration.
    pub(super) names: &'a ConfigNames,
    /// Id of this boot of the machine.
    pub(super) boot: &'a str,
}

impl SegmentReader {
    /// Reads the bytes of a segment in which `ids` lie; `waiting` are those that wait in the log.
    pub(super) fn new(
        segment: &Segment,
        bytes: Vec<u8>,
        ids: Range<u64>,
        waiting: &RangeSet,
        topics: &mut TopicTable,
        now: &Today<'_>,
    ) -> Self {
        let Today { names: today, boot } = *now;
        let mut written_in = WrittenIn::AnotherBoot;
        let (mut offsets, mut names) = (Vec::new(), BTreeMap::new());
        let (mut known, mut topics_now) = (BTreeSet::new(), BTreeMap::new());
        if let Some(context) = context(&bytes, segment.number) {
            let salt = Salt { segment: segment.number, run: context.run };
            if context.is_of_boot(boot) {
                written_in = WrittenIn::ThisBoot;
            }
            for frame in LogFrames::new(&bytes, salt) {
                // Names are repeated against damage: equal copies are decoded once.
                if frame.kind == FrameKind::Names && known.insert(frame.payload) {
                    names.extend(entry_codec::decode_names(frame.payload, today));
                }
                let Some(EntrySummary { header, .. }) = entry_summary(&frame) else { continue };
                if !ids.contains(&header.id) || !waiting.contains(header.id) {
                    continue;
                }
                let Some(topic) = context.topic(header.topic, topics) else { continue };
                topics_now.insert(header.topic, topic);
                let at = u32::try_from(frame.start);
                offsets.extend(at.map(|at| EntryOffset { id: header.id, at }));
            }
        }
        // An entry that was written again after a failure counts where it was written last.
        // The sort is stable and `dedup` keeps the first, so the last one is moved to the front.
        offsets.reverse();
        offsets.sort_by_key(|offset| offset.id);
        offsets.dedup_by_key(|offset| offset.id);
        let missing_ids = find_missing_ids(&offsets, &ids, waiting);
        let (number, epoch) = (segment.number, Arc::clone(&segment.epoch));
        let topics = topics_now;
        Self { number, epoch, bytes, written_in, names, topics, offsets, next: 0, missing_ids }
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Returns the ids that should be there and are not, and forgets them.
    pub(super) fn take_missing_ids(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.missing_ids)
    }

    pub(in crate::queue) const fn has_missing_ids(&self) -> bool {
        !self.missing_ids.is_empty()
    }

    /// Returns how much all entries hold together.
    pub(super) fn counts(&self) -> EntryCounts {
        let mut all = EntryCounts::default();
        self.entries().for_each(|(frame, summary, _)| {
            all.add(EntryCounts { entries: 1, samples: summary.samples, bytes: frame.len() });
        });
        all
    }

    /// Returns the numbers of the segment that cannot be read, by topic. The first gap gets the
    /// samples.
    pub(super) fn gaps(&self, segment: &Segment, samples: u64) -> Vec<Gap> {
        let mut samples = samples;
        let mut gaps = Vec::new();
        for (topic, end) in &segment.ends {
            let start = segment.starts.get(topic).copied().unwrap_or(0);
            let Some(last) = end.checked_sub(1).filter(|last| *last >= start) else { continue };
            let mut missing: RangeSet = std::iter::once((start, last)).collect();
            let here = self.entries().filter(|(_, _, here)| here == topic);
            here.filter(|(frame, ..)| self.is_own(frame)).for_each(|(_, summary, _)| {
                missing.remove(summary.header.seq);
            });
            gaps.extend(missing.iter().map(|(first_seq, last_seq)| Gap {
                epoch: Arc::clone(&self.epoch),
                topic: *topic,
                first_seq,
                last_seq,
                samples: std::mem::take(&mut samples),
                reason: DropReason::Corrupt,
            }));
        }
        gaps
    }

    /// Returns the entry with this id, if it is here and no later one was taken.
    pub(super) fn take(&mut self, id: u64, topics: &TopicTable) -> Option<StoredEntry> {
        let rest = self.offsets.get(self.next..)?;
        self.next += rest.iter().take_while(|offset| offset.id < id).count();
        let offset = *self.offsets.get(self.next).filter(|offset| offset.id == id)?;
        self.next += 1;
        let entry = self.entry(offset)?;
        Some(self.stored_entry(entry, topics, |frame, message| self.content(frame, message)))
    }

    /// Returns every entry as far as it is needed to count it, with its content if it is a message.
    pub(in crate::queue) fn all_entries(
        &self,
        topics: &TopicTable,
    ) -> impl Iterator<Item = StoredEntry<Option<Message>>> {
        self.entries().map(|entry| self.stored_entry(entry, topics, |_, message| message))
    }

    fn entries(&self) -> impl Iterator<Item = (LogFrame<'_>, EntrySummary, TopicId)> {
        self.offsets.iter().filter_map(|offset| self.entry(*offset))
    }

    fn entry(&self, offset: EntryOffset) -> Option<(LogFrame<'_>, EntrySummary, TopicId)> {
        let frame = frame::frame_at(&self.bytes, usize::try_from(offset.at).ok()?)?;
        let summary = entry_summary(&frame)?;
        Some((frame, summary, *self.topics.get(&summary.header.topic)?))
    }

    /// Returns whether an entry got its number in the run that wrote the segment; a message that
    /// was moved here did not.
    fn is_own(&self, frame: &LogFrame<'_>) -> bool {
        frame.kind == FrameKind::Record
            || entry_codec::epoch_of_message(frame.payload) == Some(&*self.epoch)
    }

    fn stored_entry<C>(
        &self,
        (frame, summary, topic): (LogFrame<'_>, EntrySummary, TopicId),
        topics: &TopicTable,
        content: impl FnOnce(&LogFrame<'_>, Option<Message>) -> C,
    ) -> StoredEntry<C> {
        let name = topics.name(topic).filter(|_| frame.kind == FrameKind::Message);
        let message = name.and_then(|name| entry_codec::decode_message(frame.payload, name));
        let (epoch, message) = message.unzip();
        StoredEntry {
            id: summary.header.id,
            topic,
            seq: summary.header.seq,
            epoch: epoch.map_or_else(|| Arc::clone(&self.epoch), Arc::from),
            bytes: frame.len(),
            samples: summary.samples,
            content: content(&frame, message),
        }
    }

    fn content(&self, frame: &LogFrame<'_>, message: Option<Message>) -> StoredContent {
        if let Some(message) = message {
            return StoredContent::Whole(Entry::Message(message), 0);
        }
        let is_record = frame.kind == FrameKind::Record;
        let record = is_record
            .then(|| entry_codec::decode_record(frame.payload, &self.names, self.written_in));
        record.flatten().unwrap_or(StoredContent::NamesLost)
    }
}

impl<C> StoredEntry<C> {
    /// Returns the gap that this entry leaves when it is dropped.
    pub(in crate::queue) fn to_gap(&self, reason: DropReason) -> Gap {
        Gap::single((self.topic, &self.epoch, self.seq), self.samples, reason)
    }
}

/// Returns those of `ids` that wait in the log and have no entry among `offsets`.
fn find_missing_ids(offsets: &[EntryOffset], ids: &Range<u64>, waiting: &RangeSet) -> Vec<u64> {
    let (mut missing, mut from) = (Vec::new(), ids.start);
    while let Some(id) = waiting.first_from(from).filter(|id| *id < ids.end) {
        if offsets.binary_search_by_key(&id, |offset| offset.id).is_err() {
            missing.push(id);
        }
        from = id + 1;
    }
    missing
}

/// Returns what the first bytes of an entry state; `None` for any other frame.
fn entry_summary(frame: &LogFrame<'_>) -> Option<EntrySummary> {
    match frame.kind {
        FrameKind::Record => entry_codec::record_summary(frame.payload),
        FrameKind::Message => entry_codec::message_summary(frame.payload),
        FrameKind::Context
        | FrameKind::Checkpoint
        | FrameKind::Names
        | FrameKind::Settled
        | FrameKind::Lost
        | FrameKind::Stop => None,
    }
}

/// Returns the context of the run that wrote a segment, in its last copy: a table of topics only
/// grows.
///
/// The segment may hold contexts of an older run: a power cut can undo the renaming of a file that
/// was written, and the next run can give the file the same number again.
pub(super) fn context(bytes: &[u8], segment: u64) -> Option<RunContext> {
    // Only contexts have a checksum without a run.
    let salt = Salt { segment, run: 0 };
    let contexts = LogFrames::new(bytes, salt).filter(|frame| frame.kind == FrameKind::Context);
    let contexts = contexts.filter_map(|frame| RunContext::parse(frame.payload));
    // The last of several with the same run.
    contexts.max_by_key(|context| context.run)
}
