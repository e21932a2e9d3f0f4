//! Why a command was not carried out, in words for the person who sent it.

use std::fmt;

use provisioning::config::WriteRate;

use super::CommandState;
use super::{MAX_ALL_IDS, MAX_COMMAND_BYTES, MAX_IDS, MAX_TAGS, MAX_TEXT_CHARS, MAX_WAITING};
use crate::codec::EncodeError;
use crate::model::Sentence;

const MAY_BE_OLD: &str = "the command waited at the broker or was sent before, and has no \
                          `expires`: it may be old";
const PROGRAM_CHANGED: &str = "the PLC has another program than the one with which the addresses \
                               were checked; check them, then set `accept_program`";
const NO_ANSWER: &str =
    "the PLC did not answer: it may have taken the value; `read` is what it holds";
const LOSES_CONNECTION: &str = "the PLC closes the connection or does not answer over requests to \
                                this address; check that it can be read and written";
const INTERRUPTED: &str = "the gateway was restarted while the command was under way: the PLC may \
                           have taken the value; `read` is what it holds";

/// Why a command was not carried out, or what is not known about it.
#[derive(Clone, Debug, PartialEq)]
pub enum CommandReason {
    /// The message is no command.
    Malformed(MessageFault),
    /// The PLC has no such tag.
    UnknownTag(String),
    /// The tag has no `write`, and another value than the one in the command.
    ReadOnly(String),
    /// The value does not fit the type of the tag.
    WrongValue {
        /// The tag.
        tag: String,
        /// What is wrong with it.
        error: EncodeError,
    },
    /// The number is outside of `min` and `max`.
    OutOfRange {
        /// The tag.
        tag: String,
        /// The bounds as configured.
        bounds: String,
    },
    /// The value is not one of `values`.
    NotAllowed {
        /// The tag.
        tag: String,
    },
    /// Two tags of the command lie in the same bits.
    Overlap(String, String),
    /// The tag was written as often as `rate` allows.
    TooOften {
        /// The tag.
        tag: String,
        /// The rate as configured.
        rate: WriteRate,
    },
    /// [`MAX_WAITING`] commands wait for this PLC.
    TooManyWaiting,
    /// [`MAX_IDS`] ids of this PLC are kept, or [`MAX_ALL_IDS`] of all PLCs.
    TooManyIds,
    /// The broker had retained the message.
    Retained,
    /// The command expired before it was carried out.
    Expired,
    /// The command expires, and the clock of the gateway is not set.
    ClockNotSet,
    /// The command may be old, and does not say until when it is valid.
    MayBeOld,
    /// The same id was used before, and that command is not over.
    UnderWay,
    /// The same id was used before, and its reply was sent.
    Repeated(CommandState),
    /// The program of the PLC is not the one with which the configuration was checked.
    ProgramChanged,
    /// The values that the PLC holds are not the expected ones.
    ExpectationFailed,
    /// The PLC refused a request with this exception code.
    Exception(u8),
    /// The PLC does not answer, for this reason.
    Unreachable(Box<Sentence>),
    /// The PLC closes the connection, or does not answer, over requests to this address.
    LosesConnection,
    /// Some values were written, as the reply says, before this happened.
    Partial(Box<Self>),
    /// The gateway stops.
    Stopping,
    /// The command cannot be recorded on disk, and nothing is written without a record.
    NoRecord,
    /// The answer of the PLC is missing.
    NoAnswer,
    /// The gateway was stopped while the command was under way.
    Interrupted,
}

/// Why a message is no command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MessageFault {
    /// The message is longer than [`MAX_COMMAND_BYTES`].
    TooLong,
    /// The payload is not JSON, or has a key twice.
    NotJson(String),
    /// The payload is JSON, but no object.
    NotAnObject,
    /// The full form has a member that means nothing.
    UnknownMember(String),
    /// A member of the full form has a wrong type, or a value that it cannot have.
    WrongMember(&'static str),
    /// There is nothing to write.
    Empty,
    /// The command names more than [`MAX_TAGS`] tags.
    TooManyTags,
}

impl CommandReason {
    /// Returns the state of a command that ends for this reason.
    #[must_use]
    pub const fn state(&self) -> CommandState {
        match self {
            Self::Expired => CommandState::Expired,
            Self::UnderWay | Self::Repeated(_) => CommandState::Duplicate,
            Self::Exception(_)
            | Self::Unreachable(_)
            | Self::LosesConnection
            | Self::Partial(_)
            | Self::Stopping
            | Self::NoRecord => CommandState::Failed,
            Self::NoAnswer | Self::Interrupted => CommandState::Unknown,
            Self::Malformed(_)
            | Self::UnknownTag(_)
            | Self::ReadOnly(_)
            | Self::WrongValue { .. }
            | Self::OutOfRange { .. }
            | Self::NotAllowed { .. }
            | Self::Overlap(..)
            | Self::TooOften { .. }
            | Self::TooManyWaiting
            | Self::TooManyIds
            | Self::Retained
            | Self::ClockNotSet
            | Self::MayBeOld
            | Self::ProgramChanged
            | Self::ExpectationFailed => CommandState::Rejected,
        }
    }
}

