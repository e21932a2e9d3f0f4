//! Entries as payloads of frames, and back. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::bytes::{ByteReader, put_signed, put_text, put_varint};
use super::checkpoint::ChainSeq;
use super::value_codec;
use crate::model::{Message, Record, Sample, UnixTime};
use crate::queue::{ConfigNames, Entry, PlcNames, TagNames, to_u64};

/// What stands in front of every entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct EntryHeader {
    pub(super) id: u64,
    /// Which link of the chain this is: one that is missing is a hole.
    pub(super) link: ChainSeq,
    /// Number of the topic in the run's table.
    pub(super) topic: u16,
    pub(super) seq: u64,
}

/// What can be said of an entry without reading it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct EntrySummary {
    pub(super) header: EntryHeader,
    pub(super) samples: u64,
    /// When a record was read.
    pub(super) at: Option<UnixTime>,
}

/// From the names of the run that wrote a record to the numbers of today's configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct NameMapping {
    plc: Option<u16>,
    tags: Vec<Option<u16>>,
}

pub(super) fn put_entry(out: &mut Vec<u8>, head: EntryHeader, epoch: &str, entry: &Entry) {
    put_varint(out, head.id);
    head.link.put(out);
    put_varint(out, u64::from(head.topic));
    put_varint(out, head.seq);
    match entry {
        Entry::Record(Record { plc, at, samples }) => {
            put_signed(out, at.as_micros());
            put_varint(out, u64::from(*plc));
            value_codec::put_samples(out, *at, samples);
        }
        Entry::Message(Message { body, .. }) => {
            put_text(out, epoch);
            // A map of text and JSON values always has a JSON form.
            out.extend(serde_json::to_vec(body).unwrap_or_default());
        }
    }
}

fn decode_header(cursor: &mut ByteReader<'_>) -> Option<EntryHeader> {
    let id = cursor.varint()?;
    let link = ChainSeq::parse(cursor)?;
    Some(EntryHeader { id, link, topic: cursor.small()?, seq: cursor.varint()? })
}

pub(super) fn record_summary(payload: &[u8]) -> Option<EntrySummary> {
    let mut cursor = ByteReader(payload);
    let head = decode_header(&mut cursor)?;
    let at = UnixTime::from_micros(cursor.signed()?);
    cursor.small()?;
    Some(EntrySummary { header: head, samples: to_u64(cursor.count()?), at: Some(at) })
}

pub(super) fn message_summary(payload: &[u8]) -> Option<EntrySummary> {
    Some(EntrySummary { header: decode_header(&mut ByteReader(payload))?, samples: 0, at: None })
}

/// The record with today's numbers, and how many of its samples have no tag there any more. A
/// record that is left with none has no samples.
pub(super) fn decode_record(
    payload: &[u8],
    names: &BTreeMap<u16, NameMapping>,
) -> Option<(Record, u64)> {
    let mut cursor = ByteReader(payload);
    decode_header(&mut cursor)?;
    let at = UnixTime::from_micros(cursor.signed()?);
    let mapping = names.get(&cursor.small()?)?;
    let samples = value_codec::decode_samples(&mut cursor, at)?;
    let count = samples.len();
    let kept: Vec<Sample> =
        samples.into_iter().filter_map(|sample| mapping.map_sample(sample)).collect();
    let homeless = to_u64(count - kept.len());
    Some((Record { plc: mapping.plc.unwrap_or_default(), at, samples: kept }, homeless))
}

/// The epoch under which a message got its number.
pub(super) fn epoch_of_message(payload: &[u8]) -> Option<&str> {
    let mut cursor = ByteReader(payload);
    decode_header(&mut cursor)?;
    cursor.text()
}

/// A message on this topic, with the epoch of its number.
pub(super) fn decode_message<'a>(
    payload: &'a [u8],
    topic: &Arc<str>,
) -> Option<(&'a str, Message)> {
    let mut cursor = ByteReader(payload);
    decode_header(&mut cursor)?;
    let epoch = cursor.text()?;
    let body: Map<String, Value> = serde_json::from_slice(cursor.0).ok()?;
    Some((epoch, Message { topic: Arc::clone(topic), body }))
}

pub(super) fn put_names(out: &mut Vec<u8>, plc: u16, names: &PlcNames) {
    put_varint(out, u64::from(plc));
    put_text(out, &names.name);
    super::bytes::put_count(out, names.tags.len());
    names.tags.iter().for_each(|tag| put_text(out, tag));
}

/// The number that the names stand for, and where they are today.
pub(super) fn decode_names(payload: &[u8], today: &ConfigNames) -> Option<(u16, NameMapping)> {
    let mut cursor = ByteReader(payload);
    let number = cursor.small()?;
    let name = cursor.text()?;
    let known = (0..).zip(&today.plcs).find(|(_, plc)| plc.name == name);
    let nowhere = TagNames::default();
    let tags = known.map_or(&nowhere, |(_, plc)| &plc.tags);
    // Mostly they come in today's order: searching for each would take the square of their number.
    let from = |place| tags.iter().zip(0..).skip(place).peekable();
    let mut ahead = from(0);
    let mut place = |name: &str| {
        if ahead.peek().is_none_or(|(tag, _)| *tag != name) {
            let place = tags.iter().position(|tag| tag == name)?;
            ahead = from(place);
        }
        ahead.next().map(|(_, place): (&str, u16)| place)
    };
    let tags = cursor.list(|cursor| Some(place(cursor.text()?)))?;
    Some((number, NameMapping { plc: known.map(|(number, _)| number), tags }))
}

impl NameMapping {
    fn map_sample(&self, sample: Sample) -> Option<Sample> {
        self.plc?;
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

    proptest! {
        #[test]
        fn tags_are_found_whatever_became_of_the_configuration(
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
