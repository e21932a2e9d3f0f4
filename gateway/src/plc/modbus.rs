//! Modbus TCP. The only file that names tokio_modbus.
//!
//! Its typed readers assert the count of an answer in debug builds and believe it in release
//! builds, so requests go through `call` and the counts are checked here; what it lets pass on the
//! stream itself is checked by `strict`.

mod strict;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
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

use super::session::{ConnectError, Connector, PlcSession, RequestError, UnitAddress};
use super::{PlcIdentity, Registers, device_name};
use strict::{Strict, TransactionIds};

/// Longest wait for a name and, again, for a connection; a PLC with a short time-out is on the same
/// wire, so it gets three of its time-outs.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for an orderly close.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// A PLC that vanished while nothing was due is noticed after this idle time and a few probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// The way to one Modbus server.
#[derive(Debug)]
pub(super) struct ModbusConnector {
    address: HostPort,
    /// Longest wait for an answer of any unit behind it.
    timeout: Duration,
    transaction_ids: TransactionIds,
}

/// A connection to a Modbus server.
pub(super) struct ModbusSession {
    context: Context,
}

impl ModbusConnector {
    pub(super) fn new(address: HostPort, timeout: Duration) -> Self {
        Self { address, timeout, transaction_ids: TransactionIds::starting_at(fastrand::u16(..)) }
    }

    /// A session on a stream that has just been opened.
    pub(super) fn new_session<S>(&self, stream: S) -> ModbusSession
    where
        S: AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static,
    {
        ModbusSession { context: tcp::attach(Strict::new(stream, self.transaction_ids.clone())) }
    }

    /// Tries each address of the name in turn.
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
        let stream = self.open_stream(CONNECT_TIMEOUT.min(self.timeout * 3)).await?;
        configure_socket(&stream).map_err(ConnectError::Failed)?;
        Ok(self.new_session(stream))
    }
}

impl ModbusSession {
    async fn call(
        &mut self,
        station: UnitAddress,
        request: Request<'_>,
    ) -> Result<Response, RequestError> {
        self.context.set_slave(Slave(station.unit));
        match timeout(station.timeout, self.context.call(request)).await {
            Err(_) => Err(RequestError::TimedOut(station.timeout)),
            Ok(Err(error)) => Err(to_request_error(error)),
            Ok(Ok(Err(exception))) => Err(RequestError::Refused(exception.into())),
            Ok(Ok(Ok(response))) => Ok(response),
        }
    }
}

impl PlcSession for ModbusSession {
    async fn read(
        &mut self,
        station: UnitAddress,
        request: &ReadRequest,
    ) -> Result<Registers, RequestError> {
        let (first, count) = (request.first, request.count);
        let request = match request.table {
            Table::Coil => Request::ReadCoils(first, count),
            Table::DiscreteInput => Request::ReadDiscreteInputs(first, count),
            Table::InputRegister => Request::ReadInputRegisters(first, count),
            Table::HoldingRegister => Request::ReadHoldingRegisters(first, count),
        };
        to_registers(self.call(station, request).await?, count)
    }

    async fn read_device_identification(
        &mut self,
        station: UnitAddress,
    ) -> Result<PlcIdentity, RequestError> {
        let request = Request::ReadDeviceIdentification(ReadCode::Basic, 0);
        let answer = self.call(station, request).await?;
        let Response::ReadDeviceIdentification(answer) = answer else {
            return Err(RequestError::Garbled("it answers another function".to_owned()));
        };
        let objects = answer.device_id_objects.iter();
        Ok(device_name::to_identity(objects.map(|object| (object.id, &*object.value))))
    }

    async fn close(mut self) {
        // Whether the PLC takes part in the close changes nothing for us.
        let _ = timeout(CLOSE_TIMEOUT, self.context.disconnect()).await;
    }
}

fn configure_socket(stream: &TcpStream) -> io::Result<()> {
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
    } else if kind == ErrorKind::TimedOut {
        ConnectError::TimedOut(limit)
    } else {
        ConnectError::Failed(error)
    }
}

fn to_request_error(error: Error) -> RequestError {
    match error {
        Error::Protocol(error) => RequestError::Garbled(error.to_string()),
        // The codec reports what it cannot decode as I/O errors of its own making.
        Error::Transport(error)
            if error.raw_os_error().is_none() && is_codec_error(error.kind()) =>
        {
            RequestError::Garbled(error.to_string())
        }
        Error::Transport(error) => RequestError::Disconnected(error),
    }
}

const fn is_codec_error(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(kind, InvalidData | InvalidInput | UnexpectedEof)
}

/// Takes an answer that is exactly as long as was asked. That its function code is the request's
/// has been checked by tokio_modbus.
fn to_registers(response: Response, count: u16) -> Result<Registers, RequestError> {
    if let Response::ReadHoldingRegisters(words) | Response::ReadInputRegisters(words) = response {
        expect_count(words.len(), count.into())?;
        Ok(Registers::Words(words))
    } else if let Response::ReadCoils(mut bits) | Response::ReadDiscreteInputs(mut bits) = response
    {
        // Whole bytes arrive; the last one may be padded (6.1).
        expect_count(bits.len(), usize::from(count).next_multiple_of(8))?;
        bits.truncate(count.into());
        Ok(Registers::Bits(bits))
    } else {
        Err(RequestError::Garbled("it answers another function".to_owned()))
    }
}

fn expect_count(got: usize, asked: usize) -> Result<(), RequestError> {
    if got == asked {
        Ok(())
    } else {
        Err(RequestError::Garbled(format!("{got} values where {asked} were asked for")))
    }
}
