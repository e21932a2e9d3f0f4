//! How the gateway is doing: sentences for a person, fields for a program. Pure.
//!
//! Each text key that holds a sentence has a companion `<key>_detail` with its code and arguments;
//! docs/status.md lists them.

mod advice;
mod certificate;
mod plc;
mod sentence;
mod text;

use std::time::Duration;

use provisioning::config::MqttVersion;
use serde::{Deserialize, Serialize};

pub use advice::advice;
pub use certificate::{CertificateSentence, CertificateStatus};
pub use plc::{CycleStatus, PlcStatus, TagsStatus};
pub use sentence::{
    BrokerRefusal, BrokerSentence, Headline, LimitSentence, NamedTag, PlcRefusal, PlcSentence,
    TagSentence, WriteSentence,
};

use crate::model::{
    Detail, LearnedLimits, PlcIdentity, ProgramStatus, RateLimit, Sentence, UnixTime,
};

/// The status as it is published over MQTT, served over HTTP and shown on the command line.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Status {
    /// Always `online`; the will of the MQTT connection says `offline`.
    pub state: Presence,
    /// The gateway itself.
    pub gateway: GatewayStatus,
    /// The tunnel to the hub; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelStatus>,
    /// The connection to the broker.
    pub broker: BrokerStatus,
    /// The certificates of the connection to the broker; none without TLS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateStatus>,
    /// The samples and messages that wait for the broker.
    pub queue: QueueStatus,
    /// Every PLC, in the order of the configuration.
    pub plcs: Vec<PlcStatus>,
    /// What prevents writes to PLCs or makes them doubtful; empty when nothing does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<WriteNotice>,
    /// The bundle that is on trial, was rolled back or could not be had; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialStatus>,
}

/// What is to be known about a bundle that is not confirmed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct TrialStatus {
    /// `fetching`, `staged`, `trying`, `reverted` or `refused`.
    pub state: String,
    /// Counter of the bundle; absent if it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<u64>,
    /// What it is, and what to do.
    pub sentence: String,
    /// Code and arguments of `sentence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentence_detail: Option<Detail>,
}

/// One thing to know about writes to PLCs.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct WriteNotice {
    /// What it is, and what to do.
    pub sentence: String,
    /// Code and arguments of `sentence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentence_detail: Option<Detail>,
}

/// Whether a gateway is connected behind the status topic.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It published this status.
    Online,
    /// It disconnected, or the broker lost the connection to it.
    Offline,
}

/// Identity, version and clock of the gateway.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct GatewayStatus {
    /// `gateway.id`.
    pub id: String,
    /// Version of the program.
    pub version: String,
    /// The configuration in use.
    pub config: ConfigStatus,
    /// How far its clock can be trusted; absent before the first check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockStatus>,
    /// When the program started.
    pub started: UnixTime,
    /// When this status was true; readers judge a retained status by its age.
    pub at: UnixTime,
}

/// Identifies a configuration.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ConfigStatus {
    /// First digits of a hash of the effective configuration.
    pub hash: String,
    /// Counter of the bundle that it comes from; absent if it is a file of the box itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<u64>,
}

/// How far the clock of the gateway can be trusted.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ClockStatus {
    /// `unset`, `floor` or `synchronised`.
    pub state: String,
    /// The same as a sentence.
    pub sentence: String,
    /// Code and arguments of `sentence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentence_detail: Option<Detail>,
}

/// State of a connection to a PLC or to the broker.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionState {
    /// The first attempt has not ended.
    Connecting,
    /// The other end answers.
    Connected,
    /// The other end does not answer; the sentence says why.
    Disconnected,
}

/// The tunnel to the hub.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct TunnelStatus {
    /// `up`, or one word for what is wrong.
    pub state: String,
    /// The same as a sentence.
    pub sentence: String,
    /// Code and arguments of `sentence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentence_detail: Option<Detail>,
    /// Name of the hub in use.
    pub hub: String,
    /// Address and port of the hub, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// When the last handshake was completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handshake: Option<UnixTime>,
    /// When `state` last changed.
    pub since: UnixTime,
}

