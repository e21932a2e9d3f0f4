//! The layers of a configuration: the file, overridden by the environment.
//!
//! Defaults are not a layer; each key has its own (`section!` in `read`). A list of tables replaces
//! the list of the layer below as a whole, so a layer of defaults could not reach into `[[plc]]`.

use std::path::Path;

use figment::providers::Env;
use figment::value::{Dict, Map, Value};
use figment::{Error, Figment, Metadata, Profile, Provider};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// Prefix of every variable that sets a key: `EDGE_MQTT__CLIENT_ID` sets `mqtt.client_id`.
pub(super) const ENV_PREFIX: &str = "EDGE_";

const ENVIRONMENT_LAYER: &str = "environment";

/// Both layers, merged, with the origin of every value.
pub(super) struct Layers {
    figment: Figment,
    /// The merged values.
    pub(super) merged: Dict,
}

impl Layers {
    /// Overrides the tables of a file by the environment. `cut` names a list that was split off.
    pub(super) fn new(path: &Path, tables: &DeTable<'_>, split_list: Option<&str>) -> Self {
        let (lists, sections): (Vec<_>, Vec<_>) =
            tables.iter().partition(|(_, item)| item.as_ref().is_array());
        let file = Layer { metadata: Metadata::from("file", path), data: figment_dict(sections) };
        let environment =
            Layer { metadata: Metadata::named(ENVIRONMENT_LAYER), data: environment_variables() };
        let figment = Figment::from(file).merge(environment);
        let merged = figment.find_value("").ok().and_then(Value::into_dict);
        let mut merged = merged.unwrap_or_default();
        // Lists do not merge, and the list of PLCs may be long: `StreamedList` reads it from the
        // tables of the file. An empty list marks that the key is set.
        let lists = lists.into_iter().map(|(key, _)| key.as_ref().as_ref()).chain(split_list);
        for key in lists {
            let empty = Value::from(Vec::<Value>::new());
            merged.entry(key.to_owned()).or_insert(empty);
        }
        Self { figment, merged }
    }

    /// Returns whether the environment set this value.
    pub(super) fn is_from_environment(&self, value: &Value) -> bool {
        self.figment.get_metadata(value.tag()).is_some_and(|layer| layer.name == ENVIRONMENT_LAYER)
    }
}

type SpannedKey<'a> = Spanned<DeString<'a>>;
type SpannedItem<'a> = Spanned<DeValue<'a>>;

struct Layer {
    metadata: Metadata,
    data: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Map::from([(Profile::Default, self.data.clone())]))
    }
}

/// Returns the `EDGE_*` variables as text. The type of the key decides how a text is read, so that
/// `EDGE_MQTT__USERNAME=007` stays the name 007.
fn environment_variables() -> Dict {
    let mut all = Dict::new();
    for (key, text) in Env::prefixed(ENV_PREFIX).split("__").iter() {
        insert_at(&mut all, key.as_str(), text);
    }
    all
}

fn insert_at(dict: &mut Dict, path: &str, text: String) {
    let Some((section, rest)) = path.split_once('.') else {
        dict.insert(path.to_owned(), Value::from(text));
        return;
    };
    let mut inner = dict.remove(section).and_then(Value::into_dict).unwrap_or_default();
    insert_at(&mut inner, rest, text);
    dict.insert(section.to_owned(), Value::from(inner));
}

fn figment_dict<'a>(
    table: impl IntoIterator<Item = (&'a SpannedKey<'a>, &'a SpannedItem<'a>)>,
) -> Dict {
    table
        .into_iter()
        .map(|(key, item)| (key.as_ref().to_string(), figment_value(item.as_ref())))
        .collect()
}

/// Converts a value to figment's type, without spans.
pub(super) fn figment_value(item: &DeValue<'_>) -> Value {
    match item {
        DeValue::String(text) => Value::from(text.as_ref()),
        // A number beyond figment's types stays text: its key then says what it accepts.
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::from(number.to_string()), Value::from),
        DeValue::Float(number) => number
            .as_str()
            .parse::<f64>()
            .map_or_else(|_| Value::from(number.to_string()), Value::from),
        DeValue::Boolean(flag) => Value::from(*flag),
        DeValue::Datetime(datetime) => Value::from(datetime.to_string()),
        DeValue::Array(items) => {
            items.iter().map(|i| figment_value(i.as_ref())).collect::<Vec<_>>().into()
        }
        DeValue::Table(table) => Value::from(figment_dict(table)),
    }
}
