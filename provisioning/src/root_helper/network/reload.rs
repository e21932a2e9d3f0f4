//! Makes a service read its files again.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;

use super::detect::is_running;
use super::{NetworkFiles, NetworkService};

/// Time in which NetworkManager must have a connection up. The command ends then, and
/// NetworkManager tries on.
const ACTIVATION_SECONDS: &str = "10";

/// Longest part of a program's own words in a sentence, in characters.
const MAX_WORDS: usize = 200;

/// Makes a service read its files.
pub(in crate::root_helper) trait NetworkReloader {
    /// Returns when the service has read its files. `changed` are those that have changed; a
    /// connection of NetworkManager among them is started again. Returns why the first of them did
    /// not start, as without its cable; the service starts it when it can.
    ///
    /// # Errors
    /// When the service does not read its files.
    fn reload(
        &mut self,
        service: NetworkService,
        changed: &NetworkFiles,
    ) -> Result<Option<ReloadError>, ReloadError>;
}

/// A service has not read its files.
#[derive(Debug, Error)]
pub(in crate::root_helper) enum ReloadError {
    /// The program cannot be started.
    #[error("cannot start `{program}`")]
    NotStarted {
        /// The program.
        program: String,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The program has failed.
    #[error("`{command}` failed: {words}")]
    Failed {
        /// The program and its arguments.
        command: String,
        /// What it says.
        words: String,
    },
}

/// Uses `nmcli` and `networkctl`. A service that does not run reads its files when it starts.
#[derive(Debug)]
pub(in crate::root_helper) struct SystemReloader {
    /// `/`.
    pub(in crate::root_helper) root: PathBuf,
}

impl NetworkReloader for SystemReloader {
    fn reload(
        &mut self,
        service: NetworkService,
        changed: &NetworkFiles,
    ) -> Result<Option<ReloadError>, ReloadError> {
        if !is_running(&self.root, service) {
            return Ok(None);
        }
        match service {
            NetworkService::Networkd => {
                run(Path::new("networkctl"), &["reload"])?;
                Ok(None)
            }
            NetworkService::NetworkManager => {
                let nmcli = Path::new("nmcli");
                run(nmcli, &["connection", "reload"])?;
                let mut not_started = None;
                for content in changed.values() {
                    if let Some((kind, name)) = connection_name(content) {
                        let up = ["--wait", ACTIVATION_SECONDS, "connection", "up", kind, &name];
                        // The others are started all the same.
                        let failed = run(nmcli, &up).err();
                        not_started = not_started.or(failed);
                    }
                }
                Ok(not_started)
            }
        }
    }
}

/// Calls one program of the administrator, with the name of the service.
#[derive(Debug)]
pub(in crate::root_helper) struct CommandReloader {
    /// The program.
    pub(in crate::root_helper) program: PathBuf,
}

impl NetworkReloader for CommandReloader {
    fn reload(
        &mut self,
        service: NetworkService,
        _: &NetworkFiles,
    ) -> Result<Option<ReloadError>, ReloadError> {
        run(&self.program, &[service.name()])?;
        Ok(None)
    }
}

fn run(program: &Path, arguments: &[&str]) -> Result<(), ReloadError> {
    let mut command = Command::new(program);
    let output = command.args(arguments).stdin(Stdio::null()).env("LC_ALL", "C").output();
    let name = program.display().to_string();
    let output = output.map_err(|source| ReloadError::NotStarted { program: name, source })?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let words = words.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect();
    let command = format!("{} {}", program.display(), arguments.join(" "));
    Err(ReloadError::Failed { command, words })
}

/// Returns by what `nmcli` finds the connection of a keyfile: `uuid` or `id`, and its value.
fn connection_name(keyfile: &[u8]) -> Option<(&'static str, String)> {
    let text = str::from_utf8(keyfile).ok()?;
    let lines = text.lines().map(str::trim).skip_while(|line| *line != "[connection]").skip(1);
    let section: Vec<_> = lines.take_while(|line| !line.starts_with('[')).collect();
    ["uuid", "id"].into_iter().find_map(|key| {
        let value = section.iter().find_map(|line| {
            let (found, value) = line.split_once('=')?;
            (found.trim() == key).then(|| value.trim().to_owned())
        });
        Some((key, value.filter(|value| !value.is_empty())?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_found_by_its_uuid_or_its_id() {
        let of = |text: &str| connection_name(text.as_bytes());
        let with_id =
            "[ipv4]\nid=x\n[connection]\n id = edge machine\ntype=ethernet\n[ipv4]\nuuid=1\n";
        assert_eq!(of(with_id), Some(("id", "edge machine".to_owned())));
        assert_eq!(of("[connection]\nid=a\nuuid=b\n"), Some(("uuid", "b".to_owned())));
        assert_eq!(of("[connection]\nid=\n"), None);
        assert_eq!(of("id=a\n"), None);
    }

    #[test]
    fn a_failed_command_says_what_the_program_says() {
        let failed = run(Path::new("sh"), &["-c", "echo no  device >&2; exit 3"]).unwrap_err();
        let text = failed.to_string();
        assert!(text.ends_with("failed: no device"), "{text}");
        let missing = run(Path::new("/no/such/program"), &[]).unwrap_err();
        assert_eq!(missing.to_string(), "cannot start `/no/such/program`");
    }
}
