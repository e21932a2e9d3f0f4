//! How the site's end is.

use super::{Site, Trouble, Verdict, Whereabouts};
use crate::core::clock::Now;
use crate::core::report::{Facts, Report, State, sentence};

impl Site {
    pub(in crate::core) fn report(&self, now: Now) -> Report {
        let place = self.places.get(self.active.hub);
        let endpoint = place.and_then(Whereabouts::endpoint);
        let (hub, host) = place.map_or(("", ""), |place| {
            (place.settings.name.as_str(), place.settings.endpoint.host.as_str())
        });
        let key = self.settings.private_key.public().to_string();
        let state = self.state(now);
        let facts = Facts { hub, host, endpoint, key: &key, mtu: self.settings.mtu };
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
        let is_failing = self.active.schedule.failed() > 0;
        let has_session = self.active.session(now.instant).is_some();
        if has_session && !is_failing {
            return if self.long.is_lost() { State::MtuTooLarge } else { State::Up };
        }
        let verdict = self.clock.verdict(now.wall);
        let place = self.places.get(self.active.hub);
        if verdict == Verdict::Ahead && self.active.peer.is_none() {
            return State::ClockAhead;
        }
        if place.is_some_and(|place| place.is_unknown && place.endpoint().is_none()) {
            return State::NoAddress;
        }
        match self.active.trouble {
            Trouble::Refused => State::Refused,
            Trouble::Overloaded => State::Overloaded,
            Trouble::WrongKey => State::WrongKey,
            Trouble::None if !is_failing && !self.preference.is_worried() => State::Connecting,
            Trouble::None if verdict == Verdict::Behind => State::ClockBehind,
            Trouble::None => State::Silent,
        }
    }
}
