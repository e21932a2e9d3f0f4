//! What takes long: making things durable, preparing a file, reading a segment. Jobs run on a
//! thread of their own and never touch the log.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::loaded::{Found, Loaded};
use super::segment::{Segment, file_name};
use super::{Log, Refusal, Retiring, recover};
use crate::queue::ledger::Ledger;
use crate::queue::storage::{Storage, StoredFile};
use crate::queue::{Gap, Topics, to_u64};

/// Zeros are written in pieces of this size.
const PIECE: usize = 64 << 10;
/// After so many attempts to read a segment what is in it counts as lost.
pub(super) const READS: u32 = 3;

/// Something to do elsewhere.
#[derive(Debug)]
pub struct Job<S: Storage>(Task<S>);

#[derive(Debug)]
enum Task<S: Storage> {
    Sync { storage: S, files: Vec<Arc<S::File>>, names: bool, upto: Mark },
    Prepare { storage: S, name: String, size: u64 },
    Read { storage: S, segment: Segment, ids: Range<u64> },
}

/// What can be done about what is not durable.
#[derive(Debug)]
pub(in crate::queue) enum Sync<S: Storage> {
    /// This job makes it durable.
    Job(Job<S>),
    /// Nothing now: a job is under way, or the storage fails.
    Later,
    /// Nothing: everything is.
    Durable,
}

/// What became of a job.
#[derive(Debug)]
pub struct Done(Outcome);

#[derive(Debug)]
enum Outcome {
    Synced { upto: Mark, took: Duration, result: io::Result<()> },
    Prepared { name: String, size: u64, result: io::Result<()> },
    Read { segment: Box<Segment>, ids: Range<u64>, result: io::Result<Vec<u8>> },
}

/// A position, and how often the storage had failed before it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Mark {
    failures: u64,
    position: u64,
}

/// Which jobs run.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    sync: bool,
    /// How often the storage failed: what a job says of the time before is not about what is
    /// written now.
    failures: u64,
    prepare: bool,
    /// Whether that failed in this segment: trying again would fail again.
    unprepared: bool,
    read: bool,
    /// Attempts to read the segment that is wanted.
    failed_reads: u32,
    prepared: u64,
}

/// What the end of a job brought.
#[derive(Debug)]
pub(in crate::queue) enum News {
    /// Nothing that concerns anybody else.
    None,
    /// So long did it take until everything up to a position was durable.
    Durable(Duration),
    /// The storage failed.
    Failed(io::Error),
    /// A segment was read. These cannot be read, and so many samples are there that nobody knew of.
    Read { gaps: Vec<Gap>, ids: Vec<u64>, held: super::Tally, found: u64 },
}

impl UnderWay {
    pub(super) const fn is_syncing(&self) -> bool {
        self.sync
    }

    pub(super) const fn is_preparing(&self) -> bool {
        self.prepare
    }

    /// A new segment began.
    pub(super) const fn began(&mut self) {
        self.unprepared = false;
    }

    /// One of them came to no end, and nobody knows which.
    pub(super) const fn died(&mut self) {
        (self.prepare, self.read) = (false, false);
    }

    pub(super) const fn failed(&mut self) {
        self.failures += 1;
        self.sync = false;
    }
}

impl<S: Storage> Job<S> {
    /// Does it; takes as long as the device takes.
    #[must_use]
    pub fn run(self) -> Done {
        Done(match self.0 {
            Task::Sync { storage, files, names, upto } => {
                let began = Instant::now();
                let mut result = files.iter().try_for_each(|file| file.sync_data());
                if names {
                    result = result.and_then(|()| storage.sync_dir());
                }
                Outcome::Synced { upto, took: began.elapsed(), result }
            }
            Task::Prepare { storage, name, size } => {
                let result = prepare(&storage, &name, size);
                Outcome::Prepared { name, size, result }
            }
            Task::Read { storage, segment, ids } => {
                let result = recover::read(&storage, segment.number);
                Outcome::Read { segment: Box::new(segment), ids, result }
            }
        })
    }
}

/// Makes a file full of zeros: later writes into it change no metadata that a sync would have to
/// write as well.
pub(super) fn prepare<S: Storage>(storage: &S, name: &str, size: u64) -> io::Result<()> {
    let file = storage.create(name)?;
    let zeros = vec![0; PIECE];
    let mut at = 0;
    while at < size {
        let piece = (size - at).min(to_u64(PIECE));
        let zeros = zeros.get(..usize::try_from(piece).unwrap_or(0)).unwrap_or_default();
        file.write_at(zeros, at)?;
        at += piece;
    }
    file.sync_data()
}

impl<S: Storage> Log<S> {
    /// A job that makes everything durable that was appended up to now.
    pub(in crate::queue) fn sync(&mut self, ledger: &Ledger) -> Result<Sync<S>, Refusal> {
        if self.under_way.sync || self.tail.is_none() {
            return Ok(Sync::Later);
        }
        self.write_settled(ledger)?;
        self.flush()?;
        if !self.is_dirty() {
            self.recycle();
            return Ok(Sync::Durable);
        }
        self.under_way.sync = true;
        self.syncing.append(&mut self.dirty);
        let mut files: Vec<_> =
            self.syncing.iter().map(|segment| Arc::clone(&segment.file)).collect();
        files.extend(self.tail.iter().map(|tail| Arc::clone(&tail.file)));
        let names = std::mem::take(&mut self.names_changed);
        let storage = self.storage.clone();
        let upto = Mark { failures: self.under_way.failures, position: self.position };
        Ok(Sync::Job(Job(Task::Sync { storage, files, names, upto })))
    }

