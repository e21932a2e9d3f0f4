//! `check`, `plan`, `print-config`, `schema`: the commands that only read a configuration.

use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use provisioning::config::{self, Config, LoadedConfig, Plc, Tunnel, TunnelMode};
use provisioning::plan;
use tunnel::{HostNetwork, RoutePolicy};

use super::{ConfigFile, EXIT_NEGATIVE, EXIT_OK, print_line, status};
use crate::status::advice;

/// `plan`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-gateway plan gateway.toml            the requests, registers used and unused, and the load
  sudo edge-gateway plan --learned          what the running gateway learned from its PLCs

With --learned the command connects to the gateway that runs with the same configuration, over the
socket in its state_dir, which only its user and root may open. In a [[plc]], max_gap and max_words
control how tags are combined into requests, and scan controls how often they are read.")]
pub(super) struct PlanOptions {
    #[command(flatten)]
    file: ConfigFile,
    /// Show what the running gateway learned from its PLCs and what to change in FILE.
    #[arg(long)]
    learned: bool,
}

/// `print-config`.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  EDGE_MQTT__KEEP_ALIVE=60s edge-gateway print-config gateway.toml --with-source")]
pub(super) struct PrintConfigOptions {
    #[command(flatten)]
    file: ConfigFile,
    /// Show where each value comes from.
    #[arg(long)]
    with_source: bool,
}

/// Prints every problem, or that there is none. Notes are printed too and do not change the exit
/// code.
pub(super) fn check(path: &Path) -> anyhow::Result<u8> {
    let Some(loaded) = load(path)? else { return Ok(EXIT_NEGATIVE) };
    let plcs = loaded.config.plcs.len();
    let tags: usize = loaded.config.plcs.iter().map(|plc| plc.tags.len()).sum();
    let (tags, plcs) = (count_of(tags, "tag"), count_of(plcs, "PLC"));
    print_notes(&loaded)?;
    for note in tunnel_notes(&loaded.config) {
        writeln!(io::stderr(), "{}: note: {note}", path.display())?;
    }
    print_line(format_args!("{}: no problems, {tags} on {plcs}", path.display()))?;
    Ok(EXIT_OK)
}

fn count_of(number: usize, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

/// Prints the requests for every PLC, or how its answers changed them.
pub(super) fn plan(options: &PlanOptions) -> anyhow::Result<u8> {
    let Some(loaded) = load(&options.file.path)? else { return Ok(EXIT_NEGATIVE) };
    if options.learned {
        print_line(advice(&status::fetch_status(&loaded)?).trim_end())?;
        return Ok(EXIT_OK);
    }
    print_notes(&loaded)?;
    let plcs = &loaded.config.plcs;
    let plans: Vec<_> = plcs.iter().map(plan::plan).collect();
    for (plc, plan) in plcs.iter().zip(&plans) {
        print_line(plan::report(plc, plan))?;
    }
    for shared in plan::report_shared(plcs, &plans) {
        print_line(shared)?;
    }
    Ok(EXIT_OK)
}

/// Prints the effective configuration.
pub(super) fn print(options: &PrintConfigOptions) -> anyhow::Result<u8> {
    let Some(loaded) = load(&options.file.path)? else { return Ok(EXIT_NEGATIVE) };
    for setting in loaded.settings() {
        if options.with_source {
            print_line(format_args!("{} = {}  # {}", setting.path, setting.value, setting.source))?;
        } else {
            print_line(format_args!("{} = {}", setting.path, setting.value))?;
        }
    }
    Ok(EXIT_OK)
}

/// Prints the JSON Schema.
pub(super) fn schema() -> anyhow::Result<u8> {
    print_line(serde_json::to_string_pretty(&config::schema())?)?;
    Ok(EXIT_OK)
}

/// Returns what the routes of a tunnel in `tun` mode would take from this machine; nothing where
/// the machine's routes cannot be read.
pub(super) fn tunnel_notes(config: &Config) -> Vec<String> {
    let Some(Tunnel { mode: TunnelMode::Tun, settings }) = &config.tunnel else {
        return Vec::new();
    };
    let (Ok(routes), Ok(host)) =
        (tunnel::host_routes(settings, RoutePolicy::Auto), HostNetwork::read())
    else {
        return Vec::new();
    };
    let captured_plc = |plc: &Plc| {
        let address = plc.address.host.parse().ok()?;
        let network = host.capturing(&routes, address)?;
        let name = &plc.name;
        Some(format!(
            "the PLC {name} at {address} is in {network}, which is routed into the tunnel"
        ))
    };
    let conflicts = host.conflicts(&routes);
    let conflicts = conflicts.iter().map(ToString::to_string);
    conflicts.chain(config.plcs.iter().filter_map(captured_plc)).collect()
}

/// Prints the notes to standard error, where problems would be printed.
fn print_notes(loaded: &LoadedConfig) -> anyhow::Result<()> {
    if !loaded.notes.is_empty() {
        writeln!(io::stderr(), "{}\n", loaded.notes)?;
    }
    Ok(())
}

/// Loads a configuration, or prints its problems and returns `None`.
pub(super) fn load(path: &Path) -> anyhow::Result<Option<LoadedConfig>> {
    match config::load(path) {
        Ok(loaded) => Ok(Some(loaded)),
        Err(rejected) => {
            writeln!(io::stderr(), "{rejected}")?;
            Ok(None)
        }
    }
}
