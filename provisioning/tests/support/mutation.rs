//! Mutations of a corpus of files, the same in every run for the same seed.

use std::fs;
use std::path::Path;

use fastrand::Rng;

/// Files with a given number of random mutations each, from a seed.
pub(crate) struct Mutations<'a> {
    corpus: &'a [Vec<u8>],
    /// Pieces of text that have a meaning in the format.
    pieces: &'a [&'a str],
    random: Rng,
}

impl<'a> Mutations<'a> {
    pub(crate) fn new(corpus: &'a [Vec<u8>], pieces: &'a [&'a str], seed: u64) -> Self {
        Self { corpus, pieces, random: Rng::with_seed(seed) }
    }

    /// Returns a file of the corpus with one to three mutations.
    pub(crate) fn next_file(&mut self) -> Vec<u8> {
        let mut file = self.random.choice(self.corpus).unwrap().clone();
        for _ in 0..self.random.u8(1..4) {
            self.mutate(&mut file);
        }
        file
    }

    fn mutate(&mut self, file: &mut Vec<u8>) {
        let random = &mut self.random;
        let at = random.usize(0..=file.len());
        let to = (at + random.usize(1..30)).min(file.len());
        match random.u8(0..6) {
            0 => drop(file.drain(at..to)),
            1 => drop(file.splice(at..at, [random.u8(..)])),
            2 => {
                let piece = random.choice(self.pieces).unwrap();
                file.splice(at..to.min(at + 1), piece.bytes());
            }
            3 => {
                let copy = file.get(at..to).unwrap_or_default().to_vec();
                let other = random.usize(0..=file.len());
                file.splice(other..other, copy);
            }
            4 => {
                let other = random.choice(self.corpus).unwrap();
                file.splice(at.., other.iter().skip(at).copied());
            }
            _ => {
                if let Some(byte) = file.get_mut(at) {
                    *byte ^= 1 << random.u8(0..8);
                }
            }
        }
    }
}

/// Returns the number of mutations to run: `E2E_MUTATIONS`, or `default`.
pub(crate) fn count(default: usize) -> usize {
    usize::try_from(test_settings::MUTATIONS.number_or(default as u64)).unwrap()
}

/// Returns the files with this extension in directories below `tests`, in the order of their paths.
pub(crate) fn corpus(directories: &[&str], extension: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = directories
        .iter()
        .flat_map(|dir| fs::read_dir(Path::new("tests").join(dir)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}
