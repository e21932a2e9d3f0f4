//! What the status says of a PLC.

use serde::{Deserialize, Serialize};

use super::ConnectionState;
use crate::model::UnixTime;

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
    pub identity: Option<Identity>,
    /// Whether its program runs, where that can be read; true at most ten seconds ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<bool>,
    /// What is known of its program, where it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
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
    pub learned: Option<Learned>,
}

/// How a PLC's answers corrected the plan; `edge-gateway plan --learned` shows what to write.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Learned {
    /// Tags that it refuses; they are tried again now and then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<Quarantined>,
    /// Most registers that it answers in one request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_words: Option<u16>,
    /// Most unused registers between two tags that it lets pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_gap: Option<u16>,
}

/// A ceiling of the configuration that costs cycles.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limit {
    /// `plc.max_share`, in percent.
    Share(u16),
    /// `plc.max_requests`, per second.
    Requests(u16),
}

/// A tag that a PLC refuses.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Quarantined {
    /// `plc.tag.name`.
    pub tag: String,
    /// `plc.tag.at`.
    pub at: String,
    /// Exception code of the refusal (Modbus Application Protocol V1.1b3, 7).
    pub exception: u8,
}

/// What a PLC says it is: from its system variable PLC_R, or in answer to Read Device
/// Identification (Modbus Application Protocol V1.1b3, 6.21).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Identity {
    /// Who made it.
    pub vendor: String,
    /// Its product code.
    pub product: String,
    /// Its firmware.
    pub revision: String,
}

/// The program of a PLC, as its system variable PLC_R tells.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Program {
    /// `empty`, `stopped`, `running`, `halted`, `breakpoint` or `unknown`.
    pub state: String,
    /// Why it stopped last: `watchdog`, `reset`, `exception`, `user`, `program` or `deletion`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_stop: Option<String>,
    /// Names the download that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
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