/// The connection to the broker.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct BrokerStatus {
    /// State of the connection.
    pub state: ConnectionState,
    /// The same as a sentence.
    pub sentence: String,
    /// Code and arguments of `sentence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentence_detail: Option<Detail>,
    /// Address of the broker that is connected, or was last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Protocol version of the session, `5` or `3.1.1`; absent without a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What the broker refuses, and what to do; from the first refusal to the next session, or
    /// until it accepts what it did not accept at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// Code and arguments of `refusal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal_detail: Option<Detail>,
    /// When `state` last changed.
    pub since: UnixTime,
}

/// The samples and messages that wait for the broker.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct QueueStatus {
    /// Number of waiting samples.
    pub stored: u64,
    /// Number of waiting messages.
    pub entries: u64,
    /// Size of the waiting messages in bytes.
    pub bytes: u64,
    /// Limit of the queue in bytes.
    pub max_bytes: u64,
    /// Number of samples dropped since the start.
    pub dropped: u64,
    /// Hours until samples are dropped if the broker stays away, at the rate of the last 5 minutes;
    /// absent in the first 10 seconds and while no samples come in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<f64>,
    /// When the oldest waiting record was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<UnixTime>,
    /// A record that waits for longer than this is late: the longest scan and its heartbeat.
    #[serde(default)]
    pub max_wait_seconds: u64,
    /// What is wrong with the storage; absent when nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    /// Code and arguments of `storage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_detail: Option<Detail>,
}

