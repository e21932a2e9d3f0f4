//! Mutations of every export in tests/import are read or explained, and what becomes a tag is a tag
//! for the gateway.
//!
//! Every run tests the same mutations. `E2E_MUTATIONS=1000000` tests more.
#![expect(clippy::unwrap_used, reason = "test code may stop on the spot")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use provisioning::office::import::{Import, ImportFile, TagFile, import};

#[path = "support/mutation.rs"]
mod mutation;

const MUTATIONS: usize = 2_000;
const PIECES: [&str; 30] = [
    "VAR_GLOBAL\n",
    "END_VAR",
    "TYPE ",
    "STRUCT ",
    "END_STRUCT",
    "UNION ",
    "EXTENDS ST_PUMP ",
    "ARRAY[0..9999999, -5..5] OF ",
    "POINTER TO ",
    " AT %MW59999 : ",
    "%MX1.7",
    "%M*",
    "BIT;",
    "ST_PUMP",
    "STRING(80)",
    "(*",
    "*)",
    "//",
    "{attribute 'pack_mode' := '1'}",
    ":=",
    "..",
    "16#FFFFFFFFFFFFFFFF",
    "\"",
    "<",
    "</Node>",
    " nativesize=\"4\"",
    " directaddress=\"%MB1\"",
    "\u{feff}",
    "\u{0}",
    "\n",
];

/// Imports the bytes; returns whether there are tags.
fn is_imported(path: &str, bytes: Vec<u8>) -> bool {
    match import(&[ImportFile { path: path.into(), bytes }], None) {
        Ok(import) => {
            check(&import);
            !import.tags.is_empty()
        }
        Err(rejected) => {
            assert!(!rejected.problems.is_empty() && !rejected.to_string().is_empty());
            false
        }
    }
}

fn check(import: &Import) {
    let names: BTreeSet<_> = import.tags.iter().map(|tag| tag.name.to_lowercase()).collect();
    assert_eq!(names.len(), import.tags.len());
    for tag in &import.tags {
        assert!(import.model.locate(&tag.at, tag.data_type).is_ok(), "{}", tag.at);
    }
    assert!(import.skipped.iter().all(|skipped| !skipped.reason.to_string().is_empty()));
    if !import.tags.is_empty() {
        let tags = import.to_toml();
        let mut written = TagFile::parse("tags.toml".as_ref(), &tags, None).unwrap();
        assert_eq!(written.update(import).unwrap(), []);
    }
}

#[test]
fn mutated_exports_are_read_or_explained() {
    let mutations = mutation::count(MUTATIONS);
    let formats =
        [("xml", "a.xml"), ("gvl", "a.gvl"), ("st", "a.st"), ("smbp", "a.smbp"), ("csv", "a.csv")];
    for (extension, path) in formats {
        let corpus = mutation::corpus(&["import"], extension);
        let mut files = mutation::Mutations::new(&corpus, &PIECES, 19);
        let share = mutations / formats.len();
        let imported = (0..share).filter(|_| is_imported(path, files.next_file())).count();
        assert!(imported > 0, "{extension}: none of {share} has tags");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_read_or_explained(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        for path in ["a.xml", "a.gvl", "a.csv"] {
            is_imported(path, bytes.clone());
        }
    }
}
