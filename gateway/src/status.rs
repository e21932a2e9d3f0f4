//! How the gateway is doing: sentences for an installer, fields for a program. Pure.

mod advice;
mod plc;
mod text;
mod tunnel;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use advice::advice;
pub use plc::{CycleStatus, PlcStatus};
pub use tunnel::{ClockStatus, TunnelStatus};

use crate::model::{LearnedLimits, PlcIdentity, ProgramStatus, RateLimit, UnixTime};

/// The state of everything, as published, served and shown.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Status {
    /// Whether the gateway is there: always `online`, since what says `offline` is the will.
    pub state: Presence,
    /// The gateway itself.
    pub gateway: GatewayStatus,
    /// The tunnel to the hub; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelStatus>,
    /// The connection to the broker.
    pub broker: BrokerStatus,
    /// What waits for the broker.
    pub queue: QueueStatus,
    /// Every PLC, in the order of the configuration.
    pub plcs: Vec<PlcStatus>,
}

/// Whether there is a gateway at the other end of the status topic.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It published this status.
    Online,
    /// It said goodbye, or the broker lost it.
    Offline,
}

/// Who speaks, and since when.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct GatewayStatus {
    /// `gateway.id`.
    pub id: String,
    /// Version of the program.
    pub version: String,
    /// The configuration it runs with.
    pub config: ConfigStatus,
    /// How far its clock can be believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockStatus>,
    /// When the program started.
    pub started: UnixTime,
    /// When this status was true: readers judge by its age.
    pub at: UnixTime,
}

/// Names a configuration.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ConfigStatus {
    /// First digits of a hash of the effective configuration.
    pub hash: String,
}

/// Whether something at the other end of a connection is there.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionState {
    /// Not tried to an end yet.
    Connecting,
    /// It answers.
    Connected,
    /// It does not; the sentence says why.
    Disconnected,
}

/// The connection to the broker.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct BrokerStatus {
    /// Whether it is there.
    pub state: ConnectionState,
    /// The same, for an installer.
    pub sentence: String,
    /// The one that answers, or answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What it refuses, and what to do about it; from the first refusal until the next session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// Since when the state is this one.
    pub since: UnixTime,
}

/// What waits for the broker.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct QueueStatus {
    /// Samples that wait.
    pub stored: u64,
    /// Messages that wait.
    pub entries: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Most bytes that the queue may take.
    pub max_bytes: u64,
    /// Samples dropped since the start.
    pub dropped: u64,
    /// Hours that a broker may still be away before samples are dropped, at the rate of the last five
    /// minutes; absent in the first seconds and while nothing comes in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<f64>,
    /// When the oldest waiting record was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<UnixTime>,
    /// What there is to say about the storage; absent when nothing is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
}

