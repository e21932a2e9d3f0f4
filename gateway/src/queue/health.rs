//! The state of the storage, as a sentence.

use std::error::Error as _;
use std::fmt;
use std::io;

use serde::Serialize;

use super::storage::DirStorageError;
use crate::model::Sentence;

/// The state of the storage. `Display` gives the sentence for a person.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub enum Health {
    /// Everything works.
    #[default]
    Healthy,
    /// It works; files of a newer version were set aside at the start.
    NewerVersionFiles {
        /// How many.
        files: u64,
    },
    /// It works; files that could not be read were set aside at the start.
    UnreadableFiles {
        /// How many.
        files: u64,
    },
    /// The file system is full, and new samples are in memory only.
    DiskFullMemoryOnly,
    /// There is no storage yet.
    StorageUnavailable {
        /// What the attempt to open it reported.
        error: String,
    },
    /// The storage reports errors.
    StorageFailed {
        /// What the operating system reported.
        error: String,
    },
    /// The storage does not answer.
    StorageStalled,
}

impl Health {
    /// Returns what there is to report, if anything.
    #[must_use]
    pub fn sentence(&self) -> Option<Sentence> {
        (*self != Self::Healthy).then(|| Sentence::new(self))
    }

    /// Returns whether the storage fails, or there is none.
    #[must_use]
    pub const fn is_failing(&self) -> bool {
        matches!(
            self,
            Self::StorageUnavailable { .. } | Self::StorageFailed { .. } | Self::StorageStalled
        )
    }

    /// Returns whether new samples are in memory only, and lost when the process ends.
    #[must_use]
    pub const fn is_memory_only(&self) -> bool {
        self.is_failing() || matches!(self, Self::DiskFullMemoryOnly)
    }

    /// Returns the state of a storage that works, with the files that the start has set aside.
    pub(super) const fn working(newer_version_files: u64, unreadable_files: u64) -> Self {
        match (newer_version_files, unreadable_files) {
            (0, 0) => Self::Healthy,
            (files, 0) => Self::NewerVersionFiles { files },
            (_, files) => Self::UnreadableFiles { files },
        }
    }

    pub(super) fn unavailable(error: &DirStorageError) -> Self {
        let cause = error.source().map(|source| format!(" ({source})")).unwrap_or_default();
        Self::StorageUnavailable { error: format!("{error}{cause}") }
    }

    pub(super) fn failed(error: &io::Error) -> Self {
        let kind = error.kind();
        if kind == io::ErrorKind::TimedOut {
            return Self::StorageStalled;
        }
        if kind == io::ErrorKind::StorageFull {
            return Self::DiskFullMemoryOnly;
        }
        Self::StorageFailed { error: error.to_string() }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MEMORY_ONLY: &str =
            "samples wait in memory only, and are lost when the gateway stops";
        const FREE_SPACE: &str = "free some space";
        match self {
            Self::Healthy => f.write_str("the storage works"),
            Self::NewerVersionFiles { files } => write!(
                f,
                "{files} files of the queue were written by a newer version and are set aside; \
                 install that version to deliver them"
            ),
            Self::UnreadableFiles { files } => write!(
                f,
                "{files} files of the queue could not be read and are set aside; replace the SD \
                 card or disk soon"
            ),
            Self::DiskFullMemoryOnly => write!(
                f,
                "the file system is full, or has less than min_free left: {MEMORY_ONLY}; \
                 {FREE_SPACE}"
            ),
            Self::StorageUnavailable { error } => {
                write!(f, "{error}: {MEMORY_ONLY}; the gateway retries every ten seconds")
            }
            Self::StorageFailed { error } => write!(
                f,
                "storage error ({error}): {MEMORY_ONLY}; {FREE_SPACE}, or replace the SD card or \
                 disk"
            ),
            Self::StorageStalled => write!(
                f,
                "the storage does not answer: {MEMORY_ONLY}; it is used again when it answers"
            ),
        }
    }
}
