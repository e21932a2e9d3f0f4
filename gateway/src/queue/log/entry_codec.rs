//! Encodes entries as payloads of frames, and decodes them. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::bytes::{ByteReader, put_signed, put_text, put_varint};
use super::checkpoint::ChainSeq;
use super::value_codec;
use crate::model::{ClockPeriod, Message, Record, Sample, TrustLevel, UnixTime};
use crate::queue::{ConfigNames, Entry, PlcNames, TagNames, to_u64};

/// The first fields of every entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct EntryHeader {
    pub(super) id: u64,
    /// Running number of entries and losses; a missing one shows that something was lost.
    pub(super) chain_seq: ChainSeq,
    /// Number of the topic in the table of the run.
    pub(super) topic: u16,
    pub(super) seq: u64,
}

/// What the first bytes of an entry state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct EntrySummary {
    pub(super) header: EntryHeader,
    pub(super) samples: u64,
    /// When a record was read; `None` for a message.
    pub(super) at: Option<UnixTime>,
}

/// Which boot of the machine wrote a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum WrittenIn {
    ThisBoot,
    /// Another one, or it is not known.
    AnotherBoot,
}

/// Maps the numbers that a run used for a PLC and its tags to those of today's configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct NameMapping {
    /// Number of the PLC now; `None` when it is not configured any more.
    plc: Option<u16>,
    /// Numbers of its tags now, by their stored numbers.
    tags: Vec<Option<u16>>,
}

/// What an entry on disk means for today's configuration.
#[derive(Debug)]
pub(in crate::queue) enum StoredContent {
    /// The entry, and how many of its samples belong to no configured tag.
    Whole(Entry, u64),
    /// None of its samples belongs to a configured tag.
    UnknownTag,
    /// The names that it was written with were lost.
    NamesLost,
}

pub(super) fn put_entry(out: &mut Vec<u8>, header: EntryHeader, epoch: &str, entry: &Entry) {
    put_varint(out, header.id);
    header.chain_seq.put(out);
    put_varint(out, u64::from(header.topic));
    put_varint(out, header.seq);
    match entry {
        Entry::Record(Record { plc, at, clock, samples }) => {
            put_signed(out, at.as_micros());
            put_varint(out, u64::from(*plc));
            value_codec::put_samples(out, *at, samples);
            put_clock(out, *at, *clock);
        }
        Entry::Message(Message { body, .. }) => {
            put_text(out, epoch);
            // A map of text and JSON values always has a JSON form.
            out.extend(serde_json::to_vec(body).unwrap_or_default());
        }
    }
}

fn decode_header(reader: &mut ByteReader<'_>) -> Option<EntryHeader> {
    let id = reader.varint()?;
    let chain_seq = ChainSeq::parse(reader)?;
    Some(EntryHeader { id, chain_seq, topic: reader.small()?, seq: reader.varint()? })
}

pub(super) fn record_summary(payload: &[u8]) -> Option<EntrySummary> {
    let mut reader = ByteReader(payload);
    let header = decode_header(&mut reader)?;
    let at = UnixTime::from_micros(reader.signed()?);
    reader.small()?;
    Some(EntrySummary { header, samples: to_u64(reader.count()?), at: Some(at) })
}

pub(super) fn message_summary(payload: &[u8]) -> Option<EntrySummary> {
    Some(EntrySummary { header: decode_header(&mut ByteReader(payload))?, samples: 0, at: None })
}

/// Encodes the clock that gave `at`, by the time since the boot: that has fewer digits than a date.
/// It is the end of a record, which has none if the clock is not known.
fn put_clock(out: &mut Vec<u8>, at: UnixTime, clock: Option<ClockPeriod>) {
    let Some(ClockPeriod { booted_at, trust }) = clock else { return };
    out.push(match trust {
        TrustLevel::Unset => 0,
        TrustLevel::Floor => 1,
        TrustLevel::Synchronised => 2,
    });
    put_signed(out, at.as_micros().wrapping_sub(booted_at.as_micros()));
}

fn decode_clock(reader: &mut ByteReader<'_>, at: UnixTime) -> Option<Option<ClockPeriod>> {
    let trust = match reader.byte() {
        None => return Some(None),
        Some(0) => TrustLevel::Unset,
        Some(1) => TrustLevel::Floor,
        Some(2) => TrustLevel::Synchronised,
        Some(_) => return None,
    };
    let booted_at = UnixTime::from_micros(at.as_micros().wrapping_sub(reader.signed()?));
    Some(Some(ClockPeriod { booted_at, trust }))
}

