//! Valid settings that are probably a mistake have a note: where, and what to compare.
//!
//! `tests/noted` has one small configuration per kind of note, `tests/noted/snapshots` its text.
#![expect(clippy::unwrap_used, reason = "test code may stop on the spot")]

use std::fs;
use std::path::PathBuf;

use provisioning::config;

fn files(dir: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some()).collect();
    files.sort();
    files
}

#[test]
fn probable_mistakes_are_noted() {
    for path in files("tests/noted") {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let notes = config::load(&path).unwrap().notes;
        let text = notes.to_string().replace(&path.display().to_string(), "gateway.toml");
        insta::with_settings!({
            snapshot_path => "noted/snapshots",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!(name, text);
        });
    }
}

#[test]
fn a_note_is_one_line_of_a_log() {
    let notes = config::load("tests/noted/misaligned_real.toml".as_ref()).unwrap().notes;
    let lines: Vec<_> = notes.lines().collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn common_configurations_have_no_notes() {
    for name in ["neighbours_and_bits", "generic_is_not_aligned", "shortest"] {
        let loaded = config::load(format!("tests/good/{name}.toml").as_ref()).unwrap();
        assert!(loaded.notes.is_empty(), "{}", loaded.notes);
        assert_eq!((loaded.notes.to_string().as_str(), loaded.notes.lines().count()), ("", 0));
    }
}
