//! The command line: what each command does stands in its own file.

mod audit;
mod configuration;
mod demo;
mod keygen;
mod run;
mod simulate;
mod status;
mod tunnel;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// The answer is yes, or it is done.
const EXIT_OK: u8 = 0;
/// The answer is no.
const EXIT_NEGATIVE: u8 = 1;
/// What a disk gets beyond everything else at the end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  edge-gateway demo --for 20s              see the whole chain on this machine
  edge-gateway check gateway.toml          find every problem of a configuration
  edge-gateway plan gateway.toml           see which requests the PLCs will get
  edge-gateway run                         run with /etc/edge-gateway/gateway.toml

Exit codes: 0 done, 1 the answer is no, 2 wrong use.";

const RUN_EXAMPLES: &str = "\
Examples:
  edge-gateway run                         with /etc/edge-gateway/gateway.toml
  edge-gateway run gateway.toml            with a file of your own
  RUST_LOG=debug edge-gateway run          with more in the log, on standard error

SIGTERM and Ctrl-C send what is left to the broker and end it; a second one ends it at once.";

const CHECK_EXAMPLES: &str = "\
Example:
  edge-gateway check gateway.toml && systemctl restart edge-gateway

Exit code 1 when there is a problem.";

const PLAN_EXAMPLES: &str = "\
Example:
  edge-gateway plan gateway.toml

`max_gap` and `max_words` of a [[plc]] change how tags are joined to requests, `scan` how often.";

const SCHEMA_EXAMPLES: &str = "\
Example:
  edge-gateway schema > gateway.schema.json
  then write as first line of gateway.toml:  #:schema ./gateway.schema.json";

/// Reads Modicon PLCs over Modbus TCP and publishes their values as JSON over MQTT.
#[derive(Debug, Parser)]
#[command(name = "edge-gateway", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Show the whole chain on this machine: simulated PLCs, gateway, broker end.
    Demo(demo::DemoOptions),
    /// Run the gateway.
    #[command(after_help = RUN_EXAMPLES)]
    Run(ConfigFile),
    /// Find every problem of a configuration, each with what to write instead.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(ConfigFile),
    /// Show the requests that will be sent, registers used and wasted, and the load on each PLC.
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(configuration::PlanOptions),
    /// Show the effective configuration, secrets redacted.
    PrintConfig(configuration::PrintConfigOptions),
    /// Print the JSON Schema of gateway.toml, for editors.
    #[command(after_help = SCHEMA_EXAMPLES)]
    Schema,
    /// Show how the running gateway is doing.
    Status(status::StatusOptions),
    /// Prove that nothing is missing: follow `seq` at a broker or in a capture.
    Audit(audit::AuditOptions),
    /// Run only the tunnel, with a network device, from a file of wg-quick.
    Tunnel(tunnel::TunnelOptions),
    /// Make a key for the tunnel.
    Keygen(keygen::KeygenOptions),
    /// Run a simulated PLC to try things on.
    Simulate(simulate::SimulateOptions),
}

/// The configuration to use.
#[derive(Args, Debug)]
struct ConfigFile {
    /// Configuration file.
    #[arg(value_name = "FILE", default_value = "/etc/edge-gateway/gateway.toml")]
    path: PathBuf,
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        CliCommand::Demo(options) => demo::demo(&options),
        CliCommand::Run(file) => run::run(&file.path),
        CliCommand::Check(file) => configuration::check(&file.path),
        CliCommand::Plan(options) => configuration::plan(&options),
        CliCommand::PrintConfig(options) => configuration::print(&options),
        CliCommand::Schema => configuration::schema(),
        CliCommand::Status(options) => status::status(&options),
        CliCommand::Audit(options) => audit::audit(&options),
        CliCommand::Tunnel(options) => tunnel::tunnel(&options),
        CliCommand::Keygen(options) => keygen::keygen(&options),
        CliCommand::Simulate(options) => simulate::simulate(&options),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        // The reader of our output has gone, as `head` does: nothing is wrong.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "edge-gateway: {error:#}");
            ExitCode::from(EXIT_NEGATIVE)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes to standard output.
fn print_line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

/// Runs the gateway's work to its end. What still waits for a disk then gets a moment more: a card
/// that hangs must not hold up the stop.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = runtime()?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(SHUTDOWN_GRACE);
    done
}

/// One thread is enough for any number of PLCs, and spares the memory of more.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_hangs_does_not_hold_up_the_stop() {
        let (_held, hangs) = std::sync::mpsc::channel::<()>();

        let done = block_on(async {
            tokio::task::spawn_blocking(move || hangs.recv());
            Ok("done")
        });

        assert_eq!(done.unwrap(), "done");
    }
}
