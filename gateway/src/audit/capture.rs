//! Messages in a file: one `{"at":..,"topic":..,"payload":{..}}` per line, as the demo, `audit
//! --record` and `mosquitto_sub -F` print them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::model::UnixTime;

/// One message of a capture.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CapturedMessage {
    /// When it was received, if the line says so.
    pub at: Option<Timestamp>,
    /// MQTT topic.
    pub topic: String,
    /// The bytes of the payload, but for white space and the notation of numbers.
    pub payload: Vec<u8>,
    /// Whether the broker had kept the message from an earlier time.
    pub retain: bool,
}

/// A line of a capture is not a message.
#[derive(Debug, Error)]
#[error("not a message of the form {{\"topic\":..,\"payload\":..}}")]
pub struct CaptureError(#[source] serde_json::Error);

#[derive(Deserialize)]
struct CaptureLine {
    /// `tst` in the format `%j` of `mosquitto_sub`.
    #[serde(alias = "tst")]
    at: Option<String>,
    topic: String,
    payload: Value,
    /// 0 or 1 in the format `%j`.
    #[serde(default)]
    retain: u8,
}

/// Reads one line of a capture.
///
/// # Errors
/// Fails when the line is not a JSON object with a topic and a payload.
pub fn parse_capture_line(line: &[u8]) -> Result<CapturedMessage, CaptureError> {
    let CaptureLine { at, topic, payload, retain } =
        serde_json::from_slice(line).map_err(CaptureError)?;
    // In the format %j, and for a payload that is no JSON, the payload is a text.
    let payload = payload.as_str().map_or_else(|| payload.to_string(), str::to_owned);
    let at = at.and_then(|at| at.parse().ok());
    Ok(CapturedMessage { at, topic, payload: payload.into_bytes(), retain: retain != 0 })
}

/// Returns the line of a message, with its line break.
#[must_use]
pub fn format_capture_line(at: UnixTime, topic: &str, payload: &[u8]) -> Vec<u8> {
    #[derive(Serialize)]
    struct CaptureHead<'a> {
        at: UnixTime,
        topic: &'a str,
    }
    let head = serde_json::to_string(&CaptureHead { at, topic }).unwrap_or_default();
    let mut line = head.trim_end_matches('}').as_bytes().to_vec();
    line.extend_from_slice(b",\"payload\":");
    if serde_json::from_slice::<serde::de::IgnoredAny>(payload).is_ok() {
        // Between the members of JSON a line break is white space; within a text it is escaped.
        line.extend(
            payload.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }),
        );
    } else {
        line.extend(Value::from(String::from_utf8_lossy(payload)).to_string().into_bytes());
    }
    line.extend_from_slice(b"}\n");
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_a_topic_and_a_payload() {
        let line =
            br#"{"topic":"edge/a/data/p","payload":{"gateway":{"seq":18446744073709551615}}}"#;

        let captured = parse_capture_line(line).unwrap();

        assert_eq!((captured.topic.as_str(), captured.at), ("edge/a/data/p", None));
        assert_eq!(captured.payload, br#"{"gateway":{"seq":18446744073709551615}}"#);
    }

    #[test]
    fn a_line_in_a_format_of_mosquitto_sub_has_a_time() {
        let own = br#"{"at":"2026-12-01T10:00:00+0100","topic":"t","payload":{"a":1}}"#;
        let json = br#"{"tst":"2026-12-01T10:00:00.000000+0100","topic":"t","qos":1,"retain":1,"payloadlen":7,"payload":"{\"a\":1}"}"#;
        for (line, retain) in [(&own[..], false), (json, true)] {
            let captured = parse_capture_line(line).unwrap();
            assert_eq!(captured.at, Some("2026-12-01T09:00:00Z".parse().unwrap()));
            assert_eq!(
                (captured.payload.as_slice(), captured.retain),
                (&br#"{"a":1}"#[..], retain)
            );
        }
    }

    #[test]
    fn a_line_that_is_not_a_message_is_refused() {
        for line in [
            "",
            "{}",
            "null",
            r#"{"topic":"t"}"#,
            r#"{"topic":7,"payload":{}}"#,
            r#"{"topic":"t","payload":}"#,
            r#"{"topic":"t","payload":offline}"#,
        ] {
            assert!(parse_capture_line(line.as_bytes()).is_err(), "{line}");
        }
        assert!(parse_capture_line(b"{\"topic\":\"t\",\"payload\":\"\xff\"}").is_err());
    }

    proptest! {
        #[test]
        fn a_recorded_message_is_read_again(topic in any::<String>(), text in any::<String>()) {
            let at = UnixTime::from_micros(1_800_000_000_250_000);
            let json = serde_json::json!({ "text": text, "gateway": { "seq": 7 } });
            let pretty = serde_json::to_string_pretty(&json).unwrap();
            let line = format_capture_line(at, &topic, pretty.as_bytes());
            prop_assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
            let read = parse_capture_line(&line).unwrap();
            prop_assert_eq!((read.at, &read.topic), (Some(at.timestamp()), &topic));
            prop_assert_eq!(serde_json::from_slice::<Value>(&read.payload).unwrap(), json);
            // A plain text is kept as one.
            let plain = format!("offline {text}");
            let read = parse_capture_line(&format_capture_line(at, &topic, plain.as_bytes()));
            prop_assert_eq!(read.unwrap().payload, plain.into_bytes());
        }
    }
}
