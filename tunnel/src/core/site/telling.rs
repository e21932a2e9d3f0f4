//! How the site's end is.

use super::{
    ClockVerdict, FailureCause, HubEndpoint, MAX_UNANSWERED_PROBES, ResolveFailure, SiteTunnel,
};
use crate::core::clock::Now;
use crate::core::report::{Facts, TunnelReport, TunnelState, sentence};

impl SiteTunnel {
    pub(in crate::core) fn report(&self, now: Now) -> TunnelReport {
        let place = self.endpoints.get(self.active.hub);
        let endpoint = place.and_then(HubEndpoint::current_address);
        let (hub, host) = place.map_or(("", ""), |place| {
            (place.settings.name.as_str(), place.settings.endpoint.host.as_str())
        });
        let state = self.state(now);
        let facts = Facts { hub, host, endpoint, key: &self.public_key, mtu: self.settings.mtu };
        TunnelReport {
            state,
            sentence: sentence(state, &facts),
            hub: hub.to_owned(),
            endpoint,
            last_handshake: self.last_handshake,
            counters: self.counters,
        }
    }

    pub(in crate::core) fn state(&self, now: Now) -> TunnelState {
        let failed = self.active.timer.failed_attempts();
        let is_failing = failed > 0;
        let has_session = self.active.session_start(now.instant).is_some();
        // One datagram may get lost.
        if has_session && failed < MAX_UNANSWERED_PROBES {
            return if self.black_hole.is_detected() {
                TunnelState::MtuTooLarge
            } else {
                TunnelState::Up
            };
        }
        let verdict = self.clock.verdict(now.wall);
        let place = self.endpoints.get(self.active.hub);
        if verdict == ClockVerdict::Ahead && self.active.peer.is_none() {
            return TunnelState::ClockAhead;
        }
        match place.and_then(HubEndpoint::resolve_failure) {
            Some(ResolveFailure::NotFound) => return TunnelState::NoAddress,
            Some(ResolveFailure::InsideTunnel) => return TunnelState::AddressInside,
            None => {}
        }
        match self.active.last_cause.cause() {
            FailureCause::Refused => TunnelState::Refused,
            FailureCause::Overloaded => TunnelState::Overloaded,
            FailureCause::WrongKey => TunnelState::WrongKey,
            FailureCause::Unknown if !is_failing && !self.selector.is_searching() => {
                TunnelState::Connecting
            }
            FailureCause::Unknown if verdict == ClockVerdict::Behind => TunnelState::ClockBehind,
            FailureCause::Unknown => TunnelState::Silent,
        }
    }
}
