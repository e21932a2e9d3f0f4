//! A configuration in the making: the problems so far, and the settings that hold.

use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;

use figment::value::Value;

use super::diagnostics::{EnvVariable, Problem, SourceSpan};
use super::field::{Field, FieldState, ListField};
use super::layers::{ENV_PREFIX, Layers};
use super::scalar::Scalar;
use super::settings_hash::SettingsHash;
use super::suggest::{nearest, not_supported_yet, without_indices};
use super::toml_split::SplitDocument;

/// What all readers and checks share.
pub(super) struct ReadContext<'a> {
    pub(super) layers: &'a Layers,
    /// The file.
    pub(super) text: &'a str,
    /// Its PLCs, where it can be cut: the tables are those of the rest then.
    pub(super) split: Option<&'a SplitDocument<'a>>,
    /// Where in it the piece begins that is being read: places in its tables count from there.
    pub(super) piece_start: usize,
    pub(super) problems: Vec<Problem>,
    /// What holds and is probably not meant.
    pub(super) notes: Vec<Problem>,
    /// Absent when nobody asks: a thousand tags have eight thousand settings.
    pub(super) effective: Option<Vec<EffectiveSetting>>,
    pub(super) hash: SettingsHash,
    /// Keys that an unknown key was probably meant to be: that they are missing goes without
    /// saying.
    pub(super) suggested: Vec<String>,
}

/// A setting that holds.
#[derive(Clone, Debug)]
pub(super) struct EffectiveSetting {
    pub(super) key: KeyLocation,
    pub(super) value: String,
    /// Whether somebody set it.
    pub(super) is_set: bool,
}

/// A key and where it was set.
#[derive(Clone, Debug)]
pub(super) struct KeyLocation {
    /// The table: `plc[0].publish`; empty for the root.
    pub(super) table: Rc<str>,
    pub(super) name: Cow<'static, str>,
    /// Where it was set, or where it would have to be.
    pub(super) span: SourceSpan,
}

impl KeyLocation {
    /// The header of the section: `[plc.publish]`, `[[plc.tag]]`.
    pub(super) fn section_header(&self) -> String {
        header_of(&self.table)
    }

    /// `plc[0].publish.topic`.
    pub(super) fn path(&self) -> String {
        if self.table.is_empty() {
            return self.name.to_string();
        }
        format!("{}.{}", self.table, self.name)
    }

    /// The variable that sets this key to `value`.
    pub(super) fn variable_span(&self, value: &Value) -> SourceSpan {
        let mut path = self.path();
        let mut value = value;
        // A whole section of variables where a value or a list should be: the first one stands
        // for all.
        while let Some((key, inner)) = value.as_dict().and_then(|dict| dict.first_key_value()) {
            path = format!("{path}.{key}");
            value = inner;
        }
        let name = format!("{ENV_PREFIX}{}", path.to_ascii_uppercase().replace('.', "__"));
        SourceSpan::Environment(Box::new(EnvVariable::new(
            name,
            value.as_str().unwrap_or_default(),
        )))
    }
}

