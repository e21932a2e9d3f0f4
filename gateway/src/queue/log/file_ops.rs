//! What is to be done to the files, in its order. A job does it: a card may take seconds for the
//! shortest write, and whoever owns the log has machines to read meanwhile.

use std::io;
use std::sync::{Arc, OnceLock};

use super::segment::FAILING_MARKER;
use crate::queue::storage::{Storage, StoredFile};

/// A file that is open as soon as the step that opens it is done.
pub(super) type FileSlot<F> = Arc<OnceLock<F>>;

/// The name of a file that may be written over, and its length.
pub(super) type IdleFile = (String, u64);

/// One thing to do.
#[derive(Debug)]
pub(super) enum FileOp<F> {
    /// A file with this name: one that may be written over, or a new one.
    Open { name: String, over: Option<IdleFile>, file: FileSlot<F> },
    /// These bytes into a file.
    Write { file: FileSlot<F>, bytes: Vec<u8>, at: u64 },
    /// Cut off what is behind this.
    Truncate { file: FileSlot<F>, size: u64 },
    /// Nobody needs this file.
    Remove { name: String },
    /// A file that says that the storage fails.
    MarkFailing,
}

/// Steps that wait, in their order.
#[derive(Debug)]
pub(super) struct FileOps<F>(Vec<FileOp<F>>);

/// What became of some steps.
#[derive(Debug)]
pub(super) struct OpsResult {
    /// The first error; nothing was begun or written after it.
    pub(super) result: io::Result<()>,
    /// Files that are still there under their old names.
    pub(super) unused: Vec<IdleFile>,
}

impl<F> Default for FileOps<F> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<F> FileOps<F> {
    pub(super) fn push(&mut self, step: FileOp<F>) {
        self.0.push(step);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self) -> Vec<FileOp<F>> {
        std::mem::take(&mut self.0)
    }

    /// Forgets what was to be begun and written, and names the files that nobody writes over then.
    /// What cleans up stays.
    pub(super) fn cancel_writes(&mut self) -> Vec<IdleFile> {
        let mut left = Vec::new();
        self.0.retain_mut(|step| match step {
            FileOp::Open { over, .. } => {
                left.extend(over.take());
                false
            }
            FileOp::Write { .. } => false,
            FileOp::Truncate { .. } | FileOp::Remove { .. } | FileOp::MarkFailing => true,
        });
        left
    }
}

/// Does it; takes as long as the device takes. What cleans up is done whatever happens to the rest,
/// and its errors change nothing.
pub(super) fn execute<S: Storage>(storage: &S, steps: Vec<FileOp<S::File>>) -> OpsResult {
    let mut walked = OpsResult { result: Ok(()), unused: Vec::new() };
    for step in steps {
        match step {
            FileOp::Open { over, .. } if walked.result.is_err() => walked.unused.extend(over),
            FileOp::Write { .. } if walked.result.is_err() => {}
            FileOp::Open { name, over, file } => {
                walked.result = open_segment_file(storage, &name, over, &mut walked.unused)
                    .map(|opened| drop(file.set(opened)));
            }
            FileOp::Write { file, bytes, at } => {
                // INVARIANT: a step that opens a file comes before those that write into it.
                let written = file.get().map(|file| file.write_at(&bytes, at));
                walked.result = written.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
            }
            // A device that takes nothing at all has nothing to lose.
            FileOp::Truncate { file, size } => drop(file.get().map(|file| file.truncate(size))),
            FileOp::Remove { name } => match storage.remove(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::debug!(%name, %error, "cannot remove a part of the queue");
                }
                _ => {}
            },
            FileOp::MarkFailing => drop(storage.create(FAILING_MARKER)),
        }
    }
    walked
}

fn open_segment_file<S: Storage>(
    storage: &S,
    name: &str,
    over: Option<IdleFile>,
    left: &mut Vec<IdleFile>,
) -> io::Result<S::File> {
    let Some((old, size)) = over else { return storage.create(name) };
    match storage.rename(&old, name) {
        Ok(()) => return storage.open(name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // It is still there, and counts.
        Err(_) => left.push((old, size)),
    }
    storage.create(name)
}
