//! Files in and out: a new segment, a full one, one that may be written over.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::append::REPEAT;
use super::frame::{self, Kind, Salt};
use super::loaded::Loaded;
use super::recover;
use super::segment::{Segment, file_name};
use super::{Dirty, Log, Refusal, Retiring, Tail};
use crate::queue::ledger::Ledger;
use crate::queue::storage::Storage;
use crate::queue::{Topics, to_u64};

/// Files that are kept for the next segments; the rest is given back to the file system.
const MOST_IDLE: usize = 2;
/// Segments that stay free for the log's own records: without them it could not even write down
/// that something was delivered.
pub(in crate::queue) const RESERVE: u64 = 2;
/// Files are whole sectors.
const SECTOR: u64 = 512;

/// What a segment is begun for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// Entries, within the bounds.
    Data,
    /// The log's own records, out of the reserve.
    Control,
}

impl<S: Storage> Log<S> {
    /// Makes sure that a frame of this length fits into the tail.
    pub(super) fn ensure(
        &mut self,
        ledger: &Ledger,
        bytes: u64,
        purpose: Purpose,
    ) -> Result<(), Refusal> {
        let Some(tail) = &self.tail else { return Err(super::gone()) };
        let is_allowed = purpose == Purpose::Control || !tail.is_reserve;
        let fits = tail.end() + bytes <= tail.segment.size;
        if fits && (is_allowed || self.slots() >= RESERVE) {
            return Ok(());
        }
        self.roll(ledger, bytes, purpose)
    }

    /// Begins the next segment, for a frame of at least so many bytes. When there is no room
    /// nothing has changed.
    pub(super) fn roll(
        &mut self,
        ledger: &Ledger,
        least: u64,
        purpose: Purpose,
    ) -> Result<(), Refusal> {
        let slots = self.slots();
        if purpose == Purpose::Data && slots <= RESERVE {
            return Err(Refusal::Full);
        }
        if self.tail.is_some() {
            self.flush()?;
        }
        let mut segment = Segment {
            number: self.next_number,
            first_id: self.appended,
            epoch: Arc::clone(&self.context.epoch),
            starts: ledger.known_to(),
            ..Segment::default()
        };
        let buffer = self.preamble(ledger, &segment);
        let needed = (to_u64(buffer.len()) + least).next_multiple_of(SECTOR);
        segment.size = self.limits.segment.max(needed);
        let file = self.take_file(&file_name(segment.number), segment.size)?;
        self.next_number += 1;
        self.names_changed = true;
        if let Some(old) = self.tail.take() {
            if old.segment.open.entries > 0 {
                let (end, number) = (old.end(), old.segment.number);
                let from = Some(self.position - end);
                self.dirty.push(Dirty { file: old.file, number, from });
            }
            self.seal(old.segment, ledger);
        }
        self.settled.clear();
        self.has_lost = false;
        self.position += to_u64(buffer.len());
        let repeat_at = to_u64(buffer.len()) + REPEAT;
        let is_reserve = purpose == Purpose::Control && slots <= RESERVE;
        let (file, declared) = (Arc::new(file), Vec::new());
        self.tail =
            Some(Tail { file, segment, flushed: 0, buffer, declared, repeat_at, is_reserve });
        let position = self.position;
        self.retiring.iter_mut().for_each(|file| file.from = file.from.or(Some(position)));
        Ok(())
    }

    /// The first bytes of a segment: whose it is, twice, and the state of the log.
    fn preamble(&self, ledger: &Ledger, segment: &Segment) -> Vec<u8> {
        let salt = Salt { segment: segment.number, run: self.context.run };
        let mut state = self.state(ledger);
        if let (Some(last), Some(_)) = (state.segments.last_mut(), &self.tail) {
            last.ends.clone_from(&ledger.next_seq);
        }
        state.segments.retain(|segment| segment.open.entries > 0);
        state.segments.push(segment.clone());
        let mut out = frame::header().to_vec();
        frame::put(&mut out, 0, salt, Kind::Context, |out| self.context.put(out));
        frame::put(&mut out, 0, salt, Kind::Checkpoint, |out| state.put(out));
        frame::put(&mut out, 0, salt, Kind::Context, |out| self.context.put(out));
        out
    }

    /// A file of this name and size: one that may be written over, or a new one.
    fn take_file(&mut self, name: &str, size: u64) -> io::Result<S::File> {
        let fitting = self.idle.iter().position(|(_, idle)| *idle == size);
        let Some(place) = fitting else { return self.storage.create(name) };
        let (old, _) = self.idle.swap_remove(place);
        self.storage.rename(&old, name)?;
        self.storage.open(name)
    }

