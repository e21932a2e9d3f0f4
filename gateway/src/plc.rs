//! One task owns the connection to one Modbus server, and polls every PLC that is reached over it.
//!
//! `poll` is the task; all I/O is there, in `connection` and in `modbus`, the only user of
//! tokio_modbus. The rest decides, and is pure: `server` judges what was read for each `unit`,
//! `order_execution` what to send for a write order, of which `order_queue` holds those that wait,
//! `request_tuner` adapts the requests to what the PLC rejects and `search_budget` bounds what that
//! costs, `lost_registers` knows which orders may cost the session, `close_tracker` spaces the
//! cycles of a server that closes connections, `identity_probe` and `device_name` know what the PLC
//! is, `unit_backoff` and `silent_units` say when a silent unit is retried, `rate_limit` bounds the
//! load, and `connection_slots` the number of connections. `diagnosis` holds the sentences for an
//! installer.

mod close_tracker;
mod connection;
mod connection_slots;
mod cycle;
mod device_name;
mod diagnosis;
mod endpoint;
mod identity_probe;
mod lost_registers;
mod modbus;
mod order_execution;
mod order_queue;
mod plc_r;
mod poll;
mod rate_limit;
mod request_tuner;
mod search_budget;
mod server;
mod session;
mod silent_units;
#[cfg(test)]
mod tests;
mod unit;
mod unit_backoff;

use std::time::{Duration, Instant};

use provisioning::config;
use provisioning::plan::Plan;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use crate::model::{
    Cycle, LearnedLimits, LostSession, PlcIdentity, ProgramSignature, ProgramState, ProgramStatus,
    QuarantinedTag, RateLimit, ReadFailure, ReadOutcome, ReadResult, Registers, Rejection,
    StopCause, TagLocation,
};
pub use connection_slots::ConnectionSlots;
pub use diagnosis::PlcDiagnosis;
pub use endpoint::group_by_address;

use crate::metrics::PlcMetrics;
use crate::model::{OrderReport, PlcOrder};
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

/// One connection, and the PLCs that are read over it.
#[derive(Debug)]
pub struct Endpoint {
    /// PLCs with the same host and port.
    pub plcs: Vec<PlcSpec>,
    /// Position in its period at which each scan class is read from the second cycle on, in `[0,
    /// 1)`: spreads the connections of a gateway.
    pub phase: f64,
}

/// The channels of a poll task.
#[derive(Debug)]
pub struct PollChannels {
    /// What to write. Its capacity bounds the number of orders that wait. Orders pass polls.
    pub orders: mpsc::Receiver<PlcOrder>,
    /// What the task reports.
    pub events: mpsc::Sender<PlcEvent>,
}

/// One PLC to poll.
#[derive(Debug)]
pub struct PlcSpec {
    /// Index into `config::Config::plcs`.
    pub plc: u16,
    /// Its settings.
    pub config: config::Plc,
    /// Its requests.
    pub plan: Plan,
    /// Its metrics.
    pub metrics: PlcMetrics,
}

/// What the poll task reports.
#[derive(Clone, Debug, PartialEq)]
pub enum PlcEvent {
    /// A cycle of a scan class ended.
    Cycle(Cycle),
    /// The PLC answers or does not, for another reason than before, or its identity or program
    /// state changed.
    State {
        /// Index into `config::Config::plcs`.
        plc: u16,
        /// The new state.
        state: PlcState,
    },
    /// The program or the device changed.
    Changed {
        /// Index into `config::Config::plcs`.
        plc: u16,
        /// What changed.
        change: PlcChange,
    },
    /// Cycles are skipped because of a rate limit, or no longer.
    Throttled {
        /// Index into `config::Config::plcs`.
        plc: u16,
        /// The limit; absent when no cycle is skipped any more.
        limit: Option<RateLimit>,
    },
    /// What became of a write order; exactly one for each order for a PLC of the connection.
    Written(Box<OrderReport>),
    /// What was learned about the requests changed.
    Learned {
        /// Index into `config::Config::plcs`.
        plc: u16,
        /// Everything that is known now.
        learned: LearnedLimits,
    },
}

/// State of a PLC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PlcState {
    /// The PLC answers.
    Connected {
        /// Its identity; absent where it has none.
        identity: Option<PlcIdentity>,
        /// State of its program, at most ten seconds old, and at most one cycle while its values do
        /// not change; absent where it cannot be read.
        program: Option<ProgramStatus>,
    },
    /// The PLC does not answer.
    Disconnected {
        /// Why, and what an installer can check.
        diagnosis: PlcDiagnosis,
        /// It is retried within this time and one scan period, where it shares its connection with
        /// others that are retried first; at most a minute for each of them while others fail and
        /// recover.
        retry_within: Option<Duration>,
    },
}

/// A change since the last report of this process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PlcChange {
    /// The run state of the program.
    State {
        /// State before.
        was: ProgramState,
        /// State now.
        is: ProgramState,
        /// Why it stopped.
        cause: Option<StopCause>,
    },
    /// Another program was downloaded.
    Program {
        /// Signature before.
        was: ProgramSignature,
        /// Signature now.
        is: ProgramSignature,
    },
    /// Another PLC answers at the same address.
    Device {
        /// Serial number before.
        was: u32,
        /// Serial number now.
        is: u32,
    },
}

/// Polls the PLCs of one connection, and writes to them, until `stop` fires or the receiver of the
/// events is dropped. The connection takes one of `slots`.
///
/// Without a connection, each due scan class yields a [`Cycle`] of unreachable results. On stop,
/// the task waits for the request on the wire, at most for its time-out, and reports the orders
/// that wait as not sent; then it closes the connection.
pub async fn run(
    endpoint: Endpoint,
    slots: ConnectionSlots,
    channels: PollChannels,
    stop: CancellationToken,
) {
    let timeout = endpoint.plcs.iter().map(|plc| plc.config.timeout).max();
    let address = endpoint.plcs.first().map(|plc| plc.config.address.clone());
    let (Some(address), Some(timeout)) = (address, timeout) else { return };
    let connector = modbus::ModbusConnector::new(address, timeout, slots);
    Poller::new(endpoint, connector, channels, fastrand::Rng::new(), stop).run().await;
}

/// Returns the backoff of what failed for the first time at `now`.
fn failed_once(now: Instant) -> RetryBackoff {
    let mut backoff = RetryBackoff::new(&REFUSED_RETRY);
    backoff.on_failure(now, 0.0);
    backoff
}

/// Returns the backoff of what failed at `now` and must not be retried before a pause.
fn failed_twice(now: Instant) -> RetryBackoff {
    let mut backoff = failed_once(now);
    backoff.on_failure(now, 0.0);
    backoff
}
