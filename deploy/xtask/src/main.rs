//! The project's own commands: `cargo xtask COMMAND`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is for a person")]

mod bench;
mod check;
mod deb;
mod debian;
mod docs;
mod guest;
mod long;
mod mutants;
mod node;
mod packages;
mod peers;
mod prose;
mod python;
mod run;
mod sizes;
mod test;
mod type_names;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  cargo xtask test                  all tests that must pass before a merge
  cargo xtask test a_broker         only the tests whose name contains this
  cargo xtask check                 format, lints, documentation, dependencies, sizes, names
  cargo xtask bench W2              the gateway and its floor, in one run
  cargo xtask bench W3 --peers      and other gateways, which it installs
  cargo xtask bench W4 --peers --only gateway,script --turns 1 --seconds 10
  cargo xtask long                  the long tests, in release; add the results to docs/long-runs.md
  cargo xtask long answers          only those whose name contains this
  cargo xtask long mutants          mutation tests of the pure modules (cargo-mutants)
  cargo xtask docs                  builds the book of docs/ into target/book
  cargo xtask deb                   target/debian/edge-gateway_VERSION_ARCH.deb
  cargo xtask deb --binary target/debug/edge-gateway
                                    the same from an existing program

Exit codes: 0 success, 1 failure, 2 usage error.";

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: XtaskCommand,
}

#[derive(Debug, Subcommand)]
enum XtaskCommand {
    /// Runs every test. As root it installs missing Debian packages; otherwise it lists them.
    Test {
        /// Only tests whose name contains this.
        filter: Option<String>,
    },
    /// Runs every check that needs no running program.
    Check,
    /// Measures the gateway, its floor and other gateways: processor time, memory, age of values.
    Bench(bench::BenchArguments),
    /// Runs the tests that take too long for every merge, in release, and prints a summary.
    Long {
        /// Only tests whose name contains this.
        filter: Option<String>,
    },
    /// Builds the book of docs/ into target/book.
    Docs,
    /// Builds the Debian package.
    Deb {
        /// An existing program, instead of a release build.
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
        /// Directory for the package.
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        XtaskCommand::Test { filter } => test::test(filter.as_deref()),
        XtaskCommand::Check => check::check(),
        XtaskCommand::Bench(bench) => bench::bench(&bench),
        XtaskCommand::Long { filter } => long::long(filter.as_deref()),
        XtaskCommand::Docs => docs::docs(),
        XtaskCommand::Deb { binary, output } => deb::deb(binary, output),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
