//! `cargo xtask deb`: the Debian package, staged by this program and packed by dpkg-deb.
//!
//! cargo-deb takes minutes to build on every fresh machine, and does not handle the important
//! parts: users, modes and maintainer scripts.

mod dependencies;
mod staging;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::run::{cargo, command, output_of, run, step, target_dir, workspace};
use staging::StagingDir;

const PACKAGE_NAME: &str = "edge-gateway";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Builds the package from `binary`, or from a release build, into `output` and prints its path.
pub(crate) fn deb(binary: Option<PathBuf>, output: Option<PathBuf>) -> Result<()> {
    let is_release = binary.is_none();
    let binary = match binary {
        Some(path) => fs::canonicalize(&path).with_context(|| path.display().to_string())?,
        None => step("release build", build)?,
    };
    let output = output.unwrap_or_else(|| target_dir().join("debian"));
    let package = step("package", || pack(&binary, &output, is_release))?;
    println!("{}", package.display());
    Ok(())
}

fn build() -> Result<PathBuf> {
    run(&mut cargo(&["build", "--release", "--locked", "--bin", PACKAGE_NAME]))?;
    Ok(target_dir().join("release").join(PACKAGE_NAME))
}

fn pack(binary: &Path, output: &Path, is_release: bool) -> Result<PathBuf> {
    let architecture =
        output_of(&mut command("dpkg", &["--print-architecture"]))?.trim().to_owned();
    let built = built_at()?;
    let stage = StagingDir::new(output.join(format!("stage.{}", std::process::id())))?;
    fill(&stage, binary)?;
    stage.control(&architecture, &dependencies::depends(binary)?)?;
    let package = output.join(format!("{PACKAGE_NAME}_{VERSION}_{architecture}.deb"));
    // A package for a test is used for seconds; compressing it well would take longer.
    let level = if is_release { "-z9" } else { "-z0" };
    let mut dpkg_deb = command("dpkg-deb", &["--root-owner-group", "-Zxz", level, "--build"]);
    dpkg_deb.arg(stage.root()).arg(&package);
    output_of(dpkg_deb.env("SOURCE_DATE_EPOCH", built))?;
    Ok(package)
}

/// Copies the program and the files of the repository.
fn fill(stage: &StagingDir, binary: &Path) -> Result<()> {
    let source = workspace().join("deploy");
    stage.copy(binary, "usr/bin/edge-gateway", 0o755)?;
    stage.strip("usr/bin/edge-gateway")?;
    for unit in
        ["edge-gateway.service", "edge-gateway-secrets.path", "edge-gateway-secrets.service"]
    {
        let installed = format!("usr/lib/systemd/system/{unit}");
        stage.copy(&source.join("systemd").join(unit), &installed, 0o644)?;
    }
    let deb = source.join("deb");
    stage.copy(&deb.join("gateway.toml"), "etc/edge-gateway/gateway.toml", 0o640)?;
    stage.set_mode("etc/edge-gateway", 0o750)?;
    let example = "usr/share/doc/edge-gateway/examples/tun.conf";
    stage.copy(&source.join("systemd/tun.conf"), example, 0o644)?;
    stage.copy(&deb.join("copyright"), "usr/share/doc/edge-gateway/copyright", 0o644)?;
    let flow = workspace().join("deploy/node-red/flows.json");
    stage.copy(&flow, "usr/share/doc/edge-gateway/node-red/flows.json", 0o644)?;
    stage.copy(&deb.join("changelog"), "usr/share/doc/edge-gateway/changelog", 0o644)?;
    stage.compress("usr/share/doc/edge-gateway/changelog")?;
    copy_book(stage, &workspace().join("docs"), "usr/share/doc/edge-gateway/book")?;
    manual_pages(stage, binary)?;
    completions(stage, binary)?;
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

/// The program writes its own manual pages: `edge-gateway.1`, and one for each command.
fn manual_pages(stage: &StagingDir, binary: &Path) -> Result<()> {
    let pages = stage.root().join("man");
    run(Command::new(binary).arg("man").arg(&pages))?;
    for page in fs::read_dir(&pages).with_context(|| pages.display().to_string())? {
        let page = page?;
        let to = format!("usr/share/man/man1/{}", page.file_name().to_string_lossy());
        stage.copy(&page.path(), &to, 0o644)?;
        stage.compress(&to)?;
    }
    fs::remove_dir_all(&pages).with_context(|| pages.display().to_string())
}

/// Where bash, zsh and fish look for completions of installed programs.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/edge-gateway"),
    ("zsh", "usr/share/zsh/vendor-completions/_edge-gateway"),
    ("fish", "usr/share/fish/vendor_completions.d/edge-gateway.fish"),
];

fn completions(stage: &StagingDir, binary: &Path) -> Result<()> {
    for (shell, path) in COMPLETIONS {
        let script = output_of(Command::new(binary).args(["completions", shell]))?;
        stage.write(path, &script)?;
    }
    Ok(())
}

/// Returns the date of the changelog in seconds since 1970, for reproducible packages.
fn built_at() -> Result<String> {
    let path = workspace().join("deploy/deb/changelog");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    ensure!(
        text.starts_with(&format!("{PACKAGE_NAME} ({VERSION}) ")),
        "deploy/deb/changelog does not begin with version {VERSION}"
    );
    let Some(date) = text.lines().find_map(|line| line.strip_prefix(" -- ")?.split_once(">  "))
    else {
        bail!("deploy/deb/changelog has no date");
    };
    Ok(output_of(&mut command("date", &["+%s", "-d", date.1]))?.trim().to_owned())
}
