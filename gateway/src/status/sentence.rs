//! The sentences of the status that the status itself makes: one variant each, rendered by
//! `Display`. Those about a failed connection, the storage and the tunnel come from the modules
//! that found the cause.
//!
//! Code and arguments of each are listed in docs/status.md, which a test holds complete.

use std::fmt;

use serde::Serialize;

use crate::model::{ProgramState, ProgramStatus, QuarantinedTag, RateLimit, StopCause, UnixTime};

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
    /// The same in MQTT 3.1.1, which has no code for a refused message.
    ConnectedV3 {
        /// Host and port.
        address: String,
    },
}

/// What a connected broker refuses.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub enum BrokerRefusal {
    /// Messages on `topic`, by its access list; they are dropped.
    TopicRefused {
        /// The topic.
        topic: String,
        /// Name and text of the broker's reason code.
        reason: String,
    },
    /// Messages on `topic`, for another reason that stays; they are dropped.
    MessageRefused {
        /// The topic.
        topic: String,
        /// Name and text of the broker's reason code.
        reason: String,
    },
    /// A message on `topic` that is longer than the broker accepts; it is dropped.
    MessageTooLarge {
        /// The topic.
        topic: String,
    },
    /// To share the client id: another client has ended a session of the last minutes with it.
    ClientIdShared {
        /// The client id.
        client_id: String,
    },
    /// The subscription to `filter`: no command, or no offer of a bundle, arrives.
    SubscriptionRefused {
        /// The topic filter.
        filter: String,
        /// Name and text of the broker's reason code.
        reason: String,
    },
    /// Messages on `topic` for now; they are kept.
    Deferred {
        /// The topic.
        topic: String,
        /// Name and text of the broker's reason code.
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
    /// The server closes the connection after its answers.
    ServerCloses {
        /// Time between two cycles.
        seconds: u16,
    },
}

/// Which tags a PLC refuses.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub enum PlcRefusal {
    /// The PLC rejects requests for these tags: with an exception, or by ending the session.
    TagsRefused {
        /// The first tags, at most three.
        tags: Vec<NamedTag>,
        /// Number of refused tags that are not named.
        more: usize,
    },
}

/// A tag by name and address, with what is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NamedTag {
    /// `plc.tag.name`.
    pub tag: String,
    /// `plc.tag.at`.
    pub at: String,
    /// What the PLC does when the tag is read, or the quality of its value.
    pub cause: String,
}

/// Which tags have no good value although the PLC answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub enum TagSentence {
    /// The last value of these tags is not good.
    NoGoodValue {
        /// The first tags, at most three.
        tags: Vec<NamedTag>,
        /// Number of such tags that are not named.
        more: usize,
    },
    /// These tags have not been read yet.
    NotRead {
        /// Number of tags.
        tags: usize,
    },
}

/// What is to be known about writes to PLCs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub enum WriteSentence {
    /// Writes are allowed over a connection that a host on the way can change.
    WritesInClear {
        /// Host and port of the broker.
        broker: String,
    },
    /// The record of a command cannot be stored, so no command is carried out.
    CommandsNotRecorded,
    /// The PLC has another program than the one with which the addresses were checked.
    ProgramNotAccepted {
        /// Name of the PLC.
        plc: String,
        /// Signature of the program that it has.
        signature: String,
    },
    /// The last command to this PLC ended without success.
    WriteFailed {
        /// Name of the PLC.
        plc: String,
        /// The reason in its reply.
        reason: String,
    },
}

impl fmt::Display for WriteSentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WritesInClear { broker } => write!(
                f,
                "Commands from {broker} are obeyed although the connection is neither in the \
                 tunnel nor encrypted: any host in between can write to the PLCs. Use the tunnel \
                 or mqtts://, and remove writes_in_clear."
            ),
            Self::CommandsNotRecorded => f.write_str(
                "Commands cannot be recorded in state_dir, so all of them are refused: make room \
                 on the disk, or replace it.",
            ),
            Self::ProgramNotAccepted { plc, signature } => write!(
                f,
                "{plc} is not written to, because its program changed: check the addresses of its \
                 tags, then set accept_program = \"{signature}\"."
            ),
            Self::WriteFailed { plc, reason } => {
                write!(f, "The last command to {plc} was not carried out: {reason}.")
            }
        }
    }
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
    /// The tunnel has a problem, although the broker is not known to be disconnected.
    Tunnel {
        /// The state of the tunnel.
        sentence: String,
    },
    /// Values wait for longer than they should.
    Waiting {
        /// Number of samples that wait.
        values: u64,
        /// When the oldest was read.
        oldest: UnixTime,
    },
    /// Something about the storage of the queue.
    Storage {
        /// What is wrong.
        sentence: String,
    },
    /// The clock cannot be trusted.
    Clock {
        /// The state of the clock.
        sentence: String,
    },
    /// A certificate of the connection to the broker ends within two weeks, or cannot be used.
    Certificate {
        /// Which, when it ends, and what to do.
        sentence: String,
    },
    /// A bundle is on trial, was rolled back or could not be had.
    Bundle {
        /// Which, and what to do.
        sentence: String,
    },
    /// Every tag has a good value, and the broker takes the values.
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
            RateLimit::ServerCloses(seconds) => Self::ServerCloses { seconds },
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

