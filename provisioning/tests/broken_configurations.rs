//! Every broken configuration is explained: what is wrong, where, and what to write instead.
//!
//! `tests/broken` has one small configuration per mistake, `tests/broken/snapshots` its error text.
#![expect(clippy::unwrap_used, reason = "test code may stop on the spot")]

use std::fs;
use std::path::{Path, PathBuf};

use provisioning::config;

fn broken_files() -> Vec<PathBuf> {
    let files = fs::read_dir("tests/broken").unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some()).collect();
    files.sort();
    files
}

fn error_text(path: &Path) -> String {
    let rejected = config::load(path).unwrap_err();
    rejected.to_string().replace(&path.display().to_string(), "gateway.toml")
}

#[test]
fn a_broken_configuration_is_error_text() {
    let files = broken_files();
    assert!(files.len() >= 40);
    for path in files {
        let name = path.file_stem().unwrap().to_str().unwrap();
        insta::with_settings!({
            snapshot_path => "broken/snapshots",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!(name, error_text(&path));
        });
    }
}

#[test]
fn every_problem_has_a_help_text() {
    for path in broken_files() {
        let rejected = config::load(&path).unwrap_err();
        for problem in rejected.problems {
            assert!(problem.help.is_some_and(|help| !help.is_empty()), "{}", path.display());
        }
    }
}

#[test]
fn no_error_text_contains_a_secret() {
    for path in broken_files() {
        let rejected = config::load(&path).unwrap_err();
        for shown in [rejected.to_string(), rejected.coloured(), format!("{rejected:?}")] {
            assert!(!shown.contains("geheim"), "{}: {shown}", path.display());
        }
    }
}

#[test]
fn a_missing_file_and_a_directory_are_error_text() {
    let missing = error_text(Path::new("tests/no-such-directory/gateway.toml"));
    insta::assert_snapshot!("missing_file", missing);
    let directory = error_text(Path::new("tests/broken"));
    insta::assert_snapshot!("directory", directory);
}
