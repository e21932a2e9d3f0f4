//! What holds and is probably not meant is told: where, and what to look at.
//!
//! `tests/noted` holds one small configuration per kind of note, `tests/noted/snapshots` what is
//! said about it.
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
fn what_is_probably_not_meant_is_told() {
    for path in files("tests/noted") {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let notes = config::load(&path).unwrap().notes;
        let said = notes.to_string().replace(&path.display().to_string(), "gateway.toml");
        insta::with_settings!({
            snapshot_path => "noted/snapshots",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!(name, said);
        });
    }
}

#[test]
fn a_note_fits_on_a_line_of_a_log() {
    let notes = config::load("tests/noted/misaligned_real.toml".as_ref()).unwrap().notes;
    let lines: Vec<_> = notes.lines().collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn what_is_meant_is_not_noted() {
    for name in ["neighbours_and_bits", "generic_is_not_aligned", "shortest"] {
        let loaded = config::load(format!("tests/good/{name}.toml").as_ref()).unwrap();
        assert!(loaded.notes.is_empty(), "{}", loaded.notes);
        assert_eq!((loaded.notes.to_string().as_str(), loaded.notes.lines().count()), ("", 0));
    }
}
