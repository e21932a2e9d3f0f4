//! Holds the map of ARCHITECTURE.md true: code uses only the rooms that its own room may use.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

/// Each room of the gateway and the rooms it may use. `model` is everybody's vocabulary.
const ROOMS: &[(&str, &[&str])] = &[
    ("app", ALL),
    ("audit", &["queue", "model"]),
    ("cli", ALL),
    ("clock", &["state_file", "model"]),
    ("codec", &["model"]),
    ("demo", &["app", "simulate", "mock_broker", "supervise", "audit", "codec", "web", "model"]),
    ("state_file", &[]),
    ("metrics", &["model"]),
    ("model", &[]),
    ("mqtt", &["schedule", "uplink", "metrics", "model"]),
    ("payload", &["codec", "model"]),
    ("plc", &["codec", "schedule", "clock", "metrics", "model"]),
    ("queue", &["metrics", "model"]),
    ("sampling", &["codec", "model"]),
    ("schedule", &["model"]),
    ("simulate", &["model"]),
    ("mock_broker", &["model"]),
    ("status", &["model"]),
    ("supervise", &[]),
    ("uplink", &["model"]),
    ("web", &["status", "metrics", "model"]),
];

/// Marks the rooms that may use every other.
const ALL: &[&str] = &["*"];

/// Files that belong to no room: they only name rooms, or are there for tests alone.
const DOORS: [&str; 3] = ["lib.rs", "main.rs", "testing.rs"];

/// Rooms that decide and therefore take `now` and randomness as arguments.
const PURE: [&str; 7] = ["audit", "codec", "model", "payload", "sampling", "schedule", "status"];

/// Names that a pure room must not contain.
const IMPURE: [&str; 7] =
    ["tokio::", "use tokio", "Instant::now", "SystemTime", "fastrand", "std::net::Tcp", "std::fs"];

/// Foreign names and the only files, as prefixes of their paths, that may contain them.
const DOORKEEPERS: &[(&str, &[&str])] = &[
    ("tokio_modbus", &["plc/modbus"]),
    ("rumqttc", &["mqtt/session", "mock_broker"]),
    ("SystemTime", &["clock"]),
];

/// The crates, each with those of ours that it may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("tunnel", &[]),
    ("provisioning", &["tunnel"]),
    ("gateway", &["provisioning", "tunnel"]),
    ("tests", &["gateway", "provisioning", "tunnel"]),
    ("tests/fuzz", &["gateway", "provisioning", "tunnel"]),
    ("tests/virtual-time", &["e2e", "gateway", "tunnel"]),
    ("deploy/xtask", &[]),
];

const ADVICE: &str = "add the room to the table in tests/tests/rooms.rs and to ARCHITECTURE.md";

#[test]
fn every_file_belongs_to_a_room() {
    for source in product() {
        let room = source.room();
        let is_known = ROOMS.iter().any(|(name, _)| *name == room);
        assert!(is_known || DOORS.contains(&source.path.as_str()), "{}: {ADVICE}", source.path);
    }
}

#[test]
fn architecture_md_shows_the_same_table() {
    let text = fs::read_to_string(workspace().join("ARCHITECTURE.md")).expect("it is there");
    let shown: BTreeMap<&str, BTreeSet<&str>> = text.lines().filter_map(row).collect();
    let held: BTreeMap<&str, BTreeSet<&str>> = ROOMS
        .iter()
        .map(|(room, allowed)| {
            (*room, allowed.iter().copied().filter(|used| *used != "model").collect())
        })
        .collect();
    assert_eq!(
        shown, held,
        "the table of rooms in ARCHITECTURE.md, left, is not the one held here"
    );
}

/// A room and what it may use, from `| room | holds | may use |`; brackets explain.
fn row(line: &str) -> Option<(&str, BTreeSet<&str>)> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [room, _, may_use] = cells.as_slice() else { return None };
    let is_room = ROOMS.iter().any(|(name, _)| name == room);
    let names = may_use.split(", ").map(|name| match name {
        "everything" => "*",
        name => name.split(" (").next().unwrap_or(name),
    });
    is_room.then(|| (*room, names.filter(|name| *name != "-").collect()))
}

#[test]
fn rooms_use_only_the_rooms_they_may_use() {
    let mut crossings = Vec::new();
    for source in product() {
        let room = source.room();
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else { continue };
        let is_free = *allowed == ALL;
        for used in uses(&source.text).into_iter().filter(|used| *used != room) {
            if !is_free && !allowed.contains(&used.as_str()) {
                crossings.push(format!("{}: `{room}` must not use `{used}`", source.path));
            }
        }
    }
    assert!(crossings.is_empty(), "{}\nif the arrow is right, {ADVICE}", crossings.join("\n"));
}

#[test]
fn foreign_crates_stop_at_their_door() {
    for source in product() {
        for (name, keepers) in DOORKEEPERS {
            let is_keeper = keepers.iter().any(|keeper| source.path.starts_with(keeper));
            assert!(
                is_keeper || !source.text.contains(name),
                "{}: only {keepers:?} may name {name}",
                source.path
            );
        }
    }
}