impl Status {
    /// Returns the status at the start: every connection is being attempted.
    #[must_use]
    pub fn new<'a>(
        id: &str,
        version: &str,
        config_hash: &str,
        plcs: impl IntoIterator<Item = &'a str>,
        now: UnixTime,
    ) -> Self {
        let (sentence, sentence_detail) = parts(Sentence::new(&BrokerSentence::Connecting));
        Self {
            state: Presence::Online,
            gateway: GatewayStatus {
                id: id.to_owned(),
                version: version.to_owned(),
                config: ConfigStatus { hash: config_hash.to_owned(), counter: None },
                clock: None,
                started: now,
                at: now,
            },
            tunnel: None,
            broker: BrokerStatus {
                state: ConnectionState::Connecting,
                sentence,
                sentence_detail,
                address: None,
                version: None,
                refusal: None,
                refusal_detail: None,
                since: now,
            },
            certificates: Vec::new(),
            queue: QueueStatus::default(),
            plcs: plcs.into_iter().map(|name| PlcStatus::new(name, now)).collect(),
            writes: Vec::new(),
            trial: None,
        }
    }

    /// Records which bundle the configuration comes from.
    pub fn set_bundle_counter(&mut self, counter: Option<u64>) {
        self.gateway.config.counter = counter;
    }

    /// Records what is to be known about a bundle: its state, counter and sentence. Returns whether
    /// that changed.
    pub fn set_trial(
        &mut self,
        trial: Option<(&str, Option<u64>, Sentence)>,
        now: UnixTime,
    ) -> bool {
        self.mark_updated(now);
        let trial = trial.map(|(state, counter, sentence)| {
            let (sentence, sentence_detail) = parts(sentence);
            TrialStatus { state: state.to_owned(), counter, sentence, sentence_detail }
        });
        let is_changed = self.trial != trial;
        self.trial = trial;
        is_changed
    }

    /// Records what is to be known about writes. Returns whether that changed.
    pub fn set_writes(&mut self, sentences: &[WriteSentence], now: UnixTime) -> bool {
        let notice = |sentence| {
            let (sentence, sentence_detail) = parts(Sentence::new(sentence));
            WriteNotice { sentence, sentence_detail }
        };
        let writes: Vec<_> = sentences.iter().map(notice).collect();
        let is_changed = writes != self.writes;
        if is_changed {
            self.mark_updated(now);
            self.writes = writes;
        }
        is_changed
    }

    /// Records that the status is true at `now`; every other update does so too.
    pub fn mark_updated(&mut self, now: UnixTime) {
        self.gateway.at = now;
    }

    /// Records that the clock can be trusted this far. Returns whether that changed.
    pub fn set_clock(&mut self, state: &str, sentence: Sentence, now: UnixTime) -> bool {
        self.mark_updated(now);
        let (sentence, sentence_detail) = parts(sentence);
        let clock = ClockStatus { state: state.to_owned(), sentence, sentence_detail };
        let is_changed = self.gateway.clock.as_ref() != Some(&clock);
        self.gateway.clock = Some(clock);
        is_changed
    }

    /// Records the state of the tunnel; `since` is filled in. Returns whether the state changed.
    pub fn set_tunnel(&mut self, tunnel: TunnelStatus, now: UnixTime) -> bool {
        self.mark_updated(now);
        let before = self.tunnel.as_ref().filter(|before| before.state == tunnel.state);
        let (since, is_changed) = before.map_or((now, true), |before| (before.since, false));
        self.tunnel = Some(TunnelStatus { since, ..tunnel });
        is_changed
    }

    /// Records that the broker at `address` accepted the connection.
    pub fn on_broker_connected(&mut self, address: &str, version: MqttVersion, now: UnixTime) {
        self.mark_updated(now);
        let host_port = address.to_owned();
        let connected = match version {
            MqttVersion::V5 => BrokerSentence::Connected { address: host_port },
            MqttVersion::V311 => BrokerSentence::ConnectedV3 { address: host_port },
        };
        self.broker.version = Some(version.as_str().to_owned());
        self.broker.set_state(ConnectionState::Connected, Sentence::new(&connected), now);
        self.broker.address = Some(address.to_owned());
        (self.broker.refusal, self.broker.refusal_detail) = (None, None);
    }

    /// Records what the broker refuses; `None` when it accepts everything again.
    pub fn set_broker_refusal(&mut self, refusal: Option<&BrokerRefusal>, now: UnixTime) {
        self.mark_updated(now);
        let refusal = refusal.map(Sentence::new);
        (self.broker.refusal, self.broker.refusal_detail) = optional_parts(refusal);
    }

    /// Records that the broker is not connected; the sentence says why and what to do.
    pub fn on_broker_disconnected(&mut self, sentence: Sentence, now: UnixTime) {
        self.mark_updated(now);
        self.broker.set_state(ConnectionState::Disconnected, sentence, now);
        self.broker.version = None;
    }

    /// Records when the certificates end. Returns whether that changed.
    pub fn set_certificates(
        &mut self,
        certificates: Vec<CertificateStatus>,
        now: UnixTime,
    ) -> bool {
        self.mark_updated(now);
        let is_changed = self.certificates != certificates;
        self.certificates = certificates;
        is_changed
    }

    /// Records the content of the queue, and what is wrong with its storage.
    pub fn set_queue(&mut self, queue: QueueStatus, storage: Option<Sentence>, now: UnixTime) {
        self.mark_updated(now);
        self.queue = queue;
        (self.queue.storage, self.queue.storage_detail) = optional_parts(storage);
    }

    /// Records that PLC number `index` answers; `running` says whether its program runs, where that
    /// can be read.
    pub fn on_plc_connected(
        &mut self,
        index: u16,
        identity: Option<PlcIdentity>,
        running: Option<bool>,
        program: Option<ProgramStatus>,
        now: UnixTime,
    ) {
        let sentence = PlcSentence::of_connected(running, program.as_ref());
        if let Some(plc) = self.plc_mut(index, now) {
            plc.set_state(ConnectionState::Connected, Sentence::new(&sentence), now);
            plc.tried_within_seconds = None;
            plc.identity = identity;
            plc.running = running;
            plc.program = program;
        }
    }

    /// Records that PLC number `index` does not answer; the sentence says why and what to do.
    ///
    /// Its identity stays; the state of its program and its cycle time become unknown.
    pub fn on_plc_disconnected(
        &mut self,
        index: u16,
        sentence: Sentence,
        retry_within: Option<Duration>,
        now: UnixTime,
    ) {
        if let Some(plc) = self.plc_mut(index, now) {
            plc.set_state(ConnectionState::Disconnected, sentence, now);
            plc.tried_within_seconds = retry_within.map(|within| within.as_secs());
            plc.running = None;
            plc.program = None;
            plc.cycle = None;
        }
    }

    /// Records how long a cycle of PLC number `index` took; `missed` counts the cycles skipped
    /// since the start. Ignored unless the PLC is connected.
    pub fn on_plc_cycle(&mut self, index: u16, took: Duration, missed: u64, now: UnixTime) {
        if let Some(plc) =
            self.plc_mut(index, now).filter(|plc| plc.state == ConnectionState::Connected)
        {
            plc.cycle = Some(CycleStatus { seconds: took.as_secs_f64(), missed });
        }
    }

    /// Records which limit makes PLC number `index` skip cycles; `None` when none does.
    pub fn on_plc_throttled(&mut self, index: u16, limit: Option<RateLimit>, now: UnixTime) {
        let limit = limit.map(|limit| Sentence::new(&LimitSentence::from(limit)));
        if let Some(plc) = self.plc_mut(index, now) {
            (plc.limit, plc.limit_detail) = optional_parts(limit);
        }
    }

    /// Records how the answers of PLC number `index` changed the plan; the default for not at all.
    pub fn on_plc_learned(&mut self, index: u16, learned: LearnedLimits, now: UnixTime) {
        let refusal = PlcRefusal::of_tags(&learned.quarantined);
        if let Some(plc) = self.plc_mut(index, now) {
            let refusal = refusal.map(|refusal| Sentence::new(&refusal));
            (plc.refusal, plc.refusal_detail) = optional_parts(refusal);
            plc.learned = Some(learned).filter(|learned| *learned != LearnedLimits::default());
        }
    }

    /// Records how many tags of PLC number `index` are configured and have a good value, and the
    /// first of those that have none. Returns whether that changed.
    pub fn set_plc_tags(
        &mut self,
        index: u16,
        (configured, good): (usize, usize),
        bad: Vec<NamedTag>,
        now: UnixTime,
    ) -> bool {
        let sentence = TagSentence::of_tags(bad, configured.saturating_sub(good));
        let (sentence, sentence_detail) =
            optional_parts(sentence.map(|sentence| Sentence::new(&sentence)));
        let Some(plc) = self.plc_mut(index, now) else { return false };
        let tags = TagsStatus { configured, good, sentence, sentence_detail };
        let is_changed = plc.tags != tags;
        plc.tags = tags;
        is_changed
    }

    fn plc_mut(&mut self, index: u16, now: UnixTime) -> Option<&mut PlcStatus> {
        self.mark_updated(now);
        self.plcs.get_mut(usize::from(index))
    }
}

