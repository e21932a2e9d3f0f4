//! Compares the code with the tables of ARCHITECTURE.md: a module uses only the modules that its
//! row lists.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

/// Each module of the gateway and the modules that it may use. Every module may use `model`.
const MODULES: &[(&str, &[&str])] = &[
    ("app", ALL),
    ("apply", &["metrics", "state_file", "uplink", "model"]),
    ("audit", &["queue", "model"]),
    ("cli", ALL),
    ("clock", &["state_file", "model"]),
    ("codec", &["model"]),
    ("command", &["codec", "model"]),
    (
        "demo",
        &[
            "app",
            "simulate",
            "mock_broker",
            "mqtt",
            "metrics",
            "uplink",
            "supervise",
            "audit",
            "codec",
            "web",
            "model",
        ],
    ),
    ("state_file", &[]),
    ("logging", &[]),
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

/// Each module of the office in `provisioning`, and the modules of the office that it may use.
const OFFICE_MODULES: &[(&str, &[&str])] = &[
    ("hub_choice", &[]),
    ("address_plan", &["hub_choice"]),
    ("fleet", &["address_plan", "hub_choice", "packages"]),
    ("output_file", &[]),
    ("packages", &["output_batch", "output_file"]),
    ("secrets", &["output_file"]),
    ("hub", &["certificates", "fleet", "output_file", "secrets"]),
    ("signing", &[]),
    ("authority", &[]),
    ("enrol", &["authority"]),
    ("boxes", &["enrol", "output_file"]),
    ("certificates", &["authority", "output_file", "secrets"]),
    ("fleet_lock", &["output_file", "secrets"]),
    ("fleet_signing", &["output_file", "secrets", "signing"]),
    ("output_batch", &["output_file"]),
    (
        "build",
        &[
            "boxes",
            "certificates",
            "fleet",
            "fleet_signing",
            "output_batch",
            "output_file",
            "packages",
            "secrets",
            "signing",
            "site_edit",
        ],
    ),
    ("site_edit", &[]),
    ("broker", &[]),
    ("site_report", &[]),
    ("rollout", &["build", "fleet", "output_file", "secrets", "site_report"]),
    ("import", &[]),
    ("cli", ALL),
];

/// Each module of the program with root in `provisioning`, and those of it that it may use.
const ROOT_HELPER_MODULES: &[(&str, &[&str])] = &[
    ("network", &[]),
    ("box_record", &["network"]),
    ("choice", &["box_record"]),
    ("update", &[]),
    ("dpkg", &["update"]),
    ("sentence", &["box_record", "dpkg", "network", "update"]),
    ("open_dir", &[]),
    ("gateway_state", &["open_dir"]),
    ("box_contents", &["network", "sentence"]),
    ("box_dir", &["box_record", "network", "open_dir", "sentence", "update"]),
    (
        "apply",
        &[
            "box_contents",
            "box_dir",
            "box_record",
            "choice",
            "gateway_state",
            "network",
            "sentence",
        ],
    ),
    ("run_dir", &["apply", "box_dir", "open_dir", "sentence"]),
    ("load", &["box_contents", "box_dir", "box_record", "gateway_state", "sentence"]),
    (
        "updater",
        &[
            "box_dir",
            "box_record",
            "dpkg",
            "gateway_state",
            "headline",
            "run_dir",
            "sentence",
            "update",
        ],
    ),
    ("headline", &[]),
    ("led", &["headline"]),
    ("stick", &["box_contents", "gateway_state", "load", "open_dir", "sentence"]),
    ("mount", &["sentence"]),
    ("wipe", &["box_dir", "network", "sentence"]),
    ("cli", ALL),
];

/// Marks the modules that may use every other.
const ALL: &[&str] = &["*"];

/// Files that belong to no module: they only declare modules, or exist for tests alone.
const ROOT_FILES: [&str; 3] = ["lib.rs", "main.rs", "testing.rs"];

/// Modules that decide and therefore take `now` and randomness as arguments.
const PURE: [&str; 8] =
    ["audit", "codec", "command", "model", "payload", "sampling", "schedule", "status"];

/// Names that a pure module must not contain.
const IMPURE: [&str; 7] =
    ["tokio::", "use tokio", "Instant::now", "SystemTime", "fastrand", "std::net::Tcp", "std::fs"];

/// Names of crates and types, and the only files that may use them, as prefixes of their paths.
const ONLY_USERS: &[(&str, &[&str])] = &[
    ("tokio_modbus", &["plc/modbus"]),
    ("rumqttc", &["mqtt/session", "mock_broker"]),
    ("SystemTime::now", &["clock"]),
];

/// The crates, each with the crates of the workspace that it may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("tunnel", &[]),
    ("provisioning", &["test-settings", "tunnel"]),
    ("gateway", &["provisioning", "test-settings", "tunnel"]),
    ("tests", &["gateway", "provisioning", "test-settings", "tunnel"]),
    ("tests/fuzz", &["gateway", "provisioning", "tunnel"]),
    ("tests/settings", &[]),
    ("tests/virtual-time", &["e2e", "gateway", "test-settings", "tunnel"]),
    ("deploy/xtask", &["test-settings"]),
];

