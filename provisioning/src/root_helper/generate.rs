//! `completions` and `man`: files made from the description of the command line itself.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::sentence::HelperError;

pub(super) const BOX_COMPLETIONS_EXAMPLES: &str = "\
Examples:
  edge-gateway-box completions bash > /etc/bash_completion.d/edge-gateway-box
  edge-gateway-box completions zsh > /usr/local/share/zsh/site-functions/_edge-gateway-box

The Debian package installs those for bash, zsh and fish.";

/// `completions`.
#[derive(Args, Debug)]
pub(super) struct BoxCompletionsOptions {
    /// Shell that will read the script.
    shell: Shell,
}

/// `man`.
#[derive(Args, Debug)]
pub(super) struct BoxManOptions {
    /// Directory for the pages; created if it is missing.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Returns the completion script of a program for a shell.
pub(super) fn completions(options: &BoxCompletionsOptions, mut program: Command) -> Vec<u8> {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut program, name, &mut script);
    script
}

/// Writes one manual page for the program and one for each of its commands.
pub(super) fn man(options: &BoxManOptions, program: Command) -> Result<(), HelperError> {
    let shown = options.dir.display();
    fs::create_dir_all(&options.dir).map_err(HelperError::io("create", &shown))?;
    clap_mangen::generate_to(program.disable_help_subcommand(true), &options.dir)
        .map_err(HelperError::io("write", &shown))
}
