//! Tables and slots: the merged layers beside the places in the file, and the `section!` macro that
//! declares what is read from them.

use std::rc::Rc;

use figment::value::{Dict, Value};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::context::{KeyLocation, ReadContext};
use super::diagnostics::SourceSpan;

/// Declares a raw section: its keys with their types, defaults and meanings, from which the
/// reader, the JSON Schema and the reference are made.
///
/// `key: Type = default` for a fixed default, `key: Type, else "words"` for one that follows from
/// other keys.
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

            fn read(table: &super::read::RawTable<'_>, draft: &mut super::context::ReadContext<'_>) -> Self {
                $(
                    let default: Option<figment::value::Value> = None;
                    $(let default = default.or_else(|| Some(figment::value::Value::from($default)));)?
                    let slot = table.field(super::read::key_name(stringify!($key)), draft);
                    let $key = super::field::ReadField::read(slot, default, draft);
                )*
                Self { $($key),* }
            }
        }
    };
}
pub(super) use section;

/// `type` for `r#type`.
pub(super) const fn key_name(key: &'static str) -> &'static str {
    match key.as_bytes() {
        [b'r', b'#', ..] => key.split_at(2).1,
        _ => key,
    }
}

/// The keys of one section.
pub(super) trait ReadSection: Sized {
    /// Every key that it has.
    const KEYS: &'static [&'static str];

    /// Reads all of them.
    fn read(table: &RawTable<'_>, draft: &mut ReadContext<'_>) -> Self;
}

/// A table of the merged configuration beside the same table of the file.
pub(super) struct RawTable<'a> {
    /// Where keys that are missing would have to be.
    key: KeyLocation,
    dict: Option<&'a Dict>,
    spans: Option<&'a DeTable<'a>>,
    /// Whether what stands in its place has been refused already.
    already_reported: bool,
}

/// What stands at one key.
pub(super) struct RawField<'a> {
    pub(super) key: KeyLocation,
    pub(super) value: Option<&'a Value>,
    pub(super) spans: Option<&'a Spanned<DeValue<'a>>>,
    /// Whether the table around it has been refused already.
    pub(super) already_reported: bool,
}

impl<'a> RawTable<'a> {
    /// The whole configuration.
    pub(super) fn root(dict: &'a Dict, spans: &'a DeTable<'a>) -> Self {
        let at = KeyLocation { table: Rc::from(""), name: "".into(), span: SourceSpan::WholeFile };
        Self { key: at, dict: Some(dict), spans: Some(spans), already_reported: false }
    }

    /// What stands at `key`.
    pub(super) fn field(&self, key: &'static str, draft: &ReadContext<'_>) -> RawField<'a> {
        let value = self.dict.and_then(|dict| dict.get(key));
        let spans = self.spans.and_then(|table| table.get(key));
        let at = KeyLocation {
            table: Rc::clone(&self.key.table),
            name: key.into(),
            span: SourceSpan::WholeFile,
        };
        let place = match (value, spans) {
            (Some(value), _) if draft.layers.is_from_environment(value) => at.variable_span(value),
            (Some(_), Some(spans)) => draft.file_span(&spans.span()),
            _ => self.key.span.clone(),
        };
        RawField {
            key: KeyLocation { span: place, ..at },
            value,
            spans,
            already_reported: self.already_reported,
        }
    }

    /// The entries of the list at `key`, as the file has them.
    pub(super) fn list_entries(&self, key: &str) -> Option<&'a DeArray<'a>> {
        self.spans.and_then(|table| table.get(key)).and_then(|item| item.as_ref().as_array())
    }

    /// Reads the keys of `T` and refuses all others.
    pub(super) fn read_section<T: ReadSection>(&self, draft: &mut ReadContext<'_>) -> T {
        for (key, value) in self.dict.into_iter().flatten() {
            if !T::KEYS.contains(&key.as_str()) {
                let at = self.locate_unknown(key, value, draft);
                draft.reject_unknown(&at, value, T::KEYS);
            }
        }
        T::read(self, draft)
    }

    fn locate_unknown(&self, key: &str, value: &Value, draft: &ReadContext<'_>) -> KeyLocation {
        let table = Rc::clone(&self.key.table);
        let at = KeyLocation { table, name: key.to_owned().into(), span: self.key.span.clone() };
        let in_file = self.spans.and_then(|table| table.get_key_value(key));
        let place = match in_file {
            _ if draft.layers.is_from_environment(value) => at.variable_span(value),
            Some((key, _)) => draft.file_span(&key.span()),
            None => at.span.clone(),
        };
        KeyLocation { span: place, ..at }
    }
}

impl<'a> RawField<'a> {
    /// The table here; an empty one when there is none.
    pub(super) fn into_table(self, draft: &mut ReadContext<'_>) -> RawTable<'a> {
        let path: Rc<str> = self.key.path().into();
        let dict = self.value.and_then(Value::as_dict);
        let broken = self.already_reported || (self.value.is_some() && dict.is_none());
        if broken && !self.already_reported {
            draft.reject(
                &self.key,
                format!("`{path}` is a section of its own, not a value"),
                Some(format!("write its keys below a line [{path}]")),
            );
        }
        let spans = self.spans.and_then(|spans| spans.as_ref().as_table());
        let at = KeyLocation { table: path, name: "".into(), span: self.key.span };
        RawTable { key: at, dict, spans, already_reported: broken }
    }

    /// The items of the list here; absent when it is no list.
    pub(super) fn list_items(&self, draft: &ReadContext<'_>) -> Option<Vec<Self>> {
        let values = self.value.and_then(Value::as_array)?;
        let spans = self.spans.and_then(|spans| spans.as_ref().as_array());
        let item = |(index, value): (usize, &'a Value)| {
            let spans = spans.and_then(|spans| spans.get(index));
            let key = format!("{}[{index}]", self.key.name).into();
            let place =
                spans.map_or_else(|| self.key.span.clone(), |spans| draft.file_span(&spans.span()));
            let at = KeyLocation { table: Rc::clone(&self.key.table), name: key, span: place };
            RawField { key: at, value: Some(value), spans, already_reported: self.already_reported }
        };
        Some(values.iter().enumerate().map(item).collect())
    }
}
