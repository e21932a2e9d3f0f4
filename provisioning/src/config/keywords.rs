//! The words of the keys that take one of a few.

use super::scalar::{Keywords, TunnelSwitch};
use super::{
    DatetimeFormat, Durability, MqttVersion, OnFull, PayloadShape, QueueOrder, TunnelMode, Via,
};
use crate::plc::{ByteOrder, CodePage, PlcModel};

impl Keywords for MqttVersion {
    const ALL: &'static [Self] = &[Self::V5, Self::V311];

    fn keyword(self) -> &'static str {
        match self {
            Self::V5 => "5",
            Self::V311 => "3.1.1",
        }
    }

    fn hint(word: &str) -> Option<String> {
        match word {
            "3.1" | "3" | "4" | "311" | "v3.1.1" => Some("write version = \"3.1.1\"".to_owned()),
            "5.0" | "v5" => Some("write version = \"5\"".to_owned()),
            _ => None,
        }
    }
}

impl Keywords for Via {
    const ALL: &'static [Self] = &[Self::Tunnel, Self::Direct];

    fn keyword(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Direct => "direct",
        }
    }
}

impl Keywords for TunnelSwitch {
    const ALL: &'static [Self] =
        &[Self(Some(TunnelMode::Userspace)), Self(Some(TunnelMode::Tun)), Self(None)];

    fn keyword(self) -> &'static str {
        match self.0 {
            Some(TunnelMode::Userspace) => "userspace",
            Some(TunnelMode::Tun) => "tun",
            None => "off",
        }
    }
}

impl Keywords for PayloadShape {
    const ALL: &'static [Self] = &[Self::Flat, Self::Nested, Self::Samples];

    fn keyword(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Nested => "nested",
            Self::Samples => "samples",
        }
    }
}

impl Keywords for DatetimeFormat {
    const ALL: &'static [Self] = &[Self::Rfc3339, Self::Plain, Self::UnixMs];

    fn keyword(self) -> &'static str {
        match self {
            Self::Rfc3339 => "rfc3339",
            Self::Plain => "plain",
            Self::UnixMs => "unix_ms",
        }
    }
}

impl Keywords for OnFull {
    const ALL: &'static [Self] = &[Self::DropOldest, Self::DropNewest];

    fn keyword(self) -> &'static str {
        match self {
            Self::DropOldest => "drop-oldest",
            Self::DropNewest => "drop-newest",
        }
    }
}

impl Keywords for Durability {
    const ALL: &'static [Self] = &[Self::Strict, Self::Balanced, Self::LowWear];

    fn keyword(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Balanced => "balanced",
            Self::LowWear => "low-wear",
        }
    }
}

impl Keywords for QueueOrder {
    const ALL: &'static [Self] = &[Self::LiveFirst, Self::Strict];

    fn keyword(self) -> &'static str {
        match self {
            Self::LiveFirst => "live-first",
            Self::Strict => "strict",
        }
    }
}

impl Keywords for CodePage {
    const ALL: &'static [Self] = &Self::ALL;

    fn keyword(self) -> &'static str {
        self.keyword()
    }

    fn hint(word: &str) -> Option<String> {
        match word.to_ascii_lowercase().as_str() {
            "latin1" | "iso-8859-1" | "ansi" | "ascii" => Some("write \"latin-1\"".to_owned()),
            "utf8" => Some("write \"utf-8\"".to_owned()),
            _ => None,
        }
    }
}

impl Keywords for ByteOrder {
    const ALL: &'static [Self] = &Self::ALL;

    fn keyword(self) -> &'static str {
        self.letters()
    }

    fn hint(_: &str) -> Option<String> {
        Some(
            "A is the most significant byte: a Modicon has \"CDAB\", most others \"ABCD\""
                .to_owned(),
        )
    }
}

impl Keywords for PlcModel {
    const ALL: &'static [Self] = &Self::ALL;

    fn keyword(self) -> &'static str {
        self.name()
    }

    fn hint(word: &str) -> Option<String> {
        let upper = word.to_ascii_uppercase();
        for model in [Self::M241, Self::M251, Self::M262, Self::M221] {
            if upper.contains(model.name()) {
                return Some(format!("write model = \"{model}\", the family"));
            }
        }
        Some(
            "write \"M221\", \"M241\", \"M251\" or \"M262\"; any other device with a Modbus TCP \
             server is \"generic\", and its addresses are holding:0 and so on"
                .to_owned(),
        )
    }
}
