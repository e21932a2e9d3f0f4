//! Follows frame after frame what the writer of a log did. Pure, but for the lengths of files at the
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

/// What was found.
#[derive(Debug, Default)]
pub(super) struct RecoveredLog {
    pub(super) state: Checkpoint,
    /// Who wrote last; nothing in an empty directory.
    pub(super) context: Option<RunContext>,
    /// Whether the last thing written was the end.
    pub(super) is_clean: bool,
    /// Files of segments in which nothing waits, with their lengths.
    pub(super) idle_files: Vec<(String, u64)>,
    pub(super) next_number: u64,
    /// Whether the last run could not write when it ended.
    pub(super) has_failing_marker: bool,
    /// Segments of a newer program.
    pub(super) newer_version_files: u64,
    /// Segments that cannot be read and are set aside.
    pub(super) unreadable_files: u64,
    /// Segments that should be there and are not, or in which nothing can be read.
    pub(super) damaged: Vec<Segment>,
    /// What is told by entries behind the last checkpoint, which may not be durable, by their ids.
    pub(super) announced: Vec<(u64, PendingAnnouncement)>,
    /// Last byte in use of the newest segment.
    pub(super) used_bytes: u64,
}

/// Follows frame after frame what the writer did.
#[derive(Debug, Default)]
pub(super) struct LogReplay {
    pub(super) found: RecoveredLog,
    gaps: GapSet,
    /// The run whose segments are read, with its epoch.
    run: Option<(u64, Arc<str>)>,
    /// Numbers of the run before these are not looked for.
    starts: BTreeMap<TopicId, u64>,
    /// Numbers of the run that were seen.
    seen: BTreeMap<TopicId, RangeSet>,
    /// Whether something of the run is missing.
    has_hole: bool,
    /// The link that has to come next; unknown before the first.
    link: Option<ChainSeq>,
    /// Segments that were read.
    read: BTreeSet<u64>,
    /// Entries in them, each with the last segment that holds it.
    entries: BTreeMap<u64, (u64, EntryCounts)>,
}

