//! Peers of the tests that run under Node.js, each installed below target/.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::run::{command, run, target_dir, workspace};

/// A program of npm, in the locked version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NpmPeer {
    name: &'static str,
    /// Directory of its lock file and of our scripts for it.
    source: &'static str,
    files: &'static [&'static str],
    /// Name of its directory below target/.
    home: &'static str,
}

/// modbus-serial as a PLC.
pub(crate) const MODBUS_SERIAL: NpmPeer = NpmPeer {
    name: "modbus-serial",
    source: "tests/peers/node",
    files: &[".npmrc", "package.json", "package-lock.json", "modbus_serial_server.js"],
    home: "e2e-node",
};

/// Node-RED as a consumer, with its dashboard, and the driver of a browser. Each test copies and
/// changes its flow.
pub(crate) const NODE_RED: NpmPeer = NpmPeer {
    name: "Node-RED",
    source: "tests/peers/node-red",
    files: &[".npmrc", "package.json", "package-lock.json", "browser.js"],
    home: "e2e-node-red",
};

/// Copies the files of the repository to its directory, installs the locked packages and returns
/// the path.
pub(crate) fn provide(peer: NpmPeer) -> Result<PathBuf> {
    let dir = target_dir().join(peer.home);
    let (source, stamp) = (workspace().join(peer.source), dir.join("holds"));
    let lock = fs::read_to_string(source.join("package-lock.json"))
        .with_context(|| format!("{} holds no lock", peer.source))?;
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for file in peer.files {
        let source = source.join(file);
        fs::copy(&source, dir.join(file))
            .with_context(|| format!("cannot copy {}", source.display()))?;
    }
    if fs::read_to_string(&stamp).is_ok_and(|held| held == lock) {
        println!("    {} is there", peer.name);
        return Ok(dir);
    }
    // Without the optional packages: they contain native code, for serial ports and for passwords
    // of the editor.
    let arguments = ["ci", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"];
    run(command("npm", &arguments).arg("--silent").current_dir(&dir))?;
    fs::write(&stamp, lock).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(dir)
}
