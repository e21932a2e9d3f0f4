//! The command line of `edge-provision`. Each command has a file of its own.

mod generate;
mod import;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit code: success.
const EXIT_OK: u8 = 0;
/// Exit code: the answer is no, or the command could not do its work.
const EXIT_NEGATIVE: u8 = 1;

const EXAMPLES: &str = "\
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
    /// Turn the variables of a PLC project into tags.
    #[command(after_help = import::EXAMPLES)]
    Import(import::ImportOptions),
    /// Print a completion script for a shell.
    #[command(after_help = generate::COMPLETIONS_EXAMPLES)]
    Completions(generate::CompletionsOptions),
    /// Write the manual pages into a directory; the Debian package calls this.
    #[command(hide = true)]
    Man(generate::ManOptions),
}

/// Parses the command line and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        CliCommand::Import(options) => import::run(&options),
        CliCommand::Completions(options) => generate::completions(&options),
        CliCommand::Man(options) => generate::man(&options),
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

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
