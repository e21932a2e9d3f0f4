//! A configuration in the making: the problems so far, and the settings that hold.

use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;

use figment::value::Value;

use super::document::Pieces;
use super::hash::Hash;
use super::layers::{Layers, PREFIX};
use super::leaf::Leaf;
use super::member::{Field, Items, State};
use super::near::{nearest, not_yet, without_indices};
use super::problem::{Place, Problem, Variable};

/// What all readers and checks share.
pub(super) struct Draft<'a> {
    pub(super) layers: &'a Layers,
    /// The file.
    pub(super) text: &'a str,
    /// Its PLCs, where it can be cut: the tables are those of the rest then.
    pub(super) pieces: Option<&'a Pieces<'a>>,
    /// Where in it the piece begins that is being read: places in its tables count from there.
    pub(super) piece: usize,
    pub(super) problems: Vec<Problem>,
    /// What holds and is probably not meant.
    pub(super) notes: Vec<Problem>,
    /// Absent when nobody asks: a thousand tags have eight thousand settings.
    pub(super) settings: Option<Vec<Held>>,
    pub(super) hash: Hash,
    /// Keys that an unknown key was probably meant to be: that they are missing goes without
    /// saying.
    pub(super) meant: Vec<String>,
}

/// A setting that holds.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) at: At,
    pub(super) value: String,
    /// Whether somebody set it.
    pub(super) set: bool,
}

/// A key and where it was set.
#[derive(Clone, Debug)]
pub(super) struct At {
    /// The table: `plc[0].publish`; empty for the root.
    pub(super) table: Rc<str>,
    pub(super) key: Cow<'static, str>,
    /// Where it was set, or where it would have to be.
    pub(super) place: Place,
}

impl At {
    /// The header of the section: `[plc.publish]`, `[[plc.tag]]`.
    pub(super) fn section(&self) -> String {
        header(&self.table)
    }

    /// `plc[0].publish.topic`.
    pub(super) fn path(&self) -> String {
        if self.table.is_empty() {
            return self.key.to_string();
        }
        format!("{}.{}", self.table, self.key)
    }

    /// The variable that sets this key to `value`.
    pub(super) fn environment(&self, value: &Value) -> Place {
        let mut path = self.path();
        let mut value = value;
        // A whole section of variables where a value or a list should be: the first one stands
        // for all.
        while let Some((key, inner)) = value.as_dict().and_then(|dict| dict.first_key_value()) {
            path = format!("{path}.{key}");
            value = inner;
        }
        let name = format!("{PREFIX}{}", path.to_ascii_uppercase().replace('.', "__"));
        Place::Environment(Box::new(Variable::new(name, value.as_str().unwrap_or_default())))
    }
}

impl Draft<'_> {
    /// The place of what stands there in the piece at hand.
    pub(super) const fn place(&self, span: &Range<usize>) -> Place {
        Place::File(self.piece + span.start..self.piece + span.end)
    }

    /// Notes a problem.
    pub(super) fn reject(&mut self, at: &At, message: impl Into<String>, help: Option<String>) {
        self.problems.push(Problem {
            path: at.path(),
            message: message.into(),
            help,
            place: at.place.clone(),
            also: None,
        });
    }

    /// Tells of what holds and is probably not meant, with a second place that has to do with it.
    pub(super) fn note(
        &mut self,
        at: &At,
        message: String,
        help: String,
        other: Option<(&At, String)>,
    ) {
        let also = other.and_then(|(other, words)| match &other.place {
            Place::File(span) => Some((span.clone(), words)),
            Place::Whole | Place::Environment(_) => None,
        });
        let (path, place) = (at.path(), at.place.clone());
        self.notes.push(Problem { path, message, help: Some(help), place, also });
    }

    /// Notes that `at` repeats what stands at `first`.
    pub(super) fn reject_twice(&mut self, at: &At, first: &At, message: String, help: &str) {
        self.reject(at, message, Some(help.to_owned()));
        if let (Some(problem), Place::File(span)) = (self.problems.last_mut(), &first.place) {
            problem.also = Some((span.clone(), "first used here".to_owned()));
        }
    }

    /// Notes a key that does not exist.
    pub(super) fn refuse_unknown(&mut self, at: &At, value: &Value, keys: &[&'static str]) {
        if let Some(sentence) = not_yet(&at.path()) {
            self.reject(at, sentence, Some(format!("leave `{}` out", at.key)));
            return;
        }
        let near = nearest(&at.key, keys.iter().copied());
        if let Some(near) = near {
            self.meant.push(At { key: near.into(), ..at.clone() }.path());
        }
        let help = match (at.key.as_ref(), near) {
            ("password" | "private_key" | "preshared_key", _)
                if keys.contains(&format!("{}_file", at.key).as_str()) =>
            {
                let key = &at.key;
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
            "" if section => format!("there is no section [{}]", at.key),
            "" => format!("the key `{}` belongs to no section", at.key),
            _ => format!("there is no key `{}` in {}", at.key, at.section()),
        };
        self.reject(at, message, Some(help));
    }

    /// The value of a key that must be there; `example` is a whole line.
    pub(super) fn required<T: Leaf>(&mut self, field: &Field<T>, example: &str) -> Option<T> {
        if let State::Absent = field.state
            && !self.meant.contains(&field.at.path())
        {
            self.reject_missing(&field.at, example);
        }
        self.optional(field)
    }

    /// Notes that a key is missing.
    pub(super) fn reject_missing(&mut self, at: &At, example: &str) {
        let section = at.section();
        let help = format!("add a line like {example} below {section}");
        self.reject(at, format!("`{}` is missing in {section}", at.key), Some(help));
    }

    /// The value of a key that may be left out, or has a default.
    pub(super) fn optional<T: Leaf>(&mut self, field: &Field<T>) -> Option<T> {
        let State::Good(value, set) = &field.state else { return None };
        self.hold(&field.at, value.show(), *set);
        Some(value.clone())
    }

    /// The value of a key whose default follows from others.
    pub(super) fn derived<T: Leaf>(
        &mut self,
        field: &Field<T>,
        default: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        if let State::Absent = field.state {
            let value = default()?;
            self.hold(&field.at, value.show(), false);
            return Some(value);
        }
        self.optional(field)
    }

    /// The values of a list, each with its place; absent when one of them is wrong.
    pub(super) fn items<T: Leaf>(&mut self, items: &Items<T>) -> Option<Vec<(At, T)>> {
        let fields = items.items.as_ref()?;
        let values: Option<Vec<_>> = fields
            .iter()
            .map(|field| match &field.state {
                State::Good(value, _) => Some((field.at.clone(), value.clone())),
                State::Absent | State::Bad => None,
            })
            .collect();
        let values = values?;
        let shown = values.iter().map(|(_, value)| value.show()).collect::<Vec<_>>().join(", ");
        let set = fields.iter().any(|field| matches!(field.state, State::Good(_, true)));
        self.hold(&items.at, format!("[{shown}]"), set);
        Some(values)
    }

    /// Notes a default that follows from others and is no single value.
    pub(super) fn hold_default(&mut self, at: &At, value: String) {
        self.hold(at, value, false);
    }

    fn hold(&mut self, at: &At, value: String, set: bool) {
        self.hash.add(&at.table, &at.key, &value);
        if let Some(settings) = &mut self.settings {
            settings.push(Held { at: at.clone(), value, set });
        }
    }
}

/// `[[plc.tag]]` for `plc[0].tag[3]`.
pub(super) fn header(path: &str) -> String {
    let plain = without_indices(path);
    if path.ends_with(']') { format!("[[{plain}]]") } else { format!("[{plain}]") }
}
