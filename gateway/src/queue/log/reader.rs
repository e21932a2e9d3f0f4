//! A segment that was read, entry by entry. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::checkpoint::RunContext;
use super::entry_codec::{self, EntrySummary, NameMapping};
use super::frame::{self, FrameKind, LogFrame, LogFrames, Salt};
use super::segment::{EntryCounts, Segment};
use crate::metrics::DropReason;
use crate::model::Message;
use crate::queue::range_set::RangeSet;
use crate::queue::{ConfigNames, Entry, Gap, TopicId, TopicTable};

/// The entries of one segment that wait, in their order.
#[derive(Debug)]
pub(in crate::queue) struct SegmentReader {
    pub(super) number: u64,
    epoch: Arc<str>,
    bytes: Vec<u8>,
    names: BTreeMap<u16, NameMapping>,
    /// What the numbers of topics mean today.
    topics: BTreeMap<u16, TopicId>,
    /// By id; taken from the front.
    offsets: Vec<EntryOffset>,
    next: usize,
    /// What should be there and is not.
    pub(in crate::queue) missing_ids: Vec<u64>,
}

/// Where an entry lies. Of small ones there are very many, so that what the frame says is read again.
#[derive(Clone, Copy, Debug)]
struct EntryOffset {
    id: u64,
    at: u32,
}

/// An entry that came back from the disk.
#[derive(Debug)]
pub(in crate::queue) struct StoredEntry<C = StoredContent> {
    pub(in crate::queue) id: u64,
    pub(in crate::queue) topic: TopicId,
    pub(in crate::queue) seq: u64,
    pub(in crate::queue) epoch: Arc<str>,
    /// Bytes on the disk.
    pub(in crate::queue) bytes: u64,
    /// Samples that were stored.
    pub(in crate::queue) samples: u64,
    pub(in crate::queue) content: C,
}

/// What is left of an entry.
#[derive(Debug)]
pub(in crate::queue) enum StoredContent {
    /// The entry, and how many of its samples belong to no tag of today's configuration.
    Whole(Entry, u64),
    /// None of its samples belongs to a tag of today's configuration.
    UnknownTag,
    /// The names that it was written with did not survive.
    NamesLost,
}

impl SegmentReader {
    /// Takes the bytes of a segment; `ids` are those that lie in it, `open` those that wait.
    pub(super) fn new(
        segment: &Segment,
        bytes: Vec<u8>,
        ids: Range<u64>,
        open: &RangeSet,
        topics: &mut TopicTable,
        today: &ConfigNames,
    ) -> Self {
        let (mut places, mut names) = (Vec::new(), BTreeMap::new());
        let (mut known, mut meant) = (BTreeSet::new(), BTreeMap::new());
        if let Some(context) = context(&bytes, segment.number) {
            let salt = Salt { segment: segment.number, run: context.run };
            for frame in LogFrames::new(&bytes, salt) {
                // They are repeated, for the case of damage.
                if frame.kind == FrameKind::Names && known.insert(frame.payload) {
                    names.extend(entry_codec::decode_names(frame.payload, today));
                }
                let Some(EntrySummary { header: head, .. }) = entry_summary(&frame) else {
                    continue;
                };
                if !ids.contains(&head.id) || !open.contains(head.id) {
                    continue;
                }
                let Some(topic) = context.topic(head.topic, topics) else { continue };
                meant.insert(head.topic, topic);
                places.extend(u32::try_from(frame.start).map(|at| EntryOffset { id: head.id, at }));
            }
        }
        // The last word counts.
        places.reverse();
        places.sort_by_key(|place| place.id);
        places.dedup_by_key(|place| place.id);
        let missing = find_missing_ids(&places, &ids, open);
        Self {
            number: segment.number,
            epoch: Arc::clone(&segment.epoch),
            bytes,
            names,
            topics: meant,
            offsets: places,
            next: 0,
            missing_ids: missing,
        }
    }

    /// What all that is left to take holds, and what it takes on the disk.
    pub(super) fn counts(&self) -> EntryCounts {
        let mut all = EntryCounts::default();
        self.entries().for_each(|(frame, outline, _)| {
            all.add(EntryCounts { entries: 1, samples: outline.samples, bytes: frame.len() });
        });
        all
    }

