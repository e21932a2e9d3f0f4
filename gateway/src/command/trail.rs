//! The events of the audit trail: what is about to be written, and how it ended.

use serde_json::{Map, Value};

use super::CommandReply;
use super::ledger::Intent;
use super::message::CommandId;
use crate::model::UnixTime;

/// Returns the members of the event before the first write.
pub(super) fn intent_event(intent: &Intent, at: UnixTime) -> Map<String, Value> {
    let expect = (!intent.expect.is_empty()).then(|| Value::Object(intent.expect.clone()));
    let id = intent.id.clone().map(CommandId::from_json_text);
    present_members([
        ("event", Some("write".into())),
        ("step", Some("intent".into())),
        ("plc", Some(intent.plc.as_str().into())),
        ("id", id.map(|id| id.to_json())),
        ("by", intent.by.as_deref().map(Value::from)),
        ("write", Some(Value::Object(intent.write.clone()))),
        ("expect", expect),
        ("at", Some(at.to_string().into())),
    ])
}

/// Returns the members of the event after the end of a command: those of its reply, too, and
/// `write` where the event before may be lost.
pub(super) fn outcome_event(
    plc: &str,
    by: Option<&str>,
    write: Option<&Map<String, Value>>,
    reply: &CommandReply,
) -> Map<String, Value> {
    let mut body = present_members([
        ("event", Some("write".into())),
        ("step", Some("outcome".into())),
        ("plc", Some(plc.into())),
        ("by", by.map(Value::from)),
        ("write", write.cloned().map(Value::Object)),
    ]);
    body.extend(reply.body.clone());
    body
}

fn present_members<const N: usize>(members: [(&str, Option<Value>); N]) -> Map<String, Value> {
    let present = |(key, value): (&str, Option<Value>)| Some((key.to_owned(), value?));
    members.into_iter().filter_map(present).collect()
}
