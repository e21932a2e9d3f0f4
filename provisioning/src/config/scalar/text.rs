//! Text values: names, time zones, paths.

use std::path::PathBuf;

use jiff::tz::TimeZone;
use schemars::{Schema, json_schema};

use super::{RawValue, Scalar, ValueError, toml_quoted};
use crate::config::suggest::nearest;

/// A value that is written as text.
pub(in crate::config) trait TextScalar: Clone + Sized {
    /// Type of the value in the reference.
    const KIND: &'static str;

    /// Parses the text; `key` is named in error texts.
    fn parse(key: &str, text: &str) -> Result<Self, ValueError>;

    /// Returns the value as text.
    fn to_text(&self) -> String;
}

impl<T: TextScalar> Scalar for T {
    fn read(raw: &RawValue<'_>) -> Result<Self, ValueError> {
        T::parse(raw.key, raw.as_text("text")?)
    }

    fn to_toml(&self) -> String {
        toml_quoted(&self.to_text())
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "x-type": T::KIND })
    }
}

/// Text without control characters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct PlainText(pub(in crate::config) String);

/// `[a-z0-9-]{1,63}`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct GatewayId(pub(in crate::config) String);

/// Name that can be one level of an MQTT topic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct TopicLevel(pub(in crate::config) String);

/// A time zone with its name.
#[derive(Clone, Debug)]
pub(in crate::config) struct NamedZone(pub(in crate::config) TimeZone, String);

/// Absolute path of the directory for state, at most [`MAX_STATE_DIR_BYTES`] long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct StateDir(pub(in crate::config) PathBuf);

impl TextScalar for PlainText {
    const KIND: &'static str = "text";

