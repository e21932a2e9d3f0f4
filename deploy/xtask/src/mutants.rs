//! `cargo xtask long mutants`: cargo-mutants over the pure modules, with their unit tests alone.
//! .cargo/mutants.toml lists the mutants that are excused, each with its reason.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::check::CargoTool;
use crate::run::{cargo, target_dir};

const MUTANTS: CargoTool = CargoTool { name: "mutants", version: "27.1.0", features: &[] };

/// Lowest part of all viable mutants that the tests must catch, in percent.
const MIN_CAUGHT_PERCENT: usize = 95;

/// A module whose decisions need neither a socket nor a clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Module {
    /// Name in the list of long tests.
    pub(crate) name: &'static str,
    /// Path below gateway/src, without the ending.
    path: &'static str,
}

pub(crate) const MODULES: [Module; 8] = [
    Module { name: "mutants of audit", path: "audit" },
    Module { name: "mutants of clock", path: "clock" },
    Module { name: "mutants of codec", path: "codec" },
    Module { name: "mutants of command", path: "command" },
    Module { name: "mutants of payload", path: "payload" },
    Module { name: "mutants of request_tuner", path: "plc/request_tuner" },
    Module { name: "mutants of sampling", path: "sampling" },
    Module { name: "mutants of schedule", path: "schedule" },
];

/// What became of the mutants of a run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct MutantCounts {
    caught: usize,
    /// The tests ran out of time, as with a loop that does not end: noticed like a failure.
    timed_out: usize,
    missed: usize,
}

impl MutantCounts {
    /// Reads the lists that cargo-mutants leaves, one mutant a line.
    fn read(outcomes: &Path) -> Self {
        let lines = |name: &str| {
            let text = fs::read_to_string(outcomes.join(name)).unwrap_or_default();
            text.lines().count()
        };
        Self {
            caught: lines("caught.txt"),
            timed_out: lines("timeout.txt"),
            missed: lines("missed.txt"),
        }
    }

    const fn viable(self) -> usize {
        self.caught + self.timed_out + self.missed
    }

    const fn is_enough(self) -> bool {
        (self.caught + self.timed_out) * 100 >= MIN_CAUGHT_PERCENT * self.viable()
    }
}

/// Mutates these modules in one run. Returns a line with the figures; the names of the survivors
/// are printed before.
pub(crate) fn mutate(modules: &[Module]) -> Result<String> {
    MUTANTS.provide()?;
    let output = target_dir().join("mutants");
    fs::create_dir_all(&output)?;
    let mut mutants = cargo(&["mutants", "--package", "gateway", "--no-shuffle", "--colors=never"]);
    mutants.arg("--output").arg(&output);
    for module in modules {
        let path = module.path;
        mutants.args(["--file", &format!("gateway/src/{path}.rs")]);
        mutants.args(["--file", &format!("gateway/src/{path}/**/*.rs")]);
    }
    // Only the unit tests of the modules: other tests notice much of it too, but hours later.
    mutants.args(["--", "--lib", "--"]);
    mutants.args(modules.iter().map(|module| module.path.replace('/', "::") + "::"));
    let status = mutants.status().context("cannot start cargo mutants")?;
    // 2: some mutants were missed, 3: some timed out; both are judged below. With any other code
    // the run did not end.
    ensure!(matches!(status.code(), Some(0 | 2 | 3)), "cargo mutants did not end: {status}");
    let outcomes = output.join("mutants.out");
    let counts = MutantCounts::read(&outcomes);
    ensure!(counts.viable() > 0, "no mutant was tried");
    for survivor in fs::read_to_string(outcomes.join("missed.txt")).unwrap_or_default().lines() {
        println!("    missed: {survivor}");
    }
    let MutantCounts { caught, timed_out, missed } = counts;
    let line = format!("{caught} caught, {timed_out} timed out, {missed} missed");
    ensure!(counts.is_enough(), "{line}: less than {MIN_CAUGHT_PERCENT} %");
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::workspace;

    #[test]
    fn ninety_five_of_a_hundred_are_enough() {
        let counts = |missed| MutantCounts { caught: 90, timed_out: 10 - missed, missed };
        assert!(counts(5).is_enough());
        assert!(!counts(6).is_enough());
    }

    #[test]
    fn every_module_is_there() {
        for Module { path, .. } in MODULES {
            assert!(workspace().join(format!("gateway/src/{path}.rs")).is_file(), "{path}");
        }
    }
}
