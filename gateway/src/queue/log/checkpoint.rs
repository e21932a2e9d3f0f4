//! What a log is at one moment, and how it is written down: context, checkpoint, small changes.
//! Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bytes::{ByteReader, put_count, put_signed, put_text, put_varint};
use super::segment::{EntryCounts, Segment};
use crate::metrics::DropReason;
use crate::model::UnixTime;
use crate::queue::range_set::{NumberRange, RangeSet};
use crate::queue::unclean::UncleanShutdown;
use crate::queue::{Gap, TopicId, TopicTable, to_u64};

/// Entries and losses are numbered through, modulo 65,536.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct ChainSeq(u16);

/// Who writes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct RunContext {
    /// Number of the run's first segment.
    pub(super) run: u64,
    /// The epoch under which it counts.
    pub(super) epoch: Arc<str>,
    /// Which start of the machine this is; a new one has lost what was not on the disk.
    pub(super) boot: String,
    /// Seconds of data that a power cut may take, as long as the storage works.
    pub(super) power_window: u64,
    /// Seconds of data that the death of the process may take, as long as the storage works.
    pub(super) kill_window: u64,
    /// Topics by their numbers in this run.
    pub(super) topics: Vec<Arc<str>>,
}

/// What is open, and what has to be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Checkpoint {
    /// The id that the next entry gets.
    pub(super) next_id: u64,
    /// One above the highest id that lies in segments.
    pub(super) appended: u64,
    /// The link that the next entry or loss gets.
    pub(super) chain_seq: ChainSeq,
    /// The number that the next entry of each topic gets.
    pub(super) next_seq: BTreeMap<TopicId, u64>,
    /// Ids that lie in segments and wait.
    pub(super) waiting: RangeSet,
    /// Oldest first, without those in which nothing waits. The last one is being written.
    pub(super) segments: Vec<Segment>,
    /// Gaps whose announcement is not in the log.
    pub(super) gaps: Vec<Gap>,
    /// Unclean starts whose announcement is not in the log.
    pub(super) uncleans: Vec<UncleanShutdown>,
}

impl ChainSeq {
    pub(super) const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    pub(super) fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_le_bytes());
    }

    pub(super) fn parse(cursor: &mut ByteReader<'_>) -> Option<Self> {
        Some(Self(u16::from_le_bytes(cursor.array()?)))
    }
}

impl RunContext {
    /// Seconds of its data that may be missing, for a run in this start of the machine.
    pub(super) fn loss_window(&self, boot: &str) -> u64 {
        let is_same_boot = !boot.is_empty() && self.boot == boot;
        if is_same_boot { self.kill_window } else { self.power_window }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.run.to_le_bytes());
        put_text(out, &self.epoch);
        put_text(out, &self.boot);
        put_varint(out, self.power_window);
        put_varint(out, self.kill_window);
        put_count(out, self.topics.len());
        self.topics.iter().for_each(|topic| put_text(out, topic));
    }

    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let mut cursor = ByteReader(payload);
        Some(Self {
            run: u64::from_le_bytes(cursor.array()?),
            epoch: cursor.text()?.into(),
            boot: cursor.text()?.to_owned(),
            power_window: cursor.varint()?,
            kill_window: cursor.varint()?,
            topics: cursor.list(|cursor| Some(Arc::from(cursor.text()?)))?,
        })
    }

    /// What the topic with this number is called today.
    pub(super) fn topic(&self, number: u16, topics: &mut TopicTable) -> Option<TopicId> {
        Some(topics.intern(self.topics.get(usize::from(number))?))
    }
}

impl Checkpoint {
    /// Topics are written by their numbers, which the run's context explains.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.next_id);
        put_varint(out, self.appended);
        self.chain_seq.put(out);
        put_topics(out, &self.next_seq);
        put_count(out, self.waiting.iter().len());
        for (first, last) in self.waiting.iter() {
            put_varint(out, first);
            put_varint(out, last - first);
        }
        put_count(out, self.segments.len());
        self.segments.iter().for_each(|segment| put_segment(out, segment));
        put_count(out, self.gaps.len());
        self.gaps.iter().for_each(|gap| put_gap(out, gap));
        put_count(out, self.uncleans.len());
        self.uncleans.iter().for_each(|unclean| put_unclean(out, unclean));
    }

    pub(super) fn parse(
        payload: &[u8],
        context: &RunContext,
        topics: &mut TopicTable,
    ) -> Option<Self> {
        let mut cursor = ByteReader(payload);
        Some(Self {
            next_id: cursor.varint()?,
            appended: cursor.varint()?,
            chain_seq: ChainSeq::parse(&mut cursor)?,
            next_seq: decode_topics(&mut cursor, context, topics)?,
            waiting: cursor.list(decode_range)?.into_iter().collect(),
            segments: cursor.list(|cursor| decode_segment(cursor, context, topics))?,
            gaps: cursor.list(|cursor| decode_gap(cursor, context, topics))?,
            uncleans: cursor.list(|cursor| decode_unclean(cursor, context, topics))?,
        })
    }
}

