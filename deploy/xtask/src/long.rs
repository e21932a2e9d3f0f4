//! `cargo xtask long`: tests that take too long for every merge. docs/long-runs.md keeps the last
//! results.

use std::ffi::OsString;
use std::time::Instant;

use anyhow::{Result, bail};
use test_settings::{
    ATTACK_SECONDS, CRASHES, CUTS, DASHBOARD_SECONDS, FAULT_ROUNDS, FLEET_OUTAGE, FLEET_SITES,
    KILLS, LIVES, LOG_SECONDS, MESSAGES, MUTATIONS, OUTAGE_HOURS, SCRAPED_TAGS, SESSIONS,
};

use crate::docs;
use crate::mutants::{self, MODULES};
use crate::run::{cargo, output_of, run};
use crate::static_programs;

/// One long test: some of `cargo test --release`, with settings that make it long.
struct LongTest {
    name: &'static str,
    /// Options of cargo that select the target.
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
        environment: &[(MUTATIONS.name, "1000000")],
    },
    LongTest {
        name: "mutated files of wg-quick",
        target: &["-p", "provisioning", "--test", "mutated_wg_quick"],
        filter: "mutated_files",
        environment: &[(MUTATIONS.name, "1000000")],
    },
    LongTest {
        name: "mutated exports",
        target: &["-p", "provisioning", "--test", "mutated_exports"],
        filter: "mutated_exports",
        environment: &[(MUTATIONS.name, "1000000")],
    },
    LongTest {
        name: "mutated answers",
        target: &["-p", "gateway", "--lib"],
        filter: "plc::modbus::tests::mutated",
        environment: &[(MUTATIONS.name, "1000000")],
    },
    LongTest {
        name: "mutated commands",
        target: &["-p", "gateway", "--lib"],
        filter: "command::tests::mutated",
        environment: &[(MUTATIONS.name, "1000000")],
    },
    LongTest {
        name: "crashes of the queue",
        target: &["-p", "gateway", "--lib"],
        filter: "queue::tests::crashes",
        environment: &[(CRASHES.name, "1000000")],
    },
    LongTest {
        name: "histories at two brokers",
        target: &["-p", "gateway", "--test", "mosquitto"],
        filter: "same_messages",
        environment: &[(MUTATIONS.name, "10000")],
    },
    LongTest {
        name: "garbage at a tunnel",
        target: &["-p", "virtual-time", "--test", "tunnel"],
        filter: "attacks::garbage",
        environment: &[(MUTATIONS.name, "1000000")],
    },
    LongTest {
        name: "lives of a tunnel",
        target: &["-p", "virtual-time", "--test", "tunnel"],
        filter: "random_faults::in_24_days",
        environment: &[(LIVES.name, "20")],
    },
    LongTest {
        name: "storm at a hub",
        target: &["-p", "virtual-time", "--test", "storm"],
        filter: "a_fleet_returns",
        environment: &[(FLEET_SITES.name, "20000"), (FLEET_OUTAGE.name, "3600")],
    },
    LongTest {
        name: "storm at a broker",
        target: &["-p", "e2e", "--test", "a_fleet_returns_to_its_broker"],
        filter: "",
        environment: &[(SESSIONS.name, "5000")],
    },
    LongTest {
        name: "faults rolled out",
        target: &["-p", "e2e", "--test", "three_sites_from_nothing"],
        filter: "",
        environment: &[(FAULT_ROUNDS.name, "5")],
    },
    LongTest {
        name: "kills of the gateway",
        target: &["-p", "e2e", "--test", "a_killed_gateway_loses_nothing_it_stored"],
        filter: "balanced_survives_kills",
        environment: &[(KILLS.name, "1000")],
    },
    // All three durabilities at once: most of the time is spent booting three guests.
    LongTest {
        name: "power cuts",
        target: &["-p", "e2e", "--test", "power_cuts"],
        filter: "keeps_what",
        environment: &[(CUTS.name, "170"), ("RUST_TEST_THREADS", "3")],
    },
    LongTest {
        name: "power cuts during a trial",
        target: &["-p", "e2e", "--test", "power_cuts_during_a_trial"],
        filter: "",
        environment: &[(CUTS.name, "100")],
    },
    LongTest {
        name: "outage of a day",
        target: &["-p", "e2e", "--test", "an_outage_of_a_day_is_replayed"],
        filter: "",
        environment: &[(OUTAGE_HOURS.name, "24")],
    },
    LongTest {
        name: "attacks on the memory",
        target: &["-p", "e2e", "--test", "no_peer_makes_the_gateway_grow"],
        filter: "",
        environment: &[(ATTACK_SECONDS.name, "60")],
    },
    LongTest {
        name: "an hour of each trouble",
        target: &["-p", "e2e", "--test", "a_trouble_costs_a_few_lines"],
        filter: "no_trouble_fills_the_log",
        environment: &[(LOG_SECONDS.name, "3600")],
    },
    LongTest {
        name: "scrape of 25,000 tags",
        target: &["-p", "e2e", "--test", "tag_values_are_scraped_beside_polls"],
        filter: "",
        environment: &[(SCRAPED_TAGS.name, "500")],
    },
    LongTest {
        name: "dashboard in Node-RED",
        target: &["-p", "e2e", "--test", "a_dashboard_in_node_red"],
        filter: "",
        environment: &[(DASHBOARD_SECONDS.name, "600")],
    },
    // The messages of ten PLCs in an hour, one a second each.
    LongTest {
        name: "consumer away for an hour",
        target: &["-p", "e2e", "--test", "an_absent_consumer_gets_everything"],
        filter: "a_consumer_that_was_away",
        environment: &[(MESSAGES.name, "36000")],
    },
];

