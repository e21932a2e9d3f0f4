//! The tunnel and the clock, which it depends on.

use serde::{Deserialize, Serialize};

use super::Status;
use crate::model::UnixTime;

/// The tunnel to the hub.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct TunnelStatus {
    /// `up`, or in a word what is wrong.
    pub state: String,
    /// The same, for an installer.
    pub sentence: String,
    /// The hub in use.
    pub hub: String,
    /// Where it is, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// When the last handshake was completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handshake: Option<UnixTime>,
    /// Since when the state is this one.
    pub since: UnixTime,
}

/// How far the clock of the gateway can be believed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ClockStatus {
    /// `unset`, `floor` or `synchronised`.
    pub state: String,
    /// What that means, for an installer.
    pub sentence: String,
}

/// The word of a tunnel that carries everything. One whose packets are too long has a session too,
/// and something to tell.
const UP: &str = "up";

impl TunnelStatus {
    /// Whether nothing is wrong with it.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.state == UP
    }
}

impl Status {
    /// The tunnel is like this now; `since` is filled in. Returns whether its state has changed.
    pub fn set_tunnel(&mut self, tunnel: TunnelStatus, now: UnixTime) -> bool {
        self.mark_updated(now);
        let before = self.tunnel.as_ref().filter(|before| before.state == tunnel.state);
        let (since, is_news) = before.map_or((now, true), |before| (before.since, false));
        self.tunnel = Some(TunnelStatus { since, ..tunnel });
        is_news
    }

    /// The clock is like this now. Returns whether that is news.
    pub fn set_clock(&mut self, clock: ClockStatus, now: UnixTime) -> bool {
        self.mark_updated(now);
        let is_news = self.gateway.clock.as_ref() != Some(&clock);
        self.gateway.clock = Some(clock);
        is_news
    }
}
