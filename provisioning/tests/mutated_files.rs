//! Mutations of every configuration in the corpus are accepted or explained.
//!
//! Every run tests the same mutations. `E2E_MUTATIONS=1000000` tests more.
#![expect(clippy::unwrap_used, reason = "test code may stop on the spot")]

use std::fs;
use std::path::Path;
use std::thread;

use provisioning::{config, plan};

#[path = "support/mutation.rs"]
mod mutation;

const MUTATIONS: usize = 3_000;
const PIECES: [&str; 20] = [
    "\"",
    "'",
    "\"\"\"",
    "[",
    "]",
    "[[",
    "{",
    "}",
    "=",
    ".",
    ",",
    "#",
    "\n",
    "\\",
    "-1",
    "1e999",
    "%MW",
    "99999999999999999999",
    "\u{0}",
    "\u{1F600}",
];

/// Threads, each with its own mutations.
const THREADS: usize = 4;

#[test]
fn mutated_files_are_accepted_or_explained() {
    let mutations = mutation::count(MUTATIONS);
    let corpus = mutation::corpus(&["good", "broken", "noted"], "toml");
    let run = &|seed| count_accepted(&corpus, mutations / THREADS, seed);
    let accepted: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|seed| scope.spawn(move || run(seed))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!((1..mutations).contains(&accepted), "{accepted} of {mutations} are accepted");
}

/// Returns how many files are accepted. A file that causes a panic stays in the temporary directory
/// of the build.
fn count_accepted(corpus: &[Vec<u8>], mutations: usize, seed: usize) -> usize {
    let name = format!("mutated-{}-{seed}.toml", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut files = mutation::Mutations::new(corpus, &PIECES, seed.try_into().unwrap());
    let accepted = (0..mutations).filter(|_| is_accepted(&path, &files.next_file())).count();
    fs::remove_file(&path).unwrap();
    accepted
}

/// Returns whether the file is accepted. An accepted file can be planned, others are explained.
fn is_accepted(path: &Path, contents: &[u8]) -> bool {
    fs::write(path, contents).unwrap();
    match config::load(path) {
        Ok(loaded) => {
            assert_eq!(loaded.notes.is_empty(), loaded.notes.to_string().is_empty());
            for plc in &loaded.config.plcs {
                assert!(!plan::plan(plc).classes.is_empty());
            }
            true
        }
        Err(rejected) => {
            assert!(!rejected.problems.is_empty() && !rejected.to_string().is_empty());
            false
        }
    }
}
