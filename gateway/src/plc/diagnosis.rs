//! Why a PLC does not answer, and what an installer can check: each sentence as data.

use std::fmt;
use std::time::Duration;

use provisioning::config::Plc;
use serde::Serialize;

use super::plc_r;
use super::session::{AnswerMismatch, ConnectError, RequestError};

/// Why a PLC does not answer. `Display` renders the sentence, with what to check.
///
/// `address` is host and port of the Modbus server as configured.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub enum PlcDiagnosis {
    /// The host name cannot be resolved.
    UnknownHost {
        /// The configured host name.
        host: String,
    },
    /// The connection was refused.
    ConnectionRefused {
        /// Modbus server.
        address: String,
    },
    /// A Modicon refused the connection.
    ModiconRefused {
        /// Modbus server.
        address: String,
    },
    /// Nothing answered the connection request.
    Silent {
        /// Modbus server.
        address: String,
    },
    /// No Modicon answered the connection request.
    ModiconSilent {
        /// Modbus server.
        address: String,
    },
    /// No route leads to the address, or no device on the local network has it.
    NoRoute {
        /// Modbus server.
        address: String,
    },
    /// This process may open no more files and connections.
    OutOfDescriptors {
        /// Modbus server.
        address: String,
    },
    /// The connection failed for another reason.
    ConnectFailed {
        /// Modbus server.
        address: String,
        /// Error of the operating system.
        error: String,
    },
    /// A request timed out on a connection that had answered before.
    StoppedAnswering {
        /// Modbus server.
        address: String,
        /// Time-out of the request, in milliseconds.
        timeout_ms: u64,
    },
    /// The first request on a connection timed out.
    NeverAnswered {
        /// Modbus server.
        address: String,
        /// Time-out of the request, in milliseconds.
        timeout_ms: u64,
        /// Modbus unit id.
        unit_id: u8,
    },
    /// An answer did not fit its request in another way than the next five.
    InvalidAnswer {
        /// Modbus server.
        address: String,
    },
    /// An answer to an earlier request arrived.
    LateAnswer {
        /// Modbus server.
        address: String,
        /// Time-out of the request, in milliseconds.
        timeout_ms: u64,
    },
    /// An answer had a transaction id that was never sent.
    WrongTransaction {
        /// Modbus server.
        address: String,
    },
    /// Another unit answered.
    WrongUnit {
        /// Modbus server.
        address: String,
        /// Modbus unit id that was asked.
        unit_id: u8,
        /// Modbus unit id in the answer.
        answered_unit: u8,
    },
    /// Bytes followed an answer.
    ExtraBytes {
        /// Modbus server.
        address: String,
        /// Number of bytes.
        bytes: usize,
    },
    /// An answer had fewer or more values than were requested.
    WrongCount {
        /// Modbus server.
        address: String,
        /// Registers or bits in the answer.
        received: usize,
        /// Registers or bits that were requested.
        requested: usize,
    },
    /// The connection was closed after it had answered.
    Closed {
        /// Modbus server.
        address: String,
    },
    /// The connection was closed before any answer.
    ClosedUnanswered {
        /// Modbus server.
        address: String,
    },
    /// A Modicon closed the connection after it had answered.
    ModiconClosed {
        /// Modbus server.
        address: String,
    },
    /// A Modicon closed the connection before any answer.
    ModiconClosedUnanswered {
        /// Modbus server.
        address: String,
    },
    /// Exception 0A: the Modbus server knows no path to the unit.
    NoPathToUnit {
        /// Modbus server.
        address: String,
        /// Modbus unit id.
        unit_id: u8,
    },
    /// Exception 0B: the unit behind the Modbus server did not answer it.
    UnitSilent {
        /// Modbus server.
        address: String,
        /// Modbus unit id.
        unit_id: u8,
    },
    /// The connects of this minute are used up.
    TooManyConnects {
        /// Modbus server.
        address: String,
    },
}

