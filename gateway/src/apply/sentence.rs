//! What the status and the events say about bundles.

use std::fmt;

use provisioning::trial::Missing;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::{Sentence, UnixTime};

/// A sentence about a bundle.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub enum BundleSentence {
    /// A bundle was taken; the gateway starts with it.
    Staged {
        /// Its counter.
        counter: u64,
        /// Whether there is one to roll back to.
        has_other: bool,
    },
    /// The bundle in use is on trial, and is rolled back if something stays out of reach.
    OnTrial {
        /// Its counter.
        counter: u64,
        /// What was not reached yet.
        missing: String,
        /// Minutes of running that are left.
        minutes_left: u64,
    },
    /// The first bundle: there is nothing to roll back to.
    FirstOnTrial {
        /// Its counter.
        counter: u64,
        /// What was not reached yet.
        missing: String,
    },
    /// Everything was reached.
    Confirmed {
        /// Its counter.
        counter: u64,
    },
    /// A bundle was rolled back.
    Reverted {
        /// Its counter.
        counter: u64,
        /// Why.
        reason: String,
    },
    /// An offered bundle was not fetched, and is tried again.
    NotFetched {
        /// Its counter.
        counter: u64,
        /// Why.
        reason: String,
        /// Minutes until the next attempt.
        minutes: u64,
    },
    /// An offered bundle is not fetched until the offer changes.
    GivenUp {
        /// Its counter.
        counter: u64,
        /// Why.
        reason: String,
    },
    /// A bundle that a person brought was refused; only in events.
    InboxRefused {
        /// Why.
        reason: String,
    },
    /// Bundles cannot be read or written.
    Unusable {
        /// Why.
        reason: String,
    },
}

/// What becomes of a bundle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BundleState {
    /// It is offered, and was not fetched yet.
    Fetching,
    /// It was taken; the gateway starts with it.
    Staged,
    /// It is in use, and on trial.
    Trying,
    /// Everything was reached with it.
    Confirmed,
    /// It was rolled back.
    Reverted,
    /// It is not taken, or cannot be used.
    Refused,
}

/// Something that happened with a bundle: for the status, and the topic of events.
#[derive(Clone, Debug, PartialEq)]
pub struct BundleEvent {
    /// What becomes of the bundle.
    pub state: BundleState,
    /// The bundle that it is about; absent if it cannot be read.
    pub counter: Option<u64>,
    /// What happened, and what to do.
    pub sentence: Sentence,
}

impl BundleState {
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
}

impl BundleEvent {
    /// Renders a sentence.
    pub(super) fn new(sentence: &BundleSentence) -> Self {
        let (state, counter) = (sentence.state(), sentence.counter());
        Self { state, counter, sentence: Sentence::new(sentence) }
    }

    /// Renders a sentence and logs it.
    pub(super) fn logged(sentence: &BundleSentence) -> Self {
        let event = Self::new(sentence);
        match event.state {
            BundleState::Staged | BundleState::Trying | BundleState::Confirmed => {
                tracing::info!(target: super::LOG_TARGET, "{sentence}");
            }
            BundleState::Fetching | BundleState::Reverted | BundleState::Refused => {
                tracing::warn!(target: super::LOG_TARGET, "{sentence}");
            }
        }
        event
    }

    /// Returns the members of the event message:
    /// `{"event":"bundle","state":"reverted","counter":18,"reason":"..","at":".."}`.
    #[must_use]
    pub fn body(&self, at: UnixTime) -> Map<String, Value> {
        let members = [
            ("event", Some("bundle".into())),
            ("state", Some(self.state.as_str().into())),
            ("counter", self.counter.map(Value::from)),
            ("reason", Some(self.sentence.text.clone().into())),
            ("at", Some(at.to_string().into())),
        ];
        let present = |(key, value): (&str, Option<Value>)| Some((key.to_owned(), value?));
        members.into_iter().filter_map(present).collect()
    }
}

impl BundleSentence {
    const fn state(&self) -> BundleState {
        match self {
            Self::Staged { .. } => BundleState::Staged,
            Self::OnTrial { .. } | Self::FirstOnTrial { .. } => BundleState::Trying,
            Self::Confirmed { .. } => BundleState::Confirmed,
            Self::Reverted { .. } => BundleState::Reverted,
            Self::NotFetched { .. } => BundleState::Fetching,
            Self::GivenUp { .. } | Self::InboxRefused { .. } | Self::Unusable { .. } => {
                BundleState::Refused
            }
        }
    }

    const fn counter(&self) -> Option<u64> {
        match *self {
            Self::Staged { counter, .. }
            | Self::OnTrial { counter, .. }
            | Self::FirstOnTrial { counter, .. }
            | Self::Confirmed { counter }
            | Self::Reverted { counter, .. }
            | Self::NotFetched { counter, .. }
            | Self::GivenUp { counter, .. } => Some(counter),
            Self::InboxRefused { .. } | Self::Unusable { .. } => None,
        }
    }

    /// Returns the sentence about a bundle on trial. `minutes_left` is absent for the first one.
    pub(super) fn on_trial(counter: u64, missing: &[Missing], minutes_left: Option<u64>) -> Self {
        let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
        let missing = missing.join("; ");
        match minutes_left {
            Some(minutes_left) => Self::OnTrial { counter, missing, minutes_left },
            None => Self::FirstOnTrial { counter, missing },
        }
    }
}

impl fmt::Display for BundleSentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Staged { counter, has_other: true } => {
                write!(f, "Bundle {counter} was taken: the gateway restarts and tries it.")
            }
            Self::Staged { counter, has_other: false } => {
                write!(f, "Bundle {counter} was taken: the gateway starts with it.")
            }
            Self::OnTrial { counter, missing, minutes_left } => write!(
                f,
                "Bundle {counter} is on trial: {missing}. It is rolled back after {minutes_left} \
                 more min of running."
            ),
            Self::FirstOnTrial { counter, missing } => {
                write!(
                    f,
                    "Bundle {counter} is the first one, and is tried until it works: {missing}."
                )
            }
            Self::Confirmed { counter } => {
                write!(f, "Bundle {counter} is confirmed: hub, broker and web server were reached.")
            }
            Self::Reverted { counter, reason } => write!(
                f,
                "Bundle {counter} was rolled back: {reason}. Correct it at the office and build the \
                 next one."
            ),
            Self::NotFetched { counter, reason, minutes } => {
                write!(
                    f,
                    "Bundle {counter} was not fetched: {reason}. Next attempt in {minutes} min."
                )
            }
            Self::GivenUp { counter, reason } => write!(
                f,
                "Bundle {counter} is not fetched any more: {reason}. The next offer is followed."
            ),
            Self::InboxRefused { reason } => {
                write!(f, "The bundle that was loaded is refused: {reason}.")
            }
            Self::Unusable { reason } => {
                write!(f, "Bundles cannot be used: {reason}.")
            }
        }
    }
}
