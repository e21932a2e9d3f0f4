//! What the status of a gateway says about its bundle, and what follows for the office. Pure.

mod message;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

pub use message::{Presence, ReportedTrial, SiteReport};

use crate::trial::TrialState;

/// Age of a status after which a gateway counts as silent: it reports every minute.
pub const SILENT_AFTER: SignedDuration = SignedDuration::from_mins(3);

/// How a site stands towards the bundle that the office built last.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum SiteState {
    /// It runs this bundle, confirmed.
    Current,
    /// It runs an older bundle, or none.
    Behind,
    /// It runs a newer bundle than the files of the fleet know.
    Ahead,
    /// A bundle is on trial.
    Trying,
    /// It rolled back this bundle to the previous one.
    Reverted,
    /// It has refused this bundle.
    Refused,
    /// The broker has lost the connection to it.
    Offline,
    /// Its last status is old.
    Silent,
    /// There is no status of it.
    NeverSeen,
}

/// What is known about one site.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SiteVerdict {
    /// How it stands.
    pub state: SiteState,
    /// Counter of the bundle that it runs, if that is known.
    pub runs: Option<u64>,
    /// When it started, or for a silent site, the time of its last status.
    pub since: Option<Timestamp>,
    /// Why; absent when there is nothing to say.
    pub reason: Option<StateReason>,
}

/// Why a site is in its state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StateReason {
    /// The sentence of the gateway itself.
    Gateway {
        /// The sentence.
        sentence: String,
        /// Its code and arguments, if the gateway gave them.
        detail: Option<serde_json::Value>,
    },
    /// Its last status is old.
    Silent {
        /// Age of the status.
        age: SignedDuration,
    },
    /// Its clock is ahead, so that the age of its last status is unknown.
    ClockAhead {
        /// How far the status is in the future.
        ahead: SignedDuration,
    },
    /// Its status is no status of a gateway.
    Unreadable,
    /// The will of its connection was published.
    ConnectionLost,
    /// The broker has no status of it.
    NoStatus,
    /// The office has built no bundle for it.
    NotBuilt,
    /// It runs a configuration that came in no bundle.
    NoBundle,
    /// The bundle that it runs was built elsewhere.
    BuiltElsewhere,
}

/// The last status of each site, from one broker or several. A site uses one broker at a time, and
/// what it left at another one is older.
#[derive(Clone, Debug, Default)]
pub struct SiteReports {
    /// By site and number of the broker.
    reports: BTreeMap<String, BTreeMap<usize, SiteReport>>,
}

impl SiteState {
    /// Returns its name in the output of `status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Behind => "behind",
            Self::Ahead => "ahead",
            Self::Trying => "trying",
            Self::Reverted => "reverted",
            Self::Refused => "refused",
            Self::Offline => "offline",
            Self::Silent => "silent",
            Self::NeverSeen => "never seen",
        }
    }

    /// Returns whether the site is known to be there, so that it can take an offer at once.
    #[must_use]
    pub const fn is_reachable(self) -> bool {
        !matches!(self, Self::Offline | Self::Silent | Self::NeverSeen)
    }
}

impl SiteReports {
    /// Records a message on `edge/ID/status`; an empty one clears what was there. `received_at` is
    /// the time if the message came live, so that its age does not depend on the gateway's clock.
    pub fn on_message(
        &mut self,
        broker: usize,
        site: &str,
        payload: &[u8],
        received_at: Option<Timestamp>,
    ) {
        if payload.is_empty() {
            if let Some(reports) = self.reports.get_mut(site) {
                reports.remove(&broker);
            }
            return;
        }
        let report = SiteReport { received_at, ..SiteReport::read(payload) };
        self.reports.entry(site.to_owned()).or_default().insert(broker, report);
    }

    /// Returns what is known of a site.
    #[must_use]
    pub fn latest(&self, site: &str) -> Option<&SiteReport> {
        self.reports.get(site)?.values().max_by_key(|report| (report.presence, report.last()))
    }

    /// Returns how a site stands, if `built` is the counter of its last bundle; 0 for none.
    #[must_use]
    pub fn verdict(&self, site: &str, built: u64, now: Timestamp) -> SiteVerdict {
        site_verdict(self.latest(site), built, now)
    }
}

