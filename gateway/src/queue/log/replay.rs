//! Follows frame after frame what the writer of a log did. Pure, but for the lengths of files at the
//! end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::frame::{Frame, Frames, Kind, Salt};
use super::loaded::context;
use super::record::{self, Outline};
use super::segment::{Segment, Tally, file_name};
use super::state::{self, Context, Link, State};
use crate::metrics::DropReason;
use crate::queue::gap::Gaps;
use crate::queue::ledger::Untold;
use crate::queue::runs::Runs;
use crate::queue::storage::{Storage, StoredFile};
use crate::queue::unclean::Unclean;
use crate::queue::{Gap, TopicId, Topics, to_u64};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) state: State,
    /// Who wrote last; nothing in an empty directory.
    pub(super) context: Option<Context>,
    /// Whether the last thing written was the end.
    pub(super) is_clean: bool,
    /// Files of segments in which nothing waits, with their lengths.
    pub(super) idle: Vec<(String, u64)>,
    pub(super) next_number: u64,
    /// Whether the last run could not write when it ended.
    pub(super) is_marked: bool,
    /// Segments of a newer program.
    pub(super) set_aside: u64,
    /// Segments that cannot be read and are set aside.
    pub(super) unreadable: u64,
    /// Segments that should be there and are not, or in which nothing can be read.
    pub(super) damaged: Vec<Segment>,
    /// What is told by entries behind the last checkpoint, which may not be durable, by their ids.
    pub(super) told: Vec<(u64, Untold)>,
    /// Last byte in use of the newest segment.
    pub(super) end: u64,
}

/// Follows frame after frame what the writer did.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) found: Recovered,
    gaps: Gaps,
    /// The run whose segments are read, with its epoch.
    run: Option<(u64, Arc<str>)>,
    /// Numbers of the run before these are not looked for.
    starts: BTreeMap<TopicId, u64>,
    /// Numbers of the run that were seen.
    seen: BTreeMap<TopicId, Runs>,
    /// Whether something of the run is missing.
    has_hole: bool,
    /// The link that has to come next; unknown before the first.
    link: Option<Link>,
    /// Segments that were read.
    read: BTreeSet<u64>,
    /// Entries in them, each with the last segment that holds it.
    entries: BTreeMap<u64, (u64, Tally)>,
}

impl Replay {
    pub(super) fn segment(&mut self, number: u64, bytes: &[u8], topics: &mut Topics) {
        // Without its context nothing of it could be read later: it counts as not there.
        let Some(context) = context(bytes, number) else { return };
        if self.run.as_ref().is_some_and(|(run, _)| *run != context.run) {
            self.end_run();
        }
        self.take_over(&context);
        let salt = Salt { segment: number, run: context.run };
        let mut frames = Frames::new(bytes, salt).peekable();
        if frames.peek().is_some() {
            self.begin(number, &context);
        }
        for frame in frames {
            self.found.is_clean = frame.kind == Kind::Stop;
            self.found.end = to_u64(frame.end());
            self.frame(&frame, &context, topics);
        }
        self.found.context = Some(context);
    }

    /// A run whose first checkpoint did not survive has not told how the one before it ended.
    fn take_over(&mut self, context: &Context) {
        let other = self.found.context.take_if(|last| last.epoch != context.epoch);
        let Some(last) = other else { return };
        self.end_segment();
        let state = &mut self.found.state;
        let next_seq = std::mem::take(&mut state.next_seq);
        if !self.found.is_clean {
            let seconds = (!self.found.is_marked).then(|| last.window(&context.boot));
            state.uncleans.push(Unclean { epoch: last.epoch, seconds, next_seq });
        }
    }

    fn end_segment(&mut self) {
        let state = &mut self.found.state;
        if let Some(last) = state.segments.last_mut().filter(|last| last.ends.is_empty()) {
            last.ends.clone_from(&state.next_seq);
        }
    }

