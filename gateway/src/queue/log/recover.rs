//! What a directory of segments says about the log that it was. Reads the newest segments only.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::frame::{Frames, Header, Kind, Salt, read_header};
use super::loaded::context;
use super::replay::{Recovered, Replay};
use super::segment::{FAILING, file_name, number_in};
use super::state::State;
use crate::queue::Topics;
use crate::queue::storage::{Storage, StoredFile};

/// Ending of the name of a segment that this program cannot read.
const SET_ASIDE: &str = ".unknown-version";
/// A context with the topics of a thousand PLCs lies within this.
const HEAD: usize = 64 << 10;

/// Reads the newest segments, back to the first with a checkpoint, and what was written behind it.
pub(super) fn recover<S: Storage>(storage: &S, topics: &mut Topics) -> io::Result<Recovered> {
    let mut sizes = BTreeMap::new();
    let mut replay = Replay::default();
    for name in storage.list()? {
        match number_in(&name) {
            Some(number) => {
                sizes.insert(number, 0);
                replay.found.next_number = replay.found.next_number.max(number + 1);
            }
            None if name == FAILING => replay.found.is_marked = true,
            None if name.starts_with("spare-") => replay.found.idle.push((name, 0)),
            None => {}
        }
    }
    let mut newer = Vec::new();
    let overtaken = overtaken(storage, sizes.keys().copied());
    let numbers: Vec<u64> = sizes.keys().rev().copied().collect();
    for number in numbers.into_iter().filter(|number| !overtaken.contains(number)) {
        let Ok(bytes) = read(storage, number) else { continue };
        if let Header::Newer(version) = read_header(&bytes) {
            let name = file_name(number);
            tracing::warn!(%name, version, "a newer program wrote this part of the queue; it is set aside");
            storage.rename(&name, &format!("{name}{SET_ASIDE}")).ok();
            sizes.remove(&number);
            replay.found.set_aside += 1;
            continue;
        }
        if has_checkpoint(&bytes, number, topics) {
            replay.segment(number, &bytes, topics);
            break;
        }
        newer.push(number);
    }
    for number in newer.into_iter().rev() {
        if let Ok(bytes) = read(storage, number) {
            replay.segment(number, &bytes, topics);
        }
    }
    measure(storage, &mut sizes);
    Ok(replay.finish(&sizes, storage))
}

/// Segments of a run that is older than one with lower numbers. A power cut can take back that a
/// file was named so and leave what is in it; the next run gives the number again and may take the
/// same file, and a second cut can lose what that has written there.
fn overtaken<S: Storage>(storage: &S, numbers: impl Iterator<Item = u64>) -> BTreeSet<u64> {
    let mut newest = 0;
    let is_overtaken = |number: &u64| {
        let head = read_head(storage, *number).unwrap_or_default();
        let run = context(&head, *number).map(|context| context.run);
        newest = newest.max(run.unwrap_or(0));
        run.is_some_and(|run| run < newest)
    };
    numbers.filter(is_overtaken).collect()
}

/// The first bytes of a segment, the context included.
fn read_head<S: Storage>(storage: &S, number: u64) -> io::Result<Vec<u8>> {
    let file = storage.open(&file_name(number))?;
    let size = usize::try_from(file.size()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; size.min(HEAD)];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn has_checkpoint(bytes: &[u8], segment: u64, topics: &mut Topics) -> bool {
    let Some(context) = context(bytes, segment) else { return false };
    let salt = Salt { segment, run: context.run };
    Frames::new(bytes, salt).any(|frame| {
        frame.kind == Kind::Checkpoint && State::parse(frame.payload, &context, topics).is_some()
    })
}

/// The bytes of a segment.
pub(super) fn read<S: Storage>(storage: &S, number: u64) -> io::Result<Vec<u8>> {
    let file = storage.open(&file_name(number))?;
    read_file(&file)
}

pub(super) fn read_file(file: &impl StoredFile) -> io::Result<Vec<u8>> {
    let size = usize::try_from(file.size()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; size];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn measure<S: Storage>(storage: &S, sizes: &mut BTreeMap<u64, u64>) {
    for (number, size) in sizes.iter_mut() {
        let file = storage.open(&file_name(*number));
        *size = file.and_then(|file| file.size()).unwrap_or(0);
    }
}
