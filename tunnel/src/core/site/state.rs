//! What is wrong with the tunnel, as far as the site's end can tell.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::super::clock::{ClockVerdict, Now};
use super::super::hub_link::{FailureCause, HubEndpoint, HubLink, ResolveFailure};
use super::super::report::{DiagnosisDetails, TunnelDiagnosis, TunnelReport, TunnelState};
use super::{MAX_UNANSWERED_PROBES, SiteTunnel};

/// Time after which a datagram that came back through the host's routes is forgotten: two pauses
/// between initiations.
const LOOP_REMEMBERED_FOR: Duration = Duration::from_secs(15);
/// Time after the first packet until the hub counts as returning none.
const ONE_WAY_AFTER: Duration = Duration::from_secs(20);

impl SiteTunnel {
    pub(in crate::core) fn state(&self, now: Now) -> TunnelState {
        if self.interface_down.is_some() {
            return TunnelState::InterfaceDown;
        }
        let is_looping = |at: Instant| now.instant < at + LOOP_REMEMBERED_FOR;
        if self.last_loop.is_some_and(is_looping) {
            return TunnelState::RoutedInside;
        }
        self.session_state(now.instant).unwrap_or_else(|| self.failure_state(now))
    }

    /// Returns the state of the session, if there is one, the hub is not silent and datagrams to it
    /// are not rejected on the way.
    fn session_state(&self, now: Instant) -> Option<TunnelState> {
        let link = self.links.active();
        link.session_start(now)?;
        if link.path_errors.is_blocked(now) {
            return None;
        }
        let is_heard = link.liveness.is_reachable(now);
        // A single lost datagram is normal, and so is a lost handshake while data arrives.
        let is_answered = link.timer.failed_attempts() < MAX_UNANSWERED_PROBES
            && !link.liveness.is_silent(now)
            && !link.last_cause.cause().is_local();
        if !is_heard && !is_answered {
            return None;
        }
        Some(if self.key_sharing.is_detected(now) {
            TunnelState::KeyShared
        } else if link.one_way_since.is_some_and(|since| now >= since + ONE_WAY_AFTER) {
            TunnelState::NoData
        } else if self.black_hole.is_detected() {
            TunnelState::MtuTooLarge
        } else {
            TunnelState::Up
        })
    }

    /// Returns why there is no session, or why nothing comes back.
    fn failure_state(&self, now: Now) -> TunnelState {
        let link = self.links.active();
        let verdict = self.clock.verdict(now.wall);
        if verdict == ClockVerdict::Ahead && link.peer.is_none() {
            return TunnelState::ClockAhead;
        }
        let is_stamp_ahead = self.links.is_stamp_ahead(now.wall);
        let lookup = self.links.active_endpoint().and_then(|hub| self.lookup_state(hub));
        // That the hub has seen a later time is known before its address is.
        if let Some(state) = lookup
            && !(is_stamp_ahead && state == TunnelState::LookingUp)
        {
            return state;
        }
        let is_portal = self.is_captive_portal();
        let is_behind = verdict == ClockVerdict::Behind;
        let is_first_attempt = self.is_first_attempt(link, now.instant);
        match link.last_cause.cause() {
            FailureCause::Refused | FailureCause::RouterRefuses(_) if is_portal => {
                TunnelState::CaptivePortal
            }
            FailureCause::Refused => TunnelState::Refused,
            FailureCause::RouterRefuses(_) => TunnelState::RouterRefuses,
            FailureCause::Prohibited(_) => TunnelState::Prohibited,
            FailureCause::RouterNoRoute(_) => TunnelState::RouterNoRoute,
            FailureCause::NoRoute => TunnelState::NoRoute,
            FailureCause::OwnFirewall => TunnelState::OwnFirewall,
            FailureCause::Overloaded => TunnelState::Overloaded,
            FailureCause::WrongKey => self.preshared_key_state(),
            // A hub is right to ignore a clock that is known to be wrong.
            FailureCause::Unknown if is_stamp_ahead && !is_behind => TunnelState::StampAhead,
            FailureCause::Unknown if is_first_attempt && !is_stamp_ahead => TunnelState::Connecting,
            FailureCause::Unknown if is_portal => TunnelState::CaptivePortal,
            FailureCause::Unknown if is_behind => TunnelState::ClockBehind,
            FailureCause::Unknown => TunnelState::Silent,
        }
    }

