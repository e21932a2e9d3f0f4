//! Keys whose value is one of a few keywords.

use schemars::{Schema, json_schema};

use super::{RawValue, Scalar, ValueError, toml_quoted};
use crate::config::suggest::nearest;

/// One of the keywords of `T`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) struct Choice<T>(pub(in crate::config) T);

/// A set of values, each with a keyword.
pub(in crate::config) trait Keywords: Copy + 'static {
    /// All values.
    const ALL: &'static [Self];

    /// Returns the keyword of a value.
    fn keyword(self) -> &'static str;

    /// Returns what to write for another word, if more helpful than the list of keywords.
    fn hint(_word: &str) -> Option<String> {
        None
    }
}

impl<T: Keywords> Scalar for Choice<T> {
    fn read(raw: &RawValue<'_>) -> Result<Self, ValueError> {
        let text = raw.value.as_str().map(str::trim);
        let chosen = text.and_then(|text| {
            T::ALL.iter().find(|value| value.keyword().eq_ignore_ascii_case(text))
        });
        chosen.map(|chosen| Self(*chosen)).ok_or_else(|| not_a_keyword::<T>(raw))
    }

    fn to_toml(&self) -> String {
        toml_quoted(self.0.keyword())
    }

    fn schema() -> Schema {
        let words: Vec<_> = T::ALL.iter().map(|value| value.keyword()).collect();
        json_schema!({ "type": "string", "enum": words, "x-type": keyword_list::<T>() })
    }
}

fn not_a_keyword<T: Keywords>(raw: &RawValue<'_>) -> ValueError {
    let all = keyword_list::<T>();
    let text = match raw.as_text(&format!("one of {all}")) {
        Ok(text) => text,
        Err(error) => return error,
    };
    let key = raw.key;
    let near = nearest(text, T::ALL.iter().map(|value| value.keyword()));
    let help = match near {
        Some(near) => format!("did you mean {key} = \"{near}\"?"),
        None => T::hint(text).unwrap_or_else(|| format!("write one of {all}")),
    };
    ValueError::new(format!("`{key}` cannot be \"{text}\""), help)
}

fn keyword_list<T: Keywords>() -> String {
    T::ALL.iter().map(|value| toml_quoted(value.keyword())).collect::<Vec<_>>().join(", ")
}
