//! The state of a log, and how it is encoded: context, checkpoint, and changes between checkpoints.
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

/// Running number of entries and losses, modulo 65,536.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct ChainSeq(u16);

/// The run that writes a segment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct RunContext {
    /// Number of its first segment.
    pub(super) run: u64,
    /// The epoch under which it gives numbers.
    pub(super) epoch: Arc<str>,
    /// Id of the boot of the machine. After another boot, what was not on disk is lost.
    pub(super) boot: String,
    /// Seconds of data that a power cut may cost while the storage works.
    pub(super) power_window: u64,
    /// Seconds of data that a killed process may cost while the storage works.
    pub(super) kill_window: u64,
    /// Topics by their numbers in this run.
    pub(super) topics: Vec<Arc<str>>,
}

/// What waits, and what has to be announced.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Checkpoint {
    /// The id of the next entry.
    pub(super) next_id: u64,
    /// One above the highest id in the segments.
    pub(super) appended: u64,
    /// The running number of the next entry or loss.
    pub(super) chain_seq: ChainSeq,
    /// The number of the next entry of each topic.
    pub(super) next_seq: BTreeMap<TopicId, u64>,
    /// Ids that wait in the segments.
    pub(super) waiting: RangeSet,
    /// Segments in which something waits, oldest first, and the one being written last.
    pub(super) segments: Vec<Segment>,
    /// Gaps that no event in the log announces.
    pub(super) gaps: Vec<Gap>,
    /// Unclean shutdowns that no event in the log announces.
    pub(super) uncleans: Vec<UncleanShutdown>,
}

impl ChainSeq {
    pub(super) const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    pub(super) fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_le_bytes());
    }

    pub(super) fn parse(reader: &mut ByteReader<'_>) -> Option<Self> {
        Some(Self(u16::from_le_bytes(reader.array()?)))
    }
}

impl RunContext {
    /// Returns the seconds of its data that may be missing for a run of this boot.
    pub(super) fn loss_window(&self, boot: &str) -> u64 {
        if self.is_of_boot(boot) { self.kill_window } else { self.power_window }
    }

    /// Returns whether this boot of the machine began the run, as far as that is known.
    pub(super) fn is_of_boot(&self, boot: &str) -> bool {
        !boot.is_empty() && self.boot == boot
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
        let mut reader = ByteReader(payload);
        Some(Self {
            run: u64::from_le_bytes(reader.array()?),
            epoch: reader.text()?.into(),
            boot: reader.text()?.to_owned(),
            power_window: reader.varint()?,
            kill_window: reader.varint()?,
            topics: reader.list(|reader| Some(Arc::from(reader.text()?)))?,
        })
    }

    /// Returns today's number of the topic with this number.
    pub(super) fn topic(&self, number: u16, topics: &mut TopicTable) -> Option<TopicId> {
        Some(topics.intern(self.topics.get(usize::from(number))?))
    }
}

impl Checkpoint {
    /// Encodes the state. Topics are written as numbers; the context of the run has their names.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.next_id);
        put_varint(out, self.appended);
        self.chain_seq.put(out);
        put_topics(out, &self.next_seq);
        put_ranges(out, &self.waiting);
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
        let mut reader = ByteReader(payload);
        Some(Self {
            next_id: reader.varint()?,
            appended: reader.varint()?,
            chain_seq: ChainSeq::parse(&mut reader)?,
            next_seq: decode_topics(&mut reader, context, topics)?,
            waiting: reader.list(decode_range)?.into_iter().collect(),
            segments: reader.list(|reader| decode_segment(reader, context, topics))?,
            gaps: reader.list(|reader| decode_gap(reader, context, topics))?,
            uncleans: reader.list(|reader| decode_unclean(reader, context, topics))?,
        })
    }
}

fn put_ranges(out: &mut Vec<u8>, ranges: &RangeSet) {
    put_count(out, ranges.iter().len());
    for (first, last) in ranges.iter() {
        put_varint(out, first);
        put_varint(out, last - first);
    }
}

fn decode_range(reader: &mut ByteReader<'_>) -> Option<(u64, u64)> {
    let first = reader.varint()?;
    Some((first, first.checked_add(reader.varint()?)?))
}

fn put_topics(out: &mut Vec<u8>, numbers: &BTreeMap<TopicId, u64>) {
    put_count(out, numbers.len());
    for (topic, number) in numbers {
        put_varint(out, to_u64(topic.index()));
        put_varint(out, *number);
    }
}

fn decode_topics(
    reader: &mut ByteReader<'_>,
    context: &RunContext,
    topics: &mut TopicTable,
) -> Option<BTreeMap<TopicId, u64>> {
    let pairs = reader.list(|reader| Some((reader.small()?, reader.varint()?)))?;
    pairs.into_iter().map(|(topic, number)| Some((context.topic(topic, topics)?, number))).collect()
}

fn put_counts(out: &mut Vec<u8>, tally: EntryCounts) {
    [tally.entries, tally.samples, tally.bytes].iter().for_each(|count| put_varint(out, *count));
}

fn decode_counts(reader: &mut ByteReader<'_>) -> Option<EntryCounts> {
    Some(EntryCounts {
        entries: reader.varint()?,
        samples: reader.varint()?,
        bytes: reader.varint()?,
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
    reader: &mut ByteReader<'_>,
    context: &RunContext,
    topics: &mut TopicTable,
) -> Option<Segment> {
    Some(Segment {
        number: reader.varint()?,
        first_id: reader.varint()?,
        epoch: reader.text()?.into(),
        waiting: decode_counts(reader)?,
        first_at: Some(reader.signed()?).filter(|at| *at != i64::MIN).map(UnixTime::from_micros),
        starts: decode_topics(reader, context, topics)?,
        ends: decode_topics(reader, context, topics)?,
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
    reader: &mut ByteReader<'_>,
    context: &RunContext,
    topics: &mut TopicTable,
) -> Option<Gap> {
    let epoch = reader.text()?.into();
    let topic = context.topic(reader.small()?, topics)?;
    let (first_seq, last_seq) = decode_range(reader)?;
    let samples = reader.varint()?;
    let reason = DropReason::from_label(reader.text()?)?;
    Some(Gap { epoch, topic, first_seq, last_seq, samples, reason })
}

fn put_unclean(out: &mut Vec<u8>, unclean: &UncleanShutdown) {
    put_text(out, &unclean.epoch);
    put_varint(out, unclean.seconds.map_or(0, |seconds| seconds.saturating_add(1)));
    put_topics(out, &unclean.next_seq);
}

fn decode_unclean(
    reader: &mut ByteReader<'_>,
    context: &RunContext,
    topics: &mut TopicTable,
) -> Option<UncleanShutdown> {
    Some(UncleanShutdown {
        epoch: reader.text()?.into(),
        seconds: reader.varint()?.checked_sub(1),
        next_seq: decode_topics(reader, context, topics)?,
    })
}

/// Encodes ids of one segment that are settled, and what they held.
pub(super) fn put_settled(out: &mut Vec<u8>, segment: u64, ids: &RangeSet, held: EntryCounts) {
    put_varint(out, segment);
    put_counts(out, held);
    put_ranges(out, ids);
}

pub(super) fn decode_settled(payload: &[u8]) -> Option<(u64, EntryCounts, Vec<NumberRange>)> {
    let mut reader = ByteReader(payload);
    Some((reader.varint()?, decode_counts(&mut reader)?, reader.list(decode_range)?))
}
