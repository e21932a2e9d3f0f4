//! The command line: what each command does stands in its own file.

mod audit;
mod configuration;
mod demo;
mod run;
mod simulate;
mod status;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// The answer is yes, or it is done.
const DONE: u8 = 0;
/// The answer is no.
const NO: u8 = 1;

const EXAMPLES: &str = "\
Examples:
  edge-gateway demo --for 20s              see the whole chain on this machine
  edge-gateway check gateway.toml          find every problem of a configuration
  edge-gateway plan gateway.toml           see which requests the PLCs will get
  edge-gateway run                         run with /etc/edge-gateway/gateway.toml

Exit codes: 0 done, 1 the answer is no, 2 wrong use.";

/// Reads Modicon PLCs over Modbus TCP and publishes their values as JSON over MQTT.
#[derive(Debug, Parser)]
#[command(name = "edge-gateway", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole chain on this machine: simulated PLCs, gateway, broker end.
    Demo(demo::Options),
    /// Run the gateway.
    Run(File),
    /// Find every problem of a configuration, each with what to write instead.
    Check(File),
    /// Show the requests that will be sent, registers used and wasted, and the load on each PLC.
    Plan(File),
    /// Show the effective configuration, secrets redacted.
    PrintConfig(configuration::PrintConfig),
    /// Print the JSON Schema of gateway.toml, for editors.
    Schema,
    /// Show how the running gateway is doing.
    Status(status::Options),
    /// Prove that nothing is missing: follow `seq` at a broker or in a capture.
    Audit(audit::Options),
    /// Run a simulated PLC to try things on.
    Simulate(simulate::Options),
}

/// The configuration to use.
#[derive(Args, Debug)]
struct File {
    /// Configuration file.
    #[arg(value_name = "FILE", default_value = "/etc/edge-gateway/gateway.toml")]
    path: PathBuf,
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(options) => demo::demo(&options),
        Command::Run(file) => run::run(&file.path),
        Command::Check(file) => configuration::check(&file.path),
        Command::Plan(file) => configuration::plan(&file.path),
        Command::PrintConfig(options) => configuration::print(&options),
        Command::Schema => configuration::schema(),
        Command::Status(options) => status::status(&options),
        Command::Audit(options) => audit::audit(&options),
        Command::Simulate(options) => simulate::simulate(&options),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        // The reader of our output has gone, as `head` does: nothing is wrong.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "edge-gateway: {error:#}");
            ExitCode::from(NO)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes to standard output.
fn say(text: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

/// One thread is enough for any number of PLCs, and spares the memory of more.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
