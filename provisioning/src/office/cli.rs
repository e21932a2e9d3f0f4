//! The command line of `edge-provision`. Each command has a file of its own.

mod add;
mod broker_options;
mod build;
mod check;
mod diff;
mod enrol;
mod hub;
mod import;
mod init;
mod key_options;
mod rollout;
mod rotate;
mod sign;
mod status;

use std::io::{self, IsTerminal, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use tunnel::{Endpoint, PublicKey};

use super::fleet::{FLEET_TOML, Fleet, RejectedFleet, is_label};
use super::fleet_lock::FleetLock;
use crate::cli_files::{CompletionsOptions, ManOptions, completions_examples};

/// Exit code: success.
const EXIT_OK: u8 = 0;
/// Exit code: the answer is no, or the command could not do its work.
const EXIT_NEGATIVE: u8 = 1;

const EXAMPLES: &str = "\
Examples:
  edge-provision init fleet --endpoint hub-a.example.net:51820
  edge-provision add amsterdam-01 --location Amsterdam --template pump
  edge-provision check                 report every problem of the fleet
  edge-provision diff                  show what a change does, site by site
  edge-provision enrol amsterdam-01 edge-enrol-5f2c91aa.txt
  edge-provision build                 make the bundles
  edge-provision hub                   write the files of the hubs
  edge-provision rollout --canary 2    offer the bundles, to two sites first
  edge-provision status                who runs what

Exit codes: 0 success, 1 the answer is no, 2 usage error.";

/// Turns one fleet in files into everything that each gateway and the hubs need.
#[derive(Debug, Parser)]
#[command(name = "edge-provision", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Make a new fleet.
    Init(init::InitOptions),
    /// Add a site, or a hub.
    Add(add::AddOptions),
    /// Report every problem of the fleet, each with what to write instead.
    Check(check::CheckOptions),
    /// List the sites.
    List(check::ListOptions),
    /// Show what changed at which site since a revision of git.
    Diff(diff::DiffOptions),
    /// Make the signed bundles of sites.
    Build(build::BuildOptions),
    /// Sign what `build --unsigned` has left.
    Sign(sign::SignOptions),
    /// Verify a bundle as a box does.
    Verify(sign::VerifyOptions),
    /// Take in the public keys of the box of a site.
    Enrol(enrol::EnrolOptions),
    /// Give a site a new box.
    Replace(enrol::ReplaceOptions),
    /// Withdraw the access of a site for ever.
    Revoke(enrol::RevokeOptions),
    /// Make a new password of a site, or a new signing key.
    Rotate(rotate::RotateOptions),
    /// Write the files of the hubs.
    Hub(hub::HubOptions),
    /// Show which site runs which bundle.
    Status(status::StatusOptions),
    /// Offer bundles to their sites, wave by wave.
    Rollout(rollout::RolloutOptions),
    /// Turn the variables of a PLC project into tags.
    #[command(after_help = import::EXAMPLES)]
    Import(import::ImportOptions),
    /// Print a completion script for a shell.
    #[command(after_help = completions_examples("edge-provision"))]
    Completions(CompletionsOptions),
    /// Write the manual pages into a directory; the Debian package calls this.
    #[command(hide = true)]
    Man(ManOptions),
}

/// The fleet that a command works on.
#[derive(Args, Debug)]
struct FleetOption {
    /// Directory of the fleet, which holds fleet.toml.
    #[arg(long = "fleet", value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

impl FleetOption {
    /// Returns a path in the fleet, without a `./` before it.
    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        if self.dir == Path::new(".") { name.as_ref().to_owned() } else { self.dir.join(name) }
    }

    /// Takes the lock of the fleet; `None` if there is no fleet, which loading it reports.
    fn lock(&self) -> anyhow::Result<Option<FleetLock>> {
        let is_fleet = self.dir.join(FLEET_TOML).exists();
        Ok(is_fleet.then(|| FleetLock::take(&self.dir)).transpose()?)
    }

    /// Returns the fleet without the check of each site's gateway.toml; `None` after printing its
    /// problems.
    fn load(&self) -> anyhow::Result<Option<Fleet>> {
        Self::printed(Fleet::load(&self.dir))
    }

    /// Returns the fleet after every check; `None` after printing its problems.
    fn check(&self) -> anyhow::Result<Option<Fleet>> {
        Self::printed(Fleet::check(&self.dir))
    }

    fn printed(result: Result<Fleet, RejectedFleet>) -> anyhow::Result<Option<Fleet>> {
        match result {
            Ok(fleet) => Ok(Some(fleet)),
            Err(rejected) => reject(&rejected).map(|_| None),
        }
    }
}

/// Prints the problems of a fleet and returns the exit code for them.
fn reject(rejected: &RejectedFleet) -> anyhow::Result<u8> {
    let is_terminal = io::stderr().is_terminal();
    let text = if is_terminal { rejected.coloured() } else { rejected.to_string() };
    writeln!(io::stderr(), "{text}")?;
    Ok(EXIT_NEGATIVE)
}

/// Returns a name of a site or hub.
fn label(text: &str) -> Result<String, &'static str> {
    let problem = "a name is 1 to 63 of a-z, 0-9 and -, and begins with a letter or digit";
    if is_label(text) { Ok(text.to_owned()) } else { Err(problem) }
}

/// Returns `[[hub]]` for fleet.toml.
fn hub_section(name: &str, endpoint: &Endpoint, address: Ipv4Addr, key: &PublicKey) -> String {
    format!(
        "\n[[hub]]\n\
         name = \"{name}\"\n\
         endpoint = \"{endpoint}\"\n\
         address = \"{address}\"              # inside the tunnel\n\
         public_key = \"{key}\"\n"
    )
}

fn count_of(number: usize, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

/// Parses the command line and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        CliCommand::Init(options) => init::init(&options),
        CliCommand::Add(options) => add::add(&options),
        CliCommand::Check(options) => check::check(&options),
        CliCommand::List(options) => check::list(&options),
        CliCommand::Diff(options) => diff::diff(&options),
        CliCommand::Build(options) => build::build(&options),
        CliCommand::Sign(options) => sign::sign(&options),
        CliCommand::Verify(options) => sign::verify_bundle(&options),
        CliCommand::Enrol(options) => enrol::enrol(&options),
        CliCommand::Replace(options) => enrol::replace(&options),
        CliCommand::Revoke(options) => enrol::revoke(&options),
        CliCommand::Rotate(options) => rotate::rotate(&options),
        CliCommand::Hub(options) => hub::hub(&options),
        CliCommand::Status(options) => status::status(&options),
        CliCommand::Rollout(options) => rollout::rollout(&options),
        CliCommand::Import(options) => import::run(&options),
        CliCommand::Completions(options) => completions(&options),
        CliCommand::Man(options) => man(&options),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        // The reader of standard output has closed it, as `head` does: nothing is wrong.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done if standard error is closed too; the exit code remains.
            let _ = writeln!(io::stderr(), "edge-provision: {error:#}");
            ExitCode::from(EXIT_NEGATIVE)
        }
    }
}

/// Prints a line to standard output. Unlike `println!` it does not panic when that is closed.
fn print_line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}")?;
    Ok(())
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
