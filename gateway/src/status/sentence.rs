//! The sentences of the status that the status itself makes: one variant each, rendered by
//! `Display`. Those about a failed connection, the storage and the tunnel come from the modules
//! that found the cause.
//!
//! Code and arguments of each are listed in docs/status.md, which a test holds complete.

use std::fmt;

use serde::Serialize;

use crate::model::{ProgramState, ProgramStatus, QuarantinedTag, RateLimit, StopCause};

/// The connection to the broker while nothing is wrong with it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub enum BrokerSentence {
    /// The first attempt since the start is under way.
    Connecting,
    /// The broker at `address` accepted the connection.
    Connected {
        /// Host and port.
        address: String,
    },
}

/// What a connected broker refuses.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub enum BrokerRefusal {
    /// Messages on `topic`, for `reason` in the broker's words.
    TopicRefused {
        /// The topic.
        topic: String,
        /// Text or name of the broker's reason code.
        reason: String,
    },
}

/// A PLC that answers, or has not been reached yet.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub enum PlcSentence {
    /// The first attempt since the start is under way.
    Connecting,
    /// The PLC answers; whether its program runs is not known.
    Connected,
    /// The PLC answers and its program runs.
    Running,
    /// The PLC answers and its program does not run.
    NotRunning {
        /// `program.state`, where it can be read.
        state: Option<ProgramState>,
        /// `program.last_stop`, where it can be read.
        cause: Option<StopCause>,
    },
}

/// Why cycles of a PLC are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub enum LimitSentence {
    /// `plc.max_share` is reached.
    MaxShare {
        /// The limit in percent of the time.
        percent: u16,
    },
    /// `plc.max_requests` is reached.
    MaxRequests {
        /// The limit.
        requests_per_second: u16,
    },
}

/// Which tags a PLC refuses.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub enum PlcRefusal {
    /// The PLC answers requests for these tags with an exception.
    TagsRefused {
        /// The first tags, at most [`MAX_NAMED_TAGS`].
        tags: Vec<RefusedTag>,
        /// Number of refused tags that are not named.
        more: usize,
    },
}

/// A tag that a PLC refuses, by name and address.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RefusedTag {
    /// `plc.tag.name`.
    pub tag: String,
    /// `plc.tag.at`.
    pub at: String,
}

/// The first line of the status: what keeps values from arriving, nearest to the broker first.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub enum Headline {
    /// The broker is not connected.
    Disconnected {
        /// The cause: that of the tunnel, if the tunnel is down, else that of the broker.
        sentence: String,
        /// Number of samples that are kept until the broker is back.
        values: u64,
    },
    /// Something about the broker other than a lost connection.
    Broker {
        /// The refusal or state of the broker.
        sentence: String,
    },
    /// Several PLCs do not answer.
    PlcsDisconnected {
        /// Number of PLCs that do not answer.
        disconnected: usize,
        /// Number of configured PLCs.
        total: usize,
        /// Name of the first that does not answer.
        plc: String,
        /// Why that one does not answer.
        sentence: String,
    },
    /// Something about one PLC.
    Plc {
        /// Name of the PLC.
        plc: String,
        /// Its state, limit or refusal.
        sentence: String,
    },
    /// Every PLC answers and the broker takes the values.
    AllWell {
        /// Number of configured PLCs.
        plcs: usize,
        /// Address of the broker.
        broker: String,
    },
}

/// Most refused tags that a sentence names; `learned.quarantined` has all of them.
const MAX_NAMED_TAGS: usize = 3;

impl From<RateLimit> for LimitSentence {
    fn from(limit: RateLimit) -> Self {
        match limit {
            RateLimit::Share(percent) => Self::MaxShare { percent },
            RateLimit::Requests(requests_per_second) => Self::MaxRequests { requests_per_second },
        }
    }
}

impl PlcSentence {
    /// Returns the sentence for a PLC that answers; `running` is `None` where the state of its
    /// program cannot be read.
    pub(super) fn of_connected(running: Option<bool>, program: Option<&ProgramStatus>) -> Self {
        match running {
            None => Self::Connected,
            Some(true) => Self::Running,
            Some(false) => Self::NotRunning {
                state: program.map(|program| program.state),
                cause: program.and_then(|program| program.last_stop),
            },
        }
    }
}

