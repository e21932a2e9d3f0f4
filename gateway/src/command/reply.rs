//! The one reply to a command.

use std::fmt;

use serde_json::{Map, Value};

use super::CommandReason;
use super::message::CommandId;
use crate::model::UnixTime;

/// How a command ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CommandState {
    /// The PLC took every value.
    Done,
    /// The gateway refused the command; nothing was written.
    Rejected,
    /// The PLC refused the command or does not answer; `tags` has what was written.
    Failed,
    /// The command was too old; nothing was written.
    Expired,
    /// The id was used before; nothing was written for this command.
    Duplicate,
    /// Whether the PLC took the values is not known.
    Unknown,
}

/// A reply, and the event of the audit trail that records the outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandReply {
    /// How the command ended.
    pub state: CommandState,
    /// The members of the reply: `id`, `state`, `tags`, `exception`, `reason`, `at`.
    pub body: Map<String, Value>,
}

/// What a reply says, without the id.
#[derive(Clone, Debug, Default)]
pub(super) struct ReplyContent {
    pub(super) tags: Map<String, Value>,
    pub(super) exception: Option<u8>,
    pub(super) reason: Option<CommandReason>,
}

impl CommandState {
    /// All states.
    pub const ALL: [Self; 6] =
        [Self::Done, Self::Rejected, Self::Failed, Self::Expired, Self::Duplicate, Self::Unknown];

    /// Returns the word in a reply.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Duplicate => "duplicate",
            Self::Unknown => "unknown",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl fmt::Display for CommandState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl CommandReply {
    pub(super) fn new(id: Option<&CommandId>, content: ReplyContent, at: UnixTime) -> Self {
        let ReplyContent { tags, exception, reason } = content;
        let state = reason.as_ref().map_or(CommandState::Done, CommandReason::state);
        let members = [
            ("id", id.map(CommandId::to_json)),
            ("state", Some(state.as_str().into())),
            ("tags", (!tags.is_empty()).then_some(Value::Object(tags))),
            ("exception", exception.map(Value::from)),
            ("reason", reason.map(|reason| reason.to_string().into())),
            ("at", Some(at.to_string().into())),
        ];
        let present = |(key, value): (&str, Option<Value>)| Some((key.to_owned(), value?));
        Self { state, body: members.into_iter().filter_map(present).collect() }
    }

    /// Returns the reply to a command that was not carried out.
    pub(super) fn refused(id: Option<&CommandId>, reason: CommandReason, at: UnixTime) -> Self {
        Self::new(id, ReplyContent { reason: Some(reason), ..ReplyContent::default() }, at)
    }

    /// Returns the reply that was stored as JSON.
    pub(super) fn from_stored(body: &str) -> Option<Self> {
        let body: Map<String, Value> = serde_json::from_str(body).ok()?;
        let state = CommandState::from_word(body.get("state")?.as_str()?)?;
        Some(Self { state, body })
    }

    /// Returns the reply to a command whose id got this reply before, in the same run.
    pub(super) fn repeated(&self) -> Self {
        let mut body = self.body.clone();
        let state = CommandState::Duplicate;
        let reason = CommandReason::Repeated(self.state).to_string();
        body.insert("state".to_owned(), state.as_str().into());
        body.insert("reason".to_owned(), reason.into());
        body.insert("first".to_owned(), self.state.as_str().into());
        Self { state, body }
    }
}
