//! Modbus TCP. The only user of tokio_modbus.
//!
//! The typed readers of tokio_modbus check the count of an answer in debug builds only, so requests
//! go through `call` and the counts are checked here. What it does not check on the stream itself
//! is checked by `strict`.

mod strict;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt::{Debug, Display};
use std::io;
use std::time::Duration;

use provisioning::config::HostPort;
use provisioning::plan::ReadRequest;
use provisioning::plc::Table;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_modbus::client::{Client, Context, tcp};
use tokio_modbus::prelude::ReadCode;
use tokio_modbus::slave::SlaveContext;
use tokio_modbus::{Error, Request, Response, Slave};

use super::connection_slots::{ConnectionSlot, ConnectionSlots};
use super::session::{
    AnswerMismatch, ConnectError, Connector, PlcSession, RequestError, UnitAddress, WriteRequest,
    is_unknown_function,
};
use super::{PlcIdentity, Registers, device_name};
use strict::{Strict, TransactionIds, UnsentRequest};

/// Longest wait for a name look-up, and again for a connection. A PLC with a short time-out is
/// near, so the limit is three of its time-outs if that is less.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for the connection to close.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Idle time before TCP keepalive probes find a PLC that disappeared.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// The limit of the process or of the machine is reached (errno(3)).
const OUT_OF_DESCRIPTORS: [i32; 2] = [libc::EMFILE, libc::ENFILE];

/// Opens connections to one Modbus server.
#[derive(Debug)]
pub(super) struct ModbusConnector {
    address: HostPort,
    /// Longest time-out of its units.
    timeout: Duration,
    transaction_ids: TransactionIds,
    slots: ConnectionSlots,
}

/// A connection to a Modbus server.
pub(super) struct ModbusSession {
    context: Context,
    _slot: ConnectionSlot,
}

impl ModbusConnector {
    pub(super) fn new(address: HostPort, timeout: Duration, slots: ConnectionSlots) -> Self {
        let transaction_ids = TransactionIds::starting_at(fastrand::u16(..));
        Self { address, timeout, transaction_ids, slots }
    }

    /// Returns the slot of a new connection.
    pub(super) fn take_slot(&self) -> Result<ConnectionSlot, ConnectError> {
        self.slots.take().ok_or(ConnectError::OutOfDescriptors)
    }

    /// Returns a session on a new stream.
    pub(super) fn new_session<S>(&self, stream: S, slot: ConnectionSlot) -> ModbusSession
    where
        S: AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static,
    {
        let context = tcp::attach(Strict::new(stream, self.transaction_ids.clone()));
        ModbusSession { context, _slot: slot }
    }

    /// Connects to the addresses of the host name, one after another.
    async fn open_stream(&self, limit: Duration) -> Result<TcpStream, ConnectError> {
        let name = (self.address.host.as_str(), self.address.port);
        let addresses = match timeout(limit, lookup_host(name)).await {
            Ok(found) => found.map_err(ConnectError::UnknownHost)?,
            Err(_) => return Err(ConnectError::UnknownHost(io::ErrorKind::TimedOut.into())),
        };
        let mut error = ConnectError::UnknownHost(io::ErrorKind::NotFound.into());
        for address in addresses {
            match timeout(limit, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(reason)) => error = to_connect_error(reason, limit),
                Err(_) => error = ConnectError::TimedOut(limit),
            }
        }
        Err(error)
    }
}

impl Connector for ModbusConnector {
    type Session = ModbusSession;

    async fn connect(&mut self) -> Result<ModbusSession, ConnectError> {
        let slot = self.take_slot()?;
        let stream = self.open_stream(CONNECT_TIMEOUT.min(self.timeout * 3)).await?;
        configure_socket(&stream).map_err(ConnectError::Failed)?;
        Ok(self.new_session(stream, slot))
    }
}

impl ModbusSession {
    /// Sends a request that reads: one that was not sent is judged like one over which the
    /// connection was lost.
    async fn call_read(
        &mut self,
        address: UnitAddress,
        request: Request<'_>,
    ) -> Result<Response, RequestError> {
        match self.call(address, request).await {
            Err(RequestError::NotSent(error)) => Err(to_lost_error(error)),
            answer => answer,
        }
    }

