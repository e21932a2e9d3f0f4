//! How long a test waits at most before it fails. Waiting ends with the event; these only bound it.

use std::time::Duration;

/// For one event on a machine that also compiles: a message, a line of a log, a start.
pub const EVENT_TIMEOUT: Duration = Duration::from_secs(20);
/// For a recovery that includes the pauses of the gateway before it reconnects.
pub const RECOVERY_TIMEOUT: Duration = Duration::from_secs(50);
/// For the end of the gateway after SIGTERM: the five seconds of its drain, and as much again.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);
