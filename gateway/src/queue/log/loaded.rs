//! A segment that was read, entry by entry. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::frame::{self, Frame, Frames, Kind, Salt};
use super::record::{self, Mapping, Outline};
use super::segment::{Segment, Tally};
use super::state::Context;
use crate::metrics::DropReason;
use crate::model::Message;
use crate::queue::runs::Runs;
use crate::queue::{Entry, Gap, Names, TopicId, Topics};

/// The entries of one segment that wait, in their order.
#[derive(Debug)]
pub(in crate::queue) struct Loaded {
    pub(super) number: u64,
    epoch: Arc<str>,
    bytes: Vec<u8>,
    names: BTreeMap<u16, Mapping>,
    /// What the numbers of topics mean today.
    topics: BTreeMap<u16, TopicId>,
    /// By id; taken from the front.
    places: Vec<Place>,
    next: usize,
    /// What should be there and is not.
    pub(in crate::queue) missing: Vec<u64>,
}

/// Where an entry lies. Of small ones there are very many, so that what the frame says is read again.
#[derive(Clone, Copy, Debug)]
struct Place {
    id: u64,
    at: u32,
}

/// An entry that came back from the disk.
#[derive(Debug)]
pub(in crate::queue) struct Found<C = Content> {
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
        let (mut places, mut names) = (Vec::new(), BTreeMap::new());
        let (mut known, mut meant) = (BTreeSet::new(), BTreeMap::new());
        if let Some(context) = context(&bytes, segment.number) {
            let salt = Salt { segment: segment.number, run: context.run };
            for frame in Frames::new(&bytes, salt) {
                // They are repeated, for the case of damage.
                if frame.kind == Kind::Names && known.insert(frame.payload) {
                    names.extend(record::names(frame.payload, today));
                }
                let Some(Outline { head, .. }) = outline(&frame) else { continue };
                if !ids.contains(&head.id) || !open.contains(head.id) {
                    continue;
                }
                let Some(topic) = context.topic(head.topic, topics) else { continue };
                meant.insert(head.topic, topic);
                places.extend(u32::try_from(frame.at).map(|at| Place { id: head.id, at }));
            }
        }
        // The last word counts.
        places.reverse();
        places.sort_by_key(|place| place.id);
        places.dedup_by_key(|place| place.id);
        let missing = missing(&places, &ids, open);
        Self {
            number: segment.number,
            epoch: Arc::clone(&segment.epoch),
            bytes,
            names,
            topics: meant,
            places,
            next: 0,
            missing,
        }
    }

    /// What all that is left to take holds, and what it takes on the disk.
    pub(super) fn tally(&self) -> Tally {
        let mut all = Tally::default();
        self.entries().for_each(|(frame, outline, _)| {
            all.add(Tally { entries: 1, samples: outline.samples, bytes: frame.len() });
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
            let here = self.entries().filter(|(_, _, here)| here == topic);
            here.filter(|(frame, ..)| self.is_own(frame)).for_each(|(_, outline, _)| {
                missing.remove(outline.head.seq);
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
        self.next += rest.iter().take_while(|place| place.id < id).count();
        let place = *self.places.get(self.next).filter(|place| place.id == id)?;
        self.next += 1;
        Some(self.found(self.entry(place)?, topics, |frame, message| self.content(frame, message)))
    }

    /// Every entry, as far as it is needed to count it, or to keep it where it is a message.
    pub(in crate::queue) fn all(
        &self,
        topics: &Topics,
    ) -> impl Iterator<Item = Found<Option<Message>>> {
        self.entries().map(|entry| self.found(entry, topics, |_, message| message))
    }

    fn entries(&self) -> impl Iterator<Item = (Frame<'_>, Outline, TopicId)> {
        self.places.iter().filter_map(|place| self.entry(*place))
    }

    fn entry(&self, place: Place) -> Option<(Frame<'_>, Outline, TopicId)> {
        let frame = frame::known(&self.bytes, usize::try_from(place.at).ok()?)?;
        let outline = outline(&frame)?;
        Some((frame, outline, *self.topics.get(&outline.head.topic)?))
    }

    /// Whether it got its number in the run that wrote it; a message that was moved here did not.
    fn is_own(&self, frame: &Frame<'_>) -> bool {
        frame.kind == Kind::Record || record::epoch_of_message(frame.payload) == Some(&*self.epoch)
    }

    fn found<C>(
        &self,
        (frame, outline, topic): (Frame<'_>, Outline, TopicId),
        topics: &Topics,
        content: impl FnOnce(&Frame<'_>, Option<Message>) -> C,
    ) -> Found<C> {
        let name = topics.name(topic).filter(|_| frame.kind == Kind::Message);
        let (epoch, message) = name.and_then(|name| record::message(frame.payload, name)).unzip();
        Found {
            id: outline.head.id,
            topic,
            seq: outline.head.seq,
            epoch: epoch.map_or_else(|| Arc::clone(&self.epoch), Arc::from),
            bytes: frame.len(),
            samples: outline.samples,
            content: content(&frame, message),
        }
    }

    fn content(&self, frame: &Frame<'_>, message: Option<Message>) -> Content {
        if let Some(message) = message {
            return Content::Whole(Entry::Message(message), 0);
        }
        let record =
            (frame.kind == Kind::Record).then(|| record::record(frame.payload, &self.names));
        match record.flatten() {
            None => Content::Nameless,
            Some((record, _)) if record.samples.is_empty() => Content::Homeless,
            Some((record, homeless)) => Content::Whole(Entry::Record(record), homeless),
        }
    }
}

/// What should be there, and is not.
fn missing(places: &[Place], ids: &Range<u64>, open: &Runs) -> Vec<u64> {
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
fn outline(frame: &Frame<'_>) -> Option<Outline> {
    match frame.kind {
        Kind::Record => record::outline_record(frame.payload),
        Kind::Message => record::outline_message(frame.payload),
        Kind::Context
        | Kind::Checkpoint
        | Kind::Names
        | Kind::Settled
        | Kind::Lost
        | Kind::Stop => None,
    }
}

/// Who wrote a segment. The last word counts: a table of topics only grows.
pub(super) fn context(bytes: &[u8], segment: u64) -> Option<Context> {
    // Only contexts have a checksum without a run.
    let salt = Salt { segment, run: 0 };
    let contexts = Frames::new(bytes, salt).filter(|frame| frame.kind == Kind::Context);
    contexts.filter_map(|frame| Context::parse(frame.payload)).last()
}