impl TagSentence {
    /// Returns the sentence for this number of tags without a good value, of which the first that
    /// were read are named; `None` when all have one.
    pub(super) fn of_tags(tags: Vec<NamedTag>, all: usize) -> Option<Self> {
        let more = all.saturating_sub(tags.len());
        match (all, tags.is_empty()) {
            (0, _) => None,
            (_, true) => Some(Self::NotRead { tags: all }),
            (_, false) => Some(Self::NoGoodValue { tags, more }),
        }
    }
}

/// Writes tags by name, with what is wrong.
fn write_tags(f: &mut fmt::Formatter<'_>, tags: &[NamedTag], more: usize) -> fmt::Result {
    for (index, NamedTag { tag, at, cause }) in tags.iter().enumerate() {
        write!(f, "{}{tag} ({at}: {cause})", if index == 0 { "" } else { ", " })?;
    }
    if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
}

impl fmt::Display for TagSentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tags, more) = match self {
            Self::NotRead { tags } => {
                let (noun, has) = if *tags == 1 { ("tag", "has") } else { ("tags", "have") };
                return write!(f, "{tags} {noun} {has} not been read yet");
            }
            Self::NoGoodValue { tags, more } => (tags, *more),
        };
        write_tags(f, tags, more)?;
        let is_one = tags.len() + more == 1;
        let (has, what) = if is_one { ("has no", "tag") } else { ("have no", "tags") };
        write!(f, " {has} good value: check address and type of the {what}")
    }
}

impl PlcRefusal {
    /// Returns the sentence for these tags, or `None` when there are none.
    pub(super) fn of_tags(tags: &[QuarantinedTag]) -> Option<Self> {
        let named = tags.iter().take(MAX_NAMED_TAGS);
        let named = named.map(|QuarantinedTag { tag, at, rejection }| {
            let (tag, at, cause) = (tag.clone(), at.clone(), rejection.to_string());
            NamedTag { tag, at, cause }
        });
        let more = tags.len().saturating_sub(MAX_NAMED_TAGS);
        (!tags.is_empty()).then(|| Self::TagsRefused { tags: named.collect(), more })
    }
}

impl fmt::Display for BrokerSentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting => write!(f, "Connecting to the broker."),
            Self::Connected { address } => write!(f, "Connected to the broker at {address}."),
            Self::ConnectedV3 { address } => write!(
                f,
                "Connected to the broker at {address} with MQTT 3.1.1, in which it acknowledges \
                 even messages that its access list (ACL) rejects."
            ),
        }
    }
}

impl fmt::Display for BrokerRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TopicRefused { topic, reason } => write!(
                f,
                "The broker refuses messages on {topic} ({reason}): allow this gateway to publish \
                 there in the broker's access list (ACL). Until then they are dropped."
            ),
            Self::MessageRefused { topic, reason } => write!(
                f,
                "The broker refuses messages on {topic} ({reason}), which are dropped: check what \
                 the broker requires of topics and payloads."
            ),
            Self::MessageTooLarge { topic } => write!(
                f,
                "A message on {topic} is longer than the broker accepts and is dropped: raise the \
                 broker's maximum packet size, or give the PLC fewer tags."
            ),
            Self::ClientIdShared { client_id } => write!(
                f,
                "Another client uses the client id {client_id}, and the broker disconnects one for \
                 the other: give each gateway its own gateway.id, mqtt.client_id and tunnel key."
            ),
            Self::SubscriptionRefused { filter, reason } => write!(
                f,
                "The broker refuses the subscription to {filter} ({reason}), so nothing arrives \
                 from there: allow this gateway to read there in the broker's access list (ACL), in \
                 Mosquitto with the line \"topic read {filter}\"."
            ),
            Self::Deferred { topic, reason } => write!(
                f,
                "The broker does not accept messages on {topic} at the moment ({reason}): they are \
                 kept and sent again. If this lasts, raise the broker's quota or rate limit."
            ),
        }
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
            Self::ServerCloses { seconds } => write!(
                f,
                "This server closes the connection after each answer or a short pause: it is read \
                 every {seconds} s. Set scan to {seconds} s or more, or raise the server's idle \
                 time."
            ),
        }
    }
}

impl fmt::Display for PlcRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::TagsRefused { tags, more } = self;
        write!(f, "The PLC refuses ")?;
        write_tags(f, tags, *more)?;
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
            Self::Tunnel { sentence }
            | Self::Storage { sentence }
            | Self::Clock { sentence }
            | Self::Certificate { sentence }
            | Self::Bundle { sentence } => f.write_str(sentence),
            Self::Waiting { values, oldest } => write!(
                f,
                "The broker is connected, but {values} values wait for it, the oldest since \
                 {oldest}: the broker or the line is too slow, or it acknowledges nothing."
            ),
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
