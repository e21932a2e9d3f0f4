//! State that readers and checks share while a configuration is read: problems, notes, settings.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

use figment::value::Value;

use super::ServiceUser;
use super::layers::{ENV_PREFIX, Layers};
use super::redact::redacted;
use super::settings_hash::SettingsHash;
use super::suggest::{nearest, without_indices};
use super::toml_split::SplitDocument;
use crate::diagnostics::{EnvVariable, MAX_PROBLEMS, Problem, SourceSpan};

/// What a configuration is loaded for. It decides which of the files that it names are opened.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose<'a> {
    /// To run: every file is read.
    Run,
    /// To report problems: as to run, but a credential that only systemd can give is a note. With a
    /// user, that user has to be able to read the files too.
    Check(Option<&'a ServiceUser>),
    /// To know where the gateway is: no file is opened.
    Look,
}

/// State of reading one configuration.
pub(super) struct ReadContext<'a> {
    pub(super) purpose: Purpose<'a>,
    /// When the configuration is read, in seconds since 1970 by the clock of this machine.
    pub(super) now: i64,
    pub(super) layers: &'a Layers,
    /// Text of the file.
    pub(super) text: &'a str,
    /// PLCs of a file that could be split; the tables are those of the rest in that case.
    pub(super) split: Option<&'a SplitDocument<'a>>,
    /// Byte position of the part that is being read; spans in its tables are relative to it.
    pub(super) part_start: usize,
    pub(super) problems: Vec<Problem>,
    /// Valid settings that are probably a mistake.
    pub(super) notes: Vec<Problem>,
    /// Effective settings. Collected only on request: a thousand tags have eight thousand.
    pub(super) effective: Option<Vec<EffectiveSetting>>,
    pub(super) hash: SettingsHash,
    /// Keys that were suggested for an unknown key. That they are missing is not reported again.
    pub(super) suggested: BTreeSet<String>,
    /// The first key that lets the gateway write to a PLC: `write` or `acknowledge`.
    pub(super) first_write: Option<KeyLocation>,
}

/// A setting in effect.
#[derive(Clone, Debug)]
pub(super) struct EffectiveSetting {
    pub(super) key: KeyLocation,
    pub(super) value: String,
    /// Set by file or environment; otherwise the value is the default.
    pub(super) is_set: bool,
}

/// A key and the place where it was set.
#[derive(Clone, Debug)]
pub(super) struct KeyLocation {
    /// Path of the table: `plc[0].publish`; empty for the root.
    pub(super) table: Rc<str>,
    pub(super) name: Cow<'static, str>,
    /// Where the key was set; for a missing key, the section in which it belongs.
    pub(super) span: SourceSpan,
}

impl KeyLocation {
    /// Returns the header of the section: `[plc.publish]`, `[[plc.tag]]`.
    pub(super) fn section_header(&self) -> String {
        header_of(&self.table)
    }

    /// Returns the path of the key: `plc[0].publish.topic`.
    pub(super) fn path(&self) -> String {
        if self.table.is_empty() {
            return self.name.to_string();
        }
        format!("{}.{}", self.table, self.name)
    }

    /// Returns the environment variable that sets this key to `value`.
    pub(super) fn variable_span(&self, value: &Value) -> SourceSpan {
        let mut path = self.path();
        let mut value = value;
        // Several variables may form a section where a value or list is expected; the first one is
        // reported for all.
        while let Some((key, inner)) = value.as_dict().and_then(|dict| dict.first_key_value()) {
            path = format!("{path}.{key}");
            value = inner;
        }
        let name = format!("{ENV_PREFIX}{}", path.to_ascii_uppercase().replace('.', "__"));
        let line = redacted(&format!("{name}={}", value.as_str().unwrap_or_default()));
        SourceSpan::Environment(Box::new(EnvVariable { name, line }))
    }
}

