//! Reading sections: the merged layers with the spans of the file, and the macro `section!` that
//! declares the keys of a section.

use std::rc::Rc;

use figment::value::{Dict, Value};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::context::{KeyLocation, ReadContext};
use crate::diagnostics::SourceSpan;

/// Declares a raw section: its keys with their types, defaults and descriptions. The reader, the
/// JSON Schema and the reference are generated from it.
///
/// `key: Type = default` declares a fixed default, `key: Type, else "text"` describes a default
/// that depends on other keys.
macro_rules! section {
    ($(#[$meta:meta])* struct $name:ident {
        $($(#[$doc:meta])* $key:ident: $type:ty $(= $default:expr)? $(, else $derived:literal)?;)*
    }) => {
        $(#[$meta])*
        #[derive(schemars::JsonSchema)]
        #[schemars(extend("additionalProperties" = false))]
        pub(super) struct $name {
            $(
                $(#[$doc])*
                $(#[schemars(extend("default" = $default))])?
                $(#[schemars(extend("x-default" = $derived))])?
                pub(super) $key: $type,
            )*
        }

        impl super::read::ReadSection for $name {
            const KEYS: &'static [&'static str] = &[$(super::read::key_name(stringify!($key))),*];

            fn read(
                table: &super::read::RawTable<'_>,
                context: &mut super::context::ReadContext<'_>,
            ) -> Self {
                $(
                    let default: Option<figment::value::Value> = None;
                    $(let default = default.or_else(|| Some($default.into()));)?
                    let field = table.field(super::read::key_name(stringify!($key)), context);
                    let $key = super::field::ReadField::read(field, default, context);
                )*
                Self { $($key),* }
            }
        }
    };
}
pub(super) use section;

/// Returns `type` for `r#type`.
pub(super) const fn key_name(key: &'static str) -> &'static str {
    match key.as_bytes() {
        [b'r', b'#', ..] => key.split_at(2).1,
        _ => key,
    }
}

/// A section that can be read from a table.
pub(super) trait ReadSection: Sized {
    /// All keys of the section.
    const KEYS: &'static [&'static str];

    /// Reads all keys.
    fn read(table: &RawTable<'_>, context: &mut ReadContext<'_>) -> Self;
}

/// A table of the merged configuration with the same table of the file, which has the spans.
pub(super) struct RawTable<'a> {
    /// Where missing keys belong.
    key: KeyLocation,
    dict: Option<&'a Dict>,
    spans: Option<&'a DeTable<'a>>,
    /// A value in place of the table has been reported already.
    already_reported: bool,
}

/// The unread value of one key.
pub(super) struct RawField<'a> {
    pub(super) key: KeyLocation,
    pub(super) value: Option<&'a Value>,
    pub(super) spans: Option<&'a Spanned<DeValue<'a>>>,
    /// A value in place of the surrounding table has been reported already.
    pub(super) already_reported: bool,
}

impl<'a> RawTable<'a> {
    /// Returns the root table of the configuration.
    pub(super) fn root(dict: &'a Dict, spans: &'a DeTable<'a>) -> Self {
        let location =
            KeyLocation { table: Rc::from(""), name: "".into(), span: SourceSpan::WholeFile };
        Self { key: location, dict: Some(dict), spans: Some(spans), already_reported: false }
    }

    /// Returns the unread value of `key`.
    pub(super) fn field(&self, key: &'static str, context: &ReadContext<'_>) -> RawField<'a> {
        let value = self.dict.and_then(|dict| dict.get(key));
        let spans = self.spans.and_then(|table| table.get(key));
        let location = KeyLocation {
            table: Rc::clone(&self.key.table),
            name: key.into(),
            span: SourceSpan::WholeFile,
        };
        let place = match (value, spans) {
            (Some(value), _) if context.layers.is_from_environment(value) => {
                location.variable_span(value)
            }
            (Some(_), Some(spans)) => context.file_span(&spans.span()),
            _ => self.key.span.clone(),
        };
        RawField {
            key: KeyLocation { span: place, ..location },
            value,
            spans,
            already_reported: self.already_reported,
        }
    }

    /// Returns the entries of the list at `key` in the file.
    pub(super) fn list_entries(&self, key: &str) -> Option<&'a DeArray<'a>> {
        self.spans.and_then(|table| table.get(key)).and_then(|item| item.as_ref().as_array())
    }

    /// Reads the keys of `T` and reports all other keys.
    pub(super) fn read_section<T: ReadSection>(&self, context: &mut ReadContext<'_>) -> T {
        for (key, value) in self.dict.into_iter().flatten() {
            if context.is_full() {
                break;
            }
            if !T::KEYS.contains(&key.as_str()) {
                let location = self.locate_unknown(key, value, context);
                context.reject_unknown(&location, value, T::KEYS);
            }
        }
        T::read(self, context)
    }

    fn locate_unknown(&self, key: &str, value: &Value, context: &ReadContext<'_>) -> KeyLocation {
        let table = Rc::clone(&self.key.table);
        let location =
            KeyLocation { table, name: key.to_owned().into(), span: self.key.span.clone() };
        let in_file = self.spans.and_then(|table| table.get_key_value(key));
        let place = match in_file {
            _ if context.layers.is_from_environment(value) => location.variable_span(value),
            Some((key, _)) => context.file_span(&key.span()),
            None => location.span.clone(),
        };
        KeyLocation { span: place, ..location }
    }
}

impl<'a> RawField<'a> {
    /// Returns the table at this key, or an empty one when it is missing. Reports a value in its
    /// place.
    pub(super) fn into_table(self, context: &mut ReadContext<'_>) -> RawTable<'a> {
        let path: Rc<str> = self.key.path().into();
        let dict = self.value.and_then(Value::as_dict);
        let already_reported = self.already_reported || (self.value.is_some() && dict.is_none());
        if already_reported && !self.already_reported {
            context.reject(
                &self.key,
                format!("`{path}` is a section of its own, not a value"),
                Some(format!("write its keys below a line [{path}]")),
            );
        }
        let spans = self.spans.and_then(|spans| spans.as_ref().as_table());
        let location = KeyLocation { table: path, name: "".into(), span: self.key.span };
        RawTable { key: location, dict, spans, already_reported }
    }

    /// Returns the items of the list at this key, or `None` when the value is not a list.
    pub(super) fn list_items(&self, context: &ReadContext<'_>) -> Option<Vec<Self>> {
        let values = self.value.and_then(Value::as_array)?;
        let spans = self.spans.and_then(|spans| spans.as_ref().as_array());
        let item = |(index, value): (usize, &'a Value)| {
            let spans = spans.and_then(|spans| spans.get(index));
            let key = format!("{}[{index}]", self.key.name).into();
            let place = spans
                .map_or_else(|| self.key.span.clone(), |spans| context.file_span(&spans.span()));
            let location =
                KeyLocation { table: Rc::clone(&self.key.table), name: key, span: place };
            RawField {
                key: location,
                value: Some(value),
                spans,
                already_reported: self.already_reported,
            }
        };
        Some(values.iter().enumerate().map(item).collect())
    }
}
