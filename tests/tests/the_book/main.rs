//! The book is true: its commands run, its files are accepted, its messages are JSON.
#![expect(clippy::expect_used, clippy::panic, reason = "test code may stop on the spot")]

mod desk;
mod new_user;
mod pages;
mod settings_of_others;

use std::fs;
use std::process::Command;

use desk::Desk;
use e2e::{Gateway, temp_dir};
use pages::{Block, page, pages};
use serde_json::{Deserializer, Value};

/// Plays a page from its first block to its last.
fn play(path: &str) -> String {
    let page = page(path);
    let mut desk = Desk::prepared_for(&page);
    desk.play(&page.blocks()).1
}

#[test]
fn every_page_with_commands_is_played_here() {
    let played = [
        "README.md",
        "docs/fleet/fleet.md",
        "docs/fleet/updates.md",
        "docs/hub/completeness.md",
        "docs/hub/maintenance.md",
        "docs/hub/monitoring.md",
        // Measurements, which take hours: `cargo xtask bench` and other tests run them.
        "docs/performance-measurements.md",
        "docs/plc/import.md",
        "docs/plc/m262.md",
        "docs/plc/machine-expert.md",
        "docs/plc/reading.md",
        "docs/plc/simulated-plc.md",
        "docs/site/install.md",
        "docs/site/troubleshooting.md",
        "docs/site/tunnel.md",
        "docs/start.md",
    ];
    let with_commands: Vec<String> =
        pages().into_iter().filter(|page| !page.lines().is_empty()).map(|page| page.path).collect();
    assert_eq!(with_commands, played);
}

#[test]
fn the_readme() {
    let audited = play("README.md");
    assert!(audited.contains("edge/amsterdam-01/data/pump6"), "{audited}");
}

#[test]
fn from_the_package_to_values() {
    play("docs/start.md");
}

#[test]
fn variables_in_machine_expert() {
    let planned = play("docs/plc/machine-expert.md");
    assert!(planned.contains("FC 3 "), "{planned}");
}

#[test]
fn the_simulated_plc() {
    play("docs/plc/simulated-plc.md");
}

/// `%IX0.0` to `%IX0.4` are one row of the page, and so are the outputs.
#[test]
fn the_variables_of_the_simulated_plc_are_those_that_it_lists() {
    let page = page("docs/plc/simulated-plc.md");
    let output = Command::new(Gateway::program()).args(["simulate", "--list"]).output();
    let listed = String::from_utf8(output.expect("it starts").stdout).expect("text");
    assert!(!listed.is_empty());
    for line in listed.lines() {
        let (declaration, _) = line.split_once(';').expect("a declaration");
        let (name, rest) = declaration.split_once(" AT ").expect("an address");
        let (at, iec_type) = rest.split_once(" : ").expect("a type");
        let is_io = at.starts_with("%IX") || at.starts_with("%QX");
        let row = format!("| `{at}` | `{name} : {iec_type}` |");
        assert!(is_io || page.text.contains(&row), "{row}");
    }
}

#[test]
fn tags_from_a_plc_project() {
    let planned = play("docs/plc/import.md");
    assert!(planned.contains("FC 3 "), "{planned}");
}

#[test]
fn the_messages_of_an_m262() {
    let message = play("docs/plc/m262.md");
    let (topic, payload) = message.trim().split_once(' ').expect("topic and payload");
    let payload: Value = serde_json::from_str(payload).expect("JSON");
    assert_eq!((topic, &payload["M241"]["id"]), ("topic1", &Value::from(0)));
    assert!(payload["M241"]["temp"].is_f64() && payload.get("gateway").is_none(), "{payload}");
}

#[test]
fn how_a_plc_is_read() {
    play("docs/plc/reading.md");
}

#[test]
fn installing_on_site() {
    play("docs/site/install.md");
}

#[test]
fn the_tunnel_to_the_hub() {
    play("docs/site/tunnel.md");
}

#[test]
fn when_something_is_wrong() {
    play("docs/site/troubleshooting.md");
}

#[test]
fn many_sites_from_one_place() {
    let listed = play("docs/fleet/fleet.md");
    assert!(listed.contains("amsterdam-01  10.77.0.12"), "{listed}");
    assert!(listed.contains("hub-a") && listed.contains("hub-b"), "{listed}");
}

#[test]
fn new_versions_on_the_boxes() {
    let built = play("docs/fleet/updates.md");
    assert!(built.contains("out/bundles/packages: 2 packages, 0 new, 0 removed"), "{built}");
}

#[test]
fn monitoring_and_alerts() {
    play("docs/hub/monitoring.md");
}

#[test]
fn was_anything_lost() {
    let report = play("docs/hub/completeness.md");
    assert!(report.contains("edge/amsterdam-01/data/pump6"), "{report}");
}

#[test]
fn backup_upgrade_new_secrets() {
    play("docs/hub/maintenance.md");
}

#[test]
fn every_message_in_the_book_is_json() {
    for page in pages() {
        for block in page.blocks() {
            let Block::Json(text) = block else { continue };
            let values = Deserializer::from_str(&text).into_iter::<Value>();
            for value in values {
                assert!(value.is_ok(), "{}: {value:?}\n{text}", page.path);
            }
        }
    }
}

/// What a fragment leaves out: the least that a gateway.toml needs.
const REST: &str = r#"
[gateway]
id = "g"

[mqtt]
brokers = ["mqtt://127.0.0.1:1883"]

[[plc]]
name = "p"
model = "M241"
address = "127.0.0.1:1502"

[[plc.tag]]
name = "t"
at = "%MW0"
type = "INT"
"#;

#[test]
fn every_part_of_a_configuration_in_the_book_is_accepted() {
    for page in pages() {
        for block in page.blocks() {
            let Block::Fragment(text) = block else { continue };
            let mut whole: toml::Table = REST.parse().expect("TOML");
            let part: toml::Table = text.parse().unwrap_or_else(|e| panic!("{}: {e}", page.path));
            whole.extend(part);
            accepts(&page.path, &toml::to_string(&whole).expect("TOML"));
        }
    }
}

/// `check` with credentials of the names that the book uses.
fn accepts(page: &str, text: &str) {
    let dir = temp_dir();
    dir.write("gateway.toml", text);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(Gateway::program());
        command.args(arguments).current_dir(dir.path());
        command.env("CREDENTIALS_DIRECTORY", dir.path()).output().expect("the program starts")
    };
    assert!(run(&["keygen", "tunnel.key"]).status.success());
    // The same mode: only its owner may read it.
    fs::copy(dir.path().join("tunnel.key"), dir.path().join("mqtt.password")).expect("writable");
    let checked = run(&["check", "gateway.toml"]);
    assert!(checked.status.success(), "{page}:\n{text}\n{checked:?}");
}
