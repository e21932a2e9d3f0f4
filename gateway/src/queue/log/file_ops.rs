//! Operations on files, in order. A job executes them: an SD card may take seconds for the shortest
//! write, and the owner of the log must read PLCs meanwhile.

use std::io;
use std::sync::{Arc, OnceLock};

use super::segment::FAILING_MARKER;
use crate::queue::storage::{Storage, StoredFile};

/// A file that is open once the operation that opens it is done.
pub(super) type FileSlot<F> = Arc<OnceLock<F>>;

/// The name and the length of a file that may be overwritten.
pub(super) type IdleFile = (String, u64);

/// An operation on a file.
#[derive(Debug)]
pub(super) enum FileOp<F> {
    /// Opens a file with this name: one that may be overwritten, renamed, or a new one.
    Open { name: String, over: Option<IdleFile>, file: FileSlot<F> },
    /// Writes these bytes into a file.
    Write { file: FileSlot<F>, bytes: Vec<u8>, at: u64 },
    /// Cuts a file off behind `size` bytes.
    Truncate { file: FileSlot<F>, size: u64 },
    /// Removes a file.
    Remove { name: String },
    /// Creates the marker of a failing storage.
    MarkFailing,
}

/// Operations that wait, in order.
#[derive(Debug)]
pub(super) struct FileOps<F>(Vec<FileOp<F>>);

/// The result of some operations.
#[derive(Debug)]
pub(super) struct OpsResult {
    /// The first error; nothing was opened or written after it.
    pub(super) result: io::Result<()>,
    /// Files that were to be overwritten and still exist under their old names.
    pub(super) unused: Vec<IdleFile>,
}

impl<F> Default for FileOps<F> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<F> FileOps<F> {
    pub(super) fn push(&mut self, op: FileOp<F>) {
        self.0.push(op);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self) -> Vec<FileOp<F>> {
        std::mem::take(&mut self.0)
    }

    /// Cancels the opens and writes, and returns the files that they would have overwritten. What
    /// truncates, removes or marks stays.
    pub(super) fn cancel_writes(&mut self) -> Vec<IdleFile> {
        let mut unused = Vec::new();
        self.0.retain_mut(|op| match op {
            FileOp::Open { over, .. } => {
                unused.extend(over.take());
                false
            }
            FileOp::Write { .. } => false,
            FileOp::Truncate { .. } | FileOp::Remove { .. } | FileOp::MarkFailing => true,
        });
        unused
    }
}

/// Executes operations; takes as long as the device takes. Those that clean up are executed in
/// spite of errors of the others, and their own errors change nothing.
pub(super) fn execute<S: Storage>(storage: &S, ops: Vec<FileOp<S::File>>) -> OpsResult {
    let mut ended = OpsResult { result: Ok(()), unused: Vec::new() };
    for op in ops {
        match op {
            FileOp::Open { over, .. } if ended.result.is_err() => ended.unused.extend(over),
            FileOp::Write { .. } if ended.result.is_err() => {}
            FileOp::Open { name, over, file } => {
                ended.result = open_segment_file(storage, &name, over, &mut ended.unused)
                    .map(|opened| drop(file.set(opened)));
            }
            FileOp::Write { file, bytes, at } => {
                // INVARIANT: the operation that opens a file comes before those that write into it.
                let written = file.get().map(|file| file.write_at(&bytes, at));
                ended.result = written.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
            }
            // A device that refuses even this has stored nothing that could be read by mistake.
            FileOp::Truncate { file, size } => drop(file.get().map(|file| file.truncate(size))),
            FileOp::Remove { name } => match storage.remove(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::debug!(%name, %error, "cannot remove a file of the queue");
                }
                _ => {}
            },
            FileOp::MarkFailing => drop(storage.create(FAILING_MARKER)),
        }
    }
    ended
}

fn open_segment_file<S: Storage>(
    storage: &S,
    name: &str,
    over: Option<IdleFile>,
    unused: &mut Vec<IdleFile>,
) -> io::Result<S::File> {
    let Some((old, size)) = over else { return storage.create(name) };
    match storage.rename(&old, name) {
        // Its old frames need not be erased: their checksums contain another segment number.
        Ok(()) => return storage.open(name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // It still exists and takes space.
        Err(_) => unused.push((old, size)),
    }
    storage.create(name)
}
