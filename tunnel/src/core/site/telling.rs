//! How the site's end is.

use super::{Missing, PROBES, Site, Trouble, Verdict, Whereabouts};
use crate::core::clock::Now;
use crate::core::report::{Facts, Report, State, sentence};

impl Site {
    pub(in crate::core) fn report(&self, now: Now) -> Report {
        let place = self.places.get(self.active.hub);
        let endpoint = place.and_then(Whereabouts::endpoint);
        let (hub, host) = place.map_or(("", ""), |place| {
            (place.settings.name.as_str(), place.settings.endpoint.host.as_str())
        });
        let state = self.state(now);
        let facts = Facts { hub, host, endpoint, key: &self.name, mtu: self.settings.mtu };
        Report {
            state,
            sentence: sentence(state, &facts),
            hub: hub.to_owned(),
            endpoint,
            last_handshake: self.last_handshake,
            counters: self.counters,
        }
    }

    pub(in crate::core) fn state(&self, now: Now) -> State {
        let failed = self.active.schedule.failed();
        let is_failing = failed > 0;
        let has_session = self.active.session(now.instant).is_some();
        // One datagram may get lost.
        if has_session && failed < PROBES {
            return if self.long.is_lost() { State::MtuTooLarge } else { State::Up };
        }
        let verdict = self.clock.verdict(now.wall);
        let place = self.places.get(self.active.hub);
        if verdict == Verdict::Ahead && self.active.peer.is_none() {
            return State::ClockAhead;
        }
        match place.and_then(Whereabouts::missing) {
            Some(Missing::Unknown) => return State::NoAddress,
            Some(Missing::Inside) => return State::AddressInside,
            None => {}
        }
        match self.active.suspicion.trouble() {
            Trouble::Refused => State::Refused,
            Trouble::Overloaded => State::Overloaded,
            Trouble::WrongKey => State::WrongKey,
            Trouble::None if !is_failing && !self.preference.is_worried() => State::Connecting,
            Trouble::None if verdict == Verdict::Behind => State::ClockBehind,
            Trouble::None => State::Silent,
        }
    }
}
