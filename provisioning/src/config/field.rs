//! What a key can hold: a [`Field`] that is a value, nothing, or a problem that has been noted; a list
//! of those; a section; a list of sections. Reading never stops at a problem.

use std::marker::PhantomData;

use figment::value::Value;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use toml::Spanned;
use toml::de::DeValue;

use super::context::{KeyLocation, ReadContext};
use super::diagnostics::SourceSpan;
use super::layers::{self, ENV_PREFIX};
use super::read::{RawField, RawTable, ReadSection};
use super::scalar::{RawValue, Scalar};
use super::suggest::without_indices;

/// What one key of a section can hold.
pub(super) trait ReadField {
    /// Reads it, and notes what is wrong with it.
    fn read(slot: RawField<'_>, default: Option<Value>, draft: &mut ReadContext<'_>) -> Self;
}

/// One value.
#[derive(Clone, Debug)]
pub(super) struct Field<T> {
    pub(super) key: KeyLocation,
    pub(super) state: FieldState<T>,
}

/// What became of it.
#[derive(Clone, Debug)]
pub(super) enum FieldState<T> {
    /// Not set, and there is no default.
    Absent,
    /// Set (`true`) or by default (`false`).
    Valid(T, bool),
    /// The problem has been noted.
    Invalid,
}

/// A list of values.
#[derive(Clone, Debug)]
pub(super) struct ListField<T> {
    pub(super) key: KeyLocation,
    /// Absent when the key is.
    pub(super) items: Option<Vec<Field<T>>>,
    pub(super) already_reported: bool,
}

/// `[section]`; when it is absent, all its keys are.
pub(super) struct Section<T>(pub(super) T);

/// `[section]` that means something by being there.
pub(super) struct OptionalSection<T>(pub(super) Option<T>);

/// `[[section]]`.
pub(super) struct SectionList<T> {
    pub(super) key: KeyLocation,
    pub(super) entries: Vec<T>,
    /// Whether what stands in its place has been refused already.
    pub(super) already_reported: bool,
}

/// `[[section]]` at the top of the file, whose entries may be many: they are read one after the
/// other.
pub(super) struct StreamedList<T> {
    pub(super) key: KeyLocation,
    /// Whether what stands in its place has been refused already.
    pub(super) already_reported: bool,
    entry: PhantomData<T>,
}

impl<T: Scalar> ReadField for Field<T> {
    fn read(slot: RawField<'_>, default: Option<Value>, draft: &mut ReadContext<'_>) -> Self {
        let RawField { key: at, value, spans, already_reported: broken } = slot;
        let Some(found) = value.or(default.as_ref()) else {
            return Self {
                key: at,
                state: if broken { FieldState::Invalid } else { FieldState::Absent },
            };
        };
        let environment = matches!(at.span, SourceSpan::Environment(_));
        let written = match (&at.span, spans) {
            (SourceSpan::File(span), Some(_)) => draft.text.get(span.clone()),
            _ => None,
        };
        let spans = spans.filter(|_| !environment);
        let key = at.name.as_ref();
        let state = match T::read(&RawValue {
            key,
            value: found,
            source_text: written,
            is_from_environment: environment,
            spans,
        }) {
            Ok(read) => FieldState::Valid(read, value.is_some()),
            Err(wrong) => {
                draft.reject(&at, wrong.message, wrong.help);
                FieldState::Invalid
            }
        };
        Self { key: at, state }
    }
}

impl<T: Scalar> ReadField for ListField<T> {
    fn read(slot: RawField<'_>, default: Option<Value>, draft: &mut ReadContext<'_>) -> Self {
        let at = slot.key.clone();
        let broken = slot.already_reported;
        let Some(value) = slot.value else {
            let items = default.as_ref().and_then(Value::as_array).map(|values| {
                let item = |value| {
                    let slot = RawField {
                        key: at.clone(),
                        value: None,
                        spans: None,
                        already_reported: broken,
                    };
                    Field::read(slot, Some(value), draft)
                };
                values.iter().cloned().map(item).collect()
            });
            return Self { key: at, items, already_reported: broken };
        };
        if let Some(slots) = slot.list_items(draft) {
            let items = slots.into_iter().map(|slot| Field::read(slot, None, draft)).collect();
            return Self { key: at, items: Some(items), already_reported: broken };
        }
        if matches!(at.span, SourceSpan::Environment(_)) {
            let items = vec![Field::read(slot, None, draft)];
            return Self { key: at, items: Some(items), already_reported: broken };
        }
        let help = value.as_str().map(|text| format!("write {} = [\"{text}\"]", at.name));
        draft.reject(&at, format!("`{}` is a list", at.name), help);
        Self { key: at, items: None, already_reported: true }
    }
}

