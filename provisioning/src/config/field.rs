//! Fields of a raw section: a value, a list of values, a section, a list of sections. A problem is
//! recorded and reading goes on.

use std::marker::PhantomData;

use figment::value::Value;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use toml::Spanned;
use toml::de::DeValue;

use super::context::{KeyLocation, ReadContext};
use super::layers::{self, ENV_PREFIX};
use super::read::{RawField, RawTable, ReadSection};
use super::scalar::{RawValue, Scalar};
use super::suggest::without_indices;
use crate::diagnostics::SourceSpan;

/// Maximum number of values in a list; the longest useful one has a few.
const MAX_LIST_ITEMS: usize = 1_000;

/// A field that can be read from the unread value of its key.
pub(super) trait ReadField {
    /// Reads the field and records its problems.
    fn read(field: RawField<'_>, default: Option<Value>, context: &mut ReadContext<'_>) -> Self;
}

/// A single value.
#[derive(Clone, Debug)]
pub(super) struct Field<T> {
    pub(super) key: KeyLocation,
    pub(super) state: FieldState<T>,
}

/// Result of reading a single value.
#[derive(Clone, Debug)]
pub(super) enum FieldState<T> {
    /// Not set, without a default.
    Absent,
    /// Valid; `true` if it was set, `false` if it is the default.
    Valid(T, bool),
    /// Invalid; the problem has been recorded.
    Invalid,
}

/// A list of values.
#[derive(Clone, Debug)]
pub(super) struct ListField<T> {
    pub(super) key: KeyLocation,
    /// Absent when the key is missing.
    pub(super) items: Option<Vec<Field<T>>>,
    pub(super) already_reported: bool,
}

/// `[section]`; a missing section is read like an empty one.
pub(super) struct Section<T>(pub(super) T);

/// `[section]` whose presence has a meaning.
pub(super) struct OptionalSection<T>(pub(super) Option<T>);

/// `[[section]]`.
pub(super) struct SectionList<T> {
    pub(super) key: KeyLocation,
    pub(super) entries: Vec<T>,
    /// A value in place of the list has been reported already.
    pub(super) already_reported: bool,
}

/// `[[section]]` at the top level with possibly many entries, which are read one after the other to
/// save memory.
pub(super) struct StreamedList<T> {
    pub(super) key: KeyLocation,
    /// A value in place of the list has been reported already.
    pub(super) already_reported: bool,
    entry: PhantomData<T>,
}

impl<T: Scalar> ReadField for Field<T> {
    fn read(field: RawField<'_>, default: Option<Value>, context: &mut ReadContext<'_>) -> Self {
        let RawField { key: location, value, spans, already_reported } = field;
        let Some(found) = value.or(default.as_ref()) else {
            return Self {
                key: location,
                state: if already_reported { FieldState::Invalid } else { FieldState::Absent },
            };
        };
        let environment = matches!(location.span, SourceSpan::Environment(_));
        let source_text = match (&location.span, spans) {
            (SourceSpan::File(span), Some(_)) => context.text.get(span.clone()),
            _ => None,
        };
        let spans = spans.filter(|_| !environment);
        let key = location.name.as_ref();
        let state = match T::read(&RawValue {
            key,
            value: found,
            source_text,
            is_from_environment: environment,
            spans,
        }) {
            Ok(read) => FieldState::Valid(read, value.is_some()),
            Err(error) => {
                context.reject(&location, error.message, error.help);
                FieldState::Invalid
            }
        };
        Self { key: location, state }
    }
}

impl<T: Scalar> Field<T> {
    /// Returns the value of a required key and reports it when missing; `example` is a complete
    /// line to write.
    pub(super) fn required(&self, context: &mut ReadContext<'_>, example: &str) -> Option<T> {
        if let FieldState::Absent = self.state
            && !context.is_suggested(&self.key)
        {
            context.reject_missing(&self.key, example);
        }
        self.optional(context)
    }

    /// Returns the value of a key that is optional or has a fixed default.
    pub(super) fn optional(&self, context: &mut ReadContext<'_>) -> Option<T> {
        let FieldState::Valid(value, is_set) = &self.state else { return None };
        context.record(&self.key, value.to_toml(), *is_set);
        Some(value.clone())
    }

    /// Returns the value of a key whose default depends on other keys.
    pub(super) fn derived(
        &self,
        context: &mut ReadContext<'_>,
        default: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        if let FieldState::Absent = self.state {
            let value = default()?;
            context.record(&self.key, value.to_toml(), false);
            return Some(value);
        }
        self.optional(context)
    }
}

impl<T: Scalar> ListField<T> {
    /// Returns the values with their keys and records them in `context`; `None` when the list is
    /// absent or one of its values is invalid.
    pub(super) fn values(&self, context: &mut ReadContext<'_>) -> Option<Vec<(KeyLocation, T)>> {
        let fields = self.items.as_ref()?;
        let values: Option<Vec<_>> = fields
            .iter()
            .map(|field| match &field.state {
                FieldState::Valid(value, _) => Some((field.key.clone(), value.clone())),
                FieldState::Absent | FieldState::Invalid => None,
            })
            .collect();
        let values = values?;
        let shown = values.iter().map(|(_, value)| value.to_toml()).collect::<Vec<_>>().join(", ");
        let is_set = fields.iter().any(|field| matches!(field.state, FieldState::Valid(_, true)));
        context.record(&self.key, format!("[{shown}]"), is_set);
        Some(values)
    }
}

