//! The command line. Each command has a file of its own.

mod audit;
mod configuration;
mod demo;
mod keygen;
mod run;
mod simulate;
mod status;
mod tunnel;
mod write;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use provisioning::cli_files::{CompletionsOptions, ManOptions, completions_examples};

/// Exit code: success.
const EXIT_OK: u8 = 0;
/// Exit code: the check failed, or the command could not do its work.
const EXIT_NEGATIVE: u8 = 1;
/// File in `state_dir` with the reason why a start that failed is tried again later.
const WAITING_FILE: &str = "waiting";
/// Time for a disk to finish after everything else has ended.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  edge-gateway demo --for 20s              show the whole chain on this machine
  edge-gateway check gateway.toml          report every problem of a configuration
  edge-gateway plan gateway.toml           show which requests the PLCs will receive
  edge-gateway run                         run with /etc/edge-gateway/gateway.toml
  edge-gateway status                      show how the running gateway is doing
  edge-gateway write pump6 setpoint 21.5   write a tag of a PLC

Exit codes: 0 success, 1 check failed, 2 usage error.";

const RUN_EXAMPLES: &str = "\
Examples:
  edge-gateway run                         with /etc/edge-gateway/gateway.toml
  edge-gateway run gateway.toml            with another file
  RUST_LOG=debug edge-gateway run          with a more detailed log

Logs to standard error. On SIGTERM or Ctrl-C the gateway sends what is left in the queue, for at
most 5 seconds, and exits; a second signal ends it at once. SIGHUP, SIGUSR1, SIGUSR2 and SIGALRM are
ignored. Under systemd a start that fails is reported once and tried again when FILE, or a file that
it names, has changed; elsewhere the exit code is 1.";

const CHECK_EXAMPLES: &str = "\
Example:
  edge-gateway check gateway.toml && systemctl restart edge-gateway

A secret that is named as cred:NAME is a note, because only systemd can give it; set
CREDENTIALS_DIRECTORY to check its content. When root checks a file in /etc/edge-gateway, the files
that it names must also be readable by the user of the service.

Exit code 1 if the configuration has a problem.";

const PLAN_EXAMPLES: &str = "\
Example:
  edge-gateway plan gateway.toml

In a [[plc]], `max_gap` and `max_words` control how tags are combined into requests, and `scan`
controls how often they are read.";

const SCHEMA_EXAMPLES: &str = "\
Example:
  edge-gateway schema > gateway.schema.json

Then begin gateway.toml with the line:  #:schema ./gateway.schema.json";

/// Reads Modicon PLCs over Modbus TCP and publishes their values as JSON over MQTT.
#[derive(Debug, Parser)]
#[command(name = "edge-gateway", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Run the whole chain on this machine: simulated PLCs, gateway, tunnel and broker.
    Demo(demo::DemoOptions),
    /// Run the gateway.
    #[command(after_help = RUN_EXAMPLES)]
    Run(ConfigFile),
    /// Report every problem of a configuration, each with what to write instead.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(ConfigFile),
    /// Show the requests that the PLCs will receive, and the load on each.
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(configuration::PlanOptions),
    /// Print the effective configuration, without secrets.
    PrintConfig(configuration::PrintConfigOptions),
    /// Print the JSON Schema of gateway.toml, for editors that complete and check it.
    #[command(after_help = SCHEMA_EXAMPLES)]
    Schema,
    /// Show how the running gateway is doing.
    Status(status::StatusOptions),
    /// Write a tag of a PLC, through the running gateway.
    Write(write::WriteOptions),
    /// Check that no message is missing, at a broker or in a capture.
    Audit(audit::AuditOptions),
    /// Run only the tunnel, from a wg-quick file, with a network interface.
    Tunnel(tunnel::TunnelOptions),
    /// Generate a private key for the tunnel, and print its public key.
    Keygen(keygen::KeygenOptions),
    /// Run a simulated PLC for testing.
    Simulate(simulate::SimulateOptions),
    /// Print a completion script for a shell.
    #[command(after_help = completions_examples("edge-gateway"))]
    Completions(CompletionsOptions),
    /// Write the manual pages into a directory; the Debian package calls this.
    #[command(hide = true)]
    Man(ManOptions),
}

/// The configuration file.
#[derive(Args, Debug)]
struct ConfigFile {
    /// Configuration file.
    #[arg(value_name = "FILE", default_value = "/etc/edge-gateway/gateway.toml")]
    path: PathBuf,
}

/// Parses the command line and runs the command.
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
        CliCommand::Write(options) => write::write(&options),
        CliCommand::Audit(options) => audit::audit(&options),
        CliCommand::Tunnel(options) => tunnel::tunnel(&options),
        CliCommand::Keygen(options) => keygen::keygen(&options),
        CliCommand::Simulate(options) => simulate::simulate(&options),
        CliCommand::Completions(options) => completions(&options),
        CliCommand::Man(options) => man(&options),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        // The reader of standard output has closed it, as `head` does: nothing is wrong.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done if standard error is closed too; the exit code remains.
            let _ = writeln!(io::stderr(), "edge-gateway: {error:#}");
            ExitCode::from(EXIT_NEGATIVE)
        }
    }
}

fn completions(options: &CompletionsOptions) -> anyhow::Result<u8> {
    options.print(Cli::command())?;
    Ok(EXIT_OK)
}

fn man(options: &ManOptions) -> anyhow::Result<u8> {
    let written = options.write(Cli::command());
    written.with_context(|| format!("cannot write into {}", options.dir().display()))?;
    Ok(EXIT_OK)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Prints a line to standard output. Unlike `println!` it does not panic when that is closed.
fn print_line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

/// Runs `work` to its end, then waits [`SHUTDOWN_GRACE`] for blocking threads: an SD card that
/// hangs must not hang the stop.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = runtime()?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(SHUTDOWN_GRACE);
    done
}

/// Returns a runtime with one thread: it is enough for any number of PLCs, and saves the memory of
/// more (docs/decisions/0006-one-thread.md).
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hanging_disk_does_not_hang_the_stop() {
        let (_held, hangs) = std::sync::mpsc::channel::<()>();

        let done = block_on(async {
            tokio::task::spawn_blocking(move || hangs.recv());
            Ok("done")
        });

        assert_eq!(done.unwrap(), "done");
    }
}
