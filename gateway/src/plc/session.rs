//! What polling needs from a PLC. One implementation speaks Modbus TCP, tests bring another.

use std::io;
use std::time::Duration;

use provisioning::plan::ReadRequest;
use thiserror::Error;

use super::{PlcIdentity, Registers};
use crate::metrics::RequestOutcome;

/// Who is asked on a connection, and how long its answer is waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct UnitAddress {
    /// Modbus unit id.
    pub(super) unit: u8,
    /// Longest wait for one answer.
    pub(super) timeout: Duration,
}

/// Opens sessions with one Modbus server.
pub(super) trait Connector: Send {
    /// One life of a connection.
    type Session: PlcSession;

    /// Opens a connection, within a bounded time.
    fn connect(&mut self) -> impl Future<Output = Result<Self::Session, ConnectError>> + Send;
}

/// One life of a connection, between connect and loss.
pub(super) trait PlcSession: Send {
    /// Sends one request and waits for its whole answer, within a bounded time. After any error but
    /// [`RequestError::Refused`] the session must be dropped: a late answer may still arrive.
    fn read(
        &mut self,
        station: UnitAddress,
        request: &ReadRequest,
    ) -> impl Future<Output = Result<Registers, RequestError>> + Send;

    /// Asks what the device calls itself (Modbus Application Protocol V1.1b3, 6.21), like
    /// [`Session::read`].
    fn read_device_identification(
        &mut self,
        station: UnitAddress,
    ) -> impl Future<Output = Result<PlcIdentity, RequestError>> + Send;

    /// Closes the connection in an orderly way, within a bounded time.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// Why no connection came about.
#[derive(Debug, Error)]
pub(super) enum ConnectError {
    /// The host name has no address.
    #[error("the name has no address")]
    UnknownHost(#[source] io::Error),
    /// The other end said no.
    #[error("the connection was refused")]
    Refused(#[source] io::Error),
    /// Nothing came back in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// There is no way there, or nobody has the address.
    #[error("there is no way to the address")]
    NoRoute(#[source] io::Error),
    /// Anything else, on our side as a rule.
    #[error("the connection failed")]
    Failed(#[source] io::Error),
}

/// Why a request got no answer.
#[derive(Debug, Error)]
pub(super) enum RequestError {
    /// The PLC understood the request and said no with this exception code.
    #[error("exception {0}")]
    Refused(u8),
    /// Nothing came back in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// Something came back that is not the answer to this request.
    #[error("the answer does not fit the request: {0}")]
    Garbled(String),
    /// The connection broke.
    #[error("the connection broke")]
    Disconnected(#[source] io::Error),
}

impl RequestError {
    /// Value of the label `outcome`.
    pub(super) const fn outcome(&self) -> RequestOutcome {
        match self {
            Self::Refused(_) => RequestOutcome::Refused,
            Self::TimedOut(_) => RequestOutcome::TimedOut,
            Self::Garbled(_) => RequestOutcome::Garbled,
            Self::Disconnected(_) => RequestOutcome::Disconnected,
        }
    }
}
