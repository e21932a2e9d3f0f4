//! Reads a directory of segments at a start, the newest ones only.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::checkpoint::Checkpoint;
use super::frame::{FileHeader, FrameKind, LogFrames, Salt, read_header};
use super::reader::context;
use super::replay::{LogReplay, RecoveredLog};
use super::segment::{FAILING_MARKER, file_name, segment_number};
use crate::queue::TopicTable;
use crate::queue::storage::{Storage, StoredFile};

/// After three failed attempts to read a segment, what is in it counts as lost.
pub(super) const MAX_READ_ATTEMPTS: u32 = 3;
/// Suffix of the name of a segment that a newer version wrote.
const NEWER_VERSION_SUFFIX: &str = ".unknown-version";
/// Suffix of the name of a segment that could not be read.
const UNREADABLE_SUFFIX: &str = ".unreadable";
/// At most 64 MiB of a file are read: no segment is longer.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// The first 64 KiB of a segment contain its context, even with the topics of a thousand PLCs.
const HEAD_BYTES: u64 = 64 << 10;

/// Reads the newest segments, back to the first with a checkpoint, and what was written behind it.
///
/// A segment that cannot be read ends the first attempts with an error: a run that began without it
/// would overwrite what it holds. The last attempt sets it aside.
pub(super) fn recover<S: Storage>(
    storage: &S,
    topics: &mut TopicTable,
    attempt: u32,
) -> io::Result<RecoveredLog> {
    let is_last = attempt + 1 >= MAX_READ_ATTEMPTS;
    let (sizes, replay) = (BTreeMap::new(), LogReplay::default());
    let mut recovery = Recovery { storage, is_last, sizes, replay };
    recovery.measure_files()?;
    recovery.replay_newest(topics)?;
    let mut found = recovery.replay.finish(&recovery.sizes, storage);
    // Files set aside may contain more numbers of the same epoch: it must not be continued.
    found.is_clean &= found.newer_version_files + found.unreadable_files == 0;
    Ok(found)
}

/// An attempt to read a directory.
struct Recovery<'a, S> {
    storage: &'a S,
    /// Whether this attempt sets aside what cannot be read.
    is_last: bool,
    /// Lengths of the segments, by number.
    sizes: BTreeMap<u64, u64>,
    replay: LogReplay,
}

impl<S: Storage> Recovery<'_, S> {
    fn measure_files(&mut self) -> io::Result<()> {
        for name in self.storage.list()? {
            let found = &mut self.replay.found;
            match segment_number(&name) {
                Some(number) => {
                    found.next_number = found.next_number.max(number + 1);
                    let size = segment_size(self.storage, number);
                    let size = self.or_set_aside(number, size)?;
                    self.sizes.extend(size.map(|size| (number, size)));
                }
                None if name == FAILING_MARKER => found.has_failing_marker = true,
                None if name.starts_with("spare-") => found.idle_files.push((name, 0)),
                None => {}
            }
        }
        Ok(())
    }

    fn replay_newest(&mut self, topics: &mut TopicTable) -> io::Result<()> {
        let superseded =
            superseded_segments(self.storage, self.sizes.keys().copied(), self.is_last)?;
        let numbers: Vec<u64> = self.sizes.keys().rev().copied().collect();
        let mut without_checkpoint = Vec::new();
        for number in numbers.into_iter().filter(|number| !superseded.contains(number)) {
            let Some(bytes) = self.read(number)? else { continue };
            if let FileHeader::Newer(version) = read_header(&bytes) {
                self.set_newer_aside(number, version);
            } else if has_checkpoint(&bytes, number, topics) {
                // Its checkpoint states the whole log, so that no older segment has to be read.
                self.replay.replay_segment(number, &bytes, topics);
                break;
            } else {
                without_checkpoint.push(number);
            }
        }
        // Read again instead of kept in memory: there may be many.
        for number in without_checkpoint.into_iter().rev() {
            if let Some(bytes) = self.read(number)? {
                self.replay.replay_segment(number, &bytes, topics);
            }
        }
        Ok(())
    }

    /// Returns the bytes of a segment; `None` when it was set aside.
    fn read(&mut self, number: u64) -> io::Result<Option<Vec<u8>>> {
        let bytes = read_segment(self.storage, number);
        self.or_set_aside(number, bytes)
    }

    /// Passes the result on. In the last attempt, sets a segment aside that cannot be read, and
    /// returns `None`.
    fn or_set_aside<T>(&mut self, number: u64, read: io::Result<T>) -> io::Result<Option<T>> {
        let error = match read {
            Ok(read) => return Ok(Some(read)),
            Err(error) if !self.is_last => return Err(error),
            Err(error) => error,
        };
        let name = file_name(number);
        tracing::error!(%name, %error, "cannot read a file of the queue; it is set aside");
        self.rename(number, UNREADABLE_SUFFIX);
        self.replay.found.unreadable_files += 1;
        Ok(None)
    }

    fn set_newer_aside(&mut self, number: u64, version: u32) {
        let name = file_name(number);
        tracing::warn!(
            %name,
            version,
            "a newer version wrote this file of the queue; it is set aside"
        );
        self.rename(number, NEWER_VERSION_SUFFIX);
        self.replay.found.newer_version_files += 1;
    }

    /// Renames a segment so that it is not overwritten: it may be readable another time.
    fn rename(&mut self, number: u64, suffix: &str) {
        let name = file_name(number);
        self.storage.rename(&name, &format!("{name}{suffix}")).ok();
        self.sizes.remove(&number);
    }
}

