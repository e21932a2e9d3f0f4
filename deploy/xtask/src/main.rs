//! The project's own commands: `cargo xtask COMMAND`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is for a person")]

mod bench;
mod build;
mod check;
mod debian;
mod docs;
mod guest;
mod long;
mod mutants;
mod node;
mod package;
mod packages;
mod peers;
mod prose;
mod python;
mod repo;
mod run;
mod sizes;
mod static_programs;
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
  cargo xtask build --target aarch64-unknown-linux-musl
                                    static programs for 64-bit Arm: target/cross
  cargo xtask package               Debian packages for this machine: target/packages
  cargo xtask package --format deb --arch arm64 --programs DIR --pages-from target/release
                                    the Debian packages of programs for another architecture
  cargo xtask image amd64=DIR arm64=DIR armv7=DIR
                                    one container image of static programs
  cargo xtask repo DIR --key FILE   adds the packages of target/packages to an apt repository
  cargo xtask deb                   the Debian packages only: target/debian
  cargo xtask deb --binary target/debug/edge-gateway
                                    the same from existing programs

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
    /// Builds the programs for a kind of box, in release.
    Build {
        /// Target of Rust.
        #[arg(long, value_enum)]
        target: build::BuildTarget,
    },
    /// Builds packages for boxes.
    Package(package::PackageArguments),
    /// Builds one container image for several architectures.
    Image(package::ImageArguments),
    /// Adds Debian packages to a signed apt repository: static files for any web server.
    Repo(repo::RepoArguments),
    /// Builds the Debian packages.
    Deb {
        /// An existing edge-gateway, beside the other programs, instead of a release build.
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
        /// Directory for the packages.
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
        XtaskCommand::Build { target } => build::build_and_print(target),
        XtaskCommand::Deb { binary, output } => package::deb(binary.as_deref(), output),
        XtaskCommand::Package(arguments) => package::package(arguments),
        XtaskCommand::Image(arguments) => package::image(arguments),
        XtaskCommand::Repo(arguments) => repo::repo(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
