//! Reference of all keys: a JSON Schema for editors and a Markdown page.

use schemars::Schema;
use serde_json::Value;

use super::raw::RawConfig;

/// Returns the JSON Schema of gateway.toml.
#[must_use]
pub fn schema() -> Schema {
    schemars::schema_for!(RawConfig)
}

/// Returns the reference as Markdown, with a table of keys for each section.
#[must_use]
pub fn reference() -> String {
    let schema = schema().to_value();
    let mut page = PREFACE.to_owned();
    for (path, brackets) in SECTIONS {
        let section = path.split('.').try_fold(&schema, |at, key| schema_of(&schema, at, key));
        if let Some(section) = section {
            page.push_str(&section_table(&schema, section, brackets));
        }
    }
    page
}

/// Returns the paths of all keys that a variable of the environment can set: `mqtt.client_id`.
pub(super) fn keys_outside_lists() -> Vec<String> {
    let schema = schema().to_value();
    let mut keys = Vec::new();
    let is_in_list = |path: &str| path.starts_with("plc") || path.ends_with(".hub");
    for (path, _) in SECTIONS.into_iter().filter(|(path, _)| !is_in_list(path)) {
        let section = path.split('.').try_fold(&schema, |at, key| schema_of(&schema, at, key));
        let properties = section.and_then(|section| section.get("properties"));
        for (key, schema) in properties.and_then(Value::as_object).into_iter().flatten() {
            if type_text(schema).is_some() {
                keys.push(format!("{path}.{key}"));
            }
        }
    }
    keys
}

const PREFACE: &str = "\
# gateway.toml

<!-- Generated from provisioning/src/config/raw.rs by `BLESS=1 cargo test -p provisioning`. -->

All keys of the configuration. `edge-gateway check FILE` reports all problems of a file at once, and
notes settings that are valid but probably a mistake: a REAL at an odd `%MW`, two values in the same
bytes. `edge-gateway print-config FILE --with-source` shows the effective settings and where each
was set. `edge-gateway schema` prints a JSON Schema for editors.

Durations are text with a unit (`\"200ms\"`, `\"1s\"`, `\"5m\"`, `\"1h\"`), and so are sizes
(`\"512KiB\"`, `\"16MiB\"`). An environment variable overrides a key outside the lists
`[[tunnel.hub]]`, `[[plc]]` and `[[plc.tag]]`: `EDGE_MQTT__CLIENT_ID` sets `client_id` of `[mqtt]`.
Unknown keys are errors, in the file and in a variable that names a section. Other variables that
begin with `EDGE_` change nothing and get one note: a pod of Kubernetes has them for its services.
";

/// The sections in the order of the page, with their headers.
const SECTIONS: [(&str, &str); 12] = [
    ("gateway", "[gateway]"),
    ("tunnel", "[tunnel]"),
    ("tunnel.hub", "[[tunnel.hub]]"),
    ("mqtt", "[mqtt]"),
    ("mqtt.will", "[mqtt.will]"),
    ("publish", "[publish]"),
    ("queue", "[queue]"),
    ("bundle", "[bundle]"),
    ("metrics", "[metrics]"),
    ("plc", "[[plc]]"),
    ("plc.publish", "[plc.publish]"),
    ("plc.tag", "[[plc.tag]]"),
];

/// Returns the schema of a key, following references and lists.
fn schema_of<'s>(root: &'s Value, section: &'s Value, key: &str) -> Option<&'s Value> {
    Some(resolved(root, section.get("properties")?.get(key)?))
}

fn resolved<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let reference = schema.get("$ref").and_then(Value::as_str);
    let target = reference.and_then(|r| r.strip_prefix('#')).and_then(|r| root.pointer(r));
    match (target, schema.get("items")) {
        (Some(target), _) => target,
        (None, Some(items)) => resolved(root, items),
        (None, None) => schema,
    }
}

fn section_table(root: &Value, section: &Value, brackets: &str) -> String {
    let meaning = markdown_text(section, "description");
    let mut table = format!("\n## {brackets}\n\n{meaning}\n\n");
    table.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
    let keys = section.get("properties").and_then(Value::as_object).into_iter().flatten();
    for (key, schema) in keys {
        let Some(kind) = type_text(schema) else { continue };
        let default = match schema.get("default") {
            Some(default) => format!("`{default}`"),
            None => markdown_text(schema, "x-default"),
        };
        let meaning = markdown_text(schema, "description");
        table.push_str(&format!("| `{key}` | {kind} | {default} | {meaning} |\n"));
    }
    debug_assert!(root.is_object());
    table
}

/// Returns the text for the type of a value, or `None` for a section.
fn type_text(schema: &Value) -> Option<String> {
    let of = |schema: &Value| Some(schema.get("x-type")?.as_str()?.replace('|', "\\|"));
    match schema.get("items") {
        Some(items) => of(items).map(|kind| format!("list of {kind}")),
        None => of(schema),
    }
}

fn markdown_text(schema: &Value, key: &str) -> String {
    let text = schema.get(key).and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