/// Returns how a site stands, if `built` is the counter of its last bundle; 0 for none.
#[must_use]
pub fn site_verdict(report: Option<&SiteReport>, built: u64, now: Timestamp) -> SiteVerdict {
    let Some(report) = report else {
        let reason = if built == 0 { StateReason::NotBuilt } else { StateReason::NoStatus };
        let state = SiteState::NeverSeen;
        return SiteVerdict { state, runs: None, since: None, reason: Some(reason) };
    };
    let runs = report.counter;
    if let Some((state, reason)) = stale_state(report, now) {
        return SiteVerdict { state, runs, since: report.last(), reason: Some(reason) };
    }
    let (state, reason) = fresh_state(report, built);
    SiteVerdict { state, runs, since: report.started, reason }
}

/// Returns why nothing is known about the site at present; `None` if its status is fresh.
fn stale_state(report: &SiteReport, now: Timestamp) -> Option<(SiteState, StateReason)> {
    match report.presence {
        Presence::Offline => return Some((SiteState::Offline, StateReason::ConnectionLost)),
        Presence::Unreadable => return Some((SiteState::Silent, StateReason::Unreadable)),
        Presence::Online => {}
    }
    let Some(last) = report.last() else {
        return Some((SiteState::Silent, StateReason::Unreadable));
    };
    let age = now.duration_since(last);
    if age > SILENT_AFTER {
        return Some((SiteState::Silent, StateReason::Silent { age }));
    }
    // A clock that is ahead would make a dead gateway look alive until that time.
    let ahead = -age;
    (ahead > SILENT_AFTER).then_some((SiteState::Silent, StateReason::ClockAhead { ahead }))
}

/// Returns the state of a site with a fresh status.
fn fresh_state(report: &SiteReport, built: u64) -> (SiteState, Option<StateReason>) {
    let trial = report.trial.as_ref();
    let sentence = trial.map(|trial| StateReason::Gateway {
        sentence: trial.sentence.clone(),
        detail: trial.detail.clone(),
    });
    match trial.map(|trial| (trial.state, trial.counter)) {
        Some((Some(TrialState::Trying), _)) => return (SiteState::Trying, sentence),
        Some((Some(TrialState::Reverted), counter)) if counter == built && built > 0 => {
            return (SiteState::Reverted, sentence);
        }
        Some((Some(TrialState::Refused), counter)) if counter == built && built > 0 => {
            return (SiteState::Refused, sentence);
        }
        _ => {}
    }
    match report.counter {
        Some(counter) if counter == built && built > 0 => (SiteState::Current, None),
        Some(counter) if counter > built => (SiteState::Ahead, Some(StateReason::BuiltElsewhere)),
        None if built == 0 => (SiteState::Behind, Some(StateReason::NotBuilt)),
        None => (SiteState::Behind, sentence.or(Some(StateReason::NoBundle))),
        Some(_) => (SiteState::Behind, sentence),
    }
}

impl fmt::Display for SiteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for StateReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway { sentence, .. } => f.write_str(sentence),
            Self::Silent { age } => {
                write!(f, "no status for {}: check power, cable and tunnel", format_age(*age))
            }
            Self::ClockAhead { ahead } => write!(
                f,
                "its last status is {} in the future: its clock is wrong, and whether it is \
                 connected is not known",
                format_age(*ahead)
            ),
            Self::Unreadable => {
                f.write_str("its status cannot be read: check which program publishes it")
            }
            Self::ConnectionLost => f.write_str("the broker has lost the connection to it"),
            Self::NoStatus => f.write_str("the broker has no status of it"),
            Self::NotBuilt => f.write_str("no bundle was built for it"),
            Self::NoBundle => f.write_str("it runs a configuration that came in no bundle"),
            Self::BuiltElsewhere => f.write_str(
                "it runs a bundle that these files do not know: update them from the repository, \
                 and build",
            ),
        }
    }
}

/// Returns a duration in its largest unit, rounded down.
fn format_age(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    for (unit, length) in [("days", 86_400), ("hours", 3600), ("min", 60)] {
        if seconds >= 2 * length || unit == "min" && seconds >= length {
            return format!("{} {unit}", seconds / length);
        }
    }
    format!("{seconds} s")
}
