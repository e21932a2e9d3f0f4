//! The kinds of values that a key can hold.

mod choice;
mod declared_type;
mod duration_size;
mod endpoint;
mod enumeration;
mod number;
mod secret;
mod text;
mod topic;
mod tunnel;

use figment::value::Value;
use schemars::Schema;
use toml::Spanned;
use toml::de::DeValue;

pub(super) use choice::{Choice, Keywords};
pub(super) use declared_type::DeclaredType;
pub(super) use duration_size::{BoundedDuration, BoundedSize};
pub(super) use enumeration::Enumeration;
pub(super) use number::{Boolean, DecimalNumber, Integer, JsonMembers};
pub(super) use secret::{PublicFile, SecretFile};
pub(super) use text::{AbsolutePath, GatewayId, NamedZone, PlainText, TextScalar, TopicLevel};
pub(super) use topic::{Placeholder, TopicTemplate};
pub(super) use tunnel::{EndpointText, HubKey, TunnelAddress, TunnelNetwork, TunnelSwitch};

/// A value that a key can hold.
pub(super) trait Scalar: Clone + Sized {
    /// Reads what was found.
    fn read(found: &RawValue<'_>) -> Result<Self, ValueError>;

    /// As it would be written in the file.
    fn to_toml(&self) -> String;

    /// Its JSON Schema, with the words for its kind as `x-type`.
    fn schema() -> Schema;
}

/// What stands at a key.
pub(super) struct RawValue<'a> {
    /// The key, for sentences.
    pub(super) key: &'a str,
    pub(super) value: &'a Value,
    /// As written in the file.
    pub(super) source_text: Option<&'a str>,
    /// Whether it comes from a variable, and so is text whatever it means.
    pub(super) is_from_environment: bool,
    /// Where its parts stand in the file.
    pub(super) spans: Option<&'a Spanned<DeValue<'a>>>,
}

/// Why a value cannot be taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ValueError {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl ValueError {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: Some(help.into()) }
    }
}

impl RawValue<'_> {
    /// The value as text, or a complaint that it must be `wanted`.
    fn as_text(&self, wanted: &str) -> Result<&str, ValueError> {
        self.value.as_str().ok_or_else(|| {
            let help = match self.source_text {
                Some(written) if !written.starts_with(['[', '{']) => {
                    format!("write {} = \"{written}\"", self.key)
                }
                _ => format!("write it between quotes: {} = \"...\"", self.key),
            };
            self.type_error(wanted, help)
        })
    }

    /// The text of a variable, whatever it means.
    fn variable_text(&self) -> Option<&str> {
        self.value.as_str().filter(|_| self.is_from_environment).map(str::trim)
    }

    /// The value as somebody wrote it.
    fn as_written(&self) -> &str {
        self.source_text.or_else(|| self.value.as_str()).unwrap_or_default()
    }

    fn type_error(&self, wanted: &str, help: impl Into<String>) -> ValueError {
        let found = match self.value {
            Value::String(_, text) => format!("the text \"{text}\""),
            Value::Char(_, c) => format!("the text \"{c}\""),
            Value::Bool(_, flag) => format!("{flag}"),
            Value::Num(..) => match self.source_text {
                Some(written) => format!("the number {written}"),
                None => "a number".to_owned(),
            },
            Value::Empty(..) => "nothing".to_owned(),
            Value::Dict(..) => "a section".to_owned(),
            Value::Array(..) => "a list".to_owned(),
        };
        ValueError::new(format!("`{}` must be {wanted}, and this is {found}", self.key), help)
    }
}

/// Text as it is written in TOML.
fn toml_quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
