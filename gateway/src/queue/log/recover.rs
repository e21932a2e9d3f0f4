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
    let mut sizes = BTreeMap::new();
    let mut replay = LogReplay::default();
    for name in storage.list()? {
        match segment_number(&name) {
            Some(number) => {
                replay.found.next_number = replay.found.next_number.max(number + 1);
                match segment_size(storage, number) {
                    Ok(size) => drop(sizes.insert(number, size)),
                    Err(error) if !is_last => return Err(error),
                    Err(error) => {
                        replay.found.unreadable_files += set_aside(storage, number, &error)
                    }
                }
            }
            None if name == FAILING_MARKER => replay.found.has_failing_marker = true,
            None if name.starts_with("spare-") => replay.found.idle_files.push((name, 0)),
            None => {}
        }
    }
    let mut newer = Vec::new();
    let overtaken = superseded_segments(storage, sizes.keys().copied(), is_last)?;
    let numbers: Vec<u64> = sizes.keys().rev().copied().collect();
    for number in numbers.into_iter().filter(|number| !overtaken.contains(number)) {
        let bytes = match read_segment(storage, number) {
            Ok(bytes) => bytes,
            Err(error) if !is_last => return Err(error),
            Err(error) => {
                sizes.remove(&number);
                replay.found.unreadable_files += set_aside(storage, number, &error);
                continue;
            }
        };
        if let FileHeader::Newer(version) = read_header(&bytes) {
            let name = file_name(number);
            tracing::warn!(%name, version, "a newer version wrote this file of the queue; it is set aside");
            storage.rename(&name, &format!("{name}{NEWER_VERSION_SUFFIX}")).ok();
            sizes.remove(&number);
            replay.found.newer_version_files += 1;
            continue;
        }
        if has_checkpoint(&bytes, number, topics) {
            replay.replay_segment(number, &bytes, topics);
            break;
        }
        newer.push(number);
    }
    for number in newer.into_iter().rev() {
        match read_segment(storage, number) {
            Ok(bytes) => replay.replay_segment(number, &bytes, topics),
            Err(error) if !is_last => return Err(error),
            Err(error) => {
                sizes.remove(&number);
                replay.found.unreadable_files += set_aside(storage, number, &error);
            }
        }
    }
    let mut found = replay.finish(&sizes, storage);
    // Files set aside may contain more numbers of the same epoch: it must not be continued.
    found.is_clean &= found.newer_version_files + found.unreadable_files == 0;
    Ok(found)
}

/// Renames a segment so that it is not overwritten: it may be readable another time. Returns 1, the
/// number of files set aside.
fn set_aside<S: Storage>(storage: &S, number: u64, error: &io::Error) -> u64 {
    let name = file_name(number);
    tracing::error!(%name, %error, "cannot read a file of the queue; it is set aside");
    storage.rename(&name, &format!("{name}{UNREADABLE_SUFFIX}")).ok();
    1
}

/// Returns segments of a run that is older than one with lower numbers.
///
/// A power cut can undo the renaming of a file and keep what was written to it. The next run gives that
/// number again, perhaps to the same file, and a second power cut can undo what it wrote there.
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