impl LogReplay {
    pub(super) fn replay_segment(&mut self, number: u64, bytes: &[u8], topics: &mut TopicTable) {
        // Without its context nothing of it could be read later: it counts as not there.
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
            self.found.is_clean = frame.kind == FrameKind::Stop;
            self.found.used_bytes = to_u64(frame.end());
            self.replay_frame(&frame, &context, topics);
        }
        self.found.context = Some(context);
    }

    /// A run whose first checkpoint did not survive has not told how the one before it ended.
    fn on_new_epoch(&mut self, context: &RunContext) {
        let other = self.found.context.take_if(|last| last.epoch != context.epoch);
        let Some(last) = other else { return };
        self.end_segment();
        let state = &mut self.found.state;
        let next_seq = std::mem::take(&mut state.next_seq);
        if !self.found.is_clean {
            let seconds = (!self.found.has_failing_marker).then(|| last.loss_window(&context.boot));
            state.uncleans.push(UncleanShutdown { epoch: last.epoch, seconds, next_seq });
        }
    }

    fn end_segment(&mut self) {
        let state = &mut self.found.state;
        if let Some(last) = state.segments.last_mut().filter(|last| last.ends.is_empty()) {
            last.ends.clone_from(&state.next_seq);
        }
    }

    fn begin_segment(&mut self, number: u64, context: &RunContext) {
        self.end_segment();
        self.read.insert(number);
        if self.run.as_ref().is_none_or(|(run, _)| *run != context.run) {
            self.starts.clone_from(&self.found.state.next_seq);
            self.run = Some((context.run, Arc::clone(&context.epoch)));
        }
        let state = &mut self.found.state;
        state.segments.push(Segment {
            number,
            first_id: state.appended,
            epoch: Arc::clone(&context.epoch),
            starts: state.next_seq.clone(),
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
                if let Some(state) = Checkpoint::parse(frame.payload, context, topics) {
                    self.gaps = GapSet::default();
                    self.found.announced.clear();
                    state.gaps.iter().for_each(|gap| self.gaps.add(gap.clone()));
                    self.link = Some(state.chain_seq);
                    if let Some(segment) = state.segments.last().filter(|_| self.seen.is_empty()) {
                        self.starts.clone_from(&segment.starts);
                    }
                    self.found.state = state;
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
                let outline = entry_codec::message_summary(frame.payload);
                if let Some(outline) = outline {
                    self.on_announcement(outline.header.id, frame, topics);
                }
                self.replay_entry(frame, outline, context, topics);
            }
            FrameKind::Settled => self.on_settled(frame),
            FrameKind::Lost => {
                let mut cursor = super::bytes::ByteReader(frame.payload);
                let link = ChainSeq::parse(&mut cursor);
                if let Some(gap) = checkpoint::decode_gap(&mut cursor, context, topics) {
                    link.into_iter().for_each(|link| self.check_chain(link));
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
        outline: Option<EntrySummary>,
        context: &RunContext,
        topics: &mut TopicTable,
    ) {
        let Some(EntrySummary { header: head, samples, at }) = outline else { return };
        let Some(topic) = context.topic(head.topic, topics) else { return };
        self.note_entry_seq(frame, context, topic, head.seq);
        self.check_chain(head.link);
        let state = &mut self.found.state;
        state.appended = state.appended.max(head.id + 1);
        state.next_id = state.next_id.max(head.id + 1);
        state.waiting.insert(head.id);
        if let Some(segment) = state.segments.last_mut() {
            segment.first_at = segment.first_at.or(at);
            // What was written again after a failure counts where it was written last.
            segment.first_id = segment.first_id.min(head.id);
            let tally =
                EntryCounts { entries: 1, samples, bytes: to_u64(frame.end() - frame.start) };
            self.entries.insert(head.id, (segment.number, tally));
        }
    }

    /// A message that was moved here from an older epoch keeps the number of that.
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

    fn check_chain(&mut self, link: ChainSeq) {
        self.has_hole |= self.link.is_some_and(|expected| expected != link);
        self.link = Some(link.next());
    }

    fn note_lost_range(&mut self, gap: &Gap, context: &RunContext) {
        if gap.epoch == context.epoch {
            let seen = self.seen.entry(gap.topic).or_default();
            seen.insert_range((gap.first_seq, gap.last_seq));
        }
    }

    fn note_seq(&mut self, topic: TopicId, seq: u64) {
        let next = self.found.state.next_seq.entry(topic).or_default();
        *next = (*next).max(seq.saturating_add(1));
    }

    /// What an event tells need not be told again.
    fn on_announcement(&mut self, id: u64, frame: &LogFrame<'_>, topics: &mut TopicTable) {
        let Some((epoch, message)) = entry_codec::decode_message(frame.payload, &Arc::from(""))
        else {
            return;
        };
        let Some(told) = PendingAnnouncement::from_event(&message, &epoch.into(), topics) else {
            return;
        };
        match &told {
            PendingAnnouncement::Gap(gap) => {
                self.gaps.remove(&gap.epoch, gap.topic, (gap.first_seq, gap.last_seq));
            }
            PendingAnnouncement::Unclean(unclean) => {
                self.found.state.uncleans.retain(|untold| untold.epoch != unclean.epoch);
            }
        }
        self.found.announced.push((id, told));
    }

    fn on_settled(&mut self, frame: &LogFrame<'_>) {
        let Some((number, held, runs)) = checkpoint::decode_settled(frame.payload) else { return };
        let state = &mut self.found.state;
        runs.into_iter().for_each(|run| state.waiting.remove_range(run));
        let segment = state.segments.iter_mut().find(|segment| segment.number == number);
        if let Some(segment) = segment {
            segment.waiting.subtract(held);
        }
    }

    /// Numbers that were written and did not survive. A hole may begin in one segment and end in
    /// another, so this looks at all that were read of a run.
    fn end_run(&mut self) {
        self.recount_waiting();
        let seen = std::mem::take(&mut self.seen);
        let (Some((_, epoch)), true) = (self.run.take(), std::mem::take(&mut self.has_hole)) else {
            return;
        };
        for (topic, next) in &self.found.state.next_seq {
            let topic = *topic;
            let start = self.starts.get(&topic).copied().unwrap_or(0);
            let Some(last) = next.checked_sub(1).filter(|last| start <= *last) else { continue };
            let mut missing: RangeSet = [(start, last)].into_iter().collect();
            let seen = seen.get(&topic);
            seen.into_iter().flat_map(RangeSet::iter).for_each(|run| missing.remove_range(run));
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

    /// Counts what waits in the segments that were read by what was found there, whatever records
    /// of it survived.
    fn recount_waiting(&mut self) {
        let mut lost = BTreeSet::new();
        let state = &mut self.found.state;
        let firsts: Vec<u64> = state.segments.iter().map(|segment| segment.first_id).collect();
        for (place, segment) in state.segments.iter_mut().enumerate() {
            if !self.read.contains(&segment.number) {
                continue;
            }
            segment.waiting = EntryCounts::default();
            let end = firsts.get(place + 1).copied().unwrap_or(state.appended);
            let mut from = segment.first_id;
            while let Some(id) = state.waiting.first_from(from).filter(|id| *id < end) {
                from = id + 1;
                match self.entries.get(&id) {
                    Some((number, tally)) if *number == segment.number => {
                        segment.waiting.add(*tally)
                    }
                    Some(_) | None => {
                        state.waiting.remove(id);
                        lost.insert(id);
                    }
                }
            }
        }
        self.has_hole |= !lost.is_empty();
        let told = self.found.announced.extract_if(.., |(id, _)| lost.contains(id));
        for (_, untold) in told.collect::<Vec<_>>() {
            self.requeue(untold);
        }
    }

    /// What told this is lost.
    fn requeue(&mut self, untold: PendingAnnouncement) {
        match untold {
            PendingAnnouncement::Gap(gap) => self.gaps.add(gap),
            PendingAnnouncement::Unclean(unclean) => self.found.state.uncleans.push(unclean),
        }
    }

    pub(super) fn finish<S: Storage>(
        mut self,
        sizes: &BTreeMap<u64, u64>,
        storage: &S,
    ) -> RecoveredLog {
        self.end_run();
        self.end_segment();
        let state = &mut self.found.state;
        state.gaps = self.gaps.take();
        state.segments.iter_mut().for_each(|segment| {
            segment.size = sizes.get(&segment.number).copied().unwrap_or(0);
        });
        let is_used = |segment: &Segment| segment.waiting.entries > 0;
        let (used, _): (Vec<Segment>, Vec<Segment>) =
            std::mem::take(&mut state.segments).into_iter().partition(is_used);
        let (kept, gone) = used.into_iter().partition(|segment| segment.size > 0);
        state.segments = kept;
        self.found.damaged = gone;
        let state = &self.found.state;
        let is_free = |number: &u64| !state.segments.iter().any(|used| used.number == *number);
        let free = sizes.iter().filter(|(number, _)| is_free(number));
        self.found.idle_files.extend(free.map(|(number, size)| (file_name(*number), *size)));
        for (name, size) in self.found.idle_files.iter_mut().filter(|(_, size)| *size == 0) {
            *size = storage.open(name).and_then(|file| file.size()).unwrap_or(0);
        }
        self.found
    }
}
