//! Repeats frame by frame what the writer of a log did. Pure, but for the lengths of files at the
//! end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::checkpoint::{self, ChainSeq, Checkpoint, RunContext};
use super::entry_codec::{self, EntrySummary};
use super::frame::{FrameKind, LogFrame, LogFrames, Salt};
use super::reader::context;
use super::segment::{EntryCounts, Segment, file_name};
use crate::metrics::DropReason;
use crate::queue::gap::GapSet;
use crate::queue::ledger::PendingAnnouncement;
use crate::queue::range_set::RangeSet;
use crate::queue::storage::{Storage, StoredFile};
use crate::queue::unclean::UncleanShutdown;
use crate::queue::{Gap, TopicId, TopicTable, to_u64};

/// What a start has found.
#[derive(Debug, Default)]
pub(super) struct RecoveredLog {
    pub(super) checkpoint: Checkpoint,
    /// The run that wrote last; `None` in an empty directory.
    pub(super) context: Option<RunContext>,
    /// Whether the last record is that of a clean shutdown.
    pub(super) is_clean: bool,
    /// Files in which nothing waits, with their lengths.
    pub(super) idle_files: Vec<(String, u64)>,
    pub(super) next_number: u64,
    /// Whether the last run could not write when it ended.
    pub(super) has_failing_marker: bool,
    /// Files of a newer version, set aside.
    pub(super) newer_version_files: u64,
    /// Files that cannot be read, set aside.
    pub(super) unreadable_files: u64,
    /// Segments that are missing, or in which nothing can be read.
    pub(super) damaged: Vec<Segment>,
    /// What events behind the last checkpoint announce, by their ids. They may not be durable.
    pub(super) announced: Vec<(u64, PendingAnnouncement)>,
    /// Offset behind the last frame of the newest segment.
    pub(super) used_bytes: u64,
}

/// Repeats frame by frame what the writer did.
#[derive(Debug, Default)]
pub(super) struct LogReplay {
    pub(super) found: RecoveredLog,
    gaps: GapSet,
    /// The run whose segments are read, with its epoch.
    run: Option<(u64, Arc<str>)>,
    /// First numbers of the run to account for, by topic.
    starts: BTreeMap<TopicId, u64>,
    /// Numbers of the run that were seen, as entries or losses.
    seen: BTreeMap<TopicId, RangeSet>,
    /// Whether something of the run is missing.
    has_hole: bool,
    /// The running number expected next; unknown before the first.
    chain_seq: Option<ChainSeq>,
    /// Segments that were read.
    read: BTreeSet<u64>,
    /// Entries in them, with the last segment that holds each.
    entries: BTreeMap<u64, (u64, EntryCounts)>,
}

impl LogReplay {
    /// Repeats what was written to a segment. Segments come in the order of their numbers.
    pub(super) fn replay_segment(&mut self, number: u64, bytes: &[u8], topics: &mut TopicTable) {
        // Without a context nothing in it can be decoded: it counts as missing.
        let Some(context) = context(bytes, number) else { return };
        if self.run.as_ref().is_some_and(|(run, _)| *run != context.run) {
            self.end_run();
        }
        self.on_new_epoch(&context);
        let salt = Salt { segment: number, run: context.run };
        let mut frames = LogFrames::new(bytes, salt).peekable();
        if frames.peek().is_some() {
            self.begin_segment(number, &context);
        }
        for frame in frames {
            // Overwritten by each frame: the run ended cleanly only if this was its last one.
            self.found.is_clean = frame.kind == FrameKind::Stop;
            self.found.used_bytes = to_u64(frame.end());
            self.replay_frame(&frame, &context, topics);
        }
        self.found.context = Some(context);
    }

    /// Records the unclean shutdown of the run before, which a run states in its first checkpoint:
    /// that may have been lost.
    fn on_new_epoch(&mut self, context: &RunContext) {
        let other = self.found.context.take_if(|last| last.epoch != context.epoch);
        let Some(last) = other else { return };
        self.end_segment();
        let checkpoint = &mut self.found.checkpoint;
        let next_seq = std::mem::take(&mut checkpoint.next_seq);
        if !self.found.is_clean {
            let seconds = (!self.found.has_failing_marker).then(|| last.loss_window(&context.boot));
            checkpoint.uncleans.push(UncleanShutdown { epoch: last.epoch, seconds, next_seq });
        }
    }

    fn end_segment(&mut self) {
        let checkpoint = &mut self.found.checkpoint;
        if let Some(last) = checkpoint.segments.last_mut().filter(|last| last.ends.is_empty()) {
            last.ends.clone_from(&checkpoint.next_seq);
        }
    }

    fn begin_segment(&mut self, number: u64, context: &RunContext) {
        self.end_segment();
        self.read.insert(number);
        if self.run.as_ref().is_none_or(|(run, _)| *run != context.run) {
            self.starts.clone_from(&self.found.checkpoint.next_seq);
            self.run = Some((context.run, Arc::clone(&context.epoch)));
        }
        let checkpoint = &mut self.found.checkpoint;
        checkpoint.segments.push(Segment {
            number,
            first_id: checkpoint.appended,
            epoch: Arc::clone(&context.epoch),
            starts: checkpoint.next_seq.clone(),
            ..Segment::default()
        });
    }