impl ReadContext<'_> {
    /// Returns whether the number of problems has reached the limit at which reading stops.
    pub(super) const fn is_full(&self) -> bool {
        self.problems.len() >= MAX_PROBLEMS
    }

    /// Returns the place in the file of a span in the current part.
    pub(super) const fn file_span(&self, span: &Range<usize>) -> SourceSpan {
        SourceSpan::File(self.part_start + span.start..self.part_start + span.end)
    }

    /// Records a problem.
    pub(super) fn reject(
        &mut self,
        location: &KeyLocation,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        let problem = Problem::new(location.span.clone(), message, "");
        self.problems.push(Problem { path: location.path(), help, ..problem });
    }

    /// Records a note, with an optional second place that it refers to.
    pub(super) fn add_note(
        &mut self,
        location: &KeyLocation,
        message: String,
        help: String,
        other: Option<(&KeyLocation, String)>,
    ) {
        let related = other.and_then(|(other, label)| match &other.span {
            SourceSpan::File(span) => Some((span.clone(), label)),
            SourceSpan::WholeFile | SourceSpan::Environment(_) => None,
        });
        let note = Problem::new(location.span.clone(), message, help);
        self.notes.push(Problem { path: location.path(), related, ..note });
    }

    /// Records a problem at a key that repeats the value at `first`.
    pub(super) fn reject_duplicate(
        &mut self,
        location: &KeyLocation,
        first: &KeyLocation,
        message: String,
        help: &str,
    ) {
        self.reject(location, message, Some(help.to_owned()));
        if let (Some(problem), SourceSpan::File(span)) = (self.problems.last_mut(), &first.span) {
            problem.related = Some((span.clone(), "first used here".to_owned()));
        }
    }

    /// Records an unknown key.
    pub(super) fn reject_unknown(
        &mut self,
        location: &KeyLocation,
        value: &Value,
        keys: &[&'static str],
    ) {
        let near = nearest(&location.name, keys.iter().copied());
        if let Some(near) = near {
            self.suggested.insert(KeyLocation { name: near.into(), ..location.clone() }.path());
        }
        let help = match (location.name.as_ref(), near) {
            ("password" | "private_key" | "preshared_key", _)
                if keys.contains(&format!("{}_file", location.name).as_str()) =>
            {
                let name = &location.name;
                let noun = name.replace('_', " ");
                format!(
                    "put the {noun} into a file that only the gateway can read, and write \
                     {name}_file = \"/path/of/that/file\""
                )
            }
            (_, Some(near)) => format!("did you mean `{near}`?"),
            (_, None) => format!("the keys here are {}", keys.join(", ")),
        };
        let section = value.as_dict().is_some() || value.as_array().is_some();
        let message = match location.table.as_ref() {
            "" if section => format!("there is no section [{}]", location.name),
            "" => format!("the key `{}` belongs to no section", location.name),
            _ => format!("there is no key `{}` in {}", location.name, location.section_header()),
        };
        self.reject(location, message, Some(help));
    }

    /// Records that a key is missing.
    pub(super) fn reject_missing(&mut self, location: &KeyLocation, example: &str) {
        let section = location.section_header();
        let help = format!("add a line like {example} below {section}");
        self.reject(location, format!("`{}` is missing in {section}", location.name), Some(help));
    }

    /// Returns whether this key was suggested for an unknown key.
    pub(super) fn is_suggested(&self, location: &KeyLocation) -> bool {
        self.suggested.contains(&location.path())
    }

    /// Records an effective setting.
    pub(super) fn record(&mut self, location: &KeyLocation, value: String, is_set: bool) {
        self.hash.add(&location.table, &location.name, &value);
        if let Some(settings) = &mut self.effective {
            settings.push(EffectiveSetting { key: location.clone(), value, is_set });
        }
    }
}

/// Returns `[[plc.tag]]` for `plc[0].tag[3]`.
pub(super) fn header_of(path: &str) -> String {
    let plain = without_indices(path);
    if path.ends_with(']') { format!("[[{plain}]]") } else { format!("[{plain}]") }
}