const ADVICE: &str = "change the tables of tests/tests/architecture.rs and ARCHITECTURE.md";

#[test]
fn every_file_belongs_to_a_module() {
    for source in product() {
        let module = source.module();
        let is_known = MODULES.iter().any(|(name, _)| *name == module);
        assert!(
            is_known || ROOT_FILES.contains(&source.path.as_str()),
            "{}: {ADVICE}",
            source.path
        );
    }
}

#[test]
fn modules_of_the_office_use_only_the_modules_they_may_use() {
    assert_uses("office", OFFICE_MODULES);
}

#[test]
fn modules_of_the_program_with_root_use_only_the_modules_they_may_use() {
    assert_uses("root_helper", ROOT_HELPER_MODULES);
}

/// Compares what the modules below a module of `provisioning` use with their table.
fn assert_uses(parent: &str, modules: &[(&str, &[&str])]) {
    let mut violations = Vec::new();
    for source in product_below(&format!("provisioning/src/{parent}")) {
        let module = source.module();
        let Some((_, allowed)) = modules.iter().find(|(name, _)| *name == module) else {
            violations.push(format!("{}: it belongs to no module", source.path));
            continue;
        };
        let text = source.text.replace(&format!("crate::{parent}::"), "crate::");
        let is_forbidden = |used: &String| {
            let is_module = modules.iter().any(|(name, _)| name == used);
            is_module && *used != module && !allowed.contains(&used.as_str()) && *allowed != ALL
        };
        for used in uses(&text).into_iter().filter(is_forbidden) {
            violations.push(format!("{}: `{module}` must not use `{used}`", source.path));
        }
    }
    assert!(violations.is_empty(), "{}\nif the use is right, {ADVICE}", violations.join("\n"));
}

#[test]
fn architecture_md_shows_the_same_table() {
    for (header, modules) in [
        ("| module of `gateway` |", MODULES),
        ("| module of `office` |", OFFICE_MODULES),
        ("| module of `root_helper` |", ROOT_HELPER_MODULES),
    ] {
        assert_same_table(header, modules);
    }
}

fn assert_same_table(header: &str, modules: &[(&str, &[&str])]) {
    let text = fs::read_to_string(workspace().join("ARCHITECTURE.md")).expect("it exists");
    let table = text.split_once(header).expect("the page has this table").1;
    let rows = table.lines().take_while(|line| line.contains('|'));
    let shown: BTreeMap<&str, BTreeSet<&str>> =
        rows.filter_map(|line| row(line, modules)).collect();
    let held: BTreeMap<&str, BTreeSet<&str>> = modules
        .iter()
        .map(|(module, allowed)| {
            (*module, allowed.iter().copied().filter(|used| *used != "model").collect())
        })
        .collect();
    assert_eq!(shown, held, "left: the table of modules in ARCHITECTURE.md, right: the table here");
}

/// Returns a module and what it may use, from `| module | holds | may use |`; brackets explain.
fn row<'a>(line: &'a str, modules: &[(&str, &[&str])]) -> Option<(&'a str, BTreeSet<&'a str>)> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [module, _, may_use] = cells.as_slice() else { return None };
    let is_module = modules.iter().any(|(name, _)| name == module);
    let names = may_use.split(", ").map(|name| match name {
        "everything" => "*",
        name => name.split(" (").next().unwrap_or(name),
    });
    is_module.then(|| (*module, names.filter(|name| *name != "-").collect()))
}

