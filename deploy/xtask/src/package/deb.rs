//! Debian packages: `edge-gateway` for boxes, `edge-provision` for the office.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::staging::StagingDir;
use super::{PACKAGE_NAME, PackageJob, VERSION, dependencies};
use crate::run::{command, output_of, workspace};

/// Units and rules, and where they are installed.
const SYSTEM_FILES: &[(&str, &str)] = &[
    ("edge-gateway.service", "usr/lib/systemd/system"),
    ("edge-gateway-secrets.path", "usr/lib/systemd/system"),
    ("edge-gateway-secrets.service", "usr/lib/systemd/system"),
    ("edge-gateway-box-apply.path", "usr/lib/systemd/system"),
    ("edge-gateway-box-apply.service", "usr/lib/systemd/system"),
    ("edge-gateway-box-led.service", "usr/lib/systemd/system"),
    ("edge-gateway-box-update.path", "usr/lib/systemd/system"),
    ("edge-gateway-box-update.service", "usr/lib/systemd/system"),
    ("edge-gateway-box-stick@.service", "usr/lib/systemd/system"),
    ("60-edge-gateway-box.rules", "usr/lib/udev/rules.d"),
    ("tun.conf", "usr/share/doc/edge-gateway/examples"),
];

/// A Debian package.
#[derive(Debug)]
struct DebPackage {
    name: &'static str,
    programs: &'static [&'static str],
    /// Template of DEBIAN/control, below deploy/.
    control: &'static str,
    /// Packages it needs besides those of the libraries.
    needs: &'static str,
    fill: fn(&StagingDir) -> Result<()>,
}

/// The main package is the last one: `cargo xtask deb` prints its path last.
const PACKAGES: &[DebPackage] = &[
    DebPackage {
        name: "edge-provision",
        programs: &["edge-provision"],
        control: "deb/edge-provision.control",
        needs: "tzdata",
        fill: |_| Ok(()),
    },
    // Users and groups come from adduser, time zones from tzdata, the unit's helpers from
    // init-system-helpers.
    DebPackage {
        name: PACKAGE_NAME,
        programs: &[PACKAGE_NAME, "edge-gateway-box"],
        control: "deb/control",
        needs: "adduser, init-system-helpers (>= 1.54), tzdata",
        fill: fill_gateway,
    },
];

/// Builds both packages and returns their paths.
pub(super) fn pack(job: &PackageJob) -> Result<Vec<PathBuf>> {
    PACKAGES.iter().map(|package| package.pack(job)).collect()
}

impl DebPackage {
    fn pack(&self, job: &PackageJob) -> Result<PathBuf> {
        let (name, architecture) = (self.name, job.arch.debian());
        let stage = job.staging_dir(name)?;
        for program in self.programs {
            job.programs.copy(program, job.arch, &stage)?;
            job.programs.manual_pages(program, &stage)?;
            job.programs.completions(program, &stage)?;
        }
        let deb = workspace().join("deploy/deb");
        let documents = format!("usr/share/doc/{name}");
        stage.copy(&deb.join("copyright"), &format!("{documents}/copyright"), 0o644)?;
        stage.copy(&deb.join("changelog"), &format!("{documents}/changelog"), 0o644)?;
        stage.compress(&format!("{documents}/changelog"))?;
        (self.fill)(&stage)?;
        let binaries: Vec<_> = self.programs.iter().map(|name| job.programs.path(name)).collect();
        self.write_control(&stage, architecture, &dependencies::depends(self.needs, &binaries)?)?;
        let package = job.output.join(format!("{name}_{VERSION}_{architecture}.deb"));
        let mut dpkg_deb = command("dpkg-deb", &["--root-owner-group"]);
        dpkg_deb.args(job.compression.dpkg_deb()).arg("--build").arg(stage.root()).arg(&package);
        output_of(dpkg_deb.env("SOURCE_DATE_EPOCH", &job.built_at))?;
        Ok(package)
    }

    /// Writes DEBIAN/md5sums and DEBIAN/control, after all other files.
    fn write_control(&self, stage: &StagingDir, architecture: &str, depends: &str) -> Result<()> {
        stage.write("DEBIAN/md5sums", &stage.md5_sums()?)?;
        let path = workspace().join("deploy").join(self.control);
        let template = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let control = template
            .replace("{version}", VERSION)
            .replace("{architecture}", architecture)
            .replace("{installed_size}", &stage.kibibytes()?)
            .replace("{depends}", depends);
        stage.write("DEBIAN/control", &control)
    }
}

/// Copies what only the package of the gateway has.
fn fill_gateway(stage: &StagingDir) -> Result<()> {
    let source = workspace().join("deploy");
    for (file, dir) in SYSTEM_FILES {
        stage.copy(&source.join("systemd").join(file), &format!("{dir}/{file}"), 0o644)?;
    }
    let deb = source.join("deb");
    stage.copy(&deb.join("gateway.toml"), "etc/edge-gateway/gateway.toml", 0o640)?;
    stage.set_mode("etc/edge-gateway", 0o750)?;
    let flow = source.join("node-red/flows.json");
    stage.copy(&flow, "usr/share/doc/edge-gateway/node-red/flows.json", 0o644)?;
    for example in ["raspberry-pi/user-data", "nftables/edge-gateway.nft"] {
        let name = example.rsplit('/').next().unwrap_or(example);
        let to = format!("usr/share/doc/edge-gateway/examples/{name}");
        stage.copy(&source.join(example), &to, 0o644)?;
    }
    copy_book(stage, &workspace().join("docs"), "usr/share/doc/edge-gateway/book")?;
    let overrides = "usr/share/lintian/overrides/edge-gateway";
    stage.copy(&deb.join("lintian-overrides"), overrides, 0o644)?;
    for script in ["postinst", "prerm", "postrm"] {
        stage.copy(&deb.join(script), &format!("DEBIAN/{script}"), 0o755)?;
    }
    stage.copy(&deb.join("conffiles"), "DEBIAN/conffiles", 0o644)
}

/// Extensions of the pages and pictures of the book.
const IN_BOOK: [&str; 3] = ["md", "png", "svg"];

/// Copies the pages and pictures of the book into the package.
fn copy_book(stage: &StagingDir, from: &Path, to: &str) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let to = format!("{to}/{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            copy_book(stage, &path, &to)?;
        } else if path.extension().is_some_and(|found| IN_BOOK.iter().any(|one| found == *one)) {
            stage.copy(&path, &to, 0o644)?;
        }
    }
    Ok(())
}