impl ReadContext<'_> {
    /// The place of what stands there in the piece at hand.
    pub(super) const fn file_span(&self, span: &Range<usize>) -> SourceSpan {
        SourceSpan::File(self.piece_start + span.start..self.piece_start + span.end)
    }

    /// Notes a problem.
    pub(super) fn reject(
        &mut self,
        at: &KeyLocation,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.problems.push(Problem {
            path: at.path(),
            message: message.into(),
            help,
            span: at.span.clone(),
            related: None,
        });
    }

    /// Tells of what holds and is probably not meant, with a second place that has to do with it.
    pub(super) fn add_note(
        &mut self,
        at: &KeyLocation,
        message: String,
        help: String,
        other: Option<(&KeyLocation, String)>,
    ) {
        let also = other.and_then(|(other, words)| match &other.span {
            SourceSpan::File(span) => Some((span.clone(), words)),
            SourceSpan::WholeFile | SourceSpan::Environment(_) => None,
        });
        let (path, place) = (at.path(), at.span.clone());
        self.notes.push(Problem { path, message, help: Some(help), span: place, related: also });
    }

    /// Notes that `at` repeats what stands at `first`.
    pub(super) fn reject_duplicate(
        &mut self,
        at: &KeyLocation,
        first: &KeyLocation,
        message: String,
        help: &str,
    ) {
        self.reject(at, message, Some(help.to_owned()));
        if let (Some(problem), SourceSpan::File(span)) = (self.problems.last_mut(), &first.span) {
            problem.related = Some((span.clone(), "first used here".to_owned()));
        }
    }

    /// Notes a key that does not exist.
    pub(super) fn reject_unknown(
        &mut self,
        at: &KeyLocation,
        value: &Value,
        keys: &[&'static str],
    ) {
        if let Some(sentence) = not_supported_yet(&at.path()) {
            self.reject(at, sentence, Some(format!("leave `{}` out", at.name)));
            return;
        }
        let near = nearest(&at.name, keys.iter().copied());
        if let Some(near) = near {
            self.suggested.push(KeyLocation { name: near.into(), ..at.clone() }.path());
        }
        let help = match (at.name.as_ref(), near) {
            ("password" | "private_key" | "preshared_key", _)
                if keys.contains(&format!("{}_file", at.name).as_str()) =>
            {
                let key = &at.name;
                let noun = key.replace('_', " ");
                format!(
                    "put the {noun} into a file that only the gateway can read, and write \
                     {key}_file = \"/path/of/that/file\""
                )
            }
            (_, Some(near)) => format!("did you mean `{near}`?"),
            (_, None) => format!("the keys here are {}", keys.join(", ")),
        };
        let section = value.as_dict().is_some() || value.as_array().is_some();
        let message = match at.table.as_ref() {
            "" if section => format!("there is no section [{}]", at.name),
            "" => format!("the key `{}` belongs to no section", at.name),
            _ => format!("there is no key `{}` in {}", at.name, at.section_header()),
        };
        self.reject(at, message, Some(help));
    }

    /// The value of a key that must be there; `example` is a whole line.
    pub(super) fn required<T: Scalar>(&mut self, field: &Field<T>, example: &str) -> Option<T> {
        if let FieldState::Absent = field.state
            && !self.suggested.contains(&field.key.path())
        {
            self.reject_missing(&field.key, example);
        }
        self.optional(field)
    }

    /// Notes that a key is missing.
    pub(super) fn reject_missing(&mut self, at: &KeyLocation, example: &str) {
        let section = at.section_header();
        let help = format!("add a line like {example} below {section}");
        self.reject(at, format!("`{}` is missing in {section}", at.name), Some(help));
    }

    /// The value of a key that may be left out, or has a default.
    pub(super) fn optional<T: Scalar>(&mut self, field: &Field<T>) -> Option<T> {
        let FieldState::Valid(value, set) = &field.state else { return None };
        self.record(&field.key, value.to_toml(), *set);
        Some(value.clone())
    }

    /// The value of a key whose default follows from others.
    pub(super) fn derived<T: Scalar>(
        &mut self,
        field: &Field<T>,
        default: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        if let FieldState::Absent = field.state {
            let value = default()?;
            self.record(&field.key, value.to_toml(), false);
            return Some(value);
        }
        self.optional(field)
    }

    /// The values of a list, each with its place; absent when one of them is wrong.
    pub(super) fn list<T: Scalar>(
        &mut self,
        items: &ListField<T>,
    ) -> Option<Vec<(KeyLocation, T)>> {
        let fields = items.items.as_ref()?;
        let values: Option<Vec<_>> = fields
            .iter()
            .map(|field| match &field.state {
                FieldState::Valid(value, _) => Some((field.key.clone(), value.clone())),
                FieldState::Absent | FieldState::Invalid => None,
            })
            .collect();
        let values = values?;
        let shown = values.iter().map(|(_, value)| value.to_toml()).collect::<Vec<_>>().join(", ");
        let set = fields.iter().any(|field| matches!(field.state, FieldState::Valid(_, true)));
        self.record(&items.key, format!("[{shown}]"), set);
        Some(values)
    }

    /// Notes a default that follows from others and is no single value.
    pub(super) fn record_default(&mut self, at: &KeyLocation, value: String) {
        self.record(at, value, false);
    }

    fn record(&mut self, at: &KeyLocation, value: String, set: bool) {
        self.hash.add(&at.table, &at.name, &value);
        if let Some(settings) = &mut self.effective {
            settings.push(EffectiveSetting { key: at.clone(), value, is_set: set });
        }
    }
}

/// `[[plc.tag]]` for `plc[0].tag[3]`.
pub(super) fn header_of(path: &str) -> String {
    let plain = without_indices(path);
    if path.ends_with(']') { format!("[[{plain}]]") } else { format!("[{plain}]") }
}