impl PlcRefusal {
    /// Returns the sentence for these tags, or `None` when there are none.
    pub(super) fn of_tags(tags: &[QuarantinedTag]) -> Option<Self> {
        let named = tags.iter().take(MAX_NAMED_TAGS);
        let named = named.map(|tag| RefusedTag { tag: tag.tag.clone(), at: tag.at.clone() });
        let more = tags.len().saturating_sub(MAX_NAMED_TAGS);
        (!tags.is_empty()).then(|| Self::TagsRefused { tags: named.collect(), more })
    }
}

impl fmt::Display for BrokerSentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting => write!(f, "Connecting to the broker."),
            Self::Connected { address } => write!(f, "Connected to the broker at {address}."),
        }
    }
}

impl fmt::Display for BrokerRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::TopicRefused { topic, reason } = self;
        write!(
            f,
            "The broker refuses messages on {topic} ({reason}): allow this gateway to publish \
             there in the broker's access list (ACL)."
        )
    }
}

impl fmt::Display for PlcSentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting => write!(f, "Connecting to the PLC."),
            Self::Connected => write!(f, "The PLC answers."),
            Self::Running => write!(f, "The PLC answers; its program is running."),
            Self::NotRunning { state, cause } => {
                write!(f, "The PLC answers, but ")?;
                write_stop(f, state.unwrap_or(ProgramState::Stopped), cause.map(stop_cause))?;
                write!(f, "; its values are frozen.")
            }
        }
    }
}

fn write_stop(f: &mut fmt::Formatter<'_>, state: ProgramState, cause: Option<&str>) -> fmt::Result {
    let state = match state {
        ProgramState::Empty => "there is no program in it",
        ProgramState::Halted => "an error halted its program",
        ProgramState::Breakpoint => "its program is held at a breakpoint",
        ProgramState::Stopped | ProgramState::Running | ProgramState::Unknown => {
            write!(f, "its program was stopped")?;
            return cause.map_or(Ok(()), |cause| write!(f, " by {cause}"));
        }
    };
    write!(f, "{state}")?;
    cause.map_or(Ok(()), |cause| write!(f, " (last stop: by {cause})"))
}

const fn stop_cause(cause: StopCause) -> &'static str {
    match cause {
        StopCause::Watchdog => "the hardware watchdog",
        StopCause::Reset => "a reset",
        StopCause::Exception => "an exception",
        StopCause::User => "a user",
        StopCause::Program => "the program itself",
        StopCause::Deletion => "deleting it",
    }
}

impl fmt::Display for LimitSentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MaxShare { percent } => write!(
                f,
                "Cycles are skipped because reading may take at most {percent} % of the PLC's time \
                 (max_share): increase scan, or raise max_share."
            ),
            Self::MaxRequests { requests_per_second } => write!(
                f,
                "Cycles are skipped because at most {requests_per_second} requests per second are \
                 allowed (max_requests): increase scan, or raise max_requests."
            ),
        }
    }
}

impl fmt::Display for PlcRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::TagsRefused { tags, more } = self;
        write!(f, "The PLC refuses ")?;
        for (index, RefusedTag { tag, at }) in tags.iter().enumerate() {
            write!(f, "{}{tag} ({at})", if index == 0 { "" } else { ", " })?;
        }
        if *more > 0 {
            write!(f, " and {more} more")?;
        }
        let (what, they_are) = if tags.len() == 1 {
            ("the address or remove the tag", "It is")
        } else {
            ("the addresses or remove the tags", "They are")
        };
        write!(f, ": correct {what}. {they_are} retried from time to time; all others are read.")
    }
}

impl fmt::Display for Headline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected { sentence, values: 0 } | Self::Broker { sentence } => {
                f.write_str(sentence)
            }
            Self::Disconnected { sentence, values: 1 } => {
                write!(f, "{sentence} 1 value is kept until then.")
            }
            Self::Disconnected { sentence, values } => {
                write!(f, "{sentence} {values} values are kept until then.")
            }
            Self::PlcsDisconnected { disconnected, total, plc, sentence } => {
                write!(f, "{disconnected} of {total} PLCs do not answer. {plc}: {sentence}")
            }
            Self::Plc { plc, sentence } => write!(f, "PLC {plc}: {sentence}"),
            Self::AllWell { plcs: 1, broker } => write!(
                f,
                "All is well: the PLC answers, and the broker at {broker} takes the values."
            ),
            Self::AllWell { plcs, broker } => write!(
                f,
                "All is well: {plcs} PLCs answer, and the broker at {broker} takes the values."
            ),
        }
    }
}
