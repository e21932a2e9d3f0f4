//! The variables that change the tests are defined once, in `tests/settings`, and CONTRIBUTING.md
//! shows the same table.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fs;
use std::path::{Path, PathBuf};

use test_settings::ALL;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member lies in it").to_owned()
}

/// Returns every file below a directory with one of these endings.
fn files(dir: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory can be read") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            found.extend(files(&path, endings));
        } else if path.extension().is_some_and(|ending| endings.iter().any(|e| ending == *e)) {
            found.push(path);
        }
    }
    found
}

#[test]
fn contributing_md_shows_every_variable_with_its_default_and_meaning() {
    let text = fs::read_to_string(workspace().join("CONTRIBUTING.md")).expect("it exists");
    let shown: Vec<&str> = text.lines().filter(|line| line.starts_with("| `E2E_")).collect();
    let defined =
        ALL.map(|it| format!("| `{}` | {} | {} |", it.name, it.default, it.meaning)).to_vec();
    assert_eq!(shown, defined, "left: CONTRIBUTING.md, right: tests/settings");
    assert!(ALL.is_sorted_by_key(|setting| setting.name));
}

#[test]
fn no_other_file_spells_the_name_of_a_variable() {
    let own = workspace().join("tests/settings");
    for dir in ["gateway", "provisioning", "tunnel", "tests", "deploy"] {
        let sources = files(&workspace().join(dir), &["rs", "js", "json", "py"]);
        for path in sources.into_iter().filter(|path| !path.starts_with(&own)) {
            let text = fs::read_to_string(&path).expect("sources are text");
            // Node-RED's own files cannot import the table: their names must be in it.
            let is_source = path.extension().is_some_and(|ending| ending == "rs");
            for (at, _) in text.match_indices("E2E_") {
                let rest = text.get(at..).unwrap_or_default();
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                let name = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
                let is_known = ALL.iter().any(|setting| setting.name == name);
                let quoted = text.get(..at).is_some_and(|before| before.ends_with('"'));
                let place = path.display();
                assert!(is_known || name == "E2E_", "{place}: {name} is not in tests/settings");
                assert!(!(is_source && quoted) || name == "E2E_", "{place}: use test_settings");
            }
        }
    }
}
