//! Packages for boxes without Debian: `.ipk` for OpenWrt 24.10 and older, and a tarball with an
//! install script for any Linux.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::architecture::PackageArch;
use super::{PACKAGE_NAME, PackageJob, VERSION, archive};
use crate::run::workspace;

/// Keys that a router needs beside those of the shipped gateway.toml.
const ROUTER_KEYS: &str = "\
state_dir = \"/srv/edge-gateway\"         # on flash: /var is in memory on OpenWrt

[queue]
max_size = \"4MiB\"                       # flash is small and wears
";
/// What the shipped gateway.toml says of services, and what is right on a router.
const DEBIAN_START: &str = "\
#   systemctl enable --now edge-gateway  starts the gateway now and after each reboot
";
const ROUTER_START: &str = "\
#   /etc/init.d/edge-gateway enable      starts the gateway after each reboot
#   /etc/init.d/edge-gateway start       starts it now
";
const DEBIAN_WATCH: &str = "\
#
# While the gateway runs, edge-gateway-secrets.path restarts it 2 s after a change of a file in this
# directory, if `check` finds no problem.
";
/// The line of gateway.toml before which the keys stand.
const BEFORE: &str = "\n[mqtt]\n";

/// Builds the tarball and returns its path.
pub(super) fn tarball(job: &PackageJob) -> Result<PathBuf> {
    let stage = job.staging_dir("tarball")?;
    let name = format!("{PACKAGE_NAME}-{VERSION}");
    job.programs.copy_to(PACKAGE_NAME, job.arch, &stage, &format!("{name}/{PACKAGE_NAME}"))?;
    let deploy = workspace().join("deploy");
    for (file, mode) in [
        ("tarball/install.sh", 0o755),
        ("systemd/edge-gateway.service", 0o644),
        ("systemd/tun.conf", 0o644),
        ("node-red/flows.json", 0o644),
        ("../LICENSE-MIT", 0o644),
        ("../LICENSE-APACHE", 0o644),
    ] {
        let base = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
        stage.copy(&deploy.join(file), &format!("{name}/{base}"), mode)?;
    }
    let config = shipped_config()?.replace(DEBIAN_WATCH, "");
    stage.write(&format!("{name}/gateway.toml"), &config)?;
    let output = job.output.join(format!("{name}-linux-{}.tar", job.arch));
    archive::tar_gz(stage.root(), &name, &output, &job.built_at, job.compression)?;
    Ok(output.with_extension("tar.gz"))
}

/// Builds the package of OpenWrt and returns its path: a gzip archive of `debian-binary`,
/// `data.tar.gz` and `control.tar.gz` (OpenWrt, scripts/ipkg-build).
pub(super) fn ipk(job: &PackageJob) -> Result<PathBuf> {
    let openwrt = workspace().join("deploy/openwrt");
    let data = job.staging_dir("ipk-data")?;
    job.programs.copy(PACKAGE_NAME, job.arch, &data)?;
    data.copy(&openwrt.join("edge-gateway.init"), "etc/init.d/edge-gateway", 0o755)?;
    data.write("etc/edge-gateway/gateway.toml", &router_config()?)?;
    // As root's until postinst gives them to the group of the program.
    data.set_mode("etc/edge-gateway/gateway.toml", 0o640)?;
    data.set_mode("etc/edge-gateway", 0o750)?;
    data.copy(&openwrt.join("keep"), "lib/upgrade/keep.d/edge-gateway", 0o644)?;
    data.make_dir("srv/edge-gateway")?;
    data.set_mode("srv/edge-gateway", 0o750)?;

    let control = job.staging_dir("ipk-control")?;
    for (file, mode) in [("conffiles", 0o644), ("postinst", 0o755), ("prerm", 0o755)] {
        control.copy(&openwrt.join(file), file, mode)?;
    }
    let path = openwrt.join("control");
    let template = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let bytes = data.kibibytes()?.parse::<u64>()? * 1024;
    let architecture = openwrt_architecture(job.arch);
    let text = template
        .replace("{version}", VERSION)
        .replace("{architecture}", architecture)
        .replace("{built_at}", &job.built_at)
        .replace("{installed_size}", &bytes.to_string());
    control.write("control", &text)?;

    let outer = job.staging_dir("ipk")?;
    outer.write("debian-binary", "2.0\n")?;
    for (stage, name) in [(&data, "data.tar"), (&control, "control.tar")] {
        let output = outer.root().join(name);
        archive::tar_gz(stage.root(), ".", &output, &job.built_at, job.compression)?;
    }
    let output = job.output.join(format!("{PACKAGE_NAME}_{VERSION}-r1_{architecture}.tar"));
    let files = ["./debian-binary", "./data.tar.gz", "./control.tar.gz"];
    archive::tar(outer.root(), &files, &output, &job.built_at)?;
    archive::gzip(&output, job.compression)?;
    let package = output.with_extension("ipk");
    fs::rename(output.with_extension("tar.gz"), &package)?;
    Ok(package)
}

/// Returns the name of a frequent architecture of OpenWrt. A static program is the same in all that
/// have the same instructions; `opkg --add-arch` takes it on the others.
const fn openwrt_architecture(arch: PackageArch) -> &'static str {
    match arch {
        PackageArch::Amd64 => "x86_64",
        PackageArch::Arm64 => "aarch64_cortex-a53",
        PackageArch::Armv7 => "arm_cortex-a7_neon-vfpv4",
    }
}

/// Returns the shipped configuration with the keys of a router.
fn router_config() -> Result<String> {
    let text = shipped_config()?.replace(BEFORE, &format!("{ROUTER_KEYS}{BEFORE}"));
    Ok(text.replace(DEBIAN_START, ROUTER_START).replace(DEBIAN_WATCH, ""))
}

/// Returns the configuration of the Debian package, which has each part that is replaced once.
fn shipped_config() -> Result<String> {
    let path = workspace().join("deploy/deb/gateway.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    for part in [BEFORE, DEBIAN_START, DEBIAN_WATCH] {
        ensure!(text.matches(part).count() == 1, "deploy/deb/gateway.toml has not one {part:?}");
    }
    Ok(text)
}
