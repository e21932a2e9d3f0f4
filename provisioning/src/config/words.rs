//! The words of the keys that take one of a few.

use super::leaf::Words;
use super::{Datetime, OnFull, Shape, Version};
use crate::plc::{IecType, Model, Order};

impl Words for Version {
    const ALL: &'static [Self] = &[Self::V5, Self::V311];

    fn word(self) -> &'static str {
        match self {
            Self::V5 => "5",
            Self::V311 => "3.1.1",
        }
    }

    fn advice(word: &str) -> Option<String> {
        match word {
            "3.1" | "3" | "4" | "311" | "v3.1.1" => Some("write version = \"3.1.1\"".to_owned()),
            "5.0" | "v5" => Some("write version = \"5\"".to_owned()),
            _ => None,
        }
    }
}

impl Words for Shape {
    const ALL: &'static [Self] = &[Self::Flat, Self::Nested, Self::Samples];

    fn word(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Nested => "nested",
            Self::Samples => "samples",
        }
    }
}

impl Words for Datetime {
    const ALL: &'static [Self] = &[Self::Rfc3339, Self::Plain, Self::UnixMs];

    fn word(self) -> &'static str {
        match self {
            Self::Rfc3339 => "rfc3339",
            Self::Plain => "plain",
            Self::UnixMs => "unix_ms",
        }
    }
}

impl Words for OnFull {
    const ALL: &'static [Self] = &[Self::DropOldest, Self::DropNewest];

    fn word(self) -> &'static str {
        match self {
            Self::DropOldest => "drop-oldest",
            Self::DropNewest => "drop-newest",
        }
    }
}

impl Words for Order {
    const ALL: &'static [Self] = &Self::ALL;

    fn word(self) -> &'static str {
        self.letters()
    }

    fn advice(_: &str) -> Option<String> {
        Some(
            "A is the most significant byte: a Modicon has \"CDAB\", most others \"ABCD\""
                .to_owned(),
        )
    }
}

impl Words for Model {
    const ALL: &'static [Self] = &Self::ALL;

    fn word(self) -> &'static str {
        self.name()
    }

    fn advice(word: &str) -> Option<String> {
        let upper = word.to_ascii_uppercase();
        for model in [Self::M241, Self::M251] {
            if upper.contains(model.name()) {
                return Some(format!("write model = \"{model}\", the family"));
            }
        }
        Some(
            "write \"M241\" or \"M251\"; any other device with a Modbus TCP server is \"generic\", \
             and its addresses are holding:0 and so on"
                .to_owned(),
        )
    }
}

impl Words for IecType {
    const ALL: &'static [Self] = &Self::ALL;

    fn word(self) -> &'static str {
        self.keyword()
    }

    fn advice(word: &str) -> Option<String> {
        let upper = word.to_ascii_uppercase();
        let plain = upper.split(['(', '[', ' ']).next().unwrap_or_default();
        let meant = match plain {
            "FLOAT" | "FLOAT32" | "SINGLE" => Self::Real,
            "DOUBLE" | "FLOAT64" => Self::Lreal,
            "BIT" | "BOOLEAN" => Self::Bool,
            "UINT8" => Self::Usint,
            "INT8" => Self::Sint,
            "UINT16" => Self::Uint,
            "INT16" | "INTEGER" | "SHORT" => Self::Int,
            "UINT32" => Self::Udint,
            "INT32" => Self::Dint,
            "UINT64" => Self::Ulint,
            "INT64" | "LONG" => Self::Lint,
            "STRING" | "WSTRING" | "ARRAY" | "DATE" | "LDATE" | "DT" | "LDT" | "DATE_AND_TIME"
            | "TOD" | "LTOD" | "TIME_OF_DAY" | "LTIME" => {
                return Some(format!(
                    "this version cannot read {plain} yet; it reads BOOL, whole numbers, bit \
                     strings, REAL, LREAL and TIME"
                ));
            }
            _ => return None,
        };
        Some(format!("write type = \"{meant}\", its name in Machine Expert"))
    }
}
