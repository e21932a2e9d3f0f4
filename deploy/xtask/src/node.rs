//! modbus-serial, a PLC of the tests, in a directory below target/.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::run::{command, run, target_dir, workspace};

/// Where the servers and the lock of what they need are.
const PEERS: &str = "tests/peers/node";
const FILES: [&str; 4] = [".npmrc", "package.json", "package-lock.json", "modbus_serial_server.js"];

/// Copies the servers to a place of their own and installs what they need, exactly as locked, and
/// gives its path.
pub(crate) fn provide() -> Result<PathBuf> {
    let dir = target_dir().join("e2e-node");
    let (peers, stamp) = (workspace().join(PEERS), dir.join("holds"));
    let lock = fs::read_to_string(peers.join("package-lock.json"))
        .with_context(|| format!("{PEERS} holds no lock"))?;
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for file in FILES {
        let source = peers.join(file);
        fs::copy(&source, dir.join(file))
            .with_context(|| format!("cannot copy {}", source.display()))?;
    }
    if fs::read_to_string(&stamp).is_ok_and(|held| held == lock) {
        println!("    modbus-serial is there");
        return Ok(dir);
    }
    // Without the optional parts: they are for serial lines, and have code of the machine's kind.
    let arguments = ["ci", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"];
    run(command("npm", &arguments).arg("--silent").current_dir(&dir))?;
    fs::write(&stamp, lock).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(dir)
}
