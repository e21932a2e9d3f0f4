//! A sentence for a person as data: its text, and the code and arguments that made it.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A sentence of the status: English text, together with the code and the named arguments from
/// which a program can make the same sentence in another language.
///
/// Each module that has something to say has an enum with one variant per sentence; its `Display`
/// is the only place that renders the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Sentence {
    /// The text in English: what is wrong, where, and what to do.
    pub text: String,
    /// What the text was rendered from.
    pub detail: Detail,
}

/// The code of a sentence and its named arguments.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Detail {
    /// Name of the sentence, in lower snake case; unique within the field that carries it.
    pub code: String,
    /// The arguments of the text, by name; absent where the text has none.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub arguments: Map<String, Value>,
}

impl Sentence {
    /// Renders a variant of an enum of sentences.
    ///
    /// The enum serialises adjacently tagged: `#[serde(tag = "code", content = "arguments",
    /// rename_all = "snake_case")]`, with struct variants only. A variant of another form gets the
    /// code `unknown` and no arguments; its text is kept.
    #[must_use]
    pub fn new<S: Serialize + fmt::Display>(sentence: &S) -> Self {
        let detail = serde_json::to_value(sentence).ok();
        let detail = detail.and_then(|detail| Detail::deserialize(detail).ok());
        Self { text: sentence.to_string(), detail: detail.unwrap_or_else(Detail::unknown) }
    }
}

/// Returns an error with its causes, nearest first.
#[must_use]
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

impl Detail {
    fn unknown() -> Self {
        Self { code: "unknown".to_owned(), arguments: Map::new() }
    }
}

impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Serialize)]
    #[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
    enum Weather {
        Calm,
        StrongWind { knots: u8 },
    }

    impl fmt::Display for Weather {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self {
                Self::Calm => write!(f, "There is no wind."),
                Self::StrongWind { knots } => write!(f, "The wind blows at {knots} knots."),
            }
        }
    }

    #[test]
    fn a_sentence_carries_its_code_and_its_arguments() {
        let sentence = Sentence::new(&Weather::StrongWind { knots: 30 });

        assert_eq!(sentence.text, "The wind blows at 30 knots.");
        assert_eq!(
            serde_json::to_value(&sentence.detail).unwrap(),
            json!({"code": "strong_wind", "arguments": {"knots": 30}})
        );
    }

    #[test]
    fn a_sentence_without_arguments_has_only_a_code() {
        let sentence = Sentence::new(&Weather::Calm);

        assert_eq!(serde_json::to_value(&sentence.detail).unwrap(), json!({"code": "calm"}));
    }
}
