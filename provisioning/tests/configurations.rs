//! Valid configurations: their settings and where each was set.
#![expect(clippy::panic, reason = "test code may stop on the spot")]

use std::path::{Path, PathBuf};

use provisioning::config::{self, Config, FileCheck};

fn good(name: &str) -> PathBuf {
    Path::new("tests/good").join(name)
}

fn load(name: &str) -> Config {
    config::load(&good(name)).unwrap_or_else(|rejected| panic!("{rejected}")).config
}

#[test]
fn every_key_reaches_the_typed_configuration() {
    let config = load("every_key.toml");
    insta::assert_debug_snapshot!(config);
}

#[test]
fn a_short_configuration_has_the_defaults() {
    insta::assert_debug_snapshot!(load("shortest.toml"));
}

#[test]
fn a_scaled_integer_has_the_decimal_places_of_its_scale() {
    let decimals = |name: &str| {
        let config = load("scales.toml");
        config.plcs[0].tags.iter().find(|tag| tag.name == name).unwrap().decimals
    };
    assert_eq!(decimals("tenth"), Some(1));
    assert_eq!(decimals("tenth_with_two_digits"), Some(2));
    assert_eq!(decimals("thousandth"), Some(3));
    assert_eq!(decimals("with_offset"), Some(2));
    assert_eq!(decimals("ten"), Some(0));
    assert_eq!(decimals("written"), Some(4));
    assert_eq!(decimals("plain"), None);
    assert_eq!(decimals("one"), None);
    assert_eq!(decimals("real"), None);
}

#[test]
fn print_config_names_the_source_of_every_setting() {
    let inspected = config::inspect(&good("every_key.toml"), FileCheck::Skip).unwrap();
    let lines: Vec<_> = inspected
        .settings()
        .iter()
        .map(|setting| format!("{} = {}  # {}", setting.path, setting.value, setting.source))
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn the_hash_depends_on_the_settings_and_not_on_the_text() {
    let hash = |name: &str| config::load(&good(name)).unwrap().hash;
    let short = hash("shortest.toml");
    assert_eq!(short.len(), 12);
    assert!(short.chars().all(|c| c.is_ascii_hexdigit()));
    assert_eq!(short, hash("shortest_written_otherwise.toml"));
    assert_ne!(short, hash("every_key.toml"));
}
