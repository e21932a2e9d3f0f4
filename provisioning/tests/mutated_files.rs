//! Every configuration that is kept for other tests, and mutations of it: taken or explained.
//!
//! The same ones in every run. For more of them: `E2E_MUTATIONS=1000000`.
#![expect(clippy::unwrap_used, reason = "test code may stop on the spot")]

use std::fs;
use std::path::Path;
use std::thread;

use fastrand::Rng;
use provisioning::{config, plan};

const MUTATIONS: u64 = 3_000;
/// Pieces that mean something in a configuration.
const MEANINGFUL: [&str; 20] = [
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

/// Each with mutations of its own.
const THREADS: usize = 4;

#[test]
fn mutated_files_are_answered() {
    let mutations = usize::try_from(test_settings::MUTATIONS.number_or(MUTATIONS)).unwrap();
    let corpus = corpus();
    let mutated = &|seed| mutated_are_answered(&corpus, mutations / THREADS, seed);
    let taken: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|seed| scope.spawn(move || mutated(seed))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!((1..mutations).contains(&taken), "{taken} of {mutations} are taken");
}

/// How many are taken. A file that brings it down stays in the temporary directory of the build.
fn mutated_are_answered(corpus: &[Vec<u8>], mutations: usize, seed: usize) -> usize {
    let name = format!("mutated-{}-{seed}.toml", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut random = Rng::with_seed(seed.try_into().unwrap());
    let mut taken = 0;
    for _ in 0..mutations {
        let mut file = random.choice(corpus).unwrap().clone();
        for _ in 0..random.u8(1..4) {
            mutate(&mut file, &mut random, corpus);
        }
        taken += usize::from(answer(&path, &file));
    }
    fs::remove_file(&path).unwrap();
    taken
}

/// Whether the file is taken. What is taken can be planned, what is not is explained.
fn answer(path: &Path, contents: &[u8]) -> bool {
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

fn mutate(file: &mut Vec<u8>, random: &mut Rng, corpus: &[Vec<u8>]) {
    let at = random.usize(0..=file.len());
    let to = (at + random.usize(1..30)).min(file.len());
    match random.u8(0..6) {
        0 => drop(file.drain(at..to)),
        1 => drop(file.splice(at..at, [random.u8(..)])),
        2 => {
            let piece = random.choice(MEANINGFUL).unwrap();
            file.splice(at..to.min(at + 1), piece.bytes());
        }
        3 => {
            let copy = file.get(at..to).unwrap_or_default().to_vec();
            let other = random.usize(0..=file.len());
            file.splice(other..other, copy);
        }
        4 => {
            let other = random.choice(corpus).unwrap();
            file.splice(at.., other.iter().skip(at).copied());
        }
        _ => {
            if let Some(byte) = file.get_mut(at) {
                *byte ^= 1 << random.u8(0..8);
            }
        }
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = ["tests/good", "tests/broken", "tests/noted"]
        .iter()
        .flat_map(|dir| fs::read_dir(dir).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}
