//! What is to be done to the files, in its order. A job does it: a card may take seconds for the
//! shortest write, and whoever owns the log has machines to read meanwhile.

use std::io;
use std::sync::{Arc, OnceLock};

use super::segment::FAILING;
use crate::queue::storage::{Storage, StoredFile};

/// A file that is open as soon as the step that opens it is done.
pub(super) type Slot<F> = Arc<OnceLock<F>>;

/// The name of a file that may be written over, and its length.
pub(super) type Idle = (String, u64);

/// One thing to do.
#[derive(Debug)]
pub(super) enum Step<F> {
    /// A file with this name: one that may be written over, or a new one.
    Begin { name: String, over: Option<Idle>, file: Slot<F> },
    /// These bytes into a file.
    Write { file: Slot<F>, bytes: Vec<u8>, at: u64 },
    /// Cut off what is behind this.
    Cut { file: Slot<F>, size: u64 },
    /// Nobody needs this file.
    Remove { name: String },
    /// A file that says that the storage fails.
    Mark,
}

/// Steps that wait, in their order.
#[derive(Debug)]
pub(super) struct Line<F>(Vec<Step<F>>);

/// What became of some steps.
#[derive(Debug)]
pub(super) struct Walked {
    /// The first error; nothing was begun or written after it.
    pub(super) result: io::Result<()>,
    /// Files that are still there under their old names.
    pub(super) left: Vec<Idle>,
}

impl<F> Default for Line<F> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<F> Line<F> {
    pub(super) fn push(&mut self, step: Step<F>) {
        self.0.push(step);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self) -> Vec<Step<F>> {
        std::mem::take(&mut self.0)
    }

    /// Forgets what was to be begun and written, and names the files that nobody writes over then.
    /// What cleans up stays.
    pub(super) fn give_up(&mut self) -> Vec<Idle> {
        let mut left = Vec::new();
        self.0.retain_mut(|step| match step {
            Step::Begin { over, .. } => {
                left.extend(over.take());
                false
            }
            Step::Write { .. } => false,
            Step::Cut { .. } | Step::Remove { .. } | Step::Mark => true,
        });
        left
    }
}

/// Does it; takes as long as the device takes. What cleans up is done whatever happens to the rest,
/// and its errors change nothing.
pub(super) fn walk<S: Storage>(storage: &S, steps: Vec<Step<S::File>>) -> Walked {
    let mut walked = Walked { result: Ok(()), left: Vec::new() };
    for step in steps {
        match step {
            Step::Begin { over, .. } if walked.result.is_err() => walked.left.extend(over),
            Step::Write { .. } if walked.result.is_err() => {}
            Step::Begin { name, over, file } => {
                walked.result = begin(storage, &name, over, &mut walked.left)
                    .map(|opened| drop(file.set(opened)));
            }
            Step::Write { file, bytes, at } => {
                // INVARIANT: a step that opens a file comes before those that write into it.
                let written = file.get().map(|file| file.write_at(&bytes, at));
                walked.result = written.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
            }
            // A device that takes nothing at all has nothing to lose.
            Step::Cut { file, size } => drop(file.get().map(|file| file.truncate(size))),
            Step::Remove { name } => match storage.remove(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::debug!(%name, %error, "cannot remove a part of the queue");
                }
                _ => {}
            },
            Step::Mark => drop(storage.create(FAILING)),
        }
    }
    walked
}

fn begin<S: Storage>(
    storage: &S,
    name: &str,
    over: Option<Idle>,
    left: &mut Vec<Idle>,
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
