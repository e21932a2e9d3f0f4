//! The words of `trial.state` in the status of a gateway.

/// What becomes of a bundle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TrialState {
    /// It is offered, and was not fetched yet.
    Fetching,
    /// It was accepted; the gateway starts with it.
    Staged,
    /// It is in use, and on trial.
    Trying,
    /// Everything was reached with it.
    Confirmed,
    /// It was rolled back.
    Reverted,
    /// It is not accepted, or cannot be used.
    Refused,
}

impl TrialState {
    const ALL: [Self; 6] = [
        Self::Fetching,
        Self::Staged,
        Self::Trying,
        Self::Confirmed,
        Self::Reverted,
        Self::Refused,
    ];

    /// Returns the word in status and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fetching => "fetching",
            Self::Staged => "staged",
            Self::Trying => "trying",
            Self::Confirmed => "confirmed",
            Self::Reverted => "reverted",
            Self::Refused => "refused",
        }
    }

    /// Returns the state that a word means; none if another version of the gateway has it.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}
