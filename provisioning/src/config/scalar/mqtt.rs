//! Keywords of `[mqtt]` that become other types once they are checked.

use crate::config::MqttVersion;

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
