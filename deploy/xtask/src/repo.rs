//! `cargo xtask repo`: a signed apt repository, of static files for any web server.
//!
//! Packages are only added, so that each version that a box runs can be installed again. `InRelease`
//! is replaced last, and what it names is also there under its hash (`by-hash`): a box that reads
//! the repository meanwhile finds the old or the new one. It has no `Valid-Until`, which would shut
//! out a box whose clock is wrong or that was off for a year; apt itself takes no older `Release`
//! than the last.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf, absolute};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::run::{command, output_of, run, succeeds, target_dir};

const SUITE: &str = "stable";
const COMPONENT: &str = "main";
/// Directory of the packages in the repository.
const POOL: &str = "pool";
/// The key in the form that `Signed-By` takes.
const PUBLIC_KEY: &str = "edge-gateway-archive.asc";

/// `repo`.
#[derive(Args, Debug)]
pub(crate) struct RepoArguments {
    /// Directory of the repository; created if it is missing.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Secret key of OpenPGP that signs it, without a passphrase, as `gpg --export-secret-keys`
    /// writes it.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Directory with the Debian packages to add.
    #[arg(long, value_name = "DIR")]
    packages: Option<PathBuf>,
}

/// Adds packages to a repository and signs it.
pub(crate) fn repo(arguments: &RepoArguments) -> Result<()> {
    for (program, package) in [("apt-ftparchive", "apt-utils"), ("gpg", "gnupg")] {
        ensure!(succeeds(&mut command(program, &["--version"])), "install the package {package}");
    }
    let packages = arguments.packages.clone().unwrap_or_else(|| target_dir().join("packages"));
    let dir = absolute(&arguments.dir)?;
    let signer = Signer::open(&absolute(&arguments.key)?)?;
    let added = add_packages(&absolute(&packages)?, &dir)?;
    let suite = dir.join("dists").join(SUITE);
    let architectures = write_indexes(&dir, &suite)?;
    signer.sign(&release(&suite, &architectures)?, &suite.join("InRelease"))?;
    let key = dir.join(PUBLIC_KEY);
    fs::write(&key, signer.public_key()?).with_context(|| key.display().to_string())?;
    added.iter().for_each(|name| println!("added {name}"));
    println!("{}", dir.display());
    Ok(())
}

/// Copies the packages of a directory that are not there yet, and returns their names.
fn add_packages(from: &Path, dir: &Path) -> Result<Vec<String>> {
    let packages = packages_in(from)?;
    let pool = dir.join(POOL);
    fs::create_dir_all(&pool).with_context(|| pool.display().to_string())?;
    let mut added = Vec::new();
    for path in packages {
        let name = pool_name(&path)?;
        let to = pool.join(&name);
        if !to.exists() {
            // Renamed at the end: a copy that was interrupted is no package.
            let part = pool.join(format!("{name}.part"));
            fs::copy(&path, &part).with_context(|| part.display().to_string())?;
            fs::set_permissions(&part, Permissions::from_mode(0o644))?;
            fs::rename(&part, &to)?;
            added.push(name);
        } else if fs::read(&path)? != fs::read(&to)? {
            bail!("{} is published with other content: give it another version", to.display());
        }
    }
    Ok(added)
}

/// Returns the paths of the packages in a directory, in order.
fn packages_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut packages = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            packages.push(path);
        }
    }
    ensure!(
        !packages.is_empty(),
        "there is no .deb in {}: run `cargo xtask package` first",
        dir.display()
    );
    packages.sort_unstable();
    Ok(packages)
}

/// Returns the name of a package as Debian forms it, whatever its file is called.
fn pool_name(package: &Path) -> Result<String> {
    let field = |name| {
        let mut show = command("dpkg-deb", &["--field"]);
        Ok(output_of(show.arg(package).arg(name))?.trim().to_owned())
    };
    let name: Result<Vec<String>> =
        ["Package", "Version", "Architecture"].map(field).into_iter().collect();
    Ok(format!("{}.deb", name?.join("_")))
}

