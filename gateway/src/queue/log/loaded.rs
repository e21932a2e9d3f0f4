//! A segment that was read, entry by entry. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::frame::{Frame, Frames, Kind, Salt};
use super::record::{self, Mapping, Outline};
use super::segment::{Segment, Tally};
use super::state::Context;
use crate::metrics::DropReason;
use crate::model::Message;
use crate::queue::runs::Runs;
use crate::queue::{Entry, Gap, Names, TopicId, Topics, to_u64};

/// The entries of one segment that wait, in their order.
#[derive(Debug)]
pub(in crate::queue) struct Loaded {
    pub(super) number: u64,
    epoch: Arc<str>,
    bytes: Vec<u8>,
    names: BTreeMap<u16, Mapping>,
    /// By id; taken from the front.
    places: Vec<Place>,
    next: usize,
    /// What should be there and is not.
    pub(in crate::queue) missing: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Place {
    outline: Outline,
    topic: TopicId,
    kind: Kind,
    payload: Range<usize>,
    len: u64,
    /// Whether it got its number in this run; a message that was moved here did not.
    is_own: bool,
}

/// An entry that came back from the disk.
#[derive(Debug)]
pub(in crate::queue) struct Found {
    pub(in crate::queue) id: u64,
    pub(in crate::queue) topic: TopicId,
    pub(in crate::queue) seq: u64,
    pub(in crate::queue) epoch: Arc<str>,
    /// Bytes on the disk.
    pub(in crate::queue) bytes: u64,
    /// Samples that were stored.
    pub(in crate::queue) samples: u64,
    pub(in crate::queue) content: Content,
}

/// What is left of an entry.
#[derive(Debug)]
pub(in crate::queue) enum Content {
    /// The entry, and how many of its samples belong to no tag of today's configuration.
    Whole(Entry, u64),
    /// None of its samples belongs to a tag of today's configuration.
    Homeless,
    /// The names that it was written with did not survive.
    Nameless,
}

impl Loaded {
    /// Takes the bytes of a segment; `ids` are those that lie in it, `open` those that wait.
    pub(super) fn new(
        segment: &Segment,
        bytes: Vec<u8>,
        ids: Range<u64>,
        open: &Runs,
        topics: &mut Topics,
        today: &Names,
    ) -> Self {
        let mut places = BTreeMap::new();
        let mut names = BTreeMap::new();
        let mut known = BTreeSet::new();
        if let Some(context) = context(&bytes, segment.number) {
            let salt = Salt { segment: segment.number, run: context.run };
            for frame in Frames::new(&bytes, salt) {
                // They are repeated, for the case of damage.
                if frame.kind == Kind::Names && known.insert(frame.payload) {
                    names.extend(record::names(frame.payload, today));
                }
                let Some(place) = place(&frame, &context, topics) else { continue };
                let id = place.outline.head.id;
                if ids.contains(&id) && open.contains(id) {
                    places.insert(id, place);
                }
            }
        }
        let mut missing = Vec::new();
        let mut from = ids.start;
        while let Some(id) = open.first_from(from).filter(|id| *id < ids.end) {
            if !places.contains_key(&id) {
                missing.push(id);
            }
            from = id + 1;
        }
        Self {
            number: segment.number,
            epoch: Arc::clone(&segment.epoch),
            bytes,
            names,
            places: places.into_values().collect(),
            next: 0,
            missing,
        }
    }

    /// What all that is left to take holds, and what it takes on the disk.
    pub(super) fn tally(&self) -> Tally {
        let mut all = Tally::default();
        self.places.iter().for_each(|place| {
            all.add(Tally { entries: 1, samples: place.outline.samples, bytes: place.len });
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
            let mut missing: Runs = std::iter::once((start, last)).collect();
            let here = self.places.iter().filter(|place| place.topic == *topic && place.is_own);
            here.for_each(|place| {
                missing.remove(place.outline.head.seq);
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
    pub(super) fn take(&mut self, id: u64, topics: &Topics) -> Option<Found> {
        let rest = self.places.get(self.next..)?;
        self.next += rest.iter().take_while(|place| place.outline.head.id < id).count();
        let place = self.places.get(self.next).filter(|place| place.outline.head.id == id)?;
        self.next += 1;
        Some(self.found(place, topics))
    }

    /// Every entry, as far as it is needed to count it or to keep it.
    pub(in crate::queue) fn all(&self, topics: &Topics) -> impl Iterator<Item = Found> {
        self.places.iter().map(|place| self.found(place, topics))
    }

    fn found(&self, place: &Place, topics: &Topics) -> Found {
        let payload = self.bytes.get(place.payload.clone()).unwrap_or_default();
        let head = place.outline.head;
        let mut epoch = Arc::clone(&self.epoch);
        let content = match place.kind {
            Kind::Message => topics.name(place.topic).and_then(|name| {
                let (own, message): (&str, Message) = record::message(payload, name)?;
                epoch = own.into();
                Some(Content::Whole(Entry::Message(message), 0))
            }),
            Kind::Record
            | Kind::Context
            | Kind::Checkpoint
            | Kind::Names
            | Kind::Settled
            | Kind::Lost
            | Kind::Stop => record::record(payload, &self.names).map(|(record, homeless)| {
                match record.samples.is_empty() {
                    true => Content::Homeless,
                    false => Content::Whole(Entry::Record(record), homeless),
                }
            }),
        };
        let content = content.unwrap_or(Content::Nameless);
        Found {
            id: head.id,
            topic: place.topic,
            seq: head.seq,
            epoch,
            bytes: place.len,
            samples: place.outline.samples,
            content,
        }
    }
}

fn place(frame: &Frame<'_>, context: &Context, topics: &mut Topics) -> Option<Place> {
    let outline = match frame.kind {
        Kind::Record => record::outline_record(frame.payload)?,
        Kind::Message => record::outline_message(frame.payload)?,
        Kind::Context
        | Kind::Checkpoint
        | Kind::Names
        | Kind::Settled
        | Kind::Lost
        | Kind::Stop => return None,
    };
    let start = frame.at + super::frame::FRAME_LEN;
    Some(Place {
        topic: context.topic(outline.head.topic, topics)?,
        outline,
        kind: frame.kind,
        payload: start..start + frame.payload.len(),
        len: to_u64(frame.end() - frame.at),
        is_own: frame.kind == Kind::Record
            || record::epoch_of_message(frame.payload) == Some(&*context.epoch),
    })
}

/// Who wrote a segment. The last word counts: a table of topics only grows.
pub(super) fn context(bytes: &[u8], segment: u64) -> Option<Context> {
    // Only contexts have a checksum without a run.
    let salt = Salt { segment, run: 0 };
    let contexts = Frames::new(bytes, salt).filter(|frame| frame.kind == Kind::Context);
    contexts.filter_map(|frame| Context::parse(frame.payload)).last()
}
