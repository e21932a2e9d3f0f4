//! One task owns the connection to one Modbus server, and reads every PLC that is reached by it.
//!
//! `poll` obeys the schedule, `visit` reads one unit at the connection and draws the consequences,
//! `line` keeps the connection and `pace` spares who is at its end, `standing` and `rota` decide when
//! a silent unit is tried again, `acquaintance` knows who answers and what runs there, `learning` corrects the
//! plan by what is answered, `modbus` speaks the protocol and is the only file that names
//! tokio_modbus.

mod connection;
mod device_name;
mod diagnosis;
mod endpoint;
mod identity_probe;
mod modbus;
mod plc_r;
mod poll;
mod rate_limit;
mod request_tuner;
mod session;
mod silent_units;
#[cfg(test)]
mod tests;
mod unit;
mod unit_backoff;
mod unit_poll;

use std::time::{Duration, Instant};

use provisioning::config;
use provisioning::plan::Plan;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use crate::model::{
    Cycle, LearnedLimits, PlcIdentity, ProgramSignature, ProgramState, ProgramStatus,
    QuarantinedTag, RateLimit, ReadFailure, ReadOutcome, ReadResult, Registers, StopCause,
};
pub use diagnosis::PlcDiagnosis;
pub use endpoint::group_by_address;

use crate::metrics::PlcMetrics;
use crate::schedule::{RetryBackoff, RetryPolicy};
use poll::Poller;

/// Pauses before a request that the PLC refused, or over which the connection broke, is sent again:
/// none after the first failure, since one may be noise; then one minute, doubled up to one hour.
const REFUSED_RETRY: RetryPolicy = RetryPolicy {
    first: Duration::ZERO,
    second: Duration::from_secs(60),
    max: Duration::from_secs(3600),
    jitter: 0.0,
};

/// One connection, and what is read by it.
#[derive(Debug)]
pub struct Endpoint {
    /// PLCs with the same address.
    pub plcs: Vec<PlcSpec>,
    /// Where in its period every scan class is read from the second time on, in `[0, 1)`: spreads
    /// the connections of one gateway.
    pub phase: f64,
}

/// One PLC to poll, and how.
#[derive(Debug)]
pub struct PlcSpec {
    /// Index into `config::Config::plcs`.
    pub plc: u16,
    /// Its settings.
    pub config: config::Plc,
    /// Its requests.
    pub plan: Plan,
    /// Its series.
    pub metrics: PlcMetrics,
}

/// What the task tells.
#[derive(Clone, Debug, PartialEq)]
pub enum PlcEvent {
    /// A scan class was due.
    Cycle(Cycle),
    /// The connection came or went, or is away for another reason than before.
    State {
        /// Index into `config::Config::plcs`.
        plc: u16,
        /// What it is now.
        state: PlcState,
    },
    /// Something that a PLC tells of itself is not what it was.
    Changed {
        /// Index into `config::Config::plcs`.
        plc: u16,
        /// What it was and is.
        change: PlcChange,
    },
    /// Cycles are skipped because of a ceiling, or not any more.
    Throttled {
        /// Index into `config::Config::plcs`.
        plc: u16,
        /// The ceiling.
        limit: Option<RateLimit>,
    },
    /// What was learned about the requests is not what it was.
    Learned {
        /// Index into `config::Config::plcs`.
        plc: u16,
        /// All that is known now.
        learned: LearnedLimits,
    },
}

/// How the connection to a PLC is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PlcState {
    /// The PLC answers.
    Connected {
        /// What it says it is; absent when it does not tell.
        identity: Option<PlcIdentity>,
        /// What its program does, at most ten seconds ago, and at most one cycle while its values stand
        /// still; absent for a model that has no PLC_R, or
        /// when it does not tell.
        program: Option<ProgramStatus>,
    },
    /// The PLC does not answer.
    Disconnected {
        /// Why, and what an installer can check.
        diagnosis: PlcDiagnosis,
        /// Within this and one scan it is tried again, where it shares its connection with others
        /// and they come first; at most a minute for each of them when others come and go.
        retry_within: Option<Duration>,
    },
}

/// What changed at a PLC since it told of itself last, in this process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PlcChange {
    /// Its program was started, stopped or the like.
    State {
        /// What it did.
        was: ProgramState,
        /// What it does.
        is: ProgramState,
        /// Why it does not run.
        cause: Option<StopCause>,
    },
    /// Another program was loaded.
    Program {
        /// The one before.
        was: ProgramSignature,
        /// The one now.
        is: ProgramSignature,
    },
    /// Another PLC has taken its place.
    Device {
        /// Serial number of the one before.
        was: u32,
        /// Serial number of the one now.
        is: u32,
    },
}

/// Polls the PLCs of one connection until `stop` fires or nobody receives `events` any more.
///
/// While there is no connection, every due scan class yields a [`Cycle`] of unreachable reads. On
/// stop, a request on the wire is waited for, at most its time-out; then the connection is closed.
pub async fn run(link: Endpoint, events: mpsc::Sender<PlcEvent>, stop: CancellationToken) {
    let timeout = link.plcs.iter().map(|target| target.config.timeout).max();
    let address = link.plcs.first().map(|target| target.config.address.clone());
    let (Some(address), Some(timeout)) = (address, timeout) else { return };
    let door = modbus::ModbusConnector::new(address, timeout);
    Poller::new(link, door, events, fastrand::Rng::new()).run(stop).await;
}

/// Returns the backoff of what failed for the first time at `now`.
fn failed_once(now: Instant) -> RetryBackoff {
    let mut backoff = RetryBackoff::new(&REFUSED_RETRY);
    backoff.on_failure(now, 0.0);
    backoff
}

/// Returns the backoff of what failed at `now` and must not be retried before a pause.
fn failed_for_sure(now: Instant) -> RetryBackoff {
    let mut backoff = failed_once(now);
    backoff.on_failure(now, 0.0);
    backoff
}
