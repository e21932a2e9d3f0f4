//! What a key can hold: a [`Field`] that is a value, nothing, or a problem that has been noted; a list
//! of those; a section; a list of sections. Reading never stops at a problem.

use std::marker::PhantomData;

use figment::value::Value;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use toml::Spanned;
use toml::de::DeValue;

use super::draft::{At, Draft};
use super::layers::{self, PREFIX};
use super::leaf::{Found, Leaf};
use super::near::without_indices;
use super::problem::Place;
use super::read::{Body, Slot, Table};

/// What one key of a section can hold.
pub(super) trait Member {
    /// Reads it, and notes what is wrong with it.
    fn read(slot: Slot<'_>, default: Option<Value>, draft: &mut Draft<'_>) -> Self;
}

/// One value.
#[derive(Clone, Debug)]
pub(super) struct Field<T> {
    pub(super) at: At,
    pub(super) state: State<T>,
}

/// What became of it.
#[derive(Clone, Debug)]
pub(super) enum State<T> {
    /// Not set, and there is no default.
    Absent,
    /// Set (`true`) or by default (`false`).
    Good(T, bool),
    /// The problem has been noted.
    Bad,
}

/// A list of values.
#[derive(Clone, Debug)]
pub(super) struct Items<T> {
    pub(super) at: At,
    /// Absent when the key is.
    pub(super) items: Option<Vec<Field<T>>>,
    pub(super) broken: bool,
}

/// `[section]`; when it is absent, all its keys are.
pub(super) struct Section<T>(pub(super) T);

/// `[section]` that means something by being there.
pub(super) struct Maybe<T>(pub(super) Option<T>);

/// `[[section]]`.
pub(super) struct List<T> {
    pub(super) at: At,
    pub(super) entries: Vec<T>,
    /// Whether what stands in its place has been refused already.
    pub(super) broken: bool,
}

/// `[[section]]` at the top of the file, whose entries may be many: they are read one after the
/// other.
pub(super) struct Stream<T> {
    pub(super) at: At,
    /// Whether what stands in its place has been refused already.
    pub(super) broken: bool,
    entry: PhantomData<T>,
}

impl<T: Leaf> Member for Field<T> {
    fn read(slot: Slot<'_>, default: Option<Value>, draft: &mut Draft<'_>) -> Self {
        let Slot { at, value, spans, broken } = slot;
        let Some(found) = value.or(default.as_ref()) else {
            return Self { at, state: if broken { State::Bad } else { State::Absent } };
        };
        let environment = matches!(at.place, Place::Environment(_));
        let written = match (&at.place, spans) {
            (Place::File(span), Some(_)) => draft.text.get(span.clone()),
            _ => None,
        };
        let spans = spans.filter(|_| !environment);
        let key = at.key.as_ref();
        let state = match T::read(&Found { key, value: found, written, environment, spans }) {
            Ok(read) => State::Good(read, value.is_some()),
            Err(wrong) => {
                draft.reject(&at, wrong.message, wrong.help);
                State::Bad
            }
        };
        Self { at, state }
    }
}

impl<T: Leaf> Member for Items<T> {
    fn read(slot: Slot<'_>, default: Option<Value>, draft: &mut Draft<'_>) -> Self {
        let at = slot.at.clone();
        let broken = slot.broken;
        let Some(value) = slot.value else {
            let items = default.as_ref().and_then(Value::as_array).map(|values| {
                let item = |value| {
                    let slot = Slot { at: at.clone(), value: None, spans: None, broken };
                    Field::read(slot, Some(value), draft)
                };
                values.iter().cloned().map(item).collect()
            });
            return Self { at, items, broken };
        };
        if let Some(slots) = slot.items(draft) {
            let items = slots.into_iter().map(|slot| Field::read(slot, None, draft)).collect();
            return Self { at, items: Some(items), broken };
        }
        if matches!(at.place, Place::Environment(_)) {
            let items = vec![Field::read(slot, None, draft)];
            return Self { at, items: Some(items), broken };
        }
        let help = value.as_str().map(|text| format!("write {} = [\"{text}\"]", at.key));
        draft.reject(&at, format!("`{}` is a list", at.key), help);
        Self { at, items: None, broken: true }
    }
}

