//! One of a few words.

use schemars::{Schema, json_schema};

use super::{Found, Leaf, Wrong, quoted};
use crate::config::near::nearest;

/// One of the words of `T`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::config) struct Choice<T>(pub(in crate::config) T);

/// What can be chosen.
pub(in crate::config) trait Words: Copy + 'static {
    /// All of them.
    const ALL: &'static [Self];

    /// The word for one.
    fn word(self) -> &'static str;

    /// What to write for a word that is none of them, where more can be said than "did you mean".
    fn advice(_word: &str) -> Option<String> {
        None
    }
}

impl<T: Words> Leaf for Choice<T> {
    fn read(found: &Found<'_>) -> Result<Self, Wrong> {
        let text = found.value.as_str().map(str::trim);
        let chosen =
            text.and_then(|text| T::ALL.iter().find(|one| one.word().eq_ignore_ascii_case(text)));
        chosen.map(|chosen| Self(*chosen)).ok_or_else(|| refusal::<T>(found))
    }

    fn show(&self) -> String {
        quoted(self.0.word())
    }

    fn schema() -> Schema {
        let words: Vec<_> = T::ALL.iter().map(|one| one.word()).collect();
        json_schema!({ "type": "string", "enum": words, "x-type": all::<T>() })
    }
}

fn refusal<T: Words>(found: &Found<'_>) -> Wrong {
    let all = all::<T>();
    let text = match found.text(&format!("one of {all}")) {
        Ok(text) => text,
        Err(wrong) => return wrong,
    };
    let key = found.key;
    let near = nearest(text, T::ALL.iter().map(|one| one.word()));
    let help = match near {
        Some(near) => format!("did you mean {key} = \"{near}\"?"),
        None => T::advice(text).unwrap_or_else(|| format!("write one of {all}")),
    };
    Wrong::new(format!("`{key}` cannot be \"{text}\""), help)
}

fn all<T: Words>() -> String {
    T::ALL.iter().map(|one| quoted(one.word())).collect::<Vec<_>>().join(", ")
}