    /// Numbers of the segment that cannot be read, by topic.
    pub(super) fn gaps(&self, segment: &Segment, samples: u64) -> Vec<Gap> {
        let mut samples = samples;
        let mut gaps = Vec::new();
        for (topic, end) in &segment.ends {
            let start = segment.starts.get(topic).copied().unwrap_or(0);
            let Some(last) = end.checked_sub(1).filter(|last| *last >= start) else { continue };
            let mut missing: RangeSet = std::iter::once((start, last)).collect();
            let here = self.entries().filter(|(_, _, here)| here == topic);
            here.filter(|(frame, ..)| self.is_own(frame)).for_each(|(_, outline, _)| {
                missing.remove(outline.header.seq);
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

    /// The entry with this id, if it is here and none behind it was taken.
    pub(super) fn take(&mut self, id: u64, topics: &TopicTable) -> Option<StoredEntry> {
        let rest = self.offsets.get(self.next..)?;
        self.next += rest.iter().take_while(|place| place.id < id).count();
        let place = *self.offsets.get(self.next).filter(|place| place.id == id)?;
        self.next += 1;
        Some(self.stored_entry(self.entry(place)?, topics, |frame, message| {
            self.content(frame, message)
        }))
    }

    /// Every entry, as far as it is needed to count it, or to keep it where it is a message.
    pub(in crate::queue) fn all_entries(
        &self,
        topics: &TopicTable,
    ) -> impl Iterator<Item = StoredEntry<Option<Message>>> {
        self.entries().map(|entry| self.stored_entry(entry, topics, |_, message| message))
    }

    fn entries(&self) -> impl Iterator<Item = (LogFrame<'_>, EntrySummary, TopicId)> {
        self.offsets.iter().filter_map(|place| self.entry(*place))
    }

    fn entry(&self, place: EntryOffset) -> Option<(LogFrame<'_>, EntrySummary, TopicId)> {
        let frame = frame::frame_at(&self.bytes, usize::try_from(place.at).ok()?)?;
        let outline = entry_summary(&frame)?;
        Some((frame, outline, *self.topics.get(&outline.header.topic)?))
    }

    /// Whether it got its number in the run that wrote it; a message that was moved here did not.
    fn is_own(&self, frame: &LogFrame<'_>) -> bool {
        frame.kind == FrameKind::Record
            || entry_codec::epoch_of_message(frame.payload) == Some(&*self.epoch)
    }

    fn stored_entry<C>(
        &self,
        (frame, outline, topic): (LogFrame<'_>, EntrySummary, TopicId),
        topics: &TopicTable,
        content: impl FnOnce(&LogFrame<'_>, Option<Message>) -> C,
    ) -> StoredEntry<C> {
        let name = topics.name(topic).filter(|_| frame.kind == FrameKind::Message);
        let (epoch, message) =
            name.and_then(|name| entry_codec::decode_message(frame.payload, name)).unzip();
        StoredEntry {
            id: outline.header.id,
            topic,
            seq: outline.header.seq,
            epoch: epoch.map_or_else(|| Arc::clone(&self.epoch), Arc::from),
            bytes: frame.len(),
            samples: outline.samples,
            content: content(&frame, message),
        }
    }

    fn content(&self, frame: &LogFrame<'_>, message: Option<Message>) -> StoredContent {
        if let Some(message) = message {
            return StoredContent::Whole(Entry::Message(message), 0);
        }
        let record = (frame.kind == FrameKind::Record)
            .then(|| entry_codec::decode_record(frame.payload, &self.names));
        match record.flatten() {
            None => StoredContent::NamesLost,
            Some((record, _)) if record.samples.is_empty() => StoredContent::UnknownTag,
            Some((record, homeless)) => StoredContent::Whole(Entry::Record(record), homeless),
        }
    }
}

/// What should be there, and is not.
fn find_missing_ids(places: &[EntryOffset], ids: &Range<u64>, open: &RangeSet) -> Vec<u64> {
    let (mut missing, mut from) = (Vec::new(), ids.start);
    while let Some(id) = open.first_from(from).filter(|id| *id < ids.end) {
        if places.binary_search_by_key(&id, |place| place.id).is_err() {
            missing.push(id);
        }
        from = id + 1;
    }
    missing
}

/// What an entry says of itself; nothing for any other frame.
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

/// Who wrote a segment. The last word counts: a table of topics only grows.
pub(super) fn context(bytes: &[u8], segment: u64) -> Option<RunContext> {
    // Only contexts have a checksum without a run.
    let salt = Salt { segment, run: 0 };
    let contexts = LogFrames::new(bytes, salt).filter(|frame| frame.kind == FrameKind::Context);
    contexts.filter_map(|frame| RunContext::parse(frame.payload)).last()
}