impl<T: Body> Member for Section<T> {
    fn read(slot: Slot<'_>, _: Option<Value>, draft: &mut Draft<'_>) -> Self {
        let table = slot.table(draft);
        Self(table.body(draft))
    }
}

impl<T: Body> Member for Maybe<T> {
    fn read(slot: Slot<'_>, _: Option<Value>, draft: &mut Draft<'_>) -> Self {
        if slot.value.is_none() {
            return Self(None);
        }
        let table = slot.table(draft);
        Self(Some(table.body(draft)))
    }
}

impl<T: Body> Member for List<T> {
    fn read(slot: Slot<'_>, _: Option<Value>, draft: &mut Draft<'_>) -> Self {
        let at = slot.at.clone();
        let broken = slot.broken;
        if slot.value.is_none() {
            return Self { at, entries: Vec::new(), broken };
        }
        if let Some(slots) = slot.items(draft) {
            let entries = slots.into_iter().map(|slot| slot.table(draft).body(draft)).collect();
            return Self { at, entries, broken };
        }
        refuse_no_list(&at, draft);
        Self { at, entries: Vec::new(), broken: true }
    }
}

/// Something else stands where a list of sections belongs.
pub(super) fn refuse_no_list(at: &At, draft: &mut Draft<'_>) {
    let (message, help) = if matches!(at.place, Place::Environment(_)) {
        let message = format!("a list cannot be set by {PREFIX} variables of the environment");
        (message, "set it in the file".to_owned())
    } else {
        let header = without_indices(&at.path());
        let message = format!("`{}` is a list of sections", at.key);
        (message, format!("write two pairs of brackets: [[{header}]]"))
    };
    draft.reject(at, message, Some(help));
}

impl<T: Body> Member for Stream<T> {
    fn read(slot: Slot<'_>, _: Option<Value>, draft: &mut Draft<'_>) -> Self {
        let no_list = slot.value.is_some_and(|value| value.as_array().is_none());
        if no_list {
            refuse_no_list(&slot.at, draft);
        }
        let broken = slot.broken || no_list;
        Self { at: slot.at, broken, entry: PhantomData }
    }
}

impl<T: Body> Stream<T> {
    /// Reads entry after entry from the table that holds the list, or from the pieces of the file;
    /// an entry and its figment values are gone before the next one is read.
    pub(super) fn each<R>(
        &self,
        table: &Table<'_>,
        draft: &mut Draft<'_>,
        mut f: impl FnMut(T, &mut Draft<'_>) -> R,
    ) -> Vec<R> {
        let mut read = Vec::new();
        if self.broken {
            return read;
        }
        if let Some(pieces) = draft.pieces {
            pieces.each(|start, spans| {
                draft.piece = start;
                let raw = self.entry(read.len(), spans, draft);
                read.push(f(raw, draft));
            });
            draft.piece = 0;
            return read;
        }
        for spans in table.entries(&self.at.key).into_iter().flatten() {
            let raw = self.entry(read.len(), spans, draft);
            read.push(f(raw, draft));
        }
        read
    }

    fn entry(&self, index: usize, spans: &Spanned<DeValue<'_>>, draft: &mut Draft<'_>) -> T {
        let value = layers::value(spans.as_ref());
        let key = format!("{}[{index}]", self.at.key).into();
        let place = draft.place(&spans.span());
        let at = At { key, place, ..self.at.clone() };
        let slot = Slot { at, value: Some(&value), spans: Some(spans), broken: false };
        slot.table(draft).body(draft)
    }
}

/// Implements the schema of a wrapper by that of what it holds.
macro_rules! schema_as {
    ($($wrapper:ident<$inner:ident: $bound:ident> as |$generator:ident| $schema:expr;)*) => {$(
        impl<$inner: $bound> JsonSchema for $wrapper<$inner> {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($wrapper).into()
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    )*};
}

schema_as! {
    Field<T: Leaf> as |_generator| T::schema();
    Items<T: Leaf> as |_generator| schemars::json_schema!({ "type": "array", "items": T::schema() });
    Section<T: JsonSchema> as |generator| generator.subschema_for::<T>();
    Maybe<T: JsonSchema> as |generator| generator.subschema_for::<T>();
    Stream<T: JsonSchema> as |generator| generator.subschema_for::<Vec<T>>();
    List<T: JsonSchema> as |generator| generator.subschema_for::<Vec<T>>();
}
