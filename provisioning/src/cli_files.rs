//! Files that a program makes from the description of its own command line: completion scripts and
//! manual pages.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;

/// `completions`.
#[derive(Args, Debug)]
pub struct CompletionsOptions {
    /// Shell that will read the script.
    shell: Shell,
}

/// `man`.
#[derive(Args, Debug)]
pub struct ManOptions {
    /// Directory for the pages; created if it is missing.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Returns the examples in the help of `completions`.
#[must_use]
pub fn completions_examples(program: &str) -> String {
    format!(
        "Examples:\n  \
           {program} completions bash > /etc/bash_completion.d/{program}\n  \
           {program} completions zsh > /usr/local/share/zsh/site-functions/_{program}\n\n\
         The Debian package installs those for bash, zsh and fish."
    )
}

impl CompletionsOptions {
    /// Prints the completion script of the program.
    ///
    /// # Errors
    /// When standard output takes nothing.
    pub fn print(&self, mut program: Command) -> io::Result<()> {
        let name = program.get_name().to_owned();
        // clap_complete panics when it cannot write; a buffer in memory always takes the script.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, name, &mut script);
        io::stdout().write_all(&script)
    }
}

impl ManOptions {
    /// Returns the directory for the pages.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes one manual page for the program and one for each command that its help shows.
    ///
    /// # Errors
    /// When the directory cannot be created or written.
    pub fn write(&self, program: Command) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        clap_mangen::generate_to(program.disable_help_subcommand(true), &self.dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_the_help_shows_has_a_manual_page() {
        let dir = std::env::temp_dir().join(format!("edge-man-{:08x}", fastrand::u32(..)));
        let commands = [Command::new("run"), Command::new("man").hide(true)];
        let program = Command::new("edge-example").subcommands(commands);

        ManOptions { dir: dir.clone() }.write(program).unwrap();

        let mut pages: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        pages.sort();
        assert_eq!(pages, ["edge-example-run.1", "edge-example.1"]);
        let page = fs::read_to_string(dir.join("edge-example-run.1")).unwrap();
        assert!(page.contains(".SH NAME"), "{page}");
        fs::remove_dir_all(&dir).unwrap();
    }
}
