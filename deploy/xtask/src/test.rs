//! `cargo xtask test`: everything that has to hold, on a machine that needs nothing but Rust.

use std::env;
use std::process::Command;

use anyhow::Result;

use crate::run::{cargo, is_root, run, step, succeeds};
use crate::{node, packages, python};

/// Tests that need root have it in their name.
const AS_ROOT: &str = "as_root_";

/// Runs all tests, or those whose name contains `filter`.
pub(crate) fn test(filter: Option<&str>) -> Result<()> {
    step("Debian packages", packages::provide)?;
    let python = step("pymodbus", python::provide)?;
    let node = step("modbus-serial", node::provide)?;
    // Everything in one build, so that the programs and the tests share their dependencies.
    let build = ["build", "--workspace", "--all-targets", "--locked"];
    step("build", || run(&mut cargo(&build)))?;
    let is_root = is_root()?;
    step("tests", || {
        run(tests(filter, is_root).env("E2E_PYTHON", &python).env("E2E_NODE", &node))
    })?;
    if filter.is_none() {
        let doc = ["test", "--workspace", "--doc", "--locked"];
        step("examples in the documentation", || run(&mut cargo(&doc)))?;
    }
    if !is_root {
        println!("==> NOT RUN: the tests named {AS_ROOT}*, because this is not root");
    }
    Ok(())
}

fn tests(filter: Option<&str>, is_root: bool) -> Command {
    let mut tests = if succeeds(&mut cargo(&["nextest", "--version"])) {
        nextest(is_root)
    } else {
        println!("    cargo-nextest is not installed: cargo test does it, slower");
        plain(is_root)
    };
    tests.args(filter);
    // A snapshot that differs is a failure, not a file to review.
    tests.env("INSTA_UPDATE", "no");
    tests
}

fn nextest(is_root: bool) -> Command {
    let profile = if env::var_os("CI").is_some() { "ci" } else { "default" };
    let mut tests = cargo(&["nextest", "run", "--workspace", "--locked", "--profile", profile]);
    if !is_root {
        tests.args(["-E", &format!("not test({AS_ROOT})")]);
    }
    tests
}

/// Filters of `cargo test` come after `--`, where it also takes names to skip.
fn plain(is_root: bool) -> Command {
    let mut tests = cargo(&["test", "--workspace", "--locked", "--all-targets", "--"]);
    if !is_root {
        tests.args(["--skip", AS_ROOT]);
    }
    tests
}
