//! The interface between the poll task and a Modbus server; `modbus` implements it, and tests do.

use std::io;
use std::time::Duration;

use provisioning::plan::ReadRequest;
use thiserror::Error;

use super::{PlcIdentity, Registers};
use crate::metrics::RequestOutcome;

/// A unit behind a connection, and how long to wait for its answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct UnitAddress {
    /// Modbus unit id.
    pub(super) unit: u8,
    /// Longest wait for an answer.
    pub(super) timeout: Duration,
}

/// Opens sessions with one Modbus server.
pub(super) trait Connector: Send {
    /// One connection.
    type Session: PlcSession;

    /// Opens a connection, within a bounded time.
    fn connect(&mut self) -> impl Future<Output = Result<Self::Session, ConnectError>> + Send;
}

/// One connection, from connect to loss.
pub(super) trait PlcSession: Send {
    /// Sends one request and waits for its complete answer, at most for the time-out. After any
    /// error but [`RequestError::Refused`] the session must be dropped: a late answer may still
    /// arrive.
    fn read(
        &mut self,
        address: UnitAddress,
        request: &ReadRequest,
    ) -> impl Future<Output = Result<Registers, RequestError>> + Send;

    /// Sends Read Device Identification (Modbus Application Protocol V1.1b3, 6.21), like
    /// [`PlcSession::read`].
    fn read_device_identification(
        &mut self,
        address: UnitAddress,
    ) -> impl Future<Output = Result<PlcIdentity, RequestError>> + Send;

    /// Closes the connection, within a bounded time.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// Why a connect failed.
#[derive(Debug, Error)]
pub(super) enum ConnectError {
    /// The host name has no address.
    #[error("the host name has no address")]
    UnknownHost(#[source] io::Error),
    /// The server or a firewall refused the connection.
    #[error("the connection was refused")]
    Refused(#[source] io::Error),
    /// No answer arrived in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// No route leads to the address, or no device of the local network has it.
    #[error("no route to the address")]
    NoRoute(#[source] io::Error),
    /// This process may open no more files and connections.
    #[error("too many open files and connections")]
    OutOfDescriptors,
    /// Another error, mostly of this machine.
    #[error("the connection failed")]
    Failed(#[source] io::Error),
}

/// Why a request failed.
#[derive(Debug, Error)]
pub(super) enum RequestError {
    /// The PLC answered with this exception code (Modbus Application Protocol V1.1b3, 7).
    #[error("exception {0}")]
    Refused(u8),
    /// No answer arrived in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// What arrived is not the answer to this request.
    #[error("the answer does not fit the request: {0}")]
    Garbled(String),
    /// The connection was closed or reset.
    #[error("connection lost")]
    Disconnected(#[source] io::Error),
}

impl RequestError {
    /// Returns the value of the metric label `outcome`.
    pub(super) const fn outcome(&self) -> RequestOutcome {
        match self {
            Self::Refused(_) => RequestOutcome::Refused,
            Self::TimedOut(_) => RequestOutcome::TimedOut,
            Self::Garbled(_) => RequestOutcome::Garbled,
            Self::Disconnected(_) => RequestOutcome::Disconnected,
        }
    }
}
