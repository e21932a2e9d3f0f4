//! `cargo xtask test`: every test, on a machine that needs only Rust.

use std::env;
use std::process::Command;
use std::thread;

use anyhow::Result;

use crate::run::{cargo, is_root, run, step, succeeds};
use crate::{debian, guest, node, packages, python};

/// Tests that cannot run on every machine, selected by a part of their name.
#[derive(Clone, Copy, Debug)]
struct SkippedTests {
    name: &'static str,
    reason: &'static str,
}

const AS_ROOT: SkippedTests = SkippedTests { name: "as_root_", reason: "this is not root" };
const IN_A_GUEST: SkippedTests = SkippedTests {
    name: "in_a_guest_",
    reason: "guests share the programs of this machine and Debian's amd64 kernel, and this is not \
             amd64",
};

/// Runs all tests, or those whose name contains `filter`.
pub(crate) fn test(filter: Option<&str>) -> Result<()> {
    step("Debian packages", packages::provide)?;
    let python = step("pymodbus", python::provide)?;
    let node = step("modbus-serial", || node::provide(node::MODBUS_SERIAL))?;
    let node_red = step("Node-RED", || node::provide(node::NODE_RED))?;
    let guest = step("virtual machines", guest::provide)?;
    let debian = step("Debian 13 for containers", debian::provide)?;
    let mut left_out = Vec::new();
    if !is_root()? {
        left_out.push(AS_ROOT);
    }
    if guest.is_none() {
        left_out.push(IN_A_GUEST);
    }
    // One build, so that programs and tests share the same dependencies.
    let build = ["build", "--workspace", "--all-targets", "--locked"];
    step("build", || run(&mut cargo(&build)))?;
    step("tests", || {
        let mut tests = test_command(filter, &left_out);
        tests.envs(guest.map(|guest| (test_settings::GUEST.name, guest)));
        tests.envs(debian.map(|debian| (test_settings::DEBIAN.name, debian)));
        tests.env(test_settings::PYTHON.name, &python);
        tests.env(test_settings::NODE.name, &node);
        tests.env(test_settings::NODE_RED.name, &node_red);
        run(&mut tests)
    })?;
    if filter.is_none() {
        let doc = ["test", "--workspace", "--doc", "--locked"];
        step("examples in the documentation", || run(&mut cargo(&doc)))?;
    }
    for SkippedTests { name, reason } in left_out {
        println!("==> NOT RUN: the tests named {name}*, because {reason}");
    }
    Ok(())
}

fn test_command(filter: Option<&str>, left_out: &[SkippedTests]) -> Command {
    let mut tests = if succeeds(&mut cargo(&["nextest", "--version"])) {
        nextest_command(left_out)
    } else {
        println!("    cargo-nextest is not installed: using cargo test, which is slower");
        cargo_test_command(left_out)
    };
    tests.args(filter);
    // A plain cargo test runs fewer, `cargo xtask long` a million.
    tests.env(test_settings::CRASHES.name, "30000");
    // A snapshot that differs is a failure, not a file to review.
    tests.env("INSTA_UPDATE", "no");
    tests
}

fn nextest_command(left_out: &[SkippedTests]) -> Command {
    let profile = if env::var_os("CI").is_some() { "ci" } else { "default" };
    let mut tests = cargo(&["nextest", "run", "--workspace", "--locked", "--profile", profile]);
    // Many tests wait most of the time: for time-outs, pauses and third-party programs.
    let threads = thread::available_parallelism().map_or(2, |cores| cores.get() + 1);
    tests.args(["--test-threads", &threads.to_string()]);
    if !left_out.is_empty() {
        let names: Vec<_> = left_out.iter().map(|l| format!("not test({})", l.name)).collect();
        tests.args(["-E", &names.join(" and ")]);
    }
    tests
}

/// Filters of `cargo test` come after `--`, where it also takes names to skip.
fn cargo_test_command(left_out: &[SkippedTests]) -> Command {
    let mut tests = cargo(&["test", "--workspace", "--locked", "--all-targets", "--"]);
    for SkippedTests { name, .. } in left_out {
        tests.args(["--skip", name]);
    }
    tests
}
