//! One task owns the connection to one PLC.
//!
//! `poll` obeys the schedule, `learning` corrects the plan by what the PLC answers, `line` keeps the
//! one connection and tells how it is, `modbus` speaks the protocol and is the only file that names
//! tokio_modbus.

mod identity;
mod learning;
mod line;
mod modbus;
mod poll;
mod sentence;
mod session;
#[cfg(test)]
mod tests;

use provisioning::config;
use provisioning::plan::Plan;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use crate::model::{Cycle, Failure, Outcome, Read, Registers};
pub use identity::Identity;

use crate::metrics::PlcMetrics;
use poll::Poller;

/// One PLC to poll, and how.
#[derive(Debug)]
pub struct Link {
    /// Index into `config::Config::plcs`.
    pub plc: u16,
    /// Its settings.
    pub config: config::Plc,
    /// Its requests.
    pub plan: Plan,
    /// Where in its period every scan class is read from the second time on, in `[0, 1)`: spreads
    /// the PLCs of one gateway.
    pub phase: f64,
    /// Its series.
    pub metrics: PlcMetrics,
}

/// What the task tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A scan class was due.
    Cycle(Cycle),
    /// The connection came or went, or is away for another reason than before.
    State {
        /// Index into `config::Config::plcs`.
        plc: u16,
        /// What it is now.
        state: State,
    },
    /// What was learned about the requests is not what it was.
    Learned {
        /// Index into `config::Config::plcs`.
        plc: u16,
        /// All that is known now.
        learned: Learned,
    },
}

/// How the plan had to be corrected; at first not at all.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Learned {
    /// Tags that the PLC refuses wherever they are read, in the order of the file. They are tried
    /// again now and then.
    pub quarantined: Vec<Quarantined>,
    /// Most registers that the PLC answers in one request.
    pub max_words: Option<u16>,
    /// Most unused registers between two tags that the PLC lets pass.
    pub max_gap: Option<u16>,
}

/// A tag that the PLC refuses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Quarantined {
    /// Its name.
    pub tag: String,
    /// Its address as it was written.
    pub at: String,
    /// Exception code with which the PLC answers (Modbus Application Protocol V1.1b3, 7).
    pub code: u8,
}

/// How the connection to a PLC is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum State {
    /// The PLC answers.
    Connected {
        /// What it says it is; absent for a model that has no PLC_R, or when it does not tell.
        identity: Option<Identity>,
        /// Whether its program ran when the connection was opened; absent like the identity.
        running: Option<bool>,
    },
    /// The PLC does not answer.
    Disconnected {
        /// Why, and what to do about it, for an installer.
        sentence: String,
    },
}

/// Polls one PLC until `stop` fires or nobody receives `events` any more.
///
/// While there is no connection, every due scan class yields a [`Cycle`] of unreachable reads. On
/// stop, a request on the wire is waited for, at most its time-out; then the connection is closed.
pub async fn run(link: Link, events: mpsc::Sender<Event>, stop: CancellationToken) {
    let door = modbus::Door::new(&link.config);
    Poller::new(link, door, events, fastrand::Rng::new()).run(stop).await;
}
