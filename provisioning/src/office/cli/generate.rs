//! `completions` and `man`: files made from the description of the command line itself.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, EXIT_OK};

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  edge-provision completions bash > /etc/bash_completion.d/edge-provision
  edge-provision completions zsh > /usr/local/share/zsh/site-functions/_edge-provision

The Debian package installs those for bash, zsh and fish.";

/// `completions`.
#[derive(Args, Debug)]
pub(super) struct CompletionsOptions {
    /// Shell that will read the script.
    shell: Shell,
}

/// `man`.
#[derive(Args, Debug)]
pub(super) struct ManOptions {
    /// Directory for the pages; created if it is missing.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Prints the completion script for a shell.
pub(super) fn completions(options: &CompletionsOptions) -> anyhow::Result<u8> {
    // clap_complete panics when it cannot write; a buffer in memory always takes the script.
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "edge-provision", &mut script);
    io::stdout().write_all(&script)?;
    Ok(EXIT_OK)
}

/// Writes one manual page for the program and one for each of its commands.
pub(super) fn man(options: &ManOptions) -> anyhow::Result<u8> {
    let shown = options.dir.display();
    fs::create_dir_all(&options.dir).with_context(|| format!("cannot create {shown}"))?;
    let command = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, &options.dir)
        .with_context(|| format!("cannot write into {shown}"))?;
    Ok(EXIT_OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_visible_command_has_a_manual_page() {
        let dir =
            std::env::temp_dir().join(format!("edge-provision-man-{:08x}", fastrand::u32(..)));
        man(&ManOptions { dir: dir.clone() }).unwrap();

        let command = Cli::command();
        let visible = command.get_subcommands().filter(|command| !command.is_hide_set());
        for name in visible.map(clap::Command::get_name) {
            let page = fs::read_to_string(dir.join(format!("edge-provision-{name}.1"))).unwrap();
            assert!(page.contains(".SH NAME"), "{page}");
        }
        assert!(dir.join("edge-provision.1").exists());
        fs::remove_dir_all(&dir).unwrap();
    }
}