impl<T: ReadSection> ReadField for Section<T> {
    fn read(slot: RawField<'_>, _: Option<Value>, draft: &mut ReadContext<'_>) -> Self {
        let table = slot.into_table(draft);
        Self(table.read_section(draft))
    }
}

impl<T: ReadSection> ReadField for OptionalSection<T> {
    fn read(slot: RawField<'_>, _: Option<Value>, draft: &mut ReadContext<'_>) -> Self {
        if slot.value.is_none() {
            return Self(None);
        }
        let table = slot.into_table(draft);
        Self(Some(table.read_section(draft)))
    }
}

impl<T: ReadSection> ReadField for SectionList<T> {
    fn read(slot: RawField<'_>, _: Option<Value>, draft: &mut ReadContext<'_>) -> Self {
        let at = slot.key.clone();
        let broken = slot.already_reported;
        if slot.value.is_none() {
            return Self { key: at, entries: Vec::new(), already_reported: broken };
        }
        if let Some(slots) = slot.list_items(draft) {
            let entries =
                slots.into_iter().map(|slot| slot.into_table(draft).read_section(draft)).collect();
            return Self { key: at, entries, already_reported: broken };
        }
        reject_non_list(&at, draft);
        Self { key: at, entries: Vec::new(), already_reported: true }
    }
}

/// Something else stands where a list of sections belongs.
pub(super) fn reject_non_list(at: &KeyLocation, draft: &mut ReadContext<'_>) {
    let (message, help) = if matches!(at.span, SourceSpan::Environment(_)) {
        let message = format!("a list cannot be set by {ENV_PREFIX} variables of the environment");
        (message, "set it in the file".to_owned())
    } else {
        let header = without_indices(&at.path());
        let message = format!("`{}` is a list of sections", at.name);
        (message, format!("write two pairs of brackets: [[{header}]]"))
    };
    draft.reject(at, message, Some(help));
}

impl<T: ReadSection> ReadField for StreamedList<T> {
    fn read(slot: RawField<'_>, _: Option<Value>, draft: &mut ReadContext<'_>) -> Self {
        let no_list = slot.value.is_some_and(|value| value.as_array().is_none());
        if no_list {
            reject_non_list(&slot.key, draft);
        }
        let broken = slot.already_reported || no_list;
        Self { key: slot.key, already_reported: broken, entry: PhantomData }
    }
}

impl<T: ReadSection> StreamedList<T> {
    /// Reads entry after entry from the table that holds the list, or from the pieces of the file;
    /// an entry and its figment values are gone before the next one is read.
    pub(super) fn for_each<R>(
        &self,
        table: &RawTable<'_>,
        draft: &mut ReadContext<'_>,
        mut f: impl FnMut(T, &mut ReadContext<'_>) -> R,
    ) -> Vec<R> {
        let mut read = Vec::new();
        if self.already_reported {
            return read;
        }
        if let Some(pieces) = draft.split {
            pieces.for_each_plc(|start, spans| {
                draft.piece_start = start;
                let raw = self.read_entry(read.len(), spans, draft);
                read.push(f(raw, draft));
            });
            draft.piece_start = 0;
            return read;
        }
        for spans in table.list_entries(&self.key.name).into_iter().flatten() {
            let raw = self.read_entry(read.len(), spans, draft);
            read.push(f(raw, draft));
        }
        read
    }

    fn read_entry(
        &self,
        index: usize,
        spans: &Spanned<DeValue<'_>>,
        draft: &mut ReadContext<'_>,
    ) -> T {
        let value = layers::figment_value(spans.as_ref());
        let key = format!("{}[{index}]", self.key.name).into();
        let place = draft.file_span(&spans.span());
        let at = KeyLocation { name: key, span: place, ..self.key.clone() };
        let slot =
            RawField { key: at, value: Some(&value), spans: Some(spans), already_reported: false };
        slot.into_table(draft).read_section(draft)
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
    Field<T: Scalar> as |_generator| T::schema();
    ListField<T: Scalar> as |_generator| schemars::json_schema!({ "type": "array", "items": T::schema() });
    Section<T: JsonSchema> as |generator| generator.subschema_for::<T>();
    OptionalSection<T: JsonSchema> as |generator| generator.subschema_for::<T>();
    StreamedList<T: JsonSchema> as |generator| generator.subschema_for::<Vec<T>>();
    SectionList<T: JsonSchema> as |generator| generator.subschema_for::<Vec<T>>();
}