    fn is_first_attempt(&self, link: &HubLink, now: Instant) -> bool {
        link.timer.failed_attempts() == 0
            && !self.links.is_searching()
            && !link.liveness.is_silent(now)
    }

    /// Returns why no address of the hub is known, if none is.
    fn lookup_state(&self, endpoint: &HubEndpoint) -> Option<TunnelState> {
        let has_resolver_inside = !self.resolvers_inside.is_empty();
        match endpoint.resolve_failure() {
            Some(ResolveFailure::NotFound) if has_resolver_inside => {
                Some(TunnelState::ResolverInside)
            }
            Some(ResolveFailure::NotFound) => Some(TunnelState::NoAddress),
            Some(ResolveFailure::InsideTunnel) => Some(TunnelState::AddressInside),
            Some(ResolveFailure::Blocked(_)) => Some(TunnelState::NameBlocked),
            None => endpoint.is_looking_up().then_some(if has_resolver_inside {
                TunnelState::ResolverInside
            } else {
                TunnelState::LookingUp
            }),
        }
    }

    /// Returns whether the hub's name leads to a router of this host.
    fn is_captive_portal(&self) -> bool {
        let Some(endpoint) = self.links.active_endpoint() else { return false };
        let is_name = endpoint.settings.endpoint.host.parse::<IpAddr>().is_err();
        let address = endpoint.current_address();
        is_name && address.is_some_and(|address| self.routers.contains(&address.ip()))
    }

    fn preshared_key_state(&self) -> TunnelState {
        let endpoint = self.links.active_endpoint();
        let has_key = endpoint.is_some_and(|endpoint| endpoint.settings.preshared_key.is_some());
        if has_key { TunnelState::WrongKey } else { TunnelState::PresharedKeyMissing }
    }

    pub(in crate::core) fn report(&self, now: Now) -> TunnelReport {
        let state = self.state(now);
        let endpoint = self.links.active_endpoint();
        TunnelReport {
            state,
            diagnosis: self.diagnosis(state),
            hub: endpoint.map(|endpoint| endpoint.settings.name.clone()).unwrap_or_default(),
            endpoint: endpoint.and_then(HubEndpoint::current_address),
            unanswered_since: self.links.active().liveness.unanswered_since(),
            last_handshake: self.last_handshake,
            accepted_stamp: endpoint.and_then(|endpoint| endpoint.accepted_stamp),
            counters: self.counters,
        }
    }

    fn diagnosis(&self, state: TunnelState) -> TunnelDiagnosis {
        let endpoint = self.links.active_endpoint();
        let reporter = match self.links.active().last_cause.cause() {
            FailureCause::RouterRefuses(router)
            | FailureCause::Prohibited(router)
            | FailureCause::RouterNoRoute(router) => Some(router),
            FailureCause::Unknown
            | FailureCause::Refused
            | FailureCause::NoRoute
            | FailureCause::OwnFirewall
            | FailureCause::Overloaded
            | FailureCause::WrongKey => None,
        };
        let blocked_by = match endpoint.and_then(HubEndpoint::resolve_failure) {
            Some(ResolveFailure::Blocked(address)) => Some(address),
            Some(ResolveFailure::NotFound | ResolveFailure::InsideTunnel) | None => None,
        };
        let address = endpoint.and_then(HubEndpoint::current_address);
        let text = |address: Option<IpAddr>| address.map(|ip| ip.to_string()).unwrap_or_default();
        let details = DiagnosisDetails {
            router: text(reporter),
            answer: text(blocked_by.or_else(|| address.as_ref().map(SocketAddr::ip))),
            resolver: text(self.resolvers_inside.first().copied()),
            interface: self.interface_down.clone().unwrap_or_default(),
            own_address: text(self.settings.addresses.first().map(ipnet::IpNet::addr)),
        };
        TunnelDiagnosis::of_site(state, endpoint, &self.settings, details)
    }
}