impl<T: Scalar> ReadField for ListField<T> {
    fn read(field: RawField<'_>, default: Option<Value>, context: &mut ReadContext<'_>) -> Self {
        let location = field.key.clone();
        let already_reported = field.already_reported;
        let Some(value) = field.value else {
            let items = default.as_ref().and_then(Value::as_array).map(|values| {
                let item = |value| {
                    let field = RawField {
                        key: location.clone(),
                        value: None,
                        spans: None,
                        already_reported,
                    };
                    Field::read(field, Some(value), context)
                };
                values.iter().cloned().map(item).collect()
            });
            return Self { key: location, items, already_reported };
        };
        if let Some(slots) = field.list_items(context) {
            let count = slots.len();
            if count > MAX_LIST_ITEMS {
                let message = format!("`{}` has {count} values", location.name);
                let help = format!("write at most {MAX_LIST_ITEMS}");
                context.reject(&location, message, Some(help));
                return Self { key: location, items: None, already_reported: true };
            }
            let items = slots.into_iter().map(|field| Field::read(field, None, context)).collect();
            return Self { key: location, items: Some(items), already_reported };
        }
        if matches!(location.span, SourceSpan::Environment(_)) {
            let items = vec![Field::read(field, None, context)];
            return Self { key: location, items: Some(items), already_reported };
        }
        let help = value.as_str().map(|text| format!("write {} = [\"{text}\"]", location.name));
        context.reject(&location, format!("`{}` is a list", location.name), help);
        Self { key: location, items: None, already_reported: true }
    }
}

impl<T: ReadSection> ReadField for Section<T> {
    fn read(field: RawField<'_>, _: Option<Value>, context: &mut ReadContext<'_>) -> Self {
        let table = field.into_table(context);
        Self(table.read_section(context))
    }
}

impl<T: ReadSection> ReadField for OptionalSection<T> {
    fn read(field: RawField<'_>, _: Option<Value>, context: &mut ReadContext<'_>) -> Self {
        if field.value.is_none() {
            return Self(None);
        }
        let table = field.into_table(context);
        Self(Some(table.read_section(context)))
    }
}

impl<T: ReadSection> ReadField for SectionList<T> {
    fn read(field: RawField<'_>, _: Option<Value>, context: &mut ReadContext<'_>) -> Self {
        let location = field.key.clone();
        let already_reported = field.already_reported;
        if field.value.is_none() {
            return Self { key: location, entries: Vec::new(), already_reported };
        }
        if let Some(slots) = field.list_items(context) {
            let mut entries = Vec::new();
            for field in slots {
                if context.is_full() {
                    break;
                }
                entries.push(field.into_table(context).read_section(context));
            }
            return Self { key: location, entries, already_reported };
        }
        reject_non_list(&location, context);
        Self { key: location, entries: Vec::new(), already_reported: true }
    }
}

/// Records a value in place of a list of sections.
pub(super) fn reject_non_list(location: &KeyLocation, context: &mut ReadContext<'_>) {
    let (message, help) = if matches!(location.span, SourceSpan::Environment(_)) {
        let message = format!("a list cannot be set by {ENV_PREFIX} environment variables");
        (message, "set it in the file".to_owned())
    } else {
        let header = without_indices(&location.path());
        let message = format!("`{}` is a list of sections", location.name);
        (message, format!("write two pairs of brackets: [[{header}]]"))
    };
    context.reject(location, message, Some(help));
}

impl<T: ReadSection> ReadField for StreamedList<T> {
    fn read(field: RawField<'_>, _: Option<Value>, context: &mut ReadContext<'_>) -> Self {
        let no_list = field.value.is_some_and(|value| value.as_array().is_none());
        if no_list {
            reject_non_list(&field.key, context);
        }
        let already_reported = field.already_reported || no_list;
        Self { key: field.key, already_reported, entry: PhantomData }
    }
}

impl<T: ReadSection> StreamedList<T> {
    /// Reads the entries from the table that holds the list, or from the parts of a split file, and
    /// passes each to `f`. An entry and its figment values are freed before the next one is read.
    pub(super) fn for_each<R>(
        &self,
        table: &RawTable<'_>,
        context: &mut ReadContext<'_>,
        mut f: impl FnMut(T, &mut ReadContext<'_>) -> R,
    ) -> Vec<R> {
        let mut read = Vec::new();
        if self.already_reported {
            return read;
        }
        if let Some(split) = context.split {
            split.for_each_plc(|start, spans| {
                if context.is_full() {
                    return;
                }
                context.part_start = start;
                let raw = self.read_entry(read.len(), spans, context);
                read.push(f(raw, context));
            });
            context.part_start = 0;
            return read;
        }
        for spans in table.list_entries(&self.key.name).into_iter().flatten() {
            if context.is_full() {
                break;
            }
            let raw = self.read_entry(read.len(), spans, context);
            read.push(f(raw, context));
        }
        read
    }

    fn read_entry(
        &self,
        index: usize,
        spans: &Spanned<DeValue<'_>>,
        context: &mut ReadContext<'_>,
    ) -> T {
        let value = layers::figment_value(spans.as_ref());
        let key = format!("{}[{index}]", self.key.name).into();
        let place = context.file_span(&spans.span());
        let location = KeyLocation { name: key, span: place, ..self.key.clone() };
        let field = RawField {
            key: location,
            value: Some(&value),
            spans: Some(spans),
            already_reported: false,
        };
        field.into_table(context).read_section(context)
    }
}

/// Implements the schema of a wrapper by the schema of its content.
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
    ListField<T: Scalar> as |_generator| {
        schemars::json_schema!({ "type": "array", "items": T::schema() })
    };
    Section<T: JsonSchema> as |generator| generator.subschema_for::<T>();
    OptionalSection<T: JsonSchema> as |generator| generator.subschema_for::<T>();
    StreamedList<T: JsonSchema> as |generator| generator.subschema_for::<Vec<T>>();
    SectionList<T: JsonSchema> as |generator| generator.subschema_for::<Vec<T>>();
}
