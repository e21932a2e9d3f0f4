//! The message on `edge/ID/status`, as far as bundles are concerned.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::trial::TrialState;

/// What the last status message of a gateway says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SiteReport {
    /// Whether the gateway is connected, as far as the message says.
    pub presence: Presence,
    /// Time of the message by the gateway's clock.
    pub at: Option<Timestamp>,
    /// When the message was received; none for a retained message.
    pub received_at: Option<Timestamp>,
    /// When the gateway was started, by its clock.
    pub started: Option<Timestamp>,
    /// Counter of the bundle that it runs; none without a bundle.
    pub counter: Option<u64>,
    /// The last change of bundle, if there is something to say about it.
    pub trial: Option<ReportedTrial>,
}

/// Kind of the last message. The later variant says more about a gateway.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Presence {
    /// It is no status of a gateway.
    #[default]
    Unreadable,
    /// It is the will of the connection.
    Offline,
    /// It is the status of a gateway that runs.
    Online,
}

/// `trial` of a status.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReportedTrial {
    /// How the change stands; none if another version of the gateway says something else.
    pub state: Option<TrialState>,
    /// The bundle that it is about.
    pub counter: u64,
    /// The gateway's sentence about it.
    pub sentence: String,
    /// Code and arguments of the sentence.
    pub detail: Option<Value>,
}

#[derive(Deserialize)]
struct StatusMessage<'a> {
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(borrow)]
    gateway: Option<StatusGateway<'a>>,
    #[serde(borrow)]
    trial: Option<StatusTrial<'a>>,
}

#[derive(Deserialize)]
struct StatusGateway<'a> {
    #[serde(borrow)]
    at: Option<Cow<'a, str>>,
    #[serde(borrow)]
    started: Option<Cow<'a, str>>,
    config: Option<StatusConfig>,
}

#[derive(Deserialize)]
struct StatusConfig {
    counter: Option<u64>,
}

#[derive(Deserialize)]
struct StatusTrial<'a> {
    #[serde(borrow)]
    state: Cow<'a, str>,
    counter: u64,
    #[serde(default)]
    sentence: String,
    sentence_detail: Option<Value>,
}

impl SiteReport {
    /// Reads a status message. What is no status is [`Presence::Unreadable`].
    #[must_use]
    pub fn read(payload: &[u8]) -> Self {
        let Ok(message) = serde_json::from_slice::<StatusMessage<'_>>(payload) else {
            return Self::default();
        };
        let presence = match message.state.as_ref() {
            "online" => Presence::Online,
            "offline" => Presence::Offline,
            _ => Presence::Unreadable,
        };
        let time = |text: Option<Cow<'_, str>>| text.and_then(|text| text.parse().ok());
        let (at, started, config) = match message.gateway {
            Some(gateway) => (time(gateway.at), time(gateway.started), gateway.config),
            None => (None, None, None),
        };
        Self {
            presence,
            at,
            received_at: None,
            started,
            counter: config.and_then(|config| config.counter),
            trial: message.trial.map(ReportedTrial::from),
        }
    }

    /// Returns the latest time at which the gateway was certainly connected.
    #[must_use]
    pub fn last(&self) -> Option<Timestamp> {
        self.received_at.or(self.at)
    }
}

impl From<StatusTrial<'_>> for ReportedTrial {
    fn from(trial: StatusTrial<'_>) -> Self {
        let state = TrialState::from_word(&trial.state);
        // It goes to a terminal: a hostile gateway must not write control sequences there.
        let sentence: String = trial.sentence.chars().filter(|c| !c.is_control()).collect();
        Self { state, counter: trial.counter, sentence, detail: trial.sentence_detail }
    }
}
