//! Keywords of `[mqtt]` that become other types once they are checked.

use super::{TextScalar, ValueError};
use crate::config::MqttVersion;

/// Name of an application protocol: 1 to 255 bytes (RFC 7301, 3.1), here of ASCII.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct AlpnName(pub(in crate::config) String);

/// Maximum length of the name of a protocol, in bytes.
const MAX_ALPN_BYTES: usize = 255;

impl TextScalar for AlpnName {
    const KIND: &'static str = "name of a protocol, at most 255 bytes";

    fn parse(key: &str, text: &str) -> Result<Self, ValueError> {
        let is_printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_printable && (1..=MAX_ALPN_BYTES).contains(&text.len()) {
            return Ok(Self(text.to_owned()));
        }
        Err(ValueError::new(
            format!("`{key}` contains what is not the name of a protocol"),
            format!("write {key} = [\"mqtt\"], or the name that the operator of the broker gives"),
        ))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// `mqtt.version`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) enum VersionChoice {
    /// 5, or what the broker says.
    Auto,
    /// MQTT 5.0 only.
    V5,
    /// MQTT 3.1.1 only.
    V311,
}

/// An entry of `mqtt.lower`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) enum Lowerable {
    /// The quality of service.
    Qos,
    /// RETAIN.
    Retain,
}

impl VersionChoice {
    /// Returns the version, or `None` for the choice by the broker.
    pub(in crate::config) const fn fixed(self) -> Option<MqttVersion> {
        match self {
            Self::Auto => None,
            Self::V5 => Some(MqttVersion::V5),
            Self::V311 => Some(MqttVersion::V311),
        }
    }
}
