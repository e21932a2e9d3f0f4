//! Scalar types: the values that a key can hold.

mod bundle_url;
mod choice;
mod declared_type;
mod duration_size;
mod endpoint;
mod enumeration;
mod mqtt;
mod number;
mod number_range;
mod secret;
mod text;
mod topic;
mod tunnel;
mod write;

use figment::value::Value;
use schemars::Schema;
use toml::Spanned;
use toml::de::DeValue;

pub(super) use bundle_url::BundleUrlText;
pub(super) use choice::{Choice, Keywords};
pub(super) use declared_type::DeclaredType;
pub(super) use duration_size::{BoundedDuration, BoundedSize};
pub(super) use enumeration::Enumeration;
pub(super) use mqtt::{AlpnName, Lowerable, VersionChoice};
pub(super) use number::{Boolean, DecimalNumber, Integer, JsonMembers};
pub(super) use number_range::{NumberList, NumberRange};
pub(super) use secret::{PublicFile, SecretFile};
pub(super) use text::{GatewayId, NamedZone, PlainText, StateDir, TextScalar, TopicLevel};
pub(super) use topic::{Placeholder, TopicTemplate};
pub(super) use tunnel::{EndpointText, HubKey, TunnelAddress, TunnelNetwork, TunnelSwitch};
pub(super) use write::{ProgramText, WriteTable};

/// A value that a key can hold.
pub(super) trait Scalar: Clone + Sized {
    /// Reads the value.
    fn read(raw: &RawValue<'_>) -> Result<Self, ValueError>;

    /// Returns the value as written in TOML.
    fn to_toml(&self) -> String;

    /// Returns the JSON Schema, with the type in words as `x-type`.
    fn schema() -> Schema;
}

/// The unread value of a key, with everything that error texts need.
pub(super) struct RawValue<'a> {
    /// Name of the key.
    pub(super) key: &'a str,
    pub(super) value: &'a Value,
    /// Text of the value in the file.
    pub(super) source_text: Option<&'a str>,
    /// Set by an environment variable, so that the value is always text.
    pub(super) is_from_environment: bool,
    /// Spans of the parts of the value in the file.
    pub(super) spans: Option<&'a Spanned<DeValue<'a>>>,
}

/// Why a value is invalid, and what to write instead.
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
    /// Returns the value as text, or an error that it must be `wanted`.
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

    /// Returns the text of an environment variable, or `None` for a value of the file.
    fn variable_text(&self) -> Option<&str> {
        self.value.as_str().filter(|_| self.is_from_environment).map(str::trim)
    }

    /// Returns the value as written by the user.
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

/// Returns text as a TOML string.
fn toml_quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
