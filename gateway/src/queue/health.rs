//! How the storage does, in words for people.

use std::error::Error as _;

use provisioning::config::OnFull;

use super::storage::DirStorageError;

/// The state of the storage.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Health {
    /// What has to be on the disk is there.
    #[default]
    Healthy,
    /// It works, and something is worth knowing.
    Remarkable {
        /// What.
        sentence: String,
    },
    /// The file system is full, though the queue holds less than it may.
    Full {
        /// What that costs.
        sentence: String,
        /// Whether what comes in is in memory only.
        is_memory_only: bool,
    },
    /// The storage fails: the queue is in memory only.
    Failing {
        /// What happened.
        sentence: String,
    },
}

impl Health {
    /// What there is to say, if anything.
    #[must_use]
    pub fn sentence(&self) -> Option<&str> {
        match self {
            Self::Healthy => None,
            Self::Remarkable { sentence }
            | Self::Full { sentence, .. }
            | Self::Failing { sentence } => Some(sentence),
        }
    }

    /// Whether the storage fails, or there is none.
    #[must_use]
    pub const fn is_failing(&self) -> bool {
        matches!(self, Self::Failing { .. })
    }

    /// Whether what comes in waits in memory only, and goes with the process.
    #[must_use]
    pub const fn is_memory_only(&self) -> bool {
        matches!(self, Self::Failing { .. } | Self::Full { is_memory_only: true, .. })
    }

    pub(super) const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// A storage that works, with files that a start has set aside: so many of a newer version, so
    /// many that could not be read.
    pub(super) fn set_aside(newer: u64, unreadable: u64) -> Self {
        let sentence = match (newer, unreadable) {
            (0, 0) => return Self::Healthy,
            (newer, 0) => format!(
                "{newer} files of the queue were written by a newer version and are set aside; \
                 install that version to deliver them"
            ),
            (_, unreadable) => format!(
                "{unreadable} files of the queue could not be read and are set aside; change the \
                 card soon"
            ),
        };
        Self::Remarkable { sentence }
    }

    /// The file system leaves no room, and what comes in is stuck in memory or not. Returns whether
    /// that is new.
    pub(super) fn be_full(&mut self, on_full: OnFull, is_memory_only: bool) -> bool {
        if self.is_failing() {
            return false;
        }
        let cost = match (is_memory_only, on_full) {
            (true, _) => "samples wait in memory only, and are lost when the gateway stops",
            (false, OnFull::DropOldest) => {
                "the oldest samples are given up before max_size is reached"
            }
            (false, OnFull::DropNewest) => "new samples are given up before max_size is reached",
        };
        let sentence = format!("the file system is full: {cost}; free some room");
        let full = Self::Full { sentence, is_memory_only };
        let is_new = *self != full;
        *self = full;
        is_new
    }

    pub(super) fn miss(&mut self, error: &DirStorageError) {
        let cause = error.source().map(|source| format!(" ({source})")).unwrap_or_default();
        let sentence = format!(
            "{error}{cause}: samples wait in memory only, and are lost when the gateway stops; \
             it is tried again every ten seconds"
        );
        *self = Self::Failing { sentence };
    }

    pub(super) fn fail(&mut self, error: &std::io::Error) {
        let hangs = error.kind() == std::io::ErrorKind::TimedOut;
        let advice = if hangs {
            "it is used again when it answers"
        } else {
            "free some room or change the card"
        };
        let sentence = format!(
            "the storage fails ({error}): samples wait in memory only, and are lost when the \
             gateway stops; {advice}"
        );
        *self = Self::Failing { sentence };
    }
}