#[test]
fn modules_use_only_the_modules_they_may_use() {
    let mut violations = Vec::new();
    for source in product() {
        let module = source.module();
        let Some((_, allowed)) = MODULES.iter().find(|(name, _)| *name == module) else { continue };
        let may_use_all = *allowed == ALL;
        for used in uses(&source.text).into_iter().filter(|used| *used != module) {
            if !may_use_all && !allowed.contains(&used.as_str()) {
                violations.push(format!("{}: `{module}` must not use `{used}`", source.path));
            }
        }
    }
    assert!(violations.is_empty(), "{}\nif the use is right, {ADVICE}", violations.join("\n"));
}

#[test]
fn only_the_listed_files_use_a_crate_of_others() {
    for source in product() {
        for (name, users) in ONLY_USERS {
            let is_user = users.iter().any(|user| source.path.starts_with(user));
            assert!(
                is_user || !source.text.contains(name),
                "{}: only {users:?} may use {name}",
                source.path
            );
        }
    }
}

#[test]
fn pure_modules_use_no_runtime_no_clock_and_no_randomness() {
    for source in product().iter().filter(|source| PURE.contains(&source.module().as_str())) {
        for name in IMPURE {
            let path = &source.path;
            assert!(!source.text.contains(name), "{path}: a pure module must not use {name}");
        }
    }
}

#[test]
fn crates_depend_only_downwards() {
    let names: BTreeSet<_> = CRATES.iter().flat_map(|(_, allowed)| *allowed).copied().collect();
    for (name, allowed) in CRATES {
        let text = fs::read_to_string(workspace().join(name).join("Cargo.toml"))
            .expect("every member has a manifest");
        let manifest: Table = text.parse().expect("a manifest is TOML");
        let used = ["dependencies", "dev-dependencies", "build-dependencies"]
            .iter()
            .filter_map(|section| manifest.get(*section)?.as_table())
            .flat_map(Table::keys);
        for used in used.filter(|used| names.contains(used.as_str())) {
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

/// The checks above rely on this.
#[test]
fn every_way_to_name_a_module_is_found() {
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
    let text = rooted("module/file.rs", &without_comments(text));
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
    /// Relative to the directory of the modules.
    path: String,
    /// Product code only.
    text: String,
}

impl Source {
    fn module(&self) -> String {
        let first = self.path.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs").to_owned()
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member lies in it").to_owned()
}

fn product() -> Vec<Source> {
    product_below("gateway/src")
}

fn product_below(root: &str) -> Vec<Source> {
    let root = workspace().join(root);
    let mut sources = Vec::new();
    let mut todo = vec![root.clone()];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory can be read");
            todo.extend(entries.map(|entry| entry.expect("readable").path()));
        } else if is_product(path.strip_prefix(&root).expect("it is below the root")) {
            let text = fs::read_to_string(&path).expect("sources are text");
            let path = path.strip_prefix(&root).expect("it is below the root");
            let path = path.display().to_string();
            let text = rooted(&path, &without_comments(product_part(&text)));
            sources.push(Source { path, text });
        }
    }
    assert!(!sources.is_empty(), "no sources in {}", root.display());
    sources
}

/// Returns whether a file, by its path below the root, holds product code.
fn is_product(path: &Path) -> bool {
    let is_test = |part: &std::ffi::OsStr| part == "tests" || part == "tests.rs";
    path.extension().is_some_and(|extension| extension == "rs") && !path.iter().any(is_test)
}

/// Returns the text before an inline test module, which the house rules put last.
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

/// Replaces `super::super::` by `crate::` where it reaches the root of the crate.
fn rooted(path: &str, text: &str) -> String {
    text.replace(&"super::".repeat(path.split('/').count()), "crate::")
}

/// Returns the modules that a text names by `crate::module` or in a `use crate::{..}` group.
fn uses(text: &str) -> BTreeSet<String> {
    text.split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(group) => first_names(group),
            None => vec![identifier(rest)],
        })
        // Constants, macros and types of the crate root are no modules.
        .filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect()
}

/// Returns the first identifier of every member of a group whose brace is already consumed.
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
