//! `cargo xtask check`: every check that needs no running program.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};

use crate::run::{cargo, run, step, succeeds, target_dir};
use crate::{prose, sizes, type_names};

/// A third-party cargo command: the pinned version, and how to install it.
pub(crate) struct CargoTool {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) features: &'static [&'static str],
}

/// Without its default features it builds in half the time and needs no C library.
const DENY: CargoTool =
    CargoTool { name: "deny", version: "0.20.2", features: &["--no-default-features"] };
/// The last one that builds with the pinned toolchain.
const SHEAR: CargoTool = CargoTool { name: "shear", version: "1.11.2", features: &[] };

/// Runs all checks. A failure does not stop the others, so that one run reports everything.
pub(crate) fn check() -> Result<()> {
    let outcomes = [
        step("format", || run(&mut cargo(&["fmt", "--all", "--check"]))),
        step("lints", clippy),
        step("documentation", documentation),
        step("sizes", sizes::check),
        step("names of types", type_names::check),
        step("documents: links, words, lines", prose::check),
        step("dependencies: bans, licences, sources", dependency_rules),
        step("dependencies: advisories", advisories),
        step("dependencies: unused", unused_dependencies),
    ];
    let failures: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    if failures.is_empty() {
        return Ok(());
    }
    let list: String = failures.iter().map(|failure| format!("\n  {failure:#}")).collect();
    bail!("{} of the checks failed:{list}", failures.len())
}

fn clippy() -> Result<()> {
    let targets = ["clippy", "--workspace", "--all-targets", "--locked", "--quiet"];
    run(cargo(&targets).args(["--", "-D", "warnings"]))
}

fn documentation() -> Result<()> {
    let arguments = ["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"];
    run(cargo(&arguments).arg("--quiet").env("RUSTDOCFLAGS", "-D warnings"))
}

fn dependency_rules() -> Result<()> {
    DENY.provide()?;
    run(&mut cargo(&[
        "deny",
        "--workspace",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]))
}

fn advisories() -> Result<()> {
    if !has_advisories()? {
        println!(
            "    NOT RUN: no advisory database here; `cargo deny fetch db` gets one (RELEASING.md)"
        );
        return Ok(());
    }
    DENY.provide()?;
    run(&mut cargo(&["deny", "--workspace", "check", "--disable-fetch", "advisories"]))
}

/// Returns whether there is an advisory database. cargo-deny keeps one directory for each.
fn has_advisories() -> Result<bool> {
    let databases = cargo_home()?.join("advisory-dbs");
    Ok(fs::read_dir(databases).is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| entry.path().is_dir()))
    }))
}

fn cargo_home() -> Result<PathBuf> {
    let default = || env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(default);
    home.ok_or_else(|| anyhow!("neither CARGO_HOME nor HOME is set"))
}

fn unused_dependencies() -> Result<()> {
    SHEAR.provide()?;
    run(&mut cargo(&["shear"]))
}

impl CargoTool {
    /// Installs it unless it is there.
    pub(crate) fn provide(&self) -> Result<()> {
        let package = format!("cargo-{}", self.name);
        if succeeds(&mut cargo(&[self.name, "--version"])) {
            return Ok(());
        }
        println!("    installing {package} {}, which takes minutes", self.version);
        let arguments = ["install", "--quiet", "--locked", "--version", self.version, &package];
        // A target directory of its own: the two builds would invalidate each other.
        let build = target_dir().join("tools");
        run(cargo(&arguments).args(self.features).env("CARGO_TARGET_DIR", build))
    }
}
