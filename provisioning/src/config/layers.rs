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
    /// Variables `EDGE_*` that set no key, sorted.
    pub(super) other_variables: Vec<String>,
}

impl Layers {
    /// Overrides the tables of a file by the environment. `split_list` names a list that was split
    /// off.
    pub(super) fn new(
        path: &Path,
        tables: &DeTable<'_>,
        split_list: Option<&str>,
        variables: EnvVariables,
    ) -> Self {
        let (lists, sections): (Vec<_>, Vec<_>) =
            tables.iter().partition(|(_, item)| item.as_ref().is_array());
        let file = Layer { metadata: Metadata::from("file", path), data: figment_dict(sections) };
        let environment =
            Layer { metadata: Metadata::named(ENVIRONMENT_LAYER), data: variables.values };
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
        Self { figment, merged, other_variables: variables.others }
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

/// The `EDGE_*` variables of the environment.
#[derive(Default)]
pub(super) struct EnvVariables {
    /// Those that set a key, as text. The type of the key decides how a text is read, so that
    /// `EDGE_MQTT__USERNAME=007` stays the name 007.
    values: Dict,
    /// Names of the others, sorted.
    others: Vec<String>,
}

impl EnvVariables {
    /// Reads the environment. A variable sets a key if its name is `EDGE_<SECTION>__<KEY>` with one
    /// of these sections. A pod of Kubernetes has others: `EDGE_GATEWAY_PORT` for a service named
    /// edge-gateway, `EDGE_MQTT__X_PORT` for one named edge-mqtt--x.
    pub(super) fn read(sections: &[&str]) -> Self {
        let mut all = Self { values: Dict::new(), others: Vec::new() };
        for (name, text) in Env::prefixed(ENV_PREFIX).iter() {
            let (section, key) = name.as_str().split_once("__").unwrap_or_default();
            let is_key =
                sections.contains(&section) && key.split("__").all(|part| !part.is_empty());
            if is_key && !is_of_service(name.as_str(), &text) {
                insert_at(&mut all.values, &name.as_str().replace("__", "."), text);
            } else {
                all.others.push(format!("{ENV_PREFIX}{}", name.as_str().to_ascii_uppercase()));
            }
        }
        all.others.sort_unstable();
        all
    }
}

/// Returns whether Kubernetes adds a variable of this name, in lower case, for a service:
/// `.._SERVICE_HOST`, `.._SERVICE_PORT_HTTP`, `.._PORT` and `.._PORT_1883_TCP_ADDR`.
fn is_of_service(name: &str, text: &str) -> bool {
    let is_port = |rest: &str| {
        let protocol = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
        protocol.len() < rest.len()
            && ["_tcp", "_udp", "_sctp"].iter().any(|name| protocol.starts_with(name))
    };
    name.ends_with("_service_host")
        || name.contains("_service_port")
        || name.ends_with("_port") && text.contains("://")
        || name.rsplit_once("_port_").is_some_and(|(_, rest)| is_port(rest))
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