    /// How many more segments there may be.
    pub(in crate::queue) fn slots(&self) -> u64 {
        let size = self.limits.segment.max(1);
        let within = self.limits.max.saturating_sub(self.usage()) / size;
        let free = self
            .storage
            .free_space()
            .map_or(u64::MAX, |free| free.saturating_sub(self.limits.min_free) / size);
        to_u64(self.idle.len()) + within.min(free)
    }

    /// Whether the files take more than they may: a start needs a segment whatever the bound says.
    pub(in crate::queue) fn is_too_large(&self) -> bool {
        self.usage() > self.limits.max
    }

    /// What all files take, without those that are about to be freed: the reserve has room for them.
    pub(super) fn usage(&self) -> u64 {
        let tail = self.tail.iter().map(|tail| tail.segment.size);
        let segments = self.segments.iter().map(|segment| segment.size);
        let idle = self.idle.iter().map(|(_, size)| *size);
        tail.chain(segments).chain(idle).sum()
    }

    pub(super) fn seal(&mut self, mut segment: Segment, ledger: &Ledger) {
        segment.ends.clone_from(&ledger.next_seq);
        if segment.open.entries > 0 {
            self.segments.push(segment);
        } else {
            let name = file_name(segment.number);
            self.retiring.push(Retiring { name, size: segment.size, from: None });
        }
    }

    /// Nothing waits in this segment any more.
    pub(super) fn retire(&mut self, number: u64) {
        let place = self.segments.iter().position(|segment| segment.number == number);
        let Some(place) = place else { return };
        let segment = self.segments.remove(place);
        let name = file_name(segment.number);
        self.retiring.push(Retiring { name, size: segment.size, from: None });
        if self.loaded.as_ref().is_some_and(|loaded| loaded.number == number) {
            self.loaded = None;
        }
    }

    /// Frees the files whose retirement is durable.
    pub(super) fn recycle(&mut self) {
        let synced = self.synced;
        let is_done = |file: &mut Retiring| file.from.is_some_and(|from| from <= synced);
        let done: Vec<Retiring> = self.retiring.extract_if(.., is_done).collect();
        for Retiring { name, size, .. } in done {
            if size == self.limits.segment && self.idle.len() < MOST_IDLE {
                self.idle.push((name, size));
            } else if let Err(error) = self.storage.remove(&name) {
                tracing::debug!(%name, %error, "cannot remove a part of the queue");
            }
        }
    }

    /// The ids that lie in a segment, and its number: the oldest of which none is busy.
    pub(in crate::queue) fn oldest_free(
        &self,
        is_busy: impl Fn(Range<u64>) -> bool,
    ) -> Option<u64> {
        let mut numbers = self.segments.iter().map(|segment| segment.number);
        numbers.find(|number| !is_busy(self.ids(*number)))
    }

    /// The ids that lie in a segment.
    pub(super) fn ids(&self, number: u64) -> Range<u64> {
        let tail = self.tail.iter().map(|tail| &tail.segment);
        let mut from =
            self.segments.iter().chain(tail).skip_while(|segment| segment.number != number);
        let start = from.next().map_or(0, |segment| segment.first_id);
        start..from.next().map_or(self.appended, |segment| segment.first_id)
    }

    /// Reads a whole segment at once, to give it up.
    pub(in crate::queue) fn read(
        &self,
        number: u64,
        topics: &mut Topics,
    ) -> Option<(Loaded, super::Tally)> {
        let segment = self.segments.iter().find(|segment| segment.number == number)?;
        // What cannot be read is missing, and the caller counts it.
        let bytes = recover::read(&self.storage, number).unwrap_or_default();
        let ids = self.ids(number);
        let loaded = Loaded::new(segment, bytes, ids, &self.open, topics, &self.names);
        Some((loaded, segment.open))
    }

    /// What cannot be read in a segment that was read, as gaps.
    pub(in crate::queue) fn unreadable(&self, loaded: &Loaded) -> Vec<crate::queue::Gap> {
        let segment = self.segments.iter().find(|segment| segment.number == loaded.number);
        segment.map_or_else(Vec::new, |segment| {
            let lost = segment.open.samples.saturating_sub(loaded.tally().samples);
            loaded.gaps(segment, lost)
        })
    }

    /// Gives up everything that waits in a segment, and names the ids that lay there.
    pub(in crate::queue) fn forget(&mut self, number: u64) -> Option<(u64, u64)> {
        let ids = self.ids(number);
        let last = ids.end.checked_sub(1).filter(|last| *last >= ids.start);
        let run = last.map(|last| (ids.start, last));
        run.into_iter().for_each(|run| self.open.remove_run(run));
        self.has_lost = true;
        self.retire(number);
        run
    }
}
