//! The reference and the schema describe exactly the accepted keys.
#![expect(clippy::unwrap_used, reason = "test code may stop on the spot")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use provisioning::config;
use serde_json::Value;

const PAGE: &str = "../docs/configuration.md";

#[test]
fn the_reference_is_up_to_date() {
    let page = config::reference();
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(Path::new(PAGE).parent().unwrap()).unwrap();
        fs::write(PAGE, &page).unwrap();
    }
    let written = fs::read_to_string(PAGE).unwrap_or_default();
    assert!(written == page, "{PAGE} is stale: run BLESS=1 cargo test -p provisioning");
}

#[test]
fn the_schema_has_not_changed() {
    insta::assert_json_snapshot!(config::schema());
}

#[test]
fn every_key_has_a_description_a_type_and_a_default_and_is_in_the_full_example() {
    let schema = config::schema().to_value();
    let example: toml::Table =
        fs::read_to_string("tests/good/every_key.toml").unwrap().parse().unwrap();
    let mut used = BTreeSet::new();
    collect(&toml::Value::Table(example), "", &mut used);
    // Git does not store file modes, so the full example has no secret files; environment.rs and
    // tunnel.rs test these keys.
    for key in ["mqtt.password_file", "mqtt.cert_file", "mqtt.key_file"] {
        used.insert(key.to_owned());
    }
    let mut known = BTreeSet::new();
    walk(&schema, &schema, "", &mut known);
    assert_eq!(used, known);
}

/// Collects the paths of all keys that are set, without the indices of list entries.
fn collect(value: &toml::Value, path: &str, used: &mut BTreeSet<String>) {
    let is_value = ["publish.extra", "tag.enum", "tag.valid", "tag.write"]
        .iter()
        .any(|key| path.ends_with(key));
    if let Some(table) = value.as_table().filter(|_| !is_value) {
        for (key, value) in table {
            collect(value, format!("{path}.{key}").trim_start_matches('.'), used);
        }
    } else if let Some(items) =
        value.as_array().filter(|items| items.iter().all(toml::Value::is_table))
    {
        items.iter().for_each(|item| collect(item, path, used));
    } else {
        used.insert(path.to_owned());
    }
}

fn walk(root: &Value, schema: &Value, path: &str, known: &mut BTreeSet<String>) {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        return walk(root, root.pointer(&reference[1..]).unwrap(), path, known);
    }
    let is_section = schema.get("x-type").is_none();
    let properties = schema.get("properties").and_then(Value::as_object).filter(|_| is_section);
    if let Some(properties) = properties {
        for (key, schema) in properties {
            let path = format!("{path}.{key}").trim_start_matches('.').to_owned();
            assert!(schema["description"].is_string(), "{path} has no description");
            walk(root, schema, &path, known);
        }
        return;
    }
    match schema.get("items") {
        Some(items) if items.get("$ref").is_some() => walk(root, items, path, known),
        items => {
            assert!(items.unwrap_or(schema)["x-type"].is_string(), "{path} has no type");
            let defaults = ["default", "x-default"].map(|key| schema.get(key).is_some());
            assert!(defaults.contains(&true), "{path} has no default");
            known.insert(path.to_owned());
        }
    }
}
