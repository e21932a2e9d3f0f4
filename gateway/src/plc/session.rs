//! The interface between the poll task and a Modbus server; `modbus` implements it, and tests do.

use std::io;
use std::time::Duration;

use provisioning::plan::ReadRequest;
use provisioning::plc::Table;
use thiserror::Error;

use super::{LostSession, PlcIdentity, Registers};
use crate::metrics::RequestOutcome;

/// A unit behind a connection, and how long to wait for its answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct UnitAddress {
    /// Modbus unit id.
    pub(super) unit: u8,
    /// Longest wait for an answer.
    pub(super) timeout: Duration,
}

/// A request that writes adjoining registers or coils, at least one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum WriteRequest {
    /// At most 123 holding registers.
    Words {
        /// First register, zero-based.
        first: u16,
        /// What each is to hold.
        words: Vec<u16>,
    },
    /// At most 1968 coils.
    Bits {
        /// First coil, zero-based.
        first: u16,
        /// What each is to be.
        bits: Vec<bool>,
    },
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

    /// Sends one request that writes, like [`PlcSession::read`]. Returns only after the server has
    /// confirmed exactly this write. After any error but [`RequestError::Refused`] and
    /// [`RequestError::NotSent`] it may have been carried out.
    fn write(
        &mut self,
        address: UnitAddress,
        request: &WriteRequest,
    ) -> impl Future<Output = Result<(), RequestError>> + Send;

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
    Garbled(AnswerMismatch),
    /// The connection was closed or reset.
    #[error("connection lost")]
    Disconnected(#[source] io::Error),
    /// The connection could not be used any more before the first byte of a request that writes.
    #[error("the request was not sent")]
    NotSent(#[source] io::Error),
}

/// What is wrong with an answer.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(super) enum AnswerMismatch {
    /// It answers an earlier request.
    #[error("it answers an earlier request")]
    Late,
    /// Its transaction id is that of no request.
    #[error("its transaction id is not that of the request")]
    OtherTransaction,
    /// It comes from another unit.
    #[error("unit {answered} answers in place of unit {asked}")]
    OtherUnit {
        /// The unit that was asked.
        asked: u8,
        /// The unit in the answer.
        answered: u8,
    },
    /// Bytes follow the answer.
    #[error("{bytes} bytes follow the answer")]
    ExtraBytes {
        /// The number of bytes that arrived with it.
        bytes: usize,
    },
    /// It has fewer or more values than were requested.
    #[error("{received} values instead of {requested}")]
    Count {
        /// Registers or bits in the answer.
        received: usize,
        /// Registers or bits that were requested.
        requested: usize,
    },
    /// Its length field is not that of its content.
    #[error("its length of {length} is not that of its content")]
    Length {
        /// The length field.
        length: u16,
    },
    /// It confirms another write than the one that was requested.
    #[error("it confirms another address, count or value than was written")]
    OtherWrite,
    /// It answers another function code.
    #[error("it answers another function code")]
    OtherFunction,
    /// Its protocol id is not that of Modbus.
    #[error("it is not Modbus")]
    NotModbus,
    /// Its content cannot be decoded.
    #[error("{0}")]
    Undecodable(String),
}

impl WriteRequest {
    /// Returns the table, the first address and the number of registers or coils.
    pub(super) const fn range(&self) -> (Table, u16, usize) {
        match self {
            Self::Words { first, words } => (Table::HoldingRegister, *first, words.len()),
            Self::Bits { first, bits } => (Table::Coil, *first, bits.len()),
        }
    }

    /// Returns the request that reads the same registers or coils.
    pub(super) fn to_read_request(&self) -> ReadRequest {
        let (table, first, count) = self.range();
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        ReadRequest { table, first, count, tags: Vec::new() }
    }
}

impl RequestError {
    /// Returns how the session failed; `None` after an exception, which leaves it open.
    pub(super) const fn session_failure(&self) -> Option<LostSession> {
        match self {
            Self::Refused(_) => None,
            Self::TimedOut(_) => Some(LostSession::TimedOut),
            Self::Garbled(_) => Some(LostSession::Garbled),
            Self::Disconnected(_) | Self::NotSent(_) => Some(LostSession::Disconnected),
        }
    }

    /// Returns the value of the metric label `outcome`.
    pub(super) const fn outcome(&self) -> RequestOutcome {
        match self {
            Self::Refused(code) if is_busy(*code) => RequestOutcome::Busy,
            Self::Refused(_) => RequestOutcome::Refused,
            Self::TimedOut(_) => RequestOutcome::TimedOut,
            Self::Garbled(_) => RequestOutcome::Garbled,
            Self::Disconnected(_) | Self::NotSent(_) => RequestOutcome::Disconnected,
        }
    }
}

/// Returns whether an exception says that the device does not know the function code (Modbus
/// Application Protocol V1.1b3, 7).
pub(super) const fn is_unknown_function(exception: u8) -> bool {
    exception == 1
}

/// Returns whether an exception means "later": 5, the request is accepted and takes long, or 6, the
/// server is busy (Modbus Application Protocol V1.1b3, 7).
pub(super) const fn is_busy(exception: u8) -> bool {
    matches!(exception, 5 | 6)
}
