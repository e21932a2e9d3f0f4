//! `check` and `list`: what is in the fleet, and what is wrong with it.

use std::io::{self, Write};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::{EXIT_NEGATIVE, EXIT_OK, FleetOption, count_of, print_line};
use crate::office::fleet::{FLEET_TOML, Fleet, Site};

/// `check`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-provision check
  edge-provision check --fleet /srv/fleet && git commit

Checks fleet.toml, templates/ and sites/, and the gateway.toml of every site as the gateway will.
If there is a directory packages/, it must have a package of each version that a box shall run.
Each problem is shown where it was written, with what to write instead. A note is a valid setting
that is probably a mistake; it does not change the exit code.

Exit code 1 if the fleet has a problem.")]
pub(super) struct CheckOptions {
    #[command(flatten)]
    fleet: FleetOption,
}

/// `list`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-provision list
  edge-provision list --json")]
pub(super) struct ListOptions {
    #[command(flatten)]
    fleet: FleetOption,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

pub(super) fn check(options: &CheckOptions) -> anyhow::Result<u8> {
    let Some(fleet) = options.fleet.check()? else { return Ok(EXIT_NEGATIVE) };
    for notes in fleet.notes() {
        writeln!(io::stderr(), "{notes}\n")?;
    }
    let settings = fleet.settings();
    let packages = fleet.packages().map(|packages| count_of(packages.len(), "package"));
    print_line(format_args!(
        "{}: no problems, {}, {}, {}{}",
        options.fleet.path(FLEET_TOML).display(),
        count_of(fleet.sites().len(), "site"),
        count_of(fleet.template_names().count(), "template"),
        count_of(settings.hubs.len(), "hub"),
        packages.map(|packages| format!(", {packages}")).unwrap_or_default(),
    ))?;
    Ok(EXIT_OK)
}

pub(super) fn list(options: &ListOptions) -> anyhow::Result<u8> {
    let Some(fleet) = options.fleet.load()? else { return Ok(EXIT_NEGATIVE) };
    let widest = fleet.sites().iter().map(|site| site.id.len()).max().unwrap_or_default();
    let mut output = io::BufWriter::new(io::stdout().lock());
    for site in fleet.sites() {
        if options.json {
            writeln!(output, "{}", json_line(&fleet, site)?)?;
            continue;
        }
        let hubs: Vec<_> = fleet.hubs_of(site).iter().map(|hub| hub.name.as_str()).collect();
        let (address, hubs) = (site.address.to_string(), hubs.join(", "));
        writeln!(output, "{:widest$}  {address:15}  {:12}  {hubs}", site.id, state(site))?;
    }
    output.flush()?;
    Ok(EXIT_OK)
}

fn json_line(fleet: &Fleet, site: &Site) -> anyhow::Result<String> {
    let hubs: Vec<_> = fleet.hubs_of(site).iter().map(|hub| hub.name.as_str()).collect();
    let line = json!({
        "id": site.id,
        "address": site.address.to_string(),
        "state": state(site),
        "public_key": site.public_key.map(|key| key.to_string()),
        "counter": site.counter,
        "hubs": hubs,
    });
    serde_json::to_string(&line).context("a site as JSON")
}

fn state(site: &Site) -> &'static str {
    match (site.is_revoked, site.public_key) {
        (true, _) => "revoked",
        (false, Some(_)) => "enrolled",
        (false, None) => "not enrolled",
    }
}