impl PlcDiagnosis {
    /// Returns why a connect failed.
    pub(super) fn not_connected(plc: &Plc, error: &ConnectError) -> Self {
        let (address, is_modicon) = (plc.address.to_string(), is_modicon(plc));
        match error {
            ConnectError::UnknownHost(_) => Self::UnknownHost { host: plc.address.host.clone() },
            ConnectError::Refused(_) if is_modicon => Self::ModiconRefused { address },
            ConnectError::Refused(_) => Self::ConnectionRefused { address },
            ConnectError::TimedOut(_) if is_modicon => Self::ModiconSilent { address },
            ConnectError::TimedOut(_) => Self::Silent { address },
            ConnectError::NoRoute(_) => Self::NoRoute { address },
            ConnectError::OutOfDescriptors => Self::OutOfDescriptors { address },
            ConnectError::Failed(error) => {
                Self::ConnectFailed { address, error: error.to_string() }
            }
        }
    }

    /// Returns why a connection was dropped; `has_answered` tells whether the unit had answered on
    /// it before.
    pub(super) fn connection_lost(plc: &Plc, error: &RequestError, has_answered: bool) -> Self {
        let (address, unit_id) = (plc.address.to_string(), plc.unit_id);
        let timeout_ms = u64::try_from(plc.timeout.as_millis()).unwrap_or(u64::MAX);
        match (error, has_answered) {
            (RequestError::TimedOut(_), true) => Self::StoppedAnswering { address, timeout_ms },
            (RequestError::TimedOut(_), false) => {
                Self::NeverAnswered { address, timeout_ms, unit_id }
            }
            (RequestError::Garbled(mismatch), _) => Self::mismatch(mismatch, address, timeout_ms),
            (RequestError::Refused(_), _) => Self::InvalidAnswer { address },
            (RequestError::Disconnected(_) | RequestError::NotSent(_), _) => {
                match (is_modicon(plc), has_answered) {
                    (true, true) => Self::ModiconClosed { address },
                    (true, false) => Self::ModiconClosedUnanswered { address },
                    (false, true) => Self::Closed { address },
                    (false, false) => Self::ClosedUnanswered { address },
                }
            }
        }
    }

    fn mismatch(mismatch: &AnswerMismatch, address: String, timeout_ms: u64) -> Self {
        match *mismatch {
            AnswerMismatch::Late => Self::LateAnswer { address, timeout_ms },
            AnswerMismatch::OtherTransaction => Self::WrongTransaction { address },
            AnswerMismatch::OtherUnit { asked, answered } => {
                Self::WrongUnit { address, unit_id: asked, answered_unit: answered }
            }
            AnswerMismatch::ExtraBytes { bytes } => Self::ExtraBytes { address, bytes },
            AnswerMismatch::Count { received, requested } => {
                Self::WrongCount { address, received, requested }
            }
            AnswerMismatch::Length { .. }
            | AnswerMismatch::OtherWrite
            | AnswerMismatch::OtherFunction
            | AnswerMismatch::NotModbus
            | AnswerMismatch::Undecodable(_) => Self::InvalidAnswer { address },
        }
    }

    /// Returns what exception 0A or 0B of a device between the gateway and the unit means.
    pub(super) fn gateway_exception(plc: &Plc, exception: u8) -> Self {
        let (address, unit_id) = (plc.address.to_string(), plc.unit_id);
        if exception == 0x0A {
            Self::NoPathToUnit { address, unit_id }
        } else {
            Self::UnitSilent { address, unit_id }
        }
    }

    /// Returns that the connection was lost too often to reconnect now.
    pub(super) fn too_many_connects(plc: &Plc) -> Self {
        Self::TooManyConnects { address: plc.address.to_string() }
    }
}