impl Status {
    /// The status at the start: everything is being tried.
    #[must_use]
    pub fn new<'a>(
        id: &str,
        version: &str,
        config_hash: &str,
        plcs: impl IntoIterator<Item = &'a str>,
        now: UnixTime,
    ) -> Self {
        let plc = |name: &str| PlcStatus {
            name: name.to_owned(),
            state: ConnectionState::Connecting,
            sentence: "The PLC is being called.".to_owned(),
            since: now,
            identity: None,
            running: None,
            program: None,
            tried_within_seconds: None,
            cycle: None,
            limit: None,
            refusal: None,
            learned: None,
        };
        Self {
            state: Presence::Online,
            gateway: GatewayStatus {
                id: id.to_owned(),
                version: version.to_owned(),
                config: ConfigStatus { hash: config_hash.to_owned() },
                clock: None,
                started: now,
                at: now,
            },
            tunnel: None,
            broker: BrokerStatus {
                state: ConnectionState::Connecting,
                sentence: "The broker is being called.".to_owned(),
                address: None,
                refusal: None,
                since: now,
            },
            queue: QueueStatus::default(),
            plcs: plcs.into_iter().map(plc).collect(),
        }
    }

    /// Says that the status is true at `now`; every other update does so too.
    pub fn mark_updated(&mut self, now: UnixTime) {
        self.gateway.at = now;
    }

    /// The broker at this address took the connection.
    pub fn on_broker_connected(&mut self, address: &str, now: UnixTime) {
        self.mark_updated(now);
        self.broker = BrokerStatus {
            sentence: format!("The broker answers at {address}."),
            address: Some(address.to_owned()),
            refusal: None,
            since: state_since(
                self.broker.state,
                self.broker.since,
                ConnectionState::Connected,
                now,
            ),
            state: ConnectionState::Connected,
        };
    }

    /// The broker does not take what is published on `topic`; `reason` is in its own words.
    pub fn on_broker_refused(&mut self, topic: &str, reason: &str, now: UnixTime) {
        self.mark_updated(now);
        self.broker.refusal = Some(format!(
            "The broker refuses messages on {topic} ({reason}): allow this gateway to write there \
             in the broker's access list (ACL)."
        ));
    }

    /// No broker; the sentence says why and what to do.
    pub fn on_broker_disconnected(&mut self, sentence: &str, now: UnixTime) {
        self.mark_updated(now);
        let broker = &mut self.broker;
        broker.since = state_since(broker.state, broker.since, ConnectionState::Disconnected, now);
        broker.state = ConnectionState::Disconnected;
        broker.sentence = text::to_sentence(sentence);
    }

    /// What the queue holds now.
    pub fn set_queue(&mut self, queue: QueueStatus, now: UnixTime) {
        self.mark_updated(now);
        self.queue = queue;
    }

    /// PLC number `index` answers; `running` says whether its program runs, where that is known.
    pub fn on_plc_connected(
        &mut self,
        index: u16,
        identity: Option<PlcIdentity>,
        running: Option<bool>,
        program: Option<ProgramStatus>,
        now: UnixTime,
    ) {
        let sentence = text::answers(running, program.as_ref());
        if let Some(plc) = self.plc_mut(index, now) {
            plc.set_state(ConnectionState::Connected, sentence, now);
            plc.tried_within_seconds = None;
            plc.identity = identity;
            plc.running = running;
            plc.program = program;
        }
    }

    /// PLC number `index` does not answer; the sentence says why and what to do.
    ///
    /// What it is stays known; whether its program runs and how long a cycle takes does not.
    pub fn on_plc_disconnected(
        &mut self,
        index: u16,
        sentence: &str,
        tried_within: Option<Duration>,
        now: UnixTime,
    ) {
        if let Some(plc) = self.plc_mut(index, now) {
            plc.set_state(ConnectionState::Disconnected, text::to_sentence(sentence), now);
            plc.tried_within_seconds = tried_within.map(|within| within.as_secs());
            plc.running = None;
            plc.program = None;
            plc.cycle = None;
        }
    }

    /// A cycle of PLC number `index` took this long; `missed` counts those skipped since the
    /// start. A cycle of a PLC that does not answer tells nothing.
    pub fn on_plc_cycle(&mut self, index: u16, took: Duration, missed: u64, now: UnixTime) {
        if let Some(plc) =
            self.plc_mut(index, now).filter(|plc| plc.state == ConnectionState::Connected)
        {
            plc.cycle = Some(CycleStatus { seconds: took.as_secs_f64(), missed });
        }
    }

    /// Cycles of PLC number `index` are skipped because of this, or not any more.
    pub fn on_plc_throttled(&mut self, index: u16, limit: Option<RateLimit>, now: UnixTime) {
        if let Some(plc) = self.plc_mut(index, now) {
            plc.limit = limit.map(text::limit);
        }
    }

    /// The answers of PLC number `index` corrected the plan like this, or no longer do.
    pub fn on_plc_learned(&mut self, index: u16, learned: LearnedLimits, now: UnixTime) {
        if let Some(plc) = self.plc_mut(index, now) {
            plc.refusal = text::refusal(&learned.quarantined);
            plc.learned = Some(learned).filter(|learned| *learned != LearnedLimits::default());
        }
    }

    /// The one sentence that matters most now.
    #[must_use]
    pub fn headline(&self) -> String {
        text::headline(self)
    }

    fn plc_mut(&mut self, index: u16, now: UnixTime) -> Option<&mut PlcStatus> {
        self.mark_updated(now);
        self.plcs.get_mut(usize::from(index))
    }
}

impl ConnectionState {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
        }
    }
}

fn state_since(
    before: ConnectionState,
    since: UnixTime,
    after: ConnectionState,
    now: UnixTime,
) -> UnixTime {
    if before == after { since } else { now }
}

#[cfg(test)]
mod tests;
