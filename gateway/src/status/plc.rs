//! The part of the status about one PLC.

use serde::{Deserialize, Serialize};

use super::{ConnectionState, PlcSentence, parts, state_since};
use crate::model::{Detail, LearnedLimits, PlcIdentity, ProgramStatus, Sentence, UnixTime};

/// One PLC.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PlcStatus {
    /// `plc.name`.
    pub name: String,
    /// State of the connection.
    pub state: ConnectionState,
    /// The same as a sentence.
    pub sentence: String,
    /// Code and arguments of `sentence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentence_detail: Option<Detail>,
    /// When `state` last changed.
    pub since: UnixTime,
    /// Vendor, product and firmware as the PLC reports them; absent until it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<PlcIdentity>,
    /// Whether the PLC program runs, where that can be read; at most ten seconds old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<bool>,
    /// State, last stop and signature of the PLC program, where they can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramStatus>,
    /// The PLC is retried within this many seconds plus one scan, where other silent units on the
    /// same connection are retried first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried_within_seconds: Option<u64>,
    /// Figures of the last cycle; absent before the first answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycle: Option<CycleStatus>,
    /// How many tags have a good value.
    #[serde(default)]
    pub tags: TagsStatus,
    /// Why cycles are skipped, when a limit of the configuration is the cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Code and arguments of `limit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_detail: Option<Detail>,
    /// Which tags the PLC refuses, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// Code and arguments of `refusal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal_detail: Option<Detail>,
    /// How the answers of the PLC changed the plan; absent when they did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned: Option<LearnedLimits>,
}

/// The tags of a PLC by the quality of their last values.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct TagsStatus {
    /// Number of configured tags.
    pub configured: usize,
    /// Number of tags whose last value is good, and at most a scan and a heartbeat old.
    pub good: usize,
    /// Which tags have no good value, and why; absent while none is known to have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentence: Option<String>,
    /// Code and arguments of `sentence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentence_detail: Option<Detail>,
}

impl TagsStatus {
    /// Returns whether every tag has a good value; not before the first count.
    #[must_use]
    pub const fn are_good(&self) -> bool {
        self.configured > 0 && self.good >= self.configured
    }
}

/// Figures of the last cycle.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct CycleStatus {
    /// Duration of the last cycle in seconds.
    pub seconds: f64,
    /// Number of cycles skipped since the start, because one took too long or a limit was reached.
    pub missed: u64,
}

impl PlcStatus {
    /// Returns the status at the start: the connection is being attempted.
    pub(super) fn new(name: &str, now: UnixTime) -> Self {
        let (sentence, sentence_detail) = parts(Sentence::new(&PlcSentence::Connecting));
        Self {
            name: name.to_owned(),
            state: ConnectionState::Connecting,
            sentence,
            sentence_detail,
            since: now,
            identity: None,
            running: None,
            program: None,
            tried_within_seconds: None,
            cycle: None,
            tags: TagsStatus::default(),
            limit: None,
            limit_detail: None,
            refusal: None,
            refusal_detail: None,
            learned: None,
        }
    }

    /// Returns which tags have no good value although the PLC answers and its program may run.
    pub(super) fn missing_values(&self) -> Option<&String> {
        let is_well = self.state == ConnectionState::Connected && self.running != Some(false);
        self.tags.sentence.as_ref().filter(|_| is_well)
    }

    pub(super) fn set_state(&mut self, state: ConnectionState, sentence: Sentence, now: UnixTime) {
        self.since = state_since(self.state, self.since, state, now);
        self.state = state;
        (self.sentence, self.sentence_detail) = parts(sentence);
    }
}