/// Returns segments of a run that is older than one with lower numbers.
///
/// A power cut can undo the renaming of a file and keep what was written to it. The next run gives
/// that number again, perhaps to the same file, and a second power cut can undo what it wrote
/// there.
fn superseded_segments<S: Storage>(
    storage: &S,
    numbers: impl Iterator<Item = u64>,
    is_last: bool,
) -> io::Result<BTreeSet<u64>> {
    let mut newest = 0;
    let mut overtaken = BTreeSet::new();
    for number in numbers {
        let head = match read_head(storage, number) {
            Err(error) if !is_last => return Err(error),
            head => head.unwrap_or_default(),
        };
        let Some(context) = context(&head, number) else { continue };
        newest = newest.max(context.run);
        if context.run < newest {
            overtaken.insert(number);
        }
    }
    Ok(overtaken)
}

/// Returns the first bytes of a segment, the context included.
fn read_head<S: Storage>(storage: &S, number: u64) -> io::Result<Vec<u8>> {
    let file = storage.open(&file_name(number))?;
    let size = usize::try_from(file.size()?.min(HEAD_BYTES)).map_err(io::Error::other)?;
    let mut bytes = vec![0; size];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn has_checkpoint(bytes: &[u8], segment: u64, topics: &mut TopicTable) -> bool {
    let Some(context) = context(bytes, segment) else { return false };
    let salt = Salt { segment, run: context.run };
    LogFrames::new(bytes, salt).any(|frame| {
        frame.kind == FrameKind::Checkpoint
            && Checkpoint::parse(frame.payload, &context, topics).is_some()
    })
}

/// Returns the bytes of a segment.
pub(super) fn read_segment<S: Storage>(storage: &S, number: u64) -> io::Result<Vec<u8>> {
    let file = storage.open(&file_name(number))?;
    read_file(&file)
}

fn read_file(file: &impl StoredFile) -> io::Result<Vec<u8>> {
    let size = usize::try_from(file.size()?.min(MAX_FILE_BYTES)).map_err(io::Error::other)?;
    let mut bytes = vec![0; size];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Returns the length of a segment, and cuts off what is longer than any can be.
fn segment_size<S: Storage>(storage: &S, number: u64) -> io::Result<u64> {
    let file = storage.open(&file_name(number))?;
    let size = file.size()?;
    if size > MAX_FILE_BYTES {
        tracing::warn!(
            number,
            size,
            "a file of the queue is longer than any can be; cutting it off"
        );
        file.truncate(MAX_FILE_BYTES).ok();
    }
    Ok(size.min(MAX_FILE_BYTES))
}
