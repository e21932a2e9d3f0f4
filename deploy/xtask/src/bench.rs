//! `cargo xtask bench`: the side-by-side measurements of docs/performance.md.

use anyhow::Result;

use crate::run::{cargo, run, step};

/// Builds in release what is measured, then measures it.
pub(crate) fn bench(workloads: &[String]) -> Result<()> {
    step("build the gateway", || run(&mut cargo(&["build", "--release", "-p", "gateway"])))?;
    step("build the floor", || {
        run(&mut cargo(&["bench", "--no-run", "-p", "e2e", "--bench", "floor"]))
    })?;
    step("measure", || run(cargo(&["bench", "-p", "e2e", "--bench", "load", "--"]).args(workloads)))
}
