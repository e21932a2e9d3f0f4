//! Static programs for every kind of box, and what runs them on this machine, below target/.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::build::{BuildTarget, build};
use crate::run::{command, run, step, target_dir};

/// Builds the programs and returns the settings with which tests find them: a directory with one
/// for each target, and a PATH with the emulators.
pub(crate) fn provide() -> Result<Vec<(&'static str, OsString)>> {
    let dir = target_dir().join("static-programs");
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    for target in BuildTarget::STATIC {
        let link = dir.join(target.triple());
        if link.is_symlink() {
            fs::remove_file(&link).with_context(|| link.display().to_string())?;
        }
        symlink(build(target)?, &link).with_context(|| link.display().to_string())?;
    }
    let emulators = step("emulators", || emulators(&target_dir().join("emulators")))?;
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([emulators].into_iter().chain(env::split_paths(&path)))?;
    Ok(vec![
        (test_settings::STATIC_PROGRAMS.name, dir.into_os_string()),
        // The tests are built without it.
        (test_settings::XTASK.name, env::current_exe()?.into_os_string()),
        ("PATH", path),
    ])
}

/// Unpacks QEMU's emulators of one program, unless they are there, and returns their directory.
/// They are not installed: then the kernel of this machine would start foreign programs with them.
fn emulators(dir: &Path) -> Result<PathBuf> {
    let programs = dir.join("usr/bin");
    if programs.is_dir() {
        println!("    they are there");
        return Ok(programs);
    }
    let debs = dir.join("debs");
    fs::create_dir_all(&debs).with_context(|| debs.display().to_string())?;
    // Without this option APT warns root that its unprivileged user cannot write here.
    let download = ["download", "-q", "-o", "APT::Sandbox::User=root", "qemu-user-static"];
    run(command("apt-get", &download).current_dir(&debs).stdout(Stdio::null()))?;
    for entry in fs::read_dir(&debs)? {
        run(command("dpkg", &["--extract"]).arg(entry?.path()).arg(dir))?;
    }
    fs::remove_dir_all(&debs).with_context(|| debs.display().to_string())?;
    Ok(programs)
}
