//! pymodbus, the PLC of the tests, in a virtual environment below target/.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::run::{command, run, target_dir};

/// The version whose interface `tests/peers/pymodbus_server.py` is written for.
const PYMODBUS: &str = "pymodbus==3.16.1";

/// Creates the environment if needed and returns the path of its interpreter.
pub(crate) fn provide() -> Result<PathBuf> {
    let dir = target_dir().join("e2e-python");
    let interpreter = dir.join("bin/python");
    let stamp = dir.join("holds");
    if fs::read_to_string(&stamp).is_ok_and(|held| held == PYMODBUS) {
        println!("    {PYMODBUS} is there");
        return Ok(interpreter);
    }
    let (path, python) = (dir.display().to_string(), interpreter.display().to_string());
    // Debian's python3: another one in the PATH may lack python3-venv.
    run(&mut command("/usr/bin/python3", &["-m", "venv", "--clear", &path]))?;
    run(&mut command(&python, &["-m", "pip", "install", "--quiet", PYMODBUS]))?;
    fs::write(&stamp, PYMODBUS).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(interpreter)
}