/// Writes the indexes of all architectures, and returns the architectures.
fn write_indexes(dir: &Path, suite: &Path) -> Result<BTreeSet<String>> {
    let mut architectures = BTreeSet::new();
    for entry in fs::read_dir(dir.join(POOL))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let architecture = name.strip_suffix(".deb").and_then(|name| name.rsplit_once('_'));
        architectures.extend(architecture.map(|(_, architecture)| architecture.to_owned()));
    }
    for architecture in &architectures {
        let index_dir = suite.join(COMPONENT).join(format!("binary-{architecture}"));
        fs::create_dir_all(&index_dir).with_context(|| index_dir.display().to_string())?;
        let mut scan = Command::new("apt-ftparchive");
        scan.args(["--arch", architecture, "packages", POOL]).current_dir(dir);
        let index = index_dir.join("Packages");
        fs::write(&index, output_of(&mut scan)?).with_context(|| index.display().to_string())?;
        run(command("gzip", &["-9nkf"]).arg(&index))?;
    }
    Ok(architectures)
}

/// Returns the text of the `Release` of a suite.
fn release(suite: &Path, architectures: &BTreeSet<String>) -> Result<String> {
    let architectures = architectures.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
    let mut release = Command::new("apt-ftparchive");
    for (key, value) in [
        ("Release::Origin", "edge-gateway"),
        ("Release::Label", "edge-gateway"),
        ("Release::Suite", SUITE),
        ("Release::Codename", SUITE),
        ("Release::Components", COMPONENT),
        ("Release::Architectures", &architectures),
        ("DoByHash", "true"),
        ("MD5", "false"),
        ("SHA1", "false"),
    ] {
        release.args(["-o", &format!("APT::FTPArchive::{key}={value}")]);
    }
    output_of(release.args(["release", "."]).current_dir(suite))
}

/// A key of OpenPGP in a home directory of its own, which is removed at the end.
struct Signer {
    home: PathBuf,
}

impl Signer {
    fn open(key: &Path) -> Result<Self> {
        // Short: the agent of gpg has a socket in it, whose path has at most 107 bytes.
        fs::metadata(key).with_context(|| format!("cannot read {}", key.display()))?;
        let home = std::env::temp_dir().join(format!("edge-repo-{}", std::process::id()));
        fs::create_dir(&home).with_context(|| home.display().to_string())?;
        let signer = Self { home };
        fs::set_permissions(&signer.home, Permissions::from_mode(0o700))?;
        output_of(signer.gpg(&["--import"]).arg(key))
            .with_context(|| format!("{} is no secret key of OpenPGP", key.display()))?;
        Ok(signer)
    }

    fn gpg(&self, arguments: &[&str]) -> Command {
        let mut gpg = Command::new("gpg");
        gpg.arg("--homedir").arg(&self.home).args(["--batch", "--yes", "--quiet"]).args(arguments);
        gpg
    }

    /// Writes a signed text; the file is replaced as a whole.
    fn sign(&self, text: &str, to: &Path) -> Result<()> {
        let plain = self.home.join("Release");
        fs::write(&plain, text)?;
        let part = to.with_extension("part");
        let mut sign = self.gpg(&["--clearsign", "--output"]);
        run(sign.arg(&part).arg(&plain)).context("the key cannot sign without a passphrase")?;
        fs::rename(&part, to).with_context(|| to.display().to_string())
    }

    fn public_key(&self) -> Result<String> {
        output_of(&mut self.gpg(&["--armor", "--export"]))
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        // The agent ends by itself when its directory is gone, and what is left in the directory of
        // temporary files is no reason to fail.
        let _ = output_of(
            Command::new("gpgconf").arg("--homedir").arg(&self.home).args(["--kill", "all"]),
        );
        let _ = fs::remove_dir_all(&self.home);
    }
}