/// Returns a record with today's numbers; `None` when its bytes or the names for it are damaged.
/// Its clock is known only in the same boot of the machine.
pub(super) fn decode_record(
    payload: &[u8],
    names: &BTreeMap<u16, NameMapping>,
    boot: WrittenIn,
) -> Option<StoredContent> {
    let mut reader = ByteReader(payload);
    decode_header(&mut reader)?;
    let at = UnixTime::from_micros(reader.signed()?);
    let mapping = names.get(&reader.small()?)?;
    let samples = value_codec::decode_samples(&mut reader, at)?;
    let clock = decode_clock(&mut reader, at)?.filter(|_| boot == WrittenIn::ThisBoot);
    let Some(plc) = mapping.plc else { return Some(StoredContent::UnknownTag) };
    let count = samples.len();
    let samples: Vec<Sample> =
        samples.into_iter().filter_map(|sample| mapping.map_sample(sample)).collect();
    if samples.is_empty() {
        return Some(StoredContent::UnknownTag);
    }
    let unmapped_samples = to_u64(count - samples.len());
    Some(StoredContent::Whole(Entry::Record(Record { plc, at, clock, samples }), unmapped_samples))
}

/// Returns the epoch under which a message got its number.
pub(super) fn epoch_of_message(payload: &[u8]) -> Option<&str> {
    let mut reader = ByteReader(payload);
    decode_header(&mut reader)?;
    reader.text()
}

/// Returns a message on this topic, with the epoch of its number.
pub(super) fn decode_message<'a>(
    payload: &'a [u8],
    topic: &Arc<str>,
) -> Option<(&'a str, Message)> {
    let mut reader = ByteReader(payload);
    decode_header(&mut reader)?;
    let epoch = reader.text()?;
    let body: Map<String, Value> = serde_json::from_slice(reader.0).ok()?;
    Some((epoch, Message { topic: Arc::clone(topic), body }))
}

pub(super) fn put_names(out: &mut Vec<u8>, plc: u16, names: &PlcNames) {
    put_varint(out, u64::from(plc));
    put_text(out, &names.name);
    super::bytes::put_count(out, names.tags.len());
    names.tags.iter().for_each(|tag| put_text(out, tag));
}

/// Returns the number that the run used for a PLC, and the mapping of its names to today's numbers.
pub(super) fn decode_names(payload: &[u8], today: &ConfigNames) -> Option<(u16, NameMapping)> {
    let mut reader = ByteReader(payload);
    let stored_plc = reader.small()?;
    let name = reader.text()?;
    let known = (0..).zip(&today.plcs).find(|(_, plc)| plc.name == name);
    let no_tags = TagNames::default();
    let tags = known.map_or(&no_tags, |(_, plc)| &plc.tags);
    // Tags mostly come in today's order. A search for each would take quadratic time: a PLC may
    // have tens of thousands.
    let from = |place| tags.iter().zip(0..).skip(place).peekable();
    let mut ahead = from(0);
    let mut place = |name: &str| {
        if ahead.peek().is_none_or(|(tag, _)| *tag != name) {
            let place = tags.iter().position(|tag| tag == name)?;
            ahead = from(place);
        }
        ahead.next().map(|(_, place): (&str, u16)| place)
    };
    let tags = reader.list(|reader| Some(place(reader.text()?)))?;
    Some((stored_plc, NameMapping { plc: known.map(|(number, _)| number), tags }))
}

impl NameMapping {
    fn map_sample(&self, sample: Sample) -> Option<Sample> {
        let tag = (*self.tags.get(usize::from(sample.tag))?)?;
        Some(Sample { tag, ..sample })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plc(tags: &[u8]) -> PlcNames {
        PlcNames { name: "plc".to_owned(), tags: tags.iter().map(u8::to_string).collect() }
    }

    /// Names are unique within a PLC.
    fn some_tags() -> impl Strategy<Value = Vec<u8>> {
        let some = prop::sample::subsequence((0..20).collect::<Vec<u8>>(), 0..=20);
        prop_oneof![some.clone(), some.prop_shuffle()]
    }

    const LEVELS: [TrustLevel; 3] =
        [TrustLevel::Unset, TrustLevel::Floor, TrustLevel::Synchronised];

    proptest! {
        #[test]
        fn a_clock_is_read_back_as_it_was(
            at in any::<i64>(),
            booted_at in any::<i64>(),
            level in prop::option::of(0..3_usize),
        ) {
            let (at, booted_at) = (UnixTime::from_micros(at), UnixTime::from_micros(booted_at));
            let clock = level.map(|level| ClockPeriod { booted_at, trust: LEVELS[level] });
            let mut payload = Vec::new();
            put_clock(&mut payload, at, clock);
            let mut reader = ByteReader(&payload);
            prop_assert_eq!(decode_clock(&mut reader, at), Some(clock));
            prop_assert!(reader.0.is_empty());
        }

        #[test]
        fn tags_are_found_by_name_in_any_later_configuration(
            stored in some_tags(),
            today in some_tags(),
        ) {
            let mut payload = Vec::new();
            put_names(&mut payload, 7, &plc(&stored));
            let expected = stored.iter().map(|tag| {
                let place = today.iter().position(|other| other == tag)?;
                u16::try_from(place).ok()
            });
            let expected = NameMapping { plc: Some(1), tags: expected.collect() };
            let today = vec![PlcNames::default(), plc(&today)];
            let found = decode_names(&payload, &ConfigNames { topics: Vec::new(), plcs: today });
            prop_assert_eq!(found, Some((7, expected)));
        }
    }
}
