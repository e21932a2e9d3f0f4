//! The kinds of values that a key can hold.

mod amount;
mod choice;
mod declared;
mod endpoint;
mod names;
mod number;
mod secret;
mod text;
mod topic;
mod tunnel;

use figment::value::Value;
use schemars::Schema;
use toml::Spanned;
use toml::de::DeValue;

pub(super) use amount::{Period, Size};
pub(super) use choice::{Choice, Words};
pub(super) use declared::Declared;
pub(super) use names::Enumeration;
pub(super) use number::{Decimal, Flag, Members, Whole};
pub(super) use secret::{PublicFile, SecretFile};
pub(super) use text::{Directory, GatewayId, Name, Text, TextLeaf, Zone};
pub(super) use topic::{Placeholder, Topic};
pub(super) use tunnel::{Address, HubEndpoint, Mode, Network, PeerKey};

/// A value that a key can hold.
pub(super) trait Leaf: Clone + Sized {
    /// Reads what was found.
    fn read(found: &Found<'_>) -> Result<Self, Wrong>;

    /// As it would be written in the file.
    fn show(&self) -> String;

    /// Its JSON Schema, with the words for its kind as `x-type`.
    fn schema() -> Schema;
}

/// What stands at a key.
pub(super) struct Found<'a> {
    /// The key, for sentences.
    pub(super) key: &'a str,
    pub(super) value: &'a Value,
    /// As written in the file.
    pub(super) written: Option<&'a str>,
    /// Whether it comes from a variable, and so is text whatever it means.
    pub(super) environment: bool,
    /// Where its parts stand in the file.
    pub(super) spans: Option<&'a Spanned<DeValue<'a>>>,
}

/// Why a value cannot be taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: Some(help.into()) }
    }
}

impl Found<'_> {
    /// The value as text, or a complaint that it must be `wanted`.
    fn text(&self, wanted: &str) -> Result<&str, Wrong> {
        self.value.as_str().ok_or_else(|| {
            let help = match self.written {
                Some(written) if !written.starts_with(['[', '{']) => {
                    format!("write {} = \"{written}\"", self.key)
                }
                _ => format!("write it between quotes: {} = \"...\"", self.key),
            };
            self.unexpected(wanted, help)
        })
    }

    /// The text of a variable, whatever it means.
    fn variable(&self) -> Option<&str> {
        self.value.as_str().filter(|_| self.environment).map(str::trim)
    }

    /// The value as somebody wrote it.
    fn shown(&self) -> &str {
        self.written.or_else(|| self.value.as_str()).unwrap_or_default()
    }

    fn unexpected(&self, wanted: &str, help: impl Into<String>) -> Wrong {
        let found = match self.value {
            Value::String(_, text) => format!("the text \"{text}\""),
            Value::Char(_, c) => format!("the text \"{c}\""),
            Value::Bool(_, flag) => format!("{flag}"),
            Value::Num(..) => match self.written {
                Some(written) => format!("the number {written}"),
                None => "a number".to_owned(),
            },
            Value::Empty(..) => "nothing".to_owned(),
            Value::Dict(..) => "a section".to_owned(),
            Value::Array(..) => "a list".to_owned(),
        };
        Wrong::new(format!("`{}` must be {wanted}, and this is {found}", self.key), help)
    }
}

/// Text as it is written in TOML.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