/// With programs and emulators that are made for it.
const STATIC_TEST: LongTest = LongTest {
    name: "static programs",
    target: &["-p", "e2e", "--test", "the_container_image_runs"],
    filter: "",
    environment: &[],
};

/// Runs all long tests, or those whose name contains `filter`, and prints a summary.
pub(crate) fn long(filter: Option<&str>) -> Result<()> {
    let is_chosen = |name: &str| filter.is_none_or(|filter| name.contains(filter));
    let chosen = LONG_TESTS.iter().filter(|test| is_chosen(test.name));
    let mut lines: Vec<_> = chosen.map(|test| test.run(&[])).collect();
    if is_chosen(STATIC_TEST.name) {
        lines.push(run_static_programs());
    }
    let modules: Vec<_> = MODULES.into_iter().filter(|module| is_chosen(module.name)).collect();
    if !modules.is_empty() {
        lines.push(run_mutants(&modules));
    }
    if is_chosen("book") {
        lines.push(build_book());
    }
    if lines.is_empty() {
        let names = LONG_TESTS.iter().map(|test| test.name);
        let others = [STATIC_TEST.name, "book"];
        let names: Vec<_> =
            names.chain(MODULES.iter().map(|module| module.name)).chain(others).collect();
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

/// Returns a line of the summary, and whether mdBook builds the book of docs/.
fn build_book() -> (String, bool) {
    let start = Instant::now();
    let outcome = docs::docs();
    let seconds = start.elapsed().as_secs_f64();
    let word = if outcome.is_ok() { "held" } else { "FAILED" };
    (format!("book: {word} after {seconds:.0} s"), outcome.is_ok())
}

/// Builds the static programs and returns a line of the summary, and whether they hold.
fn run_static_programs() -> (String, bool) {
    match static_programs::provide() {
        Ok(settings) => STATIC_TEST.run(&settings),
        Err(error) => (format!("{}: NOT BUILT: {error:#}", STATIC_TEST.name), false),
    }
}

/// Returns a line of the summary, and whether enough mutants were caught.
fn run_mutants(modules: &[mutants::Module]) -> (String, bool) {
    println!("==> mutants");
    let start = Instant::now();
    let outcome = mutants::mutate(modules);
    let seconds = start.elapsed().as_secs_f64();
    match outcome {
        Ok(counts) => (format!("mutants: {counts}: held after {seconds:.0} s"), true),
        Err(error) => (format!("mutants: {error:#}: FAILED after {seconds:.0} s"), false),
    }
}

impl LongTest {
    /// Returns a line of the summary, and whether the test held. `found` are settings that depend
    /// on this machine.
    fn run(&self, found: &[(&str, OsString)]) -> (String, bool) {
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
        // A filter that matches no test is no success.
        let list = output_of(test().arg(self.filter).args(["--", "--list"]));
        if !list.is_ok_and(|list| list.lines().any(|line| line.ends_with(": test"))) {
            return (format!("{}: NO SUCH TEST: {}", self.name, self.filter), false);
        }
        let start = Instant::now();
        let mut test = test();
        test.envs(self.environment.iter().copied()).envs(found.iter().map(|(name, to)| (name, to)));
        let outcome = run(test.arg(self.filter));
        let settings = self.environment.iter().map(|(name, value)| format!(" {name}={value}"));
        let settings: String = settings.collect();
        let seconds = start.elapsed().as_secs_f64();
        let word = if outcome.is_ok() { "held" } else { "FAILED" };
        (format!("{}:{settings}: {word} after {seconds:.0} s", self.name), outcome.is_ok())
    }
}
