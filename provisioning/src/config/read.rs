//! Tables and slots: the merged layers beside the places in the file, and the `section!` macro that
//! declares what is read from them.

use std::rc::Rc;

use figment::value::{Dict, Value};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::draft::{At, Draft};
use super::problem::Place;

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

        impl super::read::Body for $name {
            const KEYS: &'static [&'static str] = &[$(super::read::plain(stringify!($key))),*];

            fn read(table: &super::read::Table<'_>, draft: &mut super::draft::Draft<'_>) -> Self {
                $(
                    let default: Option<figment::value::Value> = None;
                    $(let default = default.or_else(|| Some(figment::value::Value::from($default)));)?
                    let slot = table.slot(super::read::plain(stringify!($key)), draft);
                    let $key = super::member::Member::read(slot, default, draft);
                )*
                Self { $($key),* }
            }
        }
    };
}
pub(super) use section;

/// `type` for `r#type`.
pub(super) const fn plain(key: &'static str) -> &'static str {
    match key.as_bytes() {
        [b'r', b'#', ..] => key.split_at(2).1,
        _ => key,
    }
}

/// The keys of one section.
pub(super) trait Body: Sized {
    /// Every key that it has.
    const KEYS: &'static [&'static str];

    /// Reads all of them.
    fn read(table: &Table<'_>, draft: &mut Draft<'_>) -> Self;
}

/// A table of the merged configuration beside the same table of the file.
pub(super) struct Table<'a> {
    /// Where keys that are missing would have to be.
    at: At,
    dict: Option<&'a Dict>,
    spans: Option<&'a DeTable<'a>>,
    /// Whether what stands in its place has been refused already.
    broken: bool,
}

/// What stands at one key.
pub(super) struct Slot<'a> {
    pub(super) at: At,
    pub(super) value: Option<&'a Value>,
    pub(super) spans: Option<&'a Spanned<DeValue<'a>>>,
    /// Whether the table around it has been refused already.
    pub(super) broken: bool,
}

impl<'a> Table<'a> {
    /// The whole configuration.
    pub(super) fn root(dict: &'a Dict, spans: &'a DeTable<'a>) -> Self {
        let at = At { table: Rc::from(""), key: "".into(), place: Place::Whole };
        Self { at, dict: Some(dict), spans: Some(spans), broken: false }
    }

    /// What stands at `key`.
    pub(super) fn slot(&self, key: &'static str, draft: &Draft<'_>) -> Slot<'a> {
        let value = self.dict.and_then(|dict| dict.get(key));
        let spans = self.spans.and_then(|table| table.get(key));
        let at = At { table: Rc::clone(&self.at.table), key: key.into(), place: Place::Whole };
        let place = match (value, spans) {
            (Some(value), _) if draft.layers.is_from_environment(value) => at.environment(value),
            (Some(_), Some(spans)) => draft.place(&spans.span()),
            _ => self.at.place.clone(),
        };
        Slot { at: At { place, ..at }, value, spans, broken: self.broken }
    }

    /// The entries of the list at `key`, as the file has them.
    pub(super) fn entries(&self, key: &str) -> Option<&'a DeArray<'a>> {
        self.spans.and_then(|table| table.get(key)).and_then(|item| item.as_ref().as_array())
    }

    /// Reads the keys of `T` and refuses all others.
    pub(super) fn body<T: Body>(&self, draft: &mut Draft<'_>) -> T {
        for (key, value) in self.dict.into_iter().flatten() {
            if !T::KEYS.contains(&key.as_str()) {
                let at = self.unknown(key, value, draft);
                draft.refuse_unknown(&at, value, T::KEYS);
            }
        }
        T::read(self, draft)
    }

    fn unknown(&self, key: &str, value: &Value, draft: &Draft<'_>) -> At {
        let table = Rc::clone(&self.at.table);
        let at = At { table, key: key.to_owned().into(), place: self.at.place.clone() };
        let in_file = self.spans.and_then(|table| table.get_key_value(key));
        let place = match in_file {
            _ if draft.layers.is_from_environment(value) => at.environment(value),
            Some((key, _)) => draft.place(&key.span()),
            None => at.place.clone(),
        };
        At { place, ..at }
    }
}

impl<'a> Slot<'a> {
    /// The table here; an empty one when there is none.
    pub(super) fn table(self, draft: &mut Draft<'_>) -> Table<'a> {
        let path: Rc<str> = self.at.path().into();
        let dict = self.value.and_then(Value::as_dict);
        let broken = self.broken || (self.value.is_some() && dict.is_none());
        if broken && !self.broken {
            draft.reject(
                &self.at,
                format!("`{path}` is a section of its own, not a value"),
                Some(format!("write its keys below a line [{path}]")),
            );
        }
        let spans = self.spans.and_then(|spans| spans.as_ref().as_table());
        let at = At { table: path, key: "".into(), place: self.at.place };
        Table { at, dict, spans, broken }
    }

    /// The items of the list here; absent when it is no list.
    pub(super) fn items(&self, draft: &Draft<'_>) -> Option<Vec<Self>> {
        let values = self.value.and_then(Value::as_array)?;
        let spans = self.spans.and_then(|spans| spans.as_ref().as_array());
        let item = |(index, value): (usize, &'a Value)| {
            let spans = spans.and_then(|spans| spans.get(index));
            let key = format!("{}[{index}]", self.at.key).into();
            let place =
                spans.map_or_else(|| self.at.place.clone(), |spans| draft.place(&spans.span()));
            let at = At { table: Rc::clone(&self.at.table), key, place };
            Slot { at, value: Some(value), spans, broken: self.broken }
        };
        Some(values.iter().enumerate().map(item).collect())
    }
}