    async fn call(
        &mut self,
        address: UnitAddress,
        request: Request<'_>,
    ) -> Result<Response, RequestError> {
        self.context.set_slave(Slave(address.unit));
        match timeout(address.timeout, self.context.call(request)).await {
            Err(_) => Err(RequestError::TimedOut(address.timeout)),
            Ok(Err(error)) => Err(to_request_error(error)),
            Ok(Ok(Err(exception))) => Err(RequestError::Refused(exception.into())),
            Ok(Ok(Ok(response))) => Ok(response),
        }
    }
}

impl ModbusSession {
    /// Sends a request that writes, and checks that the answer repeats it.
    async fn call_write(
        &mut self,
        address: UnitAddress,
        request: Request<'static>,
    ) -> Result<(), RequestError> {
        let expected = confirmation(&request);
        let answer = self.call(address, request).await?;
        match expected {
            Some(expected) if expected == answer => Ok(()),
            Some(_) | None => Err(RequestError::Garbled(AnswerMismatch::OtherWrite)),
        }
    }
}

impl PlcSession for ModbusSession {
    async fn read(
        &mut self,
        address: UnitAddress,
        request: &ReadRequest,
    ) -> Result<Registers, RequestError> {
        let (first, count) = (request.first, request.count);
        let request = match request.table {
            Table::Coil => Request::ReadCoils(first, count),
            Table::DiscreteInput => Request::ReadDiscreteInputs(first, count),
            Table::InputRegister => Request::ReadInputRegisters(first, count),
            Table::HoldingRegister => Request::ReadHoldingRegisters(first, count),
        };
        to_registers(self.call_read(address, request).await?, count)
    }

    async fn write(
        &mut self,
        address: UnitAddress,
        request: &WriteRequest,
    ) -> Result<(), RequestError> {
        let (usual, other) = to_requests(request);
        match self.call_write(address, usual).await {
            // A device that knows only the other function code has changed nothing.
            Err(RequestError::Refused(code)) if is_unknown_function(code) => match other {
                Some(other) => self.call_write(address, other).await,
                None => Err(RequestError::Refused(code)),
            },
            answer => answer,
        }
    }

    async fn read_device_identification(
        &mut self,
        address: UnitAddress,
    ) -> Result<PlcIdentity, RequestError> {
        let request = Request::ReadDeviceIdentification(ReadCode::Basic, 0);
        let answer = self.call_read(address, request).await?;
        let Response::ReadDeviceIdentification(answer) = answer else {
            return Err(RequestError::Garbled(AnswerMismatch::OtherFunction));
        };
        let objects = answer.device_id_objects.iter();
        Ok(device_name::to_identity(objects.map(|object| (object.id, &*object.value))))
    }

    async fn close(mut self) {
        // A PLC that does not take part in the close changes nothing.
        let _ = timeout(CLOSE_TIMEOUT, self.context.disconnect()).await;
    }
}

/// Returns the request that writes registers or coils, and for a single one another function code
/// that does the same.
///
/// An M241, M251 or M262 does not list function code 5, so that a coil is written with 15 first.
fn to_requests(request: &WriteRequest) -> (Request<'static>, Option<Request<'static>>) {
    match request {
        WriteRequest::Words { first, words } => {
            let many = Request::WriteMultipleRegisters(*first, Cow::Owned(words.clone()));
            match words.as_slice() {
                [word] => (Request::WriteSingleRegister(*first, *word), Some(many)),
                _ => (many, None),
            }
        }
        WriteRequest::Bits { first, bits } => {
            let many = Request::WriteMultipleCoils(*first, Cow::Owned(bits.clone()));
            let single = match bits.as_slice() {
                [bit] => Some(Request::WriteSingleCoil(*first, *bit)),
                _ => None,
            };
            (many, single)
        }
    }
}