fn decode_range(cursor: &mut ByteReader<'_>) -> Option<(u64, u64)> {
    let first = cursor.varint()?;
    Some((first, first.checked_add(cursor.varint()?)?))
}

fn put_topics(out: &mut Vec<u8>, numbers: &BTreeMap<TopicId, u64>) {
    put_count(out, numbers.len());
    for (topic, number) in numbers {
        put_varint(out, to_u64(topic.index()));
        put_varint(out, *number);
    }
}

fn decode_topics(
    cursor: &mut ByteReader<'_>,
    context: &RunContext,
    topics: &mut TopicTable,
) -> Option<BTreeMap<TopicId, u64>> {
    let pairs = cursor.list(|cursor| Some((cursor.small()?, cursor.varint()?)))?;
    pairs.into_iter().map(|(topic, number)| Some((context.topic(topic, topics)?, number))).collect()
}

fn put_counts(out: &mut Vec<u8>, tally: EntryCounts) {
    [tally.entries, tally.samples, tally.bytes].iter().for_each(|count| put_varint(out, *count));
}

fn decode_counts(cursor: &mut ByteReader<'_>) -> Option<EntryCounts> {
    Some(EntryCounts {
        entries: cursor.varint()?,
        samples: cursor.varint()?,
        bytes: cursor.varint()?,
    })
}

fn put_segment(out: &mut Vec<u8>, segment: &Segment) {
    put_varint(out, segment.number);
    put_varint(out, segment.first_id);
    put_text(out, &segment.epoch);
    put_counts(out, segment.waiting);
    put_signed(out, segment.first_at.map_or(i64::MIN, UnixTime::as_micros));
    put_topics(out, &segment.starts);
    put_topics(out, &segment.ends);
}

fn decode_segment(
    cursor: &mut ByteReader<'_>,
    context: &RunContext,
    topics: &mut TopicTable,
) -> Option<Segment> {
    Some(Segment {
        number: cursor.varint()?,
        first_id: cursor.varint()?,
        epoch: cursor.text()?.into(),
        waiting: decode_counts(cursor)?,
        first_at: Some(cursor.signed()?).filter(|at| *at != i64::MIN).map(UnixTime::from_micros),
        starts: decode_topics(cursor, context, topics)?,
        ends: decode_topics(cursor, context, topics)?,
        size: 0,
    })
}

pub(super) fn put_gap(out: &mut Vec<u8>, gap: &Gap) {
    put_text(out, &gap.epoch);
    put_varint(out, to_u64(gap.topic.index()));
    put_varint(out, gap.first_seq);
    put_varint(out, gap.last_seq.saturating_sub(gap.first_seq));
    put_varint(out, gap.samples);
    put_text(out, gap.reason.label());
}

pub(super) fn decode_gap(
    cursor: &mut ByteReader<'_>,
    context: &RunContext,
    topics: &mut TopicTable,
) -> Option<Gap> {
    let epoch = cursor.text()?.into();
    let topic = context.topic(cursor.small()?, topics)?;
    let (first_seq, last_seq) = decode_range(cursor)?;
    let samples = cursor.varint()?;
    let reason = DropReason::from_label(cursor.text()?)?;
    Some(Gap { epoch, topic, first_seq, last_seq, samples, reason })
}

fn put_unclean(out: &mut Vec<u8>, unclean: &UncleanShutdown) {
    put_text(out, &unclean.epoch);
    put_varint(out, unclean.seconds.map_or(0, |seconds| seconds.saturating_add(1)));
    put_topics(out, &unclean.next_seq);
}

fn decode_unclean(
    cursor: &mut ByteReader<'_>,
    context: &RunContext,
    topics: &mut TopicTable,
) -> Option<UncleanShutdown> {
    Some(UncleanShutdown {
        epoch: cursor.text()?.into(),
        seconds: cursor.varint()?.checked_sub(1),
        next_seq: decode_topics(cursor, context, topics)?,
    })
}

/// Ids of one segment that are settled, and what they held.
pub(super) fn put_settled(out: &mut Vec<u8>, segment: u64, ids: &RangeSet, held: EntryCounts) {
    put_varint(out, segment);
    put_counts(out, held);
    put_count(out, ids.iter().len());
    for (first, last) in ids.iter() {
        put_varint(out, first);
        put_varint(out, last - first);
    }
}

pub(super) fn decode_settled(payload: &[u8]) -> Option<(u64, EntryCounts, Vec<NumberRange>)> {
    let mut cursor = ByteReader(payload);
    Some((cursor.varint()?, decode_counts(&mut cursor)?, cursor.list(decode_range)?))
}
