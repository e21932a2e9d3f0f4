//! What a PLC says about itself, and what the gateway learned about it: the words that `plc`, the
//! status and its JSON have in common.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Manufacturer, product and firmware of a PLC: from its system variable PLC_R, or in answer to
/// Read Device Identification (Modbus Application Protocol V1.1b3, 6.21).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct PlcIdentity {
    /// Manufacturer.
    pub vendor: String,
    /// Product code.
    pub product: String,
    /// Firmware version.
    pub revision: String,
}

/// State of the program of a PLC, from its system variable PLC_R.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ProgramStatus {
    /// Run state.
    pub state: ProgramState,
    /// Reason of the last stop; absent where it is unknown or cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_stop: Option<StopCause>,
    /// Identifies the program that was downloaded; absent where it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<ProgramSignature>,
}

/// Run state of a program.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProgramState {
    /// The PLC has no program.
    Empty,
    /// Stopped.
    Stopped,
    /// Running.
    Running,
    /// Stopped by an error.
    Halted,
    /// Held at a breakpoint by a debugger.
    Breakpoint,
    /// A state that the manual does not list.
    #[serde(other)]
    Unknown,
}

/// Reason why a program stopped.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StopCause {
    /// The hardware watchdog.
    Watchdog,
    /// A reset.
    Reset,
    /// An exception in the program.
    Exception,
    /// A user: by software, or by the Run/Stop switch.
    User,
    /// The program itself.
    Program,
    /// The program was deleted.
    Deletion,
}

/// Identifies a program: each download has another one. Written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProgramSignature(pub [u32; 4]);

/// Limits of a PLC that its answers revealed; empty while the plan works as it is.
/// `edge-gateway plan --learned` shows what to write into the configuration.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct LearnedLimits {
    /// Tags that the PLC rejects in every request, in the order of the configuration. They are
    /// retried, at last once an hour.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<QuarantinedTag>,
    /// Most registers that the PLC answers in one request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_words: Option<u16>,
    /// Most unused registers between two tags that one request may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_gap: Option<u16>,
}

/// A tag that a PLC does not let read.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct QuarantinedTag {
    /// `plc.tag.name`.
    pub tag: String,
    /// `plc.tag.at`: the address as configured.
    pub at: String,
    /// What the PLC does when the tag is read alone: the key `exception` or `failure`.
    #[serde(flatten)]
    pub rejection: Rejection,
}

/// How a PLC rejects a request.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// It answers with this exception code (Modbus Application Protocol V1.1b3, 7).
    Exception(u8),
    /// It does not answer, and the session ends.
    Failure(LostSession),
}

/// How a session ends over a request.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LostSession {
    /// No answer arrives in time.
    TimedOut,
    /// The PLC closes or resets the connection.
    Disconnected,
    /// The answer does not fit the request.
    Garbled,
}

/// What the PLC does, as the end of a sentence about the tag.
impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exception(code) => write!(f, "exception {code}"),
            Self::Failure(LostSession::TimedOut) => f.write_str("no answer"),
            Self::Failure(LostSession::Disconnected) => {
                f.write_str("the PLC closes the connection")
            }
            Self::Failure(LostSession::Garbled) => f.write_str("invalid answer"),
        }
    }
}

/// A configured limit for the load on a PLC that makes the gateway skip cycles.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RateLimit {
    /// `plc.max_share`, in percent.
    Share(u16),
    /// `plc.max_requests`, per second.
    Requests(u16),
    /// The server closes the connection after each answer, or after a short pause: it is read once
    /// in this number of seconds.
    ServerCloses(u16),
}

impl ProgramState {
    /// Returns the word for it in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Stopped => "stopped",
            Self::Running => "running",
            Self::Halted => "halted",
            Self::Breakpoint => "breakpoint",
            Self::Unknown => "unknown",
        }
    }

    /// Returns whether the program runs, or `None` in a state that the manual does not list.
    #[must_use]
    pub const fn is_running(self) -> Option<bool> {
        match self {
            Self::Running => Some(true),
            Self::Empty | Self::Stopped | Self::Halted | Self::Breakpoint => Some(false),
            Self::Unknown => None,
        }
    }
}

impl StopCause {
    /// Returns the word for it in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Watchdog => "watchdog",
            Self::Reset => "reset",
            Self::Exception => "exception",
            Self::User => "user",
            Self::Program => "program",
            Self::Deletion => "deletion",
        }
    }
}

impl fmt::Display for ProgramSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| write!(f, "{part:08X}"))
    }
}

impl Serialize for ProgramSignature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ProgramSignature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut parts = [0; 4];
        for (index, part) in parts.iter_mut().enumerate() {
            let digits = text.get(8 * index..8 * index + 8).filter(|_| text.len() == 32);
            let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
            *part = number.ok_or_else(|| de::Error::custom("expected 32 hexadecimal digits"))?;
        }
        Ok(Self(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_in_json_are_those_of_the_types() {
        let states = [
            ProgramState::Empty,
            ProgramState::Stopped,
            ProgramState::Running,
            ProgramState::Halted,
            ProgramState::Breakpoint,
            ProgramState::Unknown,
        ];
        for state in states {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
            assert_eq!(
                serde_json::from_value::<ProgramState>(state.as_str().into()).unwrap(),
                state
            );
        }
        let causes = [
            StopCause::Watchdog,
            StopCause::Reset,
            StopCause::Exception,
            StopCause::User,
            StopCause::Program,
            StopCause::Deletion,
        ];
        for cause in causes {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.as_str());
            assert_eq!(serde_json::from_value::<StopCause>(cause.as_str().into()).unwrap(), cause);
        }
    }

    #[test]
    fn a_signature_is_32_digits_and_reads_back() {
        let signature = ProgramSignature([0x5EED_0001, 2, 0xABCD_EF01, 4]);
        let json = serde_json::to_value(signature).unwrap();
        assert_eq!(json, "5EED000100000002ABCDEF0100000004");
        assert_eq!(serde_json::from_value::<ProgramSignature>(json).unwrap(), signature);
        for text in
            ["", "5EED", "5EED000100000002ABCDEF010000000G", "5EED000100000002ABCDEF01000000041"]
        {
            assert!(serde_json::from_value::<ProgramSignature>(text.into()).is_err(), "{text}");
        }
    }
}
