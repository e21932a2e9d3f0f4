//! How the storage does, in words for people.

use std::error::Error as _;

use super::storage::FilesError;

/// The state of the storage.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Health {
    /// What has to be on the disk is there.
    #[default]
    Sound,
    /// It works, and something is worth knowing.
    Remarkable {
        /// What.
        sentence: String,
    },
    /// The queue is in memory only.
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
            Self::Sound => None,
            Self::Remarkable { sentence } | Self::Failing { sentence } => Some(sentence),
        }
    }

    /// Whether the queue is in memory only.
    #[must_use]
    pub const fn is_failing(&self) -> bool {
        matches!(self, Self::Failing { .. })
    }

    pub(super) fn set_aside(segments: u64) -> Self {
        let sentence = format!(
            "{segments} files of the queue were written by a newer version and are set aside; \
             install that version to deliver them"
        );
        Self::Remarkable { sentence }
    }

    pub(super) fn miss(&mut self, error: &FilesError) {
        let cause = error.source().map(|source| format!(" ({source})")).unwrap_or_default();
        let sentence = format!(
            "{error}{cause}: samples wait in memory only, and are lost when the gateway stops; \
             it is tried again every ten seconds"
        );
        *self = Self::Failing { sentence };
    }

    pub(super) fn fail(&mut self, error: &std::io::Error) {
        let sentence = format!(
            "the storage fails ({error}): samples wait in memory only, and are lost when the \
             gateway stops; free some room or change the card"
        );
        *self = Self::Failing { sentence };
    }
}