    fn begin(&mut self, number: u64, context: &Context) {
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

    fn frame(&mut self, frame: &Frame<'_>, context: &Context, topics: &mut Topics) {
        match frame.kind {
            Kind::Context | Kind::Names | Kind::Stop => {}
            Kind::Checkpoint => {
                if let Some(state) = State::parse(frame.payload, context, topics) {
                    self.gaps = Gaps::default();
                    self.found.told.clear();
                    state.gaps.iter().for_each(|gap| self.gaps.add(gap.clone()));
                    self.link = Some(state.link);
                    if let Some(segment) = state.segments.last().filter(|_| self.seen.is_empty()) {
                        self.starts.clone_from(&segment.starts);
                    }
                    self.found.state = state;
                }
            }
            Kind::Record => {
                self.entry(frame, record::outline_record(frame.payload), context, topics);
            }
            Kind::Message => {
                let outline = record::outline_message(frame.payload);
                if let Some(outline) = outline {
                    self.told(outline.head.id, frame, topics);
                }
                self.entry(frame, outline, context, topics);
            }
            Kind::Settled => self.settled(frame),
            Kind::Lost => {
                let mut cursor = super::bytes::Cursor(frame.payload);
                let link = Link::parse(&mut cursor);
                if let Some(gap) = state::gap(&mut cursor, context, topics) {
                    link.into_iter().for_each(|link| self.linked(link));
                    self.seen_run(&gap, context);
                    self.gaps.remove(&gap.epoch, gap.topic, (gap.first_seq, gap.last_seq));
                    if gap.epoch == context.epoch {
                        self.seq(gap.topic, gap.last_seq);
                    }
                    self.gaps.add(gap);
                }
            }
        }
    }

    fn entry(
        &mut self,
        frame: &Frame<'_>,
        outline: Option<Outline>,
        context: &Context,
        topics: &mut Topics,
    ) {
        let Some(Outline { head, samples, at }) = outline else { return };
        let Some(topic) = context.topic(head.topic, topics) else { return };
        self.seq_of(frame, context, topic, head.seq);
        self.linked(head.link);
        let state = &mut self.found.state;
        state.appended = state.appended.max(head.id + 1);
        state.next_id = state.next_id.max(head.id + 1);
        state.open.insert(head.id);
        if let Some(segment) = state.segments.last_mut() {
            segment.first_at = segment.first_at.or(at);
            // What was written again after a failure counts where it was written last.
            segment.first_id = segment.first_id.min(head.id);
            let tally = Tally { entries: 1, samples, bytes: to_u64(frame.end() - frame.at) };
            self.entries.insert(head.id, (segment.number, tally));
        }
    }

    /// A message that was moved here from an older epoch keeps the number of that.
    fn seq_of(&mut self, frame: &Frame<'_>, context: &Context, topic: TopicId, seq: u64) {
        let is_own = frame.kind == Kind::Record
            || record::epoch_of_message(frame.payload) == Some(&*context.epoch);
        if is_own {
            self.seq(topic, seq);
            self.seen.entry(topic).or_default().insert(seq);
        }
    }

    fn linked(&mut self, link: Link) {
        self.has_hole |= self.link.is_some_and(|expected| expected != link);
        self.link = Some(link.next());
    }

    fn seen_run(&mut self, gap: &Gap, context: &Context) {
        if gap.epoch == context.epoch {
            let seen = self.seen.entry(gap.topic).or_default();
            seen.insert_run((gap.first_seq, gap.last_seq));
        }
    }

    fn seq(&mut self, topic: TopicId, seq: u64) {
        let next = self.found.state.next_seq.entry(topic).or_default();
        *next = (*next).max(seq.saturating_add(1));
    }

    /// What an event tells need not be told again.
    fn told(&mut self, id: u64, frame: &Frame<'_>, topics: &mut Topics) {
        let Some((epoch, message)) = record::message(frame.payload, &Arc::from("")) else { return };
        let Some(told) = Untold::told_by(&message, &epoch.into(), topics) else { return };
        match &told {
            Untold::Gap(gap) => {
                self.gaps.remove(&gap.epoch, gap.topic, (gap.first_seq, gap.last_seq));
            }
            Untold::Unclean(unclean) => {
                self.found.state.uncleans.retain(|untold| untold.epoch != unclean.epoch);
            }
        }
        self.found.told.push((id, told));
    }

    fn settled(&mut self, frame: &Frame<'_>) {
        let Some((number, held, runs)) = state::settled(frame.payload) else { return };
        let state = &mut self.found.state;
        runs.into_iter().for_each(|run| state.open.remove_run(run));
        let segment = state.segments.iter_mut().find(|segment| segment.number == number);
        if let Some(segment) = segment {
            segment.open.subtract(held);
        }
    }

    /// Numbers that were written and did not survive. A hole may begin in one segment and end in
    /// another, so this looks at all that were read of a run.
    fn end_run(&mut self) {
        self.count();
        let seen = std::mem::take(&mut self.seen);
        let (Some((_, epoch)), true) = (self.run.take(), std::mem::take(&mut self.has_hole)) else {
            return;
        };
        for (topic, next) in &self.found.state.next_seq {
            let topic = *topic;
            let start = self.starts.get(&topic).copied().unwrap_or(0);
            let Some(last) = next.checked_sub(1).filter(|last| start <= *last) else { continue };
            let mut missing: Runs = [(start, last)].into_iter().collect();
            let seen = seen.get(&topic);
            seen.into_iter().flat_map(Runs::iter).for_each(|run| missing.remove_run(run));
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
    fn count(&mut self) {
        let mut lost = BTreeSet::new();
        let state = &mut self.found.state;
        let firsts: Vec<u64> = state.segments.iter().map(|segment| segment.first_id).collect();
        for (place, segment) in state.segments.iter_mut().enumerate() {
            if !self.read.contains(&segment.number) {
                continue;
            }
            segment.open = Tally::default();
            let end = firsts.get(place + 1).copied().unwrap_or(state.appended);
            let mut from = segment.first_id;
            while let Some(id) = state.open.first_from(from).filter(|id| *id < end) {
                from = id + 1;
                match self.entries.get(&id) {
                    Some((number, tally)) if *number == segment.number => segment.open.add(*tally),
                    Some(_) | None => {
                        state.open.remove(id);
                        lost.insert(id);
                    }
                }
            }
        }
        self.has_hole |= !lost.is_empty();
        let told = self.found.told.extract_if(.., |(id, _)| lost.contains(id));
        for (_, untold) in told.collect::<Vec<_>>() {
            self.untold(untold);
        }
    }

    /// What told this is lost.
    fn untold(&mut self, untold: Untold) {
        match untold {
            Untold::Gap(gap) => self.gaps.add(gap),
            Untold::Unclean(unclean) => self.found.state.uncleans.push(unclean),
        }
    }

    pub(super) fn finish<S: Storage>(
        mut self,
        sizes: &BTreeMap<u64, u64>,
        storage: &S,
    ) -> Recovered {
        self.end_run();
        self.end_segment();
        let state = &mut self.found.state;
        state.gaps = self.gaps.take();
        state.segments.iter_mut().for_each(|segment| {
            segment.size = sizes.get(&segment.number).copied().unwrap_or(0);
        });
        let is_used = |segment: &Segment| segment.open.entries > 0;
        let (used, _): (Vec<Segment>, Vec<Segment>) =
            std::mem::take(&mut state.segments).into_iter().partition(is_used);
        let (kept, gone) = used.into_iter().partition(|segment| segment.size > 0);
        state.segments = kept;
        self.found.damaged = gone;
        let state = &self.found.state;
        let is_free = |number: &u64| !state.segments.iter().any(|used| used.number == *number);
        let free = sizes.iter().filter(|(number, _)| is_free(number));
        self.found.idle.extend(free.map(|(number, size)| (file_name(*number), *size)));
        for (name, size) in self.found.idle.iter_mut().filter(|(_, size)| *size == 0) {
            *size = storage.open(name).and_then(|file| file.size()).unwrap_or(0);
        }
        self.found
    }
}
