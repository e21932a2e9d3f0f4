//! `cargo xtask long`: tests that take too long for every merge. Their last results stand in
//! docs/long-runs.md.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::run::{cargo, output_of, run};

/// One long test: some of `cargo test --release`, and what makes them long.
struct LongTest {
    name: &'static str,
    /// What has to be built.
    target: &'static [&'static str],
    /// Part of the names of the tests.
    filter: &'static str,
    environment: &'static [(&'static str, &'static str)],
}

const LONG_TESTS: &[LongTest] = &[
    LongTest {
        name: "mutated configurations",
        target: &["-p", "provisioning", "--test", "mutated_files"],
        filter: "mutated_files",
        environment: &[("E2E_MUTATIONS", "1000000")],
    },
    LongTest {
        name: "mutated files of wg-quick",
        target: &["-p", "provisioning", "--test", "mutated_wg_quick"],
        filter: "mutated_files",
        environment: &[("E2E_MUTATIONS", "1000000")],
    },
    LongTest {
        name: "mutated answers",
        target: &["-p", "gateway", "--lib"],
        filter: "plc::modbus::tests::mutated",
        environment: &[("E2E_MUTATIONS", "1000000")],
    },
    LongTest {
        name: "crashes of the queue",
        target: &["-p", "gateway", "--lib"],
        filter: "queue::tests::crashes",
        environment: &[("E2E_CRASHES", "1000000")],
    },
    LongTest {
        name: "garbage at a tunnel",
        target: &["-p", "virtual-time", "--test", "tunnel"],
        filter: "hostile::garbage",
        environment: &[("E2E_MUTATIONS", "1000000")],
    },
    LongTest {
        name: "lives of a tunnel",
        target: &["-p", "virtual-time", "--test", "tunnel"],
        filter: "life::in_24_days",
        environment: &[("E2E_LIVES", "20")],
    },
    // All three durabilities at once: most of the time is that of three guests that boot.
    LongTest {
        name: "power cuts",
        target: &["-p", "e2e", "--test", "power_cuts"],
        filter: "keeps_what",
        environment: &[("E2E_CUTS", "170"), ("RUST_TEST_THREADS", "3")],
    },
    LongTest {
        name: "outage of a day",
        target: &["-p", "e2e", "--test", "an_outage_of_a_day_is_replayed"],
        filter: "",
        environment: &[("E2E_OUTAGE_HOURS", "24")],
    },
    // What ten PLCs publish in an hour, once a second each.
    LongTest {
        name: "consumer away for an hour",
        target: &["-p", "e2e", "--test", "an_absent_consumer_gets_everything"],
        filter: "a_consumer_that_was_away",
        environment: &[("E2E_PILE", "36000")],
    },
];

/// Runs all long tests, or those whose name contains `filter`, and sums up.
pub(crate) fn long(filter: Option<&str>) -> Result<()> {
    let chosen =
        LONG_TESTS.iter().filter(|long| filter.is_none_or(|filter| long.name.contains(filter)));
    let lines: Vec<_> = chosen.map(LongTest::run).collect();
    if lines.is_empty() {
        let names: Vec<_> = LONG_TESTS.iter().map(|long| long.name).collect();
        bail!("no long test has that in its name; there are: {}", names.join(", "));
    }
    for (line, _) in &lines {
        println!("{line}");
    }
    match lines.iter().filter(|(_, held)| !held).count() {
        0 => Ok(()),
        failed => bail!("{failed} of {} did not hold", lines.len()),
    }
}

impl LongTest {
    /// A line of the summary, and whether the test held.
    fn run(&self) -> (String, bool) {
        println!("==> {}", self.name);
        let test = || {
            let mut test = cargo(&["test", "--release", "--locked"]);
            test.args(self.target);
            test
        };
        // Built first, so that the time is that of the test; the program, for tests that run it.
        let program = run(&mut cargo(&["build", "--release", "--locked", "-p", "gateway"]));
        if let Err(error) = program.and_then(|()| run(test().arg("--no-run"))) {
            return (format!("{}: NOT BUILT: {error:#}", self.name), false);
        }
        // A filter that fits nothing is no success.
        let list = output_of(test().arg(self.filter).args(["--", "--list"]));
        if !list.is_ok_and(|list| list.lines().any(|line| line.ends_with(": test"))) {
            return (format!("{}: NO SUCH TEST: {}", self.name, self.filter), false);
        }
        let start = Instant::now();
        let outcome = run(test().arg(self.filter).envs(self.environment.iter().copied()));
        let settings = self.environment.iter().map(|(name, value)| format!(" {name}={value}"));
        let settings: String = settings.collect();
        let seconds = start.elapsed().as_secs_f64();
        let word = if outcome.is_ok() { "held" } else { "FAILED" };
        (format!("{}:{settings}: {word} after {seconds:.0} s", self.name), outcome.is_ok())
    }
}
