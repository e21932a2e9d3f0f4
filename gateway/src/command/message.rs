//! The payload of a command: its simple and its full form.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::reason::shortened;
use super::{
    ACKNOWLEDGE_SENDER, CommandReason, LOCAL_SENDER, MAX_COMMAND_BYTES, MAX_TAGS, MAX_TEXT_CHARS,
    MessageFault, strict_json,
};
use crate::model::UnixTime;

/// A command as it was sent. Nothing about its tags and values has been checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ParsedCommand {
    pub(super) id: Option<CommandId>,
    /// Who sent it, in its own words.
    pub(super) by: Option<String>,
    pub(super) expires: Option<UnixTime>,
    pub(super) expect: Map<String, Value>,
    /// Not empty.
    pub(super) write: Map<String, Value>,
}

/// The id that the sender gave to a command: a text or a whole number.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct CommandId(String);

impl CommandId {
    /// Returns the id of its JSON text, as [`CommandId::as_json_text`] returned it.
    pub(super) const fn from_json_text(text: String) -> Self {
        Self(text)
    }

    /// Returns the id as JSON: `"a1"` and `1` are two ids.
    pub(super) fn as_json_text(&self) -> &str {
        &self.0
    }

    pub(super) fn to_json(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    fn parse(value: &Value) -> Result<Self, MessageFault> {
        let is_id = match value {
            Value::String(text) => (1..=MAX_TEXT_CHARS).contains(&text.chars().count()),
            Value::Number(number) => number.is_u64() || number.is_i64(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
        };
        is_id.then(|| Self(value.to_string())).ok_or(MessageFault::WrongMember("id"))
    }
}

/// Keys that a datagram of the gateway has in addition to the tags. They mean nothing in a command,
/// so that a received datagram can be changed and sent back.
const IGNORED_KEYS: [&str; 5] = ["location", "datetime", "device", "machine", "gateway"];

/// What the messages of the PLC look like, beyond its tags.
#[derive(Clone, Debug)]
pub(super) struct DatagramForm {
    /// The key around the tags, where the PLC publishes `nested`.
    pub(super) device: Option<String>,
    /// Keys of `publish.extra`.
    pub(super) extra: Vec<String>,
}

/// A command that cannot be read, with its id if that much could be read.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) id: Option<CommandId>,
    pub(super) reason: CommandReason,
}

impl From<MessageFault> for Unreadable {
    fn from(fault: MessageFault) -> Self {
        Self { id: None, reason: fault.into() }
    }
}

/// Parses a payload.
pub(super) fn parse(payload: &[u8], form: &DatagramForm) -> Result<ParsedCommand, Unreadable> {
    if payload.len() > MAX_COMMAND_BYTES {
        return Err(MessageFault::TooLong.into());
    }
    let parsed = strict_json::parse(payload);
    let parsed = parsed.map_err(|error| MessageFault::NotJson(shortened(&error.to_string())))?;
    let Value::Object(object) = parsed else { return Err(MessageFault::NotAnObject.into()) };
    let command = if object.contains_key("write") {
        let id = object.get("id").map(CommandId::parse).transpose()?;
        parse_full(object, id.clone()).map_err(|fault| Unreadable { id, reason: fault.into() })?
    } else {
        ParsedCommand { write: to_tags(object, form)?, ..ParsedCommand::default() }
    };
    let refused =
        |fault: MessageFault| Err(Unreadable { id: command.id.clone(), reason: fault.into() });
    if command.write.is_empty() {
        return refused(MessageFault::Empty);
    }
    if command.write.len() + command.expect.len() > MAX_TAGS {
        return refused(MessageFault::TooManyTags);
    }
    Ok(command)
}

fn parse_full(
    object: Map<String, Value>,
    id: Option<CommandId>,
) -> Result<ParsedCommand, MessageFault> {
    let mut command = ParsedCommand { id, ..ParsedCommand::default() };
    for (key, value) in object {
        match (key.as_str(), value) {
            ("id", _) => {}
            ("by", Value::String(by)) if is_sender(&by) => command.by = Some(by),
            ("by", _) => return Err(MessageFault::WrongMember("by")),
            ("expires", value) => command.expires = Some(parse_expires(&value)?),
            ("expect", Value::Object(tags)) => command.expect = tags,
            ("expect", _) => return Err(MessageFault::WrongMember("expect")),
            ("write", Value::Object(tags)) => command.write = tags,
            ("write", _) => return Err(MessageFault::WrongMember("write")),
            (key, _) if IGNORED_KEYS.contains(&key) => {}
            (key, _) => return Err(MessageFault::UnknownMember(shortened(key))),
        }
    }
    Ok(command)
}

/// Returns whether a command may name this sender: not one that the gateway itself names.
fn is_sender(by: &str) -> bool {
    by.chars().count() <= MAX_TEXT_CHARS && ![LOCAL_SENDER, ACKNOWLEDGE_SENDER].contains(&by)
}

/// Returns the time of a date with a time zone, or of milliseconds since 1970.
fn parse_expires(value: &Value) -> Result<UnixTime, MessageFault> {
    let micros = match value {
        Value::String(text) => text.parse::<Timestamp>().ok().map(Timestamp::as_microsecond),
        Value::Number(number) => number.as_i64().and_then(|millis| millis.checked_mul(1_000)),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    micros.map(UnixTime::from_micros).ok_or(MessageFault::WrongMember("expires"))
}

/// Returns the tags of the simple form: a datagram, or some of its members.
fn to_tags(
    mut object: Map<String, Value>,
    form: &DatagramForm,
) -> Result<Map<String, Value>, MessageFault> {
    let nested = form.device.as_deref().and_then(|device| match object.get_mut(device) {
        Some(Value::Object(tags)) => Some(std::mem::take(tags)),
        _ => None,
    });
    if let (Some(tags), Some(device)) = (nested, &form.device) {
        object.shift_remove(device);
        if let Some(key) = tags.keys().find(|key| object.contains_key(*key)) {
            let error = format!("the key {:?} occurs twice", shortened(key));
            return Err(MessageFault::NotJson(error));
        }
        object.extend(tags);
    }
    let is_ignored =
        |key: &str| IGNORED_KEYS.contains(&key) || form.extra.iter().any(|extra| extra == key);
    object.retain(|key, _| !is_ignored(key));
    Ok(object)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(payload: &str) -> Result<ParsedCommand, String> {
        let form = DatagramForm { device: Some("M241".to_owned()), extra: vec!["line".to_owned()] };
        parse(payload.as_bytes(), &form).map_err(|refused| refused.reason.to_string())
    }

    fn tags(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_datagram_that_is_sent_back_names_its_tags_only() {
        for payload in [
            r#"{"setpoint":21.5}"#,
            r#"{"location":"a","datetime":"b","device":"M241","machine":"c","setpoint":21.5,
                "gateway":{"id":"g","seq":1},"line":3}"#,
            r#"{"M241":{"line":3,"setpoint":21.5},"gateway":{}}"#,
        ] {
            let command = parsed(payload).unwrap();
            assert_eq!(command.write, tags(&json!({"setpoint": 21.5})), "{payload}");
            assert_eq!(
                command,
                ParsedCommand { write: command.write.clone(), ..Default::default() }
            );
        }
    }

    #[test]
    fn the_full_form_has_an_id_an_expiry_and_an_expectation() {
        let command = parsed(
            r#"{"id":7,"by":"line 3","expires":"2026-12-01T10:00:00+01:00","gateway":{},
                "expect":{"setpoint":20},"write":{"setpoint":21.5}}"#,
        )
        .unwrap();
        assert_eq!(command.id.as_ref().unwrap().to_json(), json!(7));
        assert_eq!(command.by.as_deref(), Some("line 3"));
        assert_eq!(command.expires.unwrap().to_string(), "2026-12-01T09:00:00.000Z");
        assert_eq!(command.expect, tags(&json!({"setpoint": 20})));
        let millis = parsed(r#"{"expires":1780000000000,"write":{"a":1}}"#).unwrap();
        assert_eq!(millis.expires.unwrap().as_millis(), 1_780_000_000_000);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_reason() {
        let many: String = (0..65).map(|n| format!("\"t{n}\":1,")).collect();
        let many = format!("{{{}}}", many.trim_end_matches(','));
        let reasons: Vec<String> = [
            "[1]",
            "21.5",
            "{",
            "{}",
            r#"{"device":"x"}"#,
            r#"{"write":{}}"#,
            r#"{"write":5}"#,
            r#"{"a":1,"write":{"b":1}}"#,
            r#"{"expire":1,"write":{"b":1}}"#,
            r#"{"expires":"tomorrow","write":{"b":1}}"#,
            r#"{"expires":"2026-12-01T10:00:00","write":{"b":1}}"#,
            r#"{"expires":1.5,"write":{"b":1}}"#,
            r#"{"id":"","write":{"b":1}}"#,
            r#"{"id":1.5,"write":{"b":1}}"#,
            r#"{"id":null,"write":{"b":1}}"#,
            r#"{"expect":[],"write":{"b":1}}"#,
            r#"{"by":1,"write":{"b":1}}"#,
            r#"{"by":"local","write":{"b":1}}"#,
            r#"{"write":{"b":1},"by":"acknowledge"}"#,
            r#"{"by":"loc\u0061l","write":{"b":1}}"#,
            r#"{"a":1,"a":2}"#,
            &many,
        ]
        .into_iter()
        .map(|payload| parsed(payload).unwrap_err())
        .collect();
        insta::assert_snapshot!(reasons.join("\n"));
    }

    #[test]
    fn a_command_has_at_most_64_kib() {
        let sized = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
        assert_eq!(sized(65_536).len(), 65_536);
        assert!(parsed(&sized(65_536)).is_ok());
        assert!(parsed(&sized(65_537)).unwrap_err().contains("65536 bytes"));
    }

    #[test]
    fn a_command_names_at_most_64_tags_in_both_lists_together() {
        let tags = |count: usize| {
            let tags: Map<String, Value> =
                (0..count).map(|n| (format!("t{n}"), 1.into())).collect();
            Value::Object(tags)
        };
        for (write, expect, is_allowed) in
            [(64, 0, true), (65, 0, false), (32, 32, true), (33, 32, false), (1, 64, false)]
        {
            let command = json!({"write": tags(write), "expect": tags(expect)});
            assert_eq!(parsed(&command.to_string()).is_ok(), is_allowed, "{write} and {expect}");
        }
    }

    #[test]
    fn every_whole_number_of_64_bits_is_an_id() {
        for id in [json!(u64::MAX), json!(i64::MIN), json!(-1), json!(0)] {
            let command = parsed(&json!({"id": id, "write": {"a": 1}}).to_string()).unwrap();
            assert_eq!(command.id.unwrap().to_json(), id);
        }
        for id in ["18446744073709551616", "1.0", "1e3", "true", "[]"] {
            let command = format!(r#"{{"id":{id},"write":{{"a":1}}}}"#);
            assert!(parsed(&command).unwrap_err().starts_with("`id`"), "{id}");
        }
    }

    #[test]
    fn a_refusal_carries_the_id_so_that_the_requester_recognises_it() {
        let form = DatagramForm { device: None, extra: Vec::new() };
        let refused = parse(br#"{"id":"a1","write":{}}"#, &form).unwrap_err();
        assert_eq!(refused.id.unwrap().to_json(), json!("a1"));
    }
}
