//! The newest wireguard-go of Debian. The version of the stable release does not use the
//! segmentation offload of the kernel yet, which would make the comparison unfair.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::run::{command, output_of, run, target_dir};

/// Debian's suite with the newest versions.
const DEBIAN_SUITE: &str = "sid";

/// Unpacks it below target/ if needed and returns the path of the program.
pub(crate) fn provide() -> Result<PathBuf> {
    let dir = target_dir().join("peers/wireguard-go");
    let program = dir.join("root/usr/bin/wireguard-go");
    if program.exists() {
        return Ok(program);
    }
    for part in ["lists/partial", "cache/archives/partial", "package"] {
        fs::create_dir_all(dir.join(part))?;
    }
    let list = dir.join("sources.list");
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(&list, format!("deb [signed-by={keyring}] {} {DEBIAN_SUITE} main\n", mirror()?))?;
    let options = [
        format!("Dir::Etc::sourcelist={}", list.display()),
        "Dir::Etc::sourceparts=-".to_owned(),
        format!("Dir::State::lists={}", dir.join("lists").display()),
        format!("Dir::Cache={}", dir.join("cache").display()),
    ];
    let apt_get = |words: &[&str]| {
        let mut apt = command("apt-get", &["-qq"]);
        for option in &options {
            apt.args(["-o", option]);
        }
        apt.args(words).current_dir(dir.join("package"));
        apt
    };
    run(&mut apt_get(&["update"]))?;
    run(&mut apt_get(&["download", "wireguard-go"]))?;
    let package =
        fs::read_dir(dir.join("package"))?.next().context("apt-get downloaded nothing")??;
    run(command("dpkg", &["-x"]).arg(package.path()).arg(dir.join("root")))?;
    Ok(program)
}

/// Returns the package mirror of this machine.
fn mirror() -> Result<String> {
    let filters = ["Created-By: Packages", "Origin: Debian", "Label: Debian", "Component: main"];
    let targets = ["indextargets", "--format", "$(REPO_URI)"];
    let listed = output_of(&mut command("apt-get", &[&targets[..], &filters[..]].concat()))?;
    let first = listed.lines().next().context("this machine has no source of Debian packages")?;
    Ok(first.to_owned())
}