    fn replay_frame(
        &mut self,
        frame: &LogFrame<'_>,
        context: &RunContext,
        topics: &mut TopicTable,
    ) {
        match frame.kind {
            FrameKind::Context | FrameKind::Names | FrameKind::Stop => {}
            FrameKind::Checkpoint => {
                if let Some(checkpoint) = Checkpoint::parse(frame.payload, context, topics) {
                    self.gaps = GapSet::default();
                    self.found.announced.clear();
                    checkpoint.gaps.iter().for_each(|gap| self.gaps.add(gap.clone()));
                    self.chain_seq = Some(checkpoint.chain_seq);
                    if let Some(segment) =
                        checkpoint.segments.last().filter(|_| self.seen.is_empty())
                    {
                        self.starts.clone_from(&segment.starts);
                    }
                    self.found.checkpoint = checkpoint;
                }
            }
            FrameKind::Record => {
                self.replay_entry(
                    frame,
                    entry_codec::record_summary(frame.payload),
                    context,
                    topics,
                );
            }
            FrameKind::Message => {
                let summary = entry_codec::message_summary(frame.payload);
                if let Some(summary) = summary {
                    self.on_announcement(summary.header.id, frame, topics);
                }
                self.replay_entry(frame, summary, context, topics);
            }
            FrameKind::Settled => self.on_settled(frame),
            FrameKind::Lost => {
                let mut reader = super::bytes::ByteReader(frame.payload);
                let chain_seq = ChainSeq::parse(&mut reader);
                if let Some(gap) = checkpoint::decode_gap(&mut reader, context, topics) {
                    chain_seq.into_iter().for_each(|chain_seq| self.check_chain(chain_seq));
                    self.note_lost_range(&gap, context);
                    self.gaps.remove(&gap.epoch, gap.topic, (gap.first_seq, gap.last_seq));
                    if gap.epoch == context.epoch {
                        self.note_seq(gap.topic, gap.last_seq);
                    }
                    self.gaps.add(gap);
                }
            }
        }
    }

    fn replay_entry(
        &mut self,
        frame: &LogFrame<'_>,
        summary: Option<EntrySummary>,
        context: &RunContext,
        topics: &mut TopicTable,
    ) {
        let Some(EntrySummary { header, samples, at }) = summary else { return };
        let Some(topic) = context.topic(header.topic, topics) else { return };
        self.note_entry_seq(frame, context, topic, header.seq);
        self.check_chain(header.chain_seq);
        let checkpoint = &mut self.found.checkpoint;
        checkpoint.appended = checkpoint.appended.max(header.id + 1);
        checkpoint.next_id = checkpoint.next_id.max(header.id + 1);
        checkpoint.waiting.insert(header.id);
        if let Some(segment) = checkpoint.segments.last_mut() {
            segment.first_at = segment.first_at.or(at);
            // An entry that was written again after a failure counts where it was written last.
            segment.first_id = segment.first_id.min(header.id);
            let counts =
                EntryCounts { entries: 1, samples, bytes: to_u64(frame.end() - frame.start) };
            self.entries.insert(header.id, (segment.number, counts));
        }
    }

    /// Records the number of an entry. A message that was moved here keeps that of an older epoch.
    fn note_entry_seq(
        &mut self,
        frame: &LogFrame<'_>,
        context: &RunContext,
        topic: TopicId,
        seq: u64,
    ) {
        let is_own = frame.kind == FrameKind::Record
            || entry_codec::epoch_of_message(frame.payload) == Some(&*context.epoch);
        if is_own {
            self.note_seq(topic, seq);
            self.seen.entry(topic).or_default().insert(seq);
        }
    }

    fn check_chain(&mut self, chain_seq: ChainSeq) {
        // The numbers are consecutive, so that a jump shows a frame that was lost in between.
        self.has_hole |= self.chain_seq.is_some_and(|expected| expected != chain_seq);
        self.chain_seq = Some(chain_seq.next());
    }

    fn note_lost_range(&mut self, gap: &Gap, context: &RunContext) {
        if gap.epoch == context.epoch {
            let seen = self.seen.entry(gap.topic).or_default();
            seen.insert_range((gap.first_seq, gap.last_seq));
        }
    }

    fn note_seq(&mut self, topic: TopicId, seq: u64) {
        let next = self.found.checkpoint.next_seq.entry(topic).or_default();
        *next = (*next).max(seq.saturating_add(1));
    }

    /// Records what an event announces: it need not be announced again.
    fn on_announcement(&mut self, id: u64, frame: &LogFrame<'_>, topics: &mut TopicTable) {
        let Some((epoch, message)) = entry_codec::decode_message(frame.payload, &Arc::from(""))
        else {
            return;
        };
        let Some(announced) = PendingAnnouncement::from_event(&message, &epoch.into(), topics)
        else {
            return;
        };
        match &announced {
            PendingAnnouncement::Gap(gap) => {
                self.gaps.remove(&gap.epoch, gap.topic, (gap.first_seq, gap.last_seq));
            }
            PendingAnnouncement::Unclean(unclean) => {
                self.found.checkpoint.uncleans.retain(|announced| announced.epoch != unclean.epoch);
            }
        }
        self.found.announced.push((id, announced));
    }

