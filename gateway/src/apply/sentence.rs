//! What the status and the events say about bundles.

use std::fmt;

use provisioning::trial::TrialState;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::{Sentence, UnixTime};

/// A sentence about a bundle.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub enum BundleSentence {
    /// A bundle was staged; the gateway starts with it.
    Staged {
        /// Its counter.
        counter: u64,
        /// Whether there is one to roll back to.
        has_previous: bool,
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

/// Something that happened with a bundle: for the status, and the topic of events.
#[derive(Clone, Debug, PartialEq)]
pub struct BundleEvent {
    /// What becomes of the bundle.
    pub state: TrialState,
    /// The bundle that it is about; absent if it cannot be read.
    pub counter: Option<u64>,
    /// What happened, and what to do.
    pub sentence: Sentence,
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
            TrialState::Staged | TrialState::Trying | TrialState::Confirmed => {
                tracing::info!(target: super::LOG_TARGET, "{sentence}");
            }
            TrialState::Fetching | TrialState::Reverted | TrialState::Refused => {
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
    const fn state(&self) -> TrialState {
        match self {
            Self::Staged { .. } => TrialState::Staged,
            Self::OnTrial { .. } | Self::FirstOnTrial { .. } => TrialState::Trying,
            Self::Confirmed { .. } => TrialState::Confirmed,
            Self::Reverted { .. } => TrialState::Reverted,
            Self::NotFetched { .. } => TrialState::Fetching,
            Self::GivenUp { .. } | Self::InboxRefused { .. } | Self::Unusable { .. } => {
                TrialState::Refused
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
    pub(super) fn on_trial(counter: u64, missing: String, minutes_left: Option<u64>) -> Self {
        match minutes_left {
            Some(minutes_left) => Self::OnTrial { counter, missing, minutes_left },
            None => Self::FirstOnTrial { counter, missing },
        }
    }
}

impl fmt::Display for BundleSentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Staged { counter, has_previous: true } => {
                write!(f, "Bundle {counter} was staged: the gateway restarts to try it.")
            }
            Self::Staged { counter, has_previous: false } => {
                write!(f, "Bundle {counter} was staged: the gateway starts with it.")
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
                "Bundle {counter} was rolled back: {reason}. Correct it at the office and build \
                 the next one."
            ),
            Self::NotFetched { counter, reason, minutes } => {
                write!(
                    f,
                    "Bundle {counter} was not fetched: {reason}. Next attempt in {minutes} min."
                )
            }
            Self::GivenUp { counter, reason } => write!(
                f,
                "Bundle {counter} will not be fetched again: {reason}. Waiting for a different \
                 offer."
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
