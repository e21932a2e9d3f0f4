//! Third-party gateways, installed below target/ for `cargo xtask bench --peers`.
//!
//! Each has a directory in tests/benches/peers that pins its versions. A failed installation leaves
//! `NAME.failed` with the reason, which the table of results shows.

pub(crate) mod wireguard_go;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, anyhow};

use crate::run::{command, target_dir, workspace};

/// How to install a peer.
#[derive(Clone, Copy, Debug)]
enum PeerKind {
    /// A virtual environment from requirements.txt.
    Python,
    /// node_modules from package.json.
    Node,
}

const PEERS: [(&str, PeerKind); 4] = [
    ("script", PeerKind::Python),
    ("modpoll", PeerKind::Python),
    ("modbus2mqtt", PeerKind::Python),
    // Its Modbus nodes depend on a fork of modbus-serial by URL; package.json replaces it by the
    // released one.
    ("node-red", PeerKind::Node),
];

/// Returns the names of all peers.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    PEERS.into_iter().map(|(name, _)| name)
}

/// Installs the peers that are missing in the pinned version and returns their directory.
pub(crate) fn provide() -> Result<PathBuf> {
    let all = target_dir().join("peers");
    fs::create_dir_all(&all).with_context(|| all.display().to_string())?;
    for (name, kind) in PEERS {
        let failed = all.join(format!("{name}.failed"));
        let _ = fs::remove_file(&failed);
        match install(name, kind, &all.join(name)) {
            Ok(news) => println!("    {name} is {news}"),
            Err(error) => {
                println!("    {name} cannot be set up: {error:#}");
                fs::write(&failed, format!("{error:#}"))?;
            }
        }
    }
    Ok(all)
}

fn install(name: &str, kind: PeerKind, dir: &Path) -> Result<&'static str> {
    let source = workspace().join("tests/benches/peers").join(name).join(kind.manifest());
    let manifest = fs::read_to_string(&source).with_context(|| source.display().to_string())?;
    let holds = dir.join("holds");
    if fs::read_to_string(&holds).is_ok_and(|held| held == manifest) {
        return Ok("there");
    }
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir)?;
    let (path, copy) = (dir.display().to_string(), dir.join(kind.manifest()));
    fs::write(&copy, &manifest)?;
    let copy = copy.display().to_string();
    match kind {
        PeerKind::Python => {
            // Debian's python3, as for the tests: it has python3-venv.
            run_quietly(&mut command("/usr/bin/python3", &["-m", "venv", &path]))?;
            let pip = ["-m", "pip", "install", "--quiet", "--requirement", &copy];
            run_quietly(&mut command(&dir.join("bin/python").display().to_string(), &pip))?;
        }
        PeerKind::Node => {
            let npm = ["install", "--omit=dev", "--no-audit", "--no-fund", "--no-package-lock"];
            run_quietly(command("npm", &npm).current_dir(dir))?;
        }
    }
    fs::write(holds, manifest)?;
    Ok("set up")
}

impl PeerKind {
    const fn manifest(self) -> &'static str {
        match self {
            Self::Python => "requirements.txt",
            Self::Node => "package.json",
        }
    }
}

/// Runs a command; an error contains the last line of its standard error.
fn run_quietly(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(anyhow!("{program}: {}", last_error_line(&output)))
    }
}

fn last_error_line(output: &Output) -> String {
    let complaints = String::from_utf8_lossy(&output.stderr);
    let last = complaints.lines().rev().map(str::trim).find(|line| !line.is_empty());
    last.map_or_else(|| output.status.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_of_a_peer_is_pinned() {
        for (name, kind) in PEERS {
            let path = workspace().join("tests/benches/peers").join(name).join(kind.manifest());
            let text = fs::read_to_string(&path).unwrap();
            match kind {
                PeerKind::Python => {
                    assert!(text.lines().all(|line| line.contains("==")), "{}", path.display());
                }
                PeerKind::Node => {
                    assert!(!text.contains(['^', '~', '*', '>']), "{}", path.display());
                }
            }
        }
    }

    #[test]
    fn an_error_contains_the_last_line_of_standard_error() {
        let error =
            run_quietly(&mut command("sh", &["-c", "echo first >&2; echo last >&2; exit 1"]));
        assert_eq!(error.unwrap_err().to_string(), "sh: last");
        let error = run_quietly(&mut command("sh", &["-c", "exit 3"])).unwrap_err().to_string();
        assert!(error.contains('3'), "{error}");
    }
}