impl BrokerStatus {
    fn set_state(&mut self, state: ConnectionState, sentence: Sentence, now: UnixTime) {
        self.since = state_since(self.state, self.since, state, now);
        self.state = state;
        (self.sentence, self.sentence_detail) = parts(sentence);
    }
}

impl TunnelStatus {
    /// Returns whether the tunnel carries everything. A tunnel that only loses long packets has a
    /// session and is not healthy.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.state == "up"
    }

    /// Returns whether nothing passes, and the tunnel is not just being opened.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        !["up", "mtu_too_large", "connecting", "looking_up"].contains(&self.state.as_str())
    }
}

impl ClockStatus {
    /// Returns whether times of this clock can be right, so that values are not `unsynced`.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        self.state != "unset"
    }
}

impl ConnectionState {
    /// Returns its word in the JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
        }
    }
}

/// Returns when the state `after` began, if it was `before` since `since`.
fn state_since(
    before: ConnectionState,
    since: UnixTime,
    after: ConnectionState,
    now: UnixTime,
) -> UnixTime {
    if before == after { since } else { now }
}

/// Returns the values of a text key and of its `_detail` key.
fn parts(sentence: Sentence) -> (String, Option<Detail>) {
    (text::to_sentence(&sentence.text), Some(sentence.detail))
}

fn optional_parts(sentence: Option<Sentence>) -> (Option<String>, Option<Detail>) {
    sentence.map(parts).map_or((None, None), |(text, detail)| (Some(text), detail))
}

#[cfg(test)]
mod tests;