impl fmt::Display for CommandReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(fault) => fault.fmt(f),
            Self::UnknownTag(tag) => write!(f, "this PLC has no tag {tag:?}"),
            Self::ReadOnly(tag) => write!(
                f,
                "{tag:?} is read-only; add `write` to the tag in gateway.toml to allow writes"
            ),
            Self::WrongValue { tag, error } => write!(f, "{tag:?}: {error}"),
            Self::OutOfRange { tag, bounds } => {
                write!(f, "the value of {tag:?} is out of range: {bounds}")
            }
            Self::NotAllowed { tag } => {
                write!(f, "the value of {tag:?} is none of the `values` in gateway.toml")
            }
            Self::Overlap(one, other) => {
                write!(f, "{one:?} and {other:?} are in the same register; write them separately")
            }
            Self::TooOften { tag, rate } => {
                write!(f, "{tag:?} may be written {rate}; send the command again later")
            }
            Self::TooManyWaiting => write!(
                f,
                "{MAX_WAITING} commands wait for this PLC already; send the command again later"
            ),
            Self::TooManyIds => write!(
                f,
                "too many: ids are kept for 7 days, at most {MAX_IDS} of a PLC and {MAX_ALL_IDS} of \
                 all; send commands that may be repeated without an id"
            ),
            Self::Retained => f.write_str(
                "the broker had retained the command, so it may be old; publish without RETAIN",
            ),
            Self::Expired => f.write_str("the command expired before it was sent to the PLC"),
            Self::ClockNotSet => f.write_str(
                "the clock of the gateway is not set, so that it cannot judge `expires`",
            ),
            Self::MayBeOld => f.write_str(MAY_BE_OLD),
            Self::UnderWay => f.write_str("the command with this id is under way"),
            Self::Repeated(state) => write!(f, "the command with this id is over: {state}"),
            Self::ProgramChanged => f.write_str(PROGRAM_CHANGED),
            Self::ExpectationFailed => {
                f.write_str("the PLC holds other values than `expect`, so nothing was written")
            }
            Self::Exception(code) => write!(f, "the PLC refused the request with exception {code}"),
            Self::Unreachable(sentence) => write!(f, "the PLC was not reached: {sentence}"),
            Self::LosesConnection => f.write_str(LOSES_CONNECTION),
            Self::Partial(reason) => write!(f, "only what `tags` says was written: {reason}"),
            Self::Stopping => f.write_str("the gateway is stopping"),
            Self::NoRecord => f.write_str(
                "the gateway cannot record the command on its disk, so nothing was written",
            ),
            Self::NoAnswer => f.write_str(NO_ANSWER),
            Self::Interrupted => f.write_str(INTERRUPTED),
        }
    }
}

impl fmt::Display for MessageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "a command has at most {MAX_COMMAND_BYTES} bytes"),
            Self::NotJson(error) => write!(f, "the command is not valid JSON: {error}"),
            Self::NotAnObject => f.write_str(
                "a command is an object: {\"TAG\":VALUE}, or \
                 {\"id\":\"..\",\"write\":{\"TAG\":VALUE}}",
            ),
            Self::UnknownMember(key) => write!(
                f,
                "a command with `write` has no member {key:?}; the members are id, by, expires, \
                 expect and write"
            ),
            Self::WrongMember(member) => f.write_str(match *member {
                "id" => "`id` must be a text of 1 to 128 characters, or a whole number",
                "by" => {
                    "`by` must be a text of at most 128 characters, and neither \"local\" nor \
                     \"acknowledge\": these names stand for the gateway itself"
                }
                "expires" => {
                    "`expires` must be a date with a time zone, like \"2026-12-01T10:00:00Z\", or \
                     milliseconds since 1970"
                }
                "expect" => "`expect` must be an object of tags with their values",
                _ => "`write` must be an object of tags with their values",
            }),
            Self::Empty => f.write_str("the command names no tag to write"),
            Self::TooManyTags => write!(f, "a command names at most {MAX_TAGS} tags"),
        }
    }
}

impl From<MessageFault> for CommandReason {
    fn from(fault: MessageFault) -> Self {
        Self::Malformed(fault)
    }
}

/// Returns the first characters of a foreign text, for a reason.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(MAX_TEXT_CHARS).collect()
}
