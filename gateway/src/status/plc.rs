//! What the status says of a PLC.

use serde::{Deserialize, Serialize};

use super::ConnectionState;
use crate::model::{LearnedLimits, PlcIdentity, ProgramStatus, UnixTime};

/// One PLC.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PlcStatus {
    /// `plc.name`.
    pub name: String,
    /// Whether it answers.
    pub state: ConnectionState,
    /// The same, for an installer.
    pub sentence: String,
    /// Since when the state is this one.
    pub since: UnixTime,
    /// What it says it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<PlcIdentity>,
    /// Whether its program runs, where that can be read; true at most ten seconds ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<bool>,
    /// What is known of its program, where it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramStatus>,
    /// Within this many seconds and one scan it is tried again, where other silent units on the same
    /// connection come first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried_within_seconds: Option<u64>,
    /// How reading goes, after the first cycle that the PLC answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycle: Option<CycleStatus>,
    /// Why cycles are skipped, when a ceiling of the configuration is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Which tags it refuses, and what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// How its answers corrected the plan, if they did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned: Option<LearnedLimits>,
}

/// How reading a PLC goes.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct CycleStatus {
    /// How long the last cycle took.
    pub seconds: f64,
    /// Cycles skipped since the start because one ran too long or a ceiling was reached.
    pub missed: u64,
}

impl PlcStatus {
    pub(super) fn set_state(&mut self, state: ConnectionState, sentence: String, now: UnixTime) {
        self.since = super::state_since(self.state, self.since, state, now);
        self.state = state;
        self.sentence = sentence;
    }
}