impl fmt::Display for PlcDiagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownHost { host } => {
                write!(f, "The host name `{host}` has no address: {USE_ADDRESS}")
            }
            Self::ConnectionRefused { address } => {
                write!(f, "PLC {address} refuses the connection: {NO_SERVER}")
            }
            Self::ModiconRefused { address } => {
                write!(f, "PLC {address} refuses the connection: {SERVER_OFF}")
            }
            Self::Silent { address } => {
                write!(f, "PLC {address} does not respond: {CHECK_CABLE} {PORT_BLOCKED}")
            }
            Self::ModiconSilent { address } => {
                write!(f, "PLC {address} does not respond: {CHECK_CABLE} {SERVER_OFF}")
            }
            Self::NoRoute { address } => {
                write!(f, "There is no route to PLC {address}: {CHECK_NETWORK}")
            }
            Self::OutOfDescriptors { address } => {
                write!(f, "PLC {address} waits for another connection to close: {RAISE_LIMIT}")
            }
            Self::ConnectFailed { address, error } => {
                write!(f, "The connection to PLC {address} failed: {error}")
            }
            Self::StoppedAnswering { address, timeout_ms } => write!(
                f,
                "PLC {address} stopped answering: no answer within {:?}; {UNPLUGGED}",
                Duration::from_millis(*timeout_ms)
            ),
            Self::NeverAnswered { address, timeout_ms, unit_id } => write!(
                f,
                "PLC {address} accepts the connection but does not answer within {:?}: check that \
                 unit_id {unit_id} is right and that a Modbus server listens there",
                Duration::from_millis(*timeout_ms)
            ),
            Self::InvalidAnswer { .. }
            | Self::LateAnswer { .. }
            | Self::WrongTransaction { .. }
            | Self::WrongUnit { .. }
            | Self::ExtraBytes { .. }
            | Self::WrongCount { .. } => self.write_mismatch(f),
            Self::Closed { address } => write_closed(f, address, "", ""),
            Self::ClosedUnanswered { address } => write_closed(f, address, UNANSWERED, ""),
            Self::ModiconClosed { address } => write_closed(f, address, "", LIMIT),
            Self::ModiconClosedUnanswered { address } => {
                write_closed(f, address, UNANSWERED, LIMIT)
            }
            Self::NoPathToUnit { address, unit_id } => {
                write_exception(f, address, "knows no path to", (*unit_id, 10))
            }
            Self::UnitSilent { address, unit_id } => {
                write_exception(f, address, "gets no answer from", (*unit_id, 11))
            }
            Self::TooManyConnects { address } => {
                write!(f, "The connection to {address} {LOST_OFTEN}; {WAIT}")
            }
        }
    }
}

impl PlcDiagnosis {
    /// Writes what is wrong with the answers of a PLC.
    fn write_mismatch(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::LateAnswer { address, timeout_ms } = self {
            let timeout = Duration::from_millis(*timeout_ms);
            write!(f, "PLC {address} {LATE} {timeout:?}; set timeout to a longer time")
        } else if let Self::WrongTransaction { address } = self {
            write!(f, "PLC {address} {OTHER_TRANSACTION}")
        } else if let Self::WrongUnit { address, unit_id, answered_unit } = self {
            write!(
                f,
                "PLC {address} answers for unit {answered_unit} where unit {unit_id} was asked: \
                 write unit_id = {answered_unit}"
            )
        } else if let Self::ExtraBytes { address, bytes } = self {
            write!(f, "PLC {address} sends {bytes} bytes too many after an answer: {NOT_TCP}")
        } else if let Self::WrongCount { address, received, requested } = self {
            write!(
                f,
                "PLC {address} answers with {received} values where {requested} were requested: \
                 set max_words to {received} or less, or update its firmware"
            )
        } else if let Self::InvalidAnswer { address } = self {
            write!(f, "PLC {address} sends answers {MISMATCH}")
        } else {
            Ok(())
        }
    }
}

const LATE: &str = "sends the answer to an earlier request: it answers twice, or later than within";
const OTHER_TRANSACTION: &str = "does not return the transaction ids of the requests, so that its \
                                 answers cannot be told apart: update its firmware, or read it \
                                 through another Modbus TCP gateway";
const NOT_TCP: &str = "check that it speaks Modbus TCP, not RTU over TCP, and update its firmware";
const LOST_OFTEN: &str = "was lost too often in the last minute";
const USE_ADDRESS: &str = "use the IP address of the PLC, or add the name to the DNS of this site";
const NO_SERVER: &str = "no Modbus server listens on this port, or a firewall blocks it";
/// The Modbus server of an M2xx is off in a new project.
const SERVER_OFF: &str = "the Modbus server may be off (Machine Expert: Ethernet_1 > Security \
                          parameters > Modbus Server), or a firewall blocks it";
