//! `check`, `plan`, `print-config`, `schema`: the commands that only read a configuration.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use clap::Args;
use ipnet::IpNet;
use provisioning::config::{self, FileCheck, InspectedConfig, Plc, ServiceUser};
use provisioning::diagnostics::RejectedFile;
use provisioning::plan;
use tunnel::HostNetwork;

use super::{ConfigFile, EXIT_NEGATIVE, EXIT_OK, print_line, status};
use crate::app::{note_open_files, note_state_dir};
use crate::apply::file_in_use;
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

/// The directory of which only the service reads the files.
const SERVICE_DIR: &str = "/etc/edge-gateway";

/// Prints every problem, or that there is none. Notes are printed too and do not change the exit
/// code.
pub(super) fn check(path: &Path) -> anyhow::Result<u8> {
    let Some(inspected) = inspect_files(path)? else { return Ok(EXIT_NEGATIVE) };
    let plcs = inspected.plcs.len();
    let tags: usize = inspected.plcs.iter().map(|plc| plc.tags.len()).sum();
    let (tags, plcs) = (count_of(tags, "tag"), count_of(plcs, "PLC"));
    print_notes(&inspected)?;
    for note in tunnel_notes(&inspected.tunnel_routes, &inspected.plcs) {
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
    if options.learned {
        let Some(inspected) = inspect(&options.file.path)? else { return Ok(EXIT_NEGATIVE) };
        print_line(advice(&status::fetch_status(&inspected.gateway.state_dir)?).trim_end())?;
        return Ok(EXIT_OK);
    }
    let Some(inspected) = inspect_files(&options.file.path)? else { return Ok(EXIT_NEGATIVE) };
    print_notes(&inspected)?;
    let plcs = &inspected.plcs;
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
    let Some(inspected) = inspect(&options.file.path)? else { return Ok(EXIT_NEGATIVE) };
    for setting in inspected.settings() {
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

/// Returns what these routes of a tunnel would take from this machine; nothing where the machine's
/// own routes cannot be read.
pub(super) fn tunnel_notes(routes: &[IpNet], plcs: &[Plc]) -> Vec<String> {
    let Ok(host) = HostNetwork::read() else { return Vec::new() };
    let captured_plc = |plc: &Plc| {
        let address = plc.address.host.parse().ok()?;
        let network = host.capturing(routes, address)?;
        let name = &plc.name;
        Some(format!(
            "the PLC {name} at {address} is in {network}, which is routed into the tunnel"
        ))
    };
    let conflicts = host.conflicts(routes);
    let conflicts = conflicts.iter().map(ToString::to_string);
    conflicts.chain(plcs.iter().filter_map(captured_plc)).collect()
}

/// Prints notes to standard error, where problems would be printed.
fn print_notes(inspected: &InspectedConfig) -> anyhow::Result<()> {
    let InspectedConfig { gateway, plcs, metrics, notes, .. } = inspected;
    if !notes.is_empty() {
        writeln!(io::stderr(), "{notes}\n")?;
    }
    let of_machine = [note_open_files(plcs, metrics), note_state_dir(&gateway.state_dir)];
    for note in of_machine.into_iter().flatten() {
        writeln!(io::stderr(), "note: {note}\n")?;
    }
    Ok(())
}

/// Reads a configuration without the files that it names, or prints its problems and returns
/// `None`.
pub(super) fn inspect(path: &Path) -> anyhow::Result<Option<InspectedConfig>> {
    or_print_problems(config::inspect(path, FileCheck::Skip))
}

/// As [`inspect`], for what the gateway with this file runs with: a bundle in use wins over it.
pub(super) fn inspect_running(path: &Path) -> anyhow::Result<Option<InspectedConfig>> {
    let state_dir = config::state_dir_of(path);
    let Some(file) = file_in_use(&state_dir) else { return inspect(path) };
    let inspected = inspect(&file)?.map(|mut inspected| {
        inspected.gateway.state_dir = state_dir;
        inspected
    });
    Ok(inspected)
}

/// As [`inspect`], and opens the files that it names, as far as that is possible from here.
fn inspect_files(path: &Path) -> anyhow::Result<Option<InspectedConfig>> {
    let user = service_user(path);
    or_print_problems(config::inspect(path, FileCheck::Open(user.as_ref())))
}

/// Returns the user of the service when root looks at the service's own configuration: root can
/// read every file, and the service cannot. Any other user is judged by what that user can open.
fn service_user(path: &Path) -> Option<ServiceUser> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let is_of_service = path.canonicalize().is_ok_and(|path| path.starts_with(SERVICE_DIR));
    (is_root && is_of_service).then(ServiceUser::find).flatten()
}

fn or_print_problems<T>(read: Result<T, RejectedFile>) -> anyhow::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(rejected) => {
            writeln!(io::stderr(), "{rejected}")?;
            Ok(None)
        }
    }
}