    fn parse(key: &str, text: &str) -> Result<Self, ValueError> {
        if let Some(c) = text.chars().find(|c| is_invisible(*c)) {
            return Err(ValueError::new(
                format!("`{key}` contains {c:?}, a line break or another control character"),
                "write plain text on one line, without invisible characters",
            ));
        }
        if text.chars().count() > MAX_TEXT_CHARS {
            return Err(ValueError::new(
                format!("`{key}` is too long"),
                format!("write at most {MAX_TEXT_CHARS} characters"),
            ));
        }
        Ok(Self(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

impl TextScalar for GatewayId {
    const KIND: &'static str = "text of a-z, 0-9 and -, at most 63";

    fn parse(key: &str, text: &str) -> Result<Self, ValueError> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if (1..=63).contains(&text.len()) && text.chars().all(fits) {
            return Ok(Self(text.to_owned()));
        }
        let tidy: String =
            text.to_lowercase().chars().map(|c| if fits(c) { c } else { '-' }).take(63).collect();
        let help = match tidy.trim_matches('-') {
            "" => format!("write something like {key} = \"amsterdam-01\""),
            tidy => format!("write something like {key} = \"{tidy}\""),
        };
        Err(ValueError::new(
            format!("`{key}` must be 1 to 63 lower-case letters a-z, digits and -"),
            help,
        ))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

impl TextScalar for TopicLevel {
    const KIND: &'static str = "text without / + #, at most 64";

    fn parse(key: &str, text: &str) -> Result<Self, ValueError> {
        let refuse =
            |reason: &str, help: String| Err(ValueError::new(format!("`{key}` {reason}"), help));
        if text.is_empty() {
            return refuse("is empty", format!("write something like {key} = \"pump6\""));
        }
        if text.chars().count() > MAX_NAME_CHARS {
            return refuse(
                "is too long",
                format!("a name has at most {MAX_NAME_CHARS} characters"),
            );
        }
        if text.trim() != text || text.starts_with('$') {
            let tidy = text.trim_start_matches('$').trim();
            let help = format!("write {key} = \"{tidy}\"");
            return refuse("begins with $, or begins or ends with a space", help);
        }
        match text.chars().find(|c| matches!(c, '/' | '+' | '#') || is_invisible(*c)) {
            Some(c) => {
                let tidy =
                    text.replace(|c: char| matches!(c, '/' | '+' | '#') || is_invisible(c), "-");
                let why = if is_invisible(c) {
                    "is invisible"
                } else {
                    "has a special meaning in MQTT topics"
                };
                let reason = format!("contains {c:?}, which {why}");
                refuse(&reason, format!("write something like {key} = \"{tidy}\""))
            }
            None => Ok(Self(text.to_owned())),
        }
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

const MAX_NAME_CHARS: usize = 64;

/// Maximum length of `state_dir`. `sun_path` in unix(7) has 108 bytes, of which one ends the path,
/// and the status socket is `state_dir/status.sock`.
const MAX_STATE_DIR_BYTES: usize = 107 - "/status.sock".len();

/// Maximum length of a text.
const MAX_TEXT_CHARS: usize = 1_024;

/// Returns whether a character is invisible, or changes how others are shown: a control character,
/// a line separator, a mark of the writing direction (Unicode Standard Annex 9), or of no width.
/// Two names that differ only in these look the same in a log.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

impl NamedZone {
    /// Wraps a time zone that has been read before.
    pub(in crate::config) fn from_zone(zone: &TimeZone) -> Self {
        Self(zone.clone(), zone.iana_name().unwrap_or("UTC").to_owned())
    }
}

impl TextScalar for NamedZone {
    const KIND: &'static str = "time zone";

    fn parse(key: &str, text: &str) -> Result<Self, ValueError> {
        if text == "UTC" {
            return Ok(Self(TimeZone::UTC, text.to_owned()));
        }
        TimeZone::get(text).map(|zone| Self(zone, text.to_owned())).map_err(|_| {
            let database = jiff::tz::db();
            let known: Vec<String> = database.available().map(|name| name.to_string()).collect();
            let ending = known.iter().map(String::as_str).find(|name| {
                let city = name.rsplit('/').next().unwrap_or_default();
                !text.is_empty() && city.eq_ignore_ascii_case(text)
            });
            let near = ending.or_else(|| nearest(text, known.iter().map(String::as_str)));
            let help = match near {
                Some(near) => format!("did you mean {key} = \"{near}\"?"),
                None if known.is_empty() => {
                    "install the package tzdata, or write \"UTC\"".to_owned()
                }
                None => "write a zone such as \"Europe/Amsterdam\", or \"UTC\"".to_owned(),
            };
            ValueError::new(format!("`{key}` is \"{text}\", which is not a time zone"), help)
        })
    }

    fn to_text(&self) -> String {
        self.1.clone()
    }
}

impl TextScalar for StateDir {
    const KIND: &'static str = "absolute path";

    fn parse(key: &str, text: &str) -> Result<Self, ValueError> {
        let path = PathBuf::from(text);
        if !path.is_absolute() {
            return Err(ValueError::new(
                format!("`{key}` must be an absolute path, and this is \"{text}\""),
                format!("write something like {key} = \"/var/lib/edge-gateway\""),
            ));
        }
        if text.len() > MAX_STATE_DIR_BYTES {
            return Err(ValueError::new(
                format!(
                    "`{key}` has {} bytes, and the path of the status socket in it has to fit \
                     into 107",
                    text.len()
                ),
                format!("write a path of at most {MAX_STATE_DIR_BYTES} bytes"),
            ));
        }
        Ok(Self(path))
    }

    fn to_text(&self) -> String {
        self.0.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_dir_leaves_room_for_the_path_of_its_socket() {
        let of_length = |length: usize| format!("/{}", "a".repeat(length - 1));
        let longest = StateDir::parse("state_dir", &of_length(95)).unwrap();
        assert_eq!(longest.0.join("status.sock").as_os_str().len(), 107);
        let error = StateDir::parse("state_dir", &of_length(96)).unwrap_err();
        assert!(error.message.contains("has 96 bytes"), "{}", error.message);
        // Bytes count, not letters.
        assert!(StateDir::parse("state_dir", &format!("/{}", "é".repeat(48))).is_err());
    }
}
