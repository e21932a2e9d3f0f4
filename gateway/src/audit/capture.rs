//! Messages in a file: one `{"topic":..,"payload":{..}}` per line, as the demo prints them.

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// One message of a capture.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CapturedMessage {
    /// MQTT topic.
    pub topic: String,
    /// The bytes of the payload, but for white space and the notation of numbers.
    pub payload: Vec<u8>,
}

/// A line of a capture is not a message.
#[derive(Debug, Error)]
#[error("not a message of the form {{\"topic\":..,\"payload\":..}}")]
pub struct CaptureError(#[source] serde_json::Error);

#[derive(Deserialize)]
struct CaptureLine {
    topic: String,
    payload: Value,
}

/// Reads one line of a capture.
///
/// # Errors
/// Fails when the line is not a JSON object with a topic and a payload.
pub fn parse_capture_line(line: &str) -> Result<CapturedMessage, CaptureError> {
    let CaptureLine { topic, payload } = serde_json::from_str(line).map_err(CaptureError)?;
    Ok(CapturedMessage { topic, payload: payload.to_string().into_bytes() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_topic_and_a_payload() {
        let line =
            r#"{"topic":"edge/a/data/p","payload":{"gateway":{"seq":18446744073709551615}}}"#;

        let captured = parse_capture_line(line).unwrap();

        assert_eq!(captured.topic, "edge/a/data/p");
        assert_eq!(captured.payload, br#"{"gateway":{"seq":18446744073709551615}}"#);
    }

    #[test]
    fn a_line_that_is_not_a_message_is_refused() {
        for line in ["", "{}", "null", r#"{"topic":"t"}"#, r#"{"topic":7,"payload":{}}"#] {
            assert!(parse_capture_line(line).is_err(), "{line}");
        }
    }
}
