//! What is wrong with the tunnel, as far as the site's end can tell.

use std::time::{Duration, Instant};

use super::super::clock::{ClockVerdict, Now};
use super::super::hub_link::{FailureCause, HubEndpoint, ResolveFailure};
use super::super::report::{TunnelDiagnosis, TunnelReport, TunnelState};
use super::{MAX_UNANSWERED_PROBES, SiteTunnel};

/// Time after which a datagram that came back through the host's routes is forgotten: two pauses
/// between initiations.
const LOOP_REMEMBERED_FOR: Duration = Duration::from_secs(15);

impl SiteTunnel {
    pub(in crate::core) fn state(&self, now: Now) -> TunnelState {
        if self.interface_down.is_some() {
            return TunnelState::InterfaceDown;
        }
        let is_looping = |at: Instant| now.instant < at + LOOP_REMEMBERED_FOR;
        if self.last_loop.is_some_and(is_looping) {
            return TunnelState::RoutedInside;
        }
        let link = self.links.active();
        let failed = link.timer.failed_attempts();
        // A single lost datagram is normal.
        if link.session_start(now.instant).is_some() && failed < MAX_UNANSWERED_PROBES {
            let is_narrow = self.black_hole.is_detected();
            return if is_narrow { TunnelState::MtuTooLarge } else { TunnelState::Up };
        }
        let verdict = self.clock.verdict(now.wall);
        if verdict == ClockVerdict::Ahead && link.peer.is_none() {
            return TunnelState::ClockAhead;
        }
        match self.links.active_endpoint().and_then(HubEndpoint::resolve_failure) {
            Some(ResolveFailure::NotFound) => return TunnelState::NoAddress,
            Some(ResolveFailure::InsideTunnel) => return TunnelState::AddressInside,
            None => {}
        }
        let is_behind = verdict == ClockVerdict::Behind;
        let is_stamp_ahead = self.links.is_stamp_ahead(now.wall);
        let is_first_attempt = failed == 0 && !self.links.is_searching();
        match link.last_cause.cause() {
            FailureCause::Refused => TunnelState::Refused,
            FailureCause::Overloaded => TunnelState::Overloaded,
            FailureCause::WrongKey => TunnelState::WrongKey,
            // A hub is right to ignore a clock that is known to be wrong.
            FailureCause::Unknown if is_stamp_ahead && !is_behind => TunnelState::StampAhead,
            FailureCause::Unknown if is_first_attempt && !is_stamp_ahead => TunnelState::Connecting,
            FailureCause::Unknown if is_behind => TunnelState::ClockBehind,
            FailureCause::Unknown => TunnelState::Silent,
        }
    }

    pub(in crate::core) fn report(&self, now: Now) -> TunnelReport {
        let state = self.state(now);
        let endpoint = self.links.active_endpoint();
        TunnelReport {
            state,
            diagnosis: self.diagnosis(state),
            hub: endpoint.map(|endpoint| endpoint.settings.name.clone()).unwrap_or_default(),
            endpoint: endpoint.and_then(HubEndpoint::current_address),
            last_handshake: self.last_handshake,
            accepted_stamp: endpoint.and_then(|endpoint| endpoint.accepted_stamp),
            counters: self.counters,
        }
    }

    fn diagnosis(&self, state: TunnelState) -> TunnelDiagnosis {
        match (state, &self.interface_down) {
            (TunnelState::InterfaceDown, Some(name)) => {
                TunnelDiagnosis::InterfaceDown { interface: name.clone() }
            }
            _ => TunnelDiagnosis::of_site(state, self.links.active_endpoint(), &self.settings),
        }
    }
}