#[test]
fn pure_rooms_see_no_runtime_no_clock_and_no_dice() {
    for source in product().iter().filter(|source| PURE.contains(&source.room().as_str())) {
        for name in IMPURE {
            let path = &source.path;
            assert!(!source.text.contains(name), "{path}: a pure room must not name {name}");
        }
    }
}

#[test]
fn crates_depend_only_downwards() {
    let ours: BTreeSet<_> = CRATES.iter().map(|(name, _)| *name).collect();
    for (name, allowed) in CRATES {
        let text = fs::read_to_string(workspace().join(name).join("Cargo.toml"))
            .expect("every member has a manifest");
        let manifest: Table = text.parse().expect("a manifest is TOML");
        let used = ["dependencies", "dev-dependencies", "build-dependencies"]
            .iter()
            .filter_map(|section| manifest.get(*section)?.as_table())
            .flat_map(Table::keys);
        for used in used.filter(|used| ours.contains(used.as_str())) {
            assert!(allowed.contains(&used.as_str()), "`{name}` must not depend on `{used}`");
        }
    }
}

#[test]
fn the_table_of_crates_is_complete() {
    let text = fs::read_to_string(workspace().join("Cargo.toml")).expect("the workspace has one");
    let manifest: Table = text.parse().expect("a manifest is TOML");
    let members = manifest["workspace"]["members"].as_array().expect("members are a list");
    for member in members.iter().filter_map(toml::Value::as_str) {
        let is_known = CRATES.iter().any(|(name, _)| *name == member);
        assert!(is_known, "add the crate `{member}` to CRATES and to ARCHITECTURE.md");
    }
}

/// The checks are only worth something if they see every way to name a room.
#[test]
fn every_way_to_name_a_room_is_seen() {
    let text = "
        use crate::alpha::{Thing, crate_level};
        use crate::{beta, gamma::{self, Other}, delta as d,
            epsilon::*};
        fn f() -> crate::zeta::Thing { crate::eta::make() }
        use super::super::{theta::Far};
        use super::sibling::Near;
        // crate::comment is none
        pub(crate) fn g() {}
        macro_rules! m { () => { $crate::iota::x() } }
    ";
    let expected = ["alpha", "beta", "delta", "epsilon", "eta", "gamma", "iota", "theta", "zeta"];
    let text = rooted("room/file.rs", &without_comments(text));
    assert_eq!(uses(&text), expected.map(str::to_owned).into());
}

#[test]
fn test_code_is_exempt() {
    let text = "use crate::a;\n#[cfg(test)]\nmod tests {\n use crate::b;\n}\n";
    assert_eq!(uses(product_part(text)), ["a".to_owned()].into());
    let text = "use crate::a;\n#[cfg(test)]\nmod tests;\nuse crate::c;\n";
    assert_eq!(uses(product_part(text)), ["a".to_owned(), "c".to_owned()].into());
}

struct Source {
    /// Relative to gateway/src.
    path: String,
    /// Product code only.
    text: String,
}

impl Source {
    fn room(&self) -> String {
        let first = self.path.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs").to_owned()
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member lies in it").to_owned()
}

fn product() -> Vec<Source> {
    let root = workspace().join("gateway/src");
    let mut sources = Vec::new();
    let mut todo = vec![root.clone()];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory can be read");
            todo.extend(entries.map(|entry| entry.expect("readable").path()));
        } else if is_product(&path) {
            let text = fs::read_to_string(&path).expect("sources are text");
            let path = path.strip_prefix(&root).expect("it lies below").display().to_string();
            let text = rooted(&path, &without_comments(product_part(&text)));
            sources.push(Source { path, text });
        }
    }
    assert!(!sources.is_empty(), "no sources in {}", root.display());
    sources
}

fn is_product(path: &Path) -> bool {
    let is_test = |part: &std::ffi::OsStr| part == "tests" || part == "tests.rs";
    path.extension().is_some_and(|extension| extension == "rs") && !path.iter().any(is_test)
}

/// Everything before an inline test module, which the house rules put last.
fn product_part(text: &str) -> &str {
    let inline = text.match_indices("#[cfg(test)]").find(|(at, _)| {
        let item = text[*at..].lines().find(|line| line.trim_start().starts_with("mod "));
        item.is_some_and(|line| line.trim_end().ends_with('{'))
    });
    inline.map_or(text, |(at, _)| &text[..at])
}

fn without_comments(text: &str) -> String {
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned() + "\n";
    text.lines().map(code).collect()
}

/// Writes the crate's root as `crate::` where a file climbs to it by `super::`.
fn rooted(path: &str, text: &str) -> String {
    text.replace(&"super::".repeat(path.split('/').count()), "crate::")
}

/// Rooms that a text names by `crate::room` or in a `use crate::{..}` group.
fn uses(text: &str) -> BTreeSet<String> {
    text.split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(group) => first_names(group),
            None => vec![identifier(rest)],
        })
        // Constants, macros and types of the crate root are no rooms.
        .filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect()
}

/// The first identifier of every member of a group that has been opened.
fn first_names(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut is_start) = (0_u32, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_start = true,
            _ if is_start && !c.is_whitespace() => {
                names.push(identifier(&group[at..]));
                is_start = false;
            }
            _ => {}
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}