const CHECK_CABLE: &str = "check power, cable and address; if it answers a ping,";
const CHECK_NETWORK: &str = "check the cable, the power of the PLC, and that this gateway has an \
                             address in the network of the PLC";
const RAISE_LIMIT: &str = "the limit on open files is reached; set LimitNOFILE of the service \
                           (ulimit -n in a shell) to the number of PLCs plus 32, and restart it";
const UNPLUGGED: &str = "it may be restarting or overloaded, or its cable is unplugged";
const PORT_BLOCKED: &str = "a firewall may block the port";
const MISMATCH: &str = "that do not fit the requests: check that a Modbus TCP server listens \
                        there, with no other device in between";
const UNANSWERED: &str = " without an answer (check that a Modbus server listens there)";
/// Most clients of an M2xx; the next one closes the oldest connection.
const LIMIT: &str = " (it accepts 8 and closes the oldest)";
const CHECK_UNIT: &str = "check that unit_id is right, and power and cable of the device behind it";
const WAIT: &str =
    "waiting before reconnecting. Another unit on this connection may not be responding";

fn write_exception(
    f: &mut fmt::Formatter<'_>,
    address: &str,
    what: &str,
    (unit_id, exception): (u8, u8),
) -> fmt::Result {
    write!(
        f,
        "The Modbus server at {address} {what} the device with unit_id {unit_id} (exception \
         {exception}): {CHECK_UNIT}"
    )
}

fn write_closed(
    f: &mut fmt::Formatter<'_>,
    address: &str,
    unanswered: &str,
    limit: &str,
) -> fmt::Result {
    write!(
        f,
        "PLC {address} closed the connection{unanswered}: it may be restarting or downloading a \
         program, or too many clients are connected{limit}"
    )
}

const fn is_modicon(plc: &Plc) -> bool {
    plc_r::has_plc_r(plc.model)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::model::Sentence;
    use crate::plc::tests::support::plc;

    #[test]
    fn every_diagnosis_says_what_to_check_and_has_a_code_of_its_own() {
        let second = Duration::from_secs(1);
        let io = || io::Error::other("something odd");
        let mut text = String::new();
        for model in ["M241", "generic"] {
            let plc = plc(model, &[]);
            let connects = [
                ConnectError::UnknownHost(io()),
                ConnectError::Refused(io()),
                ConnectError::TimedOut(second),
                ConnectError::NoRoute(io()),
                ConnectError::OutOfDescriptors,
                ConnectError::Failed(io()),
            ];
            let mut all: Vec<_> =
                connects.iter().map(|error| PlcDiagnosis::not_connected(&plc, error)).collect();
            for has_answered in [true, false] {
                let requests = [
                    RequestError::TimedOut(second),
                    RequestError::Garbled(AnswerMismatch::NotModbus),
                    RequestError::Garbled(AnswerMismatch::Late),
                    RequestError::Garbled(AnswerMismatch::OtherTransaction),
                    RequestError::Garbled(AnswerMismatch::OtherUnit { asked: 255, answered: 0 }),
                    RequestError::Garbled(AnswerMismatch::ExtraBytes { bytes: 2 }),
                    RequestError::Garbled(AnswerMismatch::Count { received: 4, requested: 5 }),
                    RequestError::Disconnected(io()),
                ];
                let lost = |error| PlcDiagnosis::connection_lost(&plc, error, has_answered);
                all.extend(requests.iter().map(lost));
            }
            all.extend([0x0A, 0x0B].map(|code| PlcDiagnosis::gateway_exception(&plc, code)));
            all.push(PlcDiagnosis::too_many_connects(&plc));
            for diagnosis in all {
                let Sentence { text: sentence, detail } = Sentence::new(&diagnosis);
                text += &format!("{model}, {}: {sentence}\n", detail.code);
                assert!(!detail.arguments.is_empty(), "{sentence}");
            }
        }
        insta::assert_snapshot!(text);
    }
}