    fn on_settled(&mut self, frame: &LogFrame<'_>) {
        let Some((number, held, ranges)) = checkpoint::decode_settled(frame.payload) else {
            return;
        };
        let checkpoint = &mut self.found.checkpoint;
        ranges.into_iter().for_each(|range| checkpoint.waiting.remove_range(range));
        let segment = checkpoint.segments.iter_mut().find(|segment| segment.number == number);
        if let Some(segment) = segment {
            segment.waiting.subtract(held);
        }
    }

    /// Records the numbers of a run that were written and lost. A hole may begin in one segment and
    /// end in another, so this looks at all segments of the run at once.
    fn end_run(&mut self) {
        self.recount_waiting();
        let seen = std::mem::take(&mut self.seen);
        let (Some((_, epoch)), true) = (self.run.take(), std::mem::take(&mut self.has_hole)) else {
            return;
        };
        for (topic, next) in &self.found.checkpoint.next_seq {
            let topic = *topic;
            let start = self.starts.get(&topic).copied().unwrap_or(0);
            let Some(last) = next.checked_sub(1).filter(|last| start <= *last) else { continue };
            let mut missing: RangeSet = [(start, last)].into_iter().collect();
            let seen = seen.get(&topic);
            seen.into_iter().for_each(|seen| missing.remove_all(seen));
            for (first_seq, last_seq) in missing.iter() {
                self.gaps.add(Gap {
                    epoch: Arc::clone(&epoch),
                    topic,
                    first_seq,
                    last_seq,
                    samples: 0,
                    reason: DropReason::Corrupt,
                });
            }
        }
    }

    /// Counts what waits in the segments that were read by the entries found there: records about
    /// them may be lost.
    fn recount_waiting(&mut self) {
        let mut lost = BTreeSet::new();
        let checkpoint = &mut self.found.checkpoint;
        let firsts: Vec<u64> = checkpoint.segments.iter().map(|segment| segment.first_id).collect();
        for (place, segment) in checkpoint.segments.iter_mut().enumerate() {
            if !self.read.contains(&segment.number) {
                continue;
            }
            segment.waiting = EntryCounts::default();
            let end = firsts.get(place + 1).copied().unwrap_or(checkpoint.appended);
            let mut from = segment.first_id;
            while let Some(id) = checkpoint.waiting.first_from(from).filter(|id| *id < end) {
                from = id + 1;
                match self.entries.get(&id) {
                    Some((number, counts)) if *number == segment.number => {
                        segment.waiting.add(*counts);
                    }
                    Some(_) | None => {
                        checkpoint.waiting.remove(id);
                        lost.insert(id);
                    }
                }
            }
        }
        self.has_hole |= !lost.is_empty();
        let announced = self.found.announced.extract_if(.., |(id, _)| lost.contains(id));
        for (_, announced) in announced.collect::<Vec<_>>() {
            self.requeue(announced);
        }
    }

    /// Records that the event that announced this is lost.
    fn requeue(&mut self, announced: PendingAnnouncement) {
        match announced {
            PendingAnnouncement::Gap(gap) => self.gaps.add(gap),
            PendingAnnouncement::Unclean(unclean) => self.found.checkpoint.uncleans.push(unclean),
        }
    }

    /// Returns what was found; `sizes` are the lengths of the segments' files.
    pub(super) fn finish<S: Storage>(
        mut self,
        sizes: &BTreeMap<u64, u64>,
        storage: &S,
    ) -> RecoveredLog {
        self.end_run();
        self.end_segment();
        let checkpoint = &mut self.found.checkpoint;
        checkpoint.gaps = self.gaps.take();
        checkpoint.segments.iter_mut().for_each(|segment| {
            segment.size = sizes.get(&segment.number).copied().unwrap_or(0);
        });
        let is_used = |segment: &Segment| segment.waiting.entries > 0;
        let (used, _): (Vec<Segment>, Vec<Segment>) =
            std::mem::take(&mut checkpoint.segments).into_iter().partition(is_used);
        // A length of 0: the file is missing or empty, and what waited in it is lost.
        let (kept, gone) = used.into_iter().partition(|segment| segment.size > 0);
        checkpoint.segments = kept;
        self.found.damaged = gone;
        let checkpoint = &self.found.checkpoint;
        let is_free = |number: &u64| !checkpoint.segments.iter().any(|used| used.number == *number);
        let free = sizes.iter().filter(|(number, _)| is_free(number));
        self.found.idle_files.extend(free.map(|(number, size)| (file_name(*number), *size)));
        for (name, size) in self.found.idle_files.iter_mut().filter(|(_, size)| *size == 0) {
            *size = storage.open(name).and_then(|file| file.size()).unwrap_or(0);
        }
        self.found
    }
}