/// Returns the only answer that confirms a write (Modbus Application Protocol V1.1b3, 6.5, 6.6,
/// 6.11, 6.12).
fn confirmation(request: &Request<'_>) -> Option<Response> {
    let count = |len: usize| u16::try_from(len).ok();
    match request {
        Request::WriteSingleRegister(address, word) => {
            Some(Response::WriteSingleRegister(*address, *word))
        }
        Request::WriteSingleCoil(address, bit) => Some(Response::WriteSingleCoil(*address, *bit)),
        Request::WriteMultipleRegisters(address, words) => {
            count(words.len()).map(|count| Response::WriteMultipleRegisters(*address, count))
        }
        Request::WriteMultipleCoils(address, bits) => {
            count(bits.len()).map(|count| Response::WriteMultipleCoils(*address, count))
        }
        Request::ReadCoils(..)
        | Request::ReadDiscreteInputs(..)
        | Request::ReadHoldingRegisters(..)
        | Request::ReadInputRegisters(..)
        | Request::ReportServerId
        | Request::ReadDeviceIdentification(..)
        | Request::MaskWriteRegister(..)
        | Request::ReadWriteMultipleRegisters(..)
        | Request::Custom(..) => None,
    }
}

fn configure_socket(stream: &TcpStream) -> io::Result<()> {
    // Nagle's algorithm would hold back a request until the last segment is acknowledged.
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn to_connect_error(error: io::Error, limit: Duration) -> ConnectError {
    use io::ErrorKind;
    let kind = error.kind();
    if matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) {
        ConnectError::Refused(error)
    } else if matches!(kind, ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) {
        ConnectError::NoRoute(error)
    } else if error.raw_os_error().is_some_and(|code| OUT_OF_DESCRIPTORS.contains(&code)) {
        ConnectError::OutOfDescriptors
    } else if kind == ErrorKind::TimedOut {
        ConnectError::TimedOut(limit)
    } else {
        ConnectError::Failed(error)
    }
}

fn to_request_error(error: Error) -> RequestError {
    match error {
        Error::Protocol(error) => undecodable(&error),
        Error::Transport(error) => match error.downcast() {
            Ok(UnsentRequest(error)) => RequestError::NotSent(error),
            Err(error) => to_lost_error(error),
        },
    }
}

/// Returns why the connection is of no more use after this error.
fn to_lost_error(error: io::Error) -> RequestError {
    // The codec of tokio_modbus reports what it cannot decode as I/O errors without an OS code.
    if error.raw_os_error().is_some() || !is_codec_error(error.kind()) {
        return RequestError::Disconnected(error);
    }
    match error.get_ref().and_then(|cause| cause.downcast_ref::<AnswerMismatch>()) {
        Some(mismatch) => RequestError::Garbled(mismatch.clone()),
        None => undecodable(&error),
    }
}

fn undecodable(error: &dyn Display) -> RequestError {
    RequestError::Garbled(AnswerMismatch::Undecodable(error.to_string()))
}

const fn is_codec_error(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(kind, InvalidData | InvalidInput | UnexpectedEof)
}

/// Returns the values of an answer that has exactly the requested count. tokio_modbus has checked
/// that its function code is that of the request.
fn to_registers(response: Response, count: u16) -> Result<Registers, RequestError> {
    if let Response::ReadHoldingRegisters(words) | Response::ReadInputRegisters(words) = response {
        expect_count(words.len(), count.into())?;
        Ok(Registers::Words(words))
    } else if let Response::ReadCoils(mut bits) | Response::ReadDiscreteInputs(mut bits) = response
    {
        // Bits arrive in whole bytes; the last one may be padded (6.1).
        expect_count(bits.len(), usize::from(count).next_multiple_of(8))?;
        bits.truncate(count.into());
        Ok(Registers::Bits(bits))
    } else {
        Err(RequestError::Garbled(AnswerMismatch::OtherFunction))
    }
}

fn expect_count(received: usize, requested: usize) -> Result<(), RequestError> {
    if received == requested {
        Ok(())
    } else {
        Err(RequestError::Garbled(AnswerMismatch::Count { received, requested }))
    }
}
