//! Values of `gateway.toml` on a command line, with the same parsers and error texts.

use std::str::FromStr;
use std::time::Duration;

use figment::value::Value;
use thiserror::Error;

use super::Broker;
use super::scalar::{BoundedDuration, RawValue, Scalar, TextScalar, ValueError};

/// An argument that was rejected, and what to write instead.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0}")]
pub struct ArgumentError(String);

const DAY_MS: u64 = 86_400_000;
const DURATION_HELP: &str =
    "write a whole number and a unit, such as 200ms, 20s, 5m or 1h; 1ms to 8760h";

/// Parses a duration from 1 ms to 365 days, written as in `gateway.toml`.
///
/// ```
/// use std::time::Duration;
///
/// use provisioning::config::parse_duration;
///
/// assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
/// assert!(parse_duration("5").is_err());
/// ```
///
/// # Errors
/// When the text is not a duration in that range; the error says what to write.
pub fn parse_duration(text: &str) -> Result<Duration, ArgumentError> {
    let value = Value::from(text);
    let found = RawValue {
        key: "time",
        value: &value,
        source_text: None,
        is_from_environment: true,
        spans: None,
    };
    let period = BoundedDuration::<1, { 365 * DAY_MS }>::read(&found);
    period.map(|period| period.0).map_err(|_| ArgumentError(DURATION_HELP.to_owned()))
}

impl FromStr for Broker {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        Ok(<Self as TextScalar>::parse("broker", text)?)
    }
}

impl From<ValueError> for ArgumentError {
    fn from(error: ValueError) -> Self {
        match error.help {
            Some(help) => Self(format!("{}; {help}", error.message)),
            None => Self(error.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_the_syntax_of_the_file() {
        assert_eq!(parse_duration("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(parse_duration("10m"), Ok(Duration::from_secs(600)));
        for text in ["20", "", "20 seconds", "-1s", "0ms", "9000h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_broker_has_the_syntax_of_the_file() {
        let broker: Broker = "mqtt://10.77.0.1:1884".parse().unwrap();
        assert_eq!(broker.address.to_string(), "10.77.0.1:1884");
        assert!("10.77.0.1".parse::<Broker>().is_err());
    }
}
