//! Keywords of the keys that accept one of a few.

use super::scalar::{Keywords, Lowerable, TunnelSwitch, VersionChoice};
use super::{DatetimeFormat, Durability, OnFull, PayloadShape, QueueOrder, Via};
use crate::plc::{ByteOrder, CodePage, PlcModel};

/// Implements [`Keywords`] for an enum by the keywords of its variants, and optionally a function
/// that returns a hint for other words. `by` takes the keywords from a method of the enum.
macro_rules! keywords {
    ($type:ident { $($variant:ident => $keyword:literal),+ } $(hint $hint:expr)?) => {
        impl Keywords for $type {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn keyword(self) -> &'static str {
                match self {
                    $(Self::$variant => $keyword,)+
                }
            }

            $(fn hint(word: &str) -> Option<String> {
                $hint(word)
            })?
        }
    };
    ($type:ident by $method:ident hint $hint:expr) => {
        impl Keywords for $type {
            const ALL: &'static [Self] = &Self::ALL;

            fn keyword(self) -> &'static str {
                self.$method()
            }

            fn hint(word: &str) -> Option<String> {
                $hint(word)
            }
        }
    };
}

keywords!(VersionChoice { Auto => "auto", V5 => "5", V311 => "3.1.1" } hint version_hint);
keywords!(Lowerable { Qos => "qos", Retain => "retain" });
keywords!(Via { Tunnel => "tunnel", Direct => "direct" });
keywords!(TunnelSwitch { Userspace => "userspace", Tun => "tun", Off => "off" });
keywords!(PayloadShape { Flat => "flat", Nested => "nested", Samples => "samples" });
keywords!(DatetimeFormat { Rfc3339 => "rfc3339", Plain => "plain", UnixMs => "unix_ms" });
keywords!(OnFull { DropOldest => "drop-oldest", DropNewest => "drop-newest" });
keywords!(Durability { Strict => "strict", Balanced => "balanced", LowWear => "low-wear" });
keywords!(QueueOrder { LiveFirst => "live-first", Strict => "strict" });
keywords!(CodePage by keyword hint encoding_hint);
keywords!(ByteOrder by letters hint order_hint);
keywords!(PlcModel by name hint model_hint);

fn version_hint(word: &str) -> Option<String> {
    match word {
        "3.1" | "3" | "4" | "311" | "v3.1.1" => Some("write version = \"3.1.1\"".to_owned()),
        "5.0" | "v5" => Some("write version = \"5\"".to_owned()),
        _ => None,
    }
}

fn encoding_hint(word: &str) -> Option<String> {
    match word.to_ascii_lowercase().as_str() {
        "latin1" | "iso-8859-1" | "ansi" | "ascii" => Some("write \"latin-1\"".to_owned()),
        "utf8" => Some("write \"utf-8\"".to_owned()),
        _ => None,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "hints of other keys may be absent")]
fn order_hint(_: &str) -> Option<String> {
    let hint = "A is the most significant byte: a Modicon has \"CDAB\", most others \"ABCD\"";
    Some(hint.to_owned())
}

fn model_hint(word: &str) -> Option<String> {
    if let Some(model) = PlcModel::named_in(word) {
        return Some(format!("write model = \"{model}\", the family"));
    }
    Some(
        "write \"M221\", \"M241\", \"M251\" or \"M262\"; any other device with a Modbus TCP \
         server is \"generic\", with addresses such as holding:0"
            .to_owned(),
    )
}