    /// A job that prepares the next segment while this one fills; nothing when one is ready.
    pub(in crate::queue) fn prepare(&mut self) -> Option<Job<S>> {
        let tail = self.tail.as_ref()?;
        let is_early = tail.end() * 2 < tail.segment.size;
        let is_ready = self.idle.iter().any(|(_, size)| *size == self.limits.segment);
        let is_tried = self.under_way.prepare || self.under_way.unprepared;
        if is_tried || is_early || is_ready || !self.has_room_for_spare() {
            return None;
        }
        self.under_way.prepare = true;
        self.under_way.prepared += 1;
        let name = format!("spare-{:x}-{:x}", self.next_number, self.under_way.prepared);
        Some(Job(Task::Prepare { storage: self.storage.clone(), name, size: self.limits.segment }))
    }

    /// A job that reads the segment in which this id lies; nothing when it was read.
    pub(in crate::queue) fn load(&mut self, id: u64, ledger: &Ledger) -> Option<Job<S>> {
        if self.under_way.read {
            return None;
        }
        let is_tail = self.tail.as_ref().is_some_and(|tail| tail.segment.first_id <= id);
        if is_tail && self.flush().is_err() {
            return None;
        }
        let mut segment = self.segment_mut(id)?.clone();
        if segment.ends.is_empty() {
            segment.ends.clone_from(&ledger.next_seq);
        }
        let ids = self.ids(segment.number);
        self.under_way.read = true;
        Some(Job(Task::Read { storage: self.storage.clone(), segment, ids }))
    }

    /// The entry with this id, if its segment was read.
    pub(in crate::queue) fn take(&mut self, id: u64, topics: &Topics) -> Option<Found> {
        self.loaded.as_mut()?.take(id, topics)
    }

    /// Takes what a job brought.
    pub(in crate::queue) fn done(&mut self, done: Done, topics: &mut Topics) -> News {
        match done.0 {
            Outcome::Synced { upto, took, result } => {
                if upto.failures != self.under_way.failures {
                    return News::None;
                }
                self.under_way.sync = false;
                match result {
                    Ok(()) => {
                        self.syncing.clear();
                        self.synced = self.synced.max(upto.position);
                        self.recycle();
                        self.unmark();
                        News::Durable(took)
                    }
                    Err(error) => News::Failed(error),
                }
            }
            Outcome::Prepared { name, size, result } => {
                self.under_way.prepare = false;
                self.prepared(name, size, result);
                News::None
            }
            Outcome::Read { segment, ids, result } => {
                self.under_way.read = false;
                self.read_done(&segment, ids, result, topics)
            }
        }
    }

    /// Without a file that is ready the next segment begins in one that grows.
    pub(super) fn prepared(&mut self, name: String, size: u64, result: io::Result<()>) {
        let Err(error) = result else {
            self.counts.written += size;
            self.idle.push((name, size));
            return;
        };
        self.under_way.unprepared = true;
        tracing::warn!(%error, "cannot prepare the next part of the queue");
        match self.storage.remove(&name) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // It is removed later; a file that is not whole is never used.
            Err(_) => {
                self.retiring.push(Retiring { name, size: size.saturating_sub(1), from: None });
            }
        }
    }

    fn read_done(
        &mut self,
        segment: &Segment,
        ids: Range<u64>,
        result: io::Result<Vec<u8>>,
        topics: &mut Topics,
    ) -> News {
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(error) => {
                self.under_way.failed_reads += 1;
                if self.under_way.failed_reads < READS {
                    return News::None;
                }
                let name = file_name(segment.number);
                tracing::warn!(%name, %error, "a part of the queue cannot be read");
                Vec::new()
            }
        };
        self.under_way.failed_reads = 0;
        // What waits there may have become less since the job began; and what is still written is
        // in the memory of the operating system and cannot be damaged yet.
        let mut loaded = Loaded::new(segment, bytes, ids, &self.open, topics, &self.names);
        let Some(now) = self.segments.iter_mut().find(|now| now.number == segment.number) else {
            loaded.missing.clear();
            self.loaded = Some(loaded);
            return News::None;
        };
        let tally = loaded.tally();
        let mut held = now.open;
        held.subtract(tally);
        let found = tally.samples.saturating_sub(now.open.samples);
        now.open = tally;
        now.open.add(super::Tally { entries: to_u64(loaded.missing.len()), ..held });
        let ids = std::mem::take(&mut loaded.missing);
        let gaps = if ids.is_empty() { Vec::new() } else { loaded.gaps(segment, held.samples) };
        self.loaded = Some(loaded);
        News::Read { gaps, ids, held, found }
    }
}
