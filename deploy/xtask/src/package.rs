//! `cargo xtask package`: what is installed on boxes, staged by this program and packed by dpkg-deb
//! and tar.
//!
//! cargo-deb takes minutes to build on every fresh machine, leaves libc6 out of a package for
//! another architecture, and does not handle the important parts: users, modes and maintainer
//! scripts.

mod architecture;
mod archive;
mod deb;
mod dependencies;
mod image;
mod programs;
mod router;
mod sbom;
mod staging;
mod sums;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

use crate::build::BUNDLED_ZONES;
use crate::run::{cargo, command, output_of, run, step, target_dir, workspace};
pub(crate) use architecture::PackageArch;
use archive::Compression;
use programs::Programs;

/// Name of the main package and of its program.
const PACKAGE_NAME: &str = "edge-gateway";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `package`.
#[derive(Args, Debug)]
pub(crate) struct PackageArguments {
    /// What to build. By default Debian packages and bills of materials; of static programs, which
    /// run on any box: tarball, package of OpenWrt, container image and a bill of materials.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FORMATS")]
    format: Vec<PackageFormat>,
    /// Architecture of the programs.
    #[arg(long, value_enum, default_value_t = PackageArch::of_this_machine())]
    arch: PackageArch,
    /// Directory with existing programs, instead of a release build.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Directory with programs of this machine, which write manual pages and completions; needed if
    /// those that are packed cannot run here.
    #[arg(long, value_name = "DIR")]
    pages_from: Option<PathBuf>,
    /// Directory for the packages.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Compress fast, for packages that are used once, such as those of a test.
    #[arg(long)]
    fast: bool,
}

/// For programs that use the libraries of their box.
const DYNAMIC_FORMATS: [PackageFormat; 2] = [PackageFormat::Deb, PackageFormat::Sbom];
/// For programs that use nothing of their box.
const STATIC_FORMATS: [PackageFormat; 4] =
    [PackageFormat::Tar, PackageFormat::Ipk, PackageFormat::Oci, PackageFormat::Sbom];

/// A kind of package.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum PackageFormat {
    /// Debian packages of `edge-gateway` and `edge-provision`.
    Deb,
    /// A tarball with an install script, for any Linux.
    Tar,
    /// Package of `edge-gateway` for OpenWrt and systems made from it.
    Ipk,
    /// Container image of `edge-gateway`, of this architecture only; see `image`.
    Oci,
    /// Bills of materials (CycloneDX).
    Sbom,
}

/// Builds packages and prints their paths. SHA256SUMS lists everything in their directory.
pub(crate) fn package(arguments: PackageArguments) -> Result<()> {
    let compression = if arguments.fast { Compression::Fast } else { Compression::Small };
    let programs = match arguments.programs {
        Some(dir) => dir,
        None => step("release build", || release_build(arguments.arch))?,
    };
    let pages_from = arguments.pages_from.unwrap_or_else(|| programs.clone());
    let job = PackageJob {
        programs: Programs::open(&programs, &pages_from)?,
        arch: arguments.arch,
        output: output_dir(arguments.output)?,
        compression,
        built_at: built_at()?,
    };
    let formats = match &*arguments.format {
        [] if job.programs.is_static(PACKAGE_NAME)? => &STATIC_FORMATS[..],
        [] => &DYNAMIC_FORMATS,
        wanted => wanted,
    };
    for format in formats {
        let packages = match format {
            PackageFormat::Deb => step("Debian packages", || deb::pack(&job))?,
            PackageFormat::Tar => vec![step("tarball", || router::tarball(&job))?],
            PackageFormat::Ipk => vec![step("package of OpenWrt", || router::ipk(&job))?],
            PackageFormat::Oci => vec![step("container image", || job.image())?],
            PackageFormat::Sbom => step("bills of materials", || job.bills())?,
        };
        packages.iter().for_each(|package| println!("{}", package.display()));
    }
    sums::write(&job.output)
}

/// `image`.
#[derive(Args, Debug)]
pub(crate) struct ImageArguments {
    /// Architecture and directory with its static program, like arm64=DIR; several.
    #[arg(required = true, value_name = "ARCH=DIR", value_parser = parse_programs)]
    programs: Vec<(PackageArch, PathBuf)>,
    /// Directory for the image.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

fn parse_programs(text: &str) -> Result<(PackageArch, PathBuf), String> {
    let (arch, dir) = text.split_once('=').ok_or("write ARCH=DIR")?;
    Ok((PackageArch::from_str(arch, false)?, dir.into()))
}

/// Builds one container image for several architectures and prints its path.
pub(crate) fn image(arguments: ImageArguments) -> Result<()> {
    let programs: Result<Vec<_>> = arguments
        .programs
        .iter()
        .map(|(arch, dir)| Ok((*arch, Programs::open(dir, dir)?)))
        .collect();
    let output = output_dir(arguments.output)?;
    std::fs::create_dir_all(&output)?;
    let image = image::image(&programs?, &output, &built_at()?, Compression::Small)?;
    println!("{}", image.display());
    sums::write(&output)
}

/// Builds the Debian packages of the directory of `binary`, compressed fast, or of a release build.
/// The last line is the path of the main package.
pub(crate) fn deb(binary: Option<&Path>, output: Option<PathBuf>) -> Result<()> {
    let programs = match binary {
        Some(binary) => Some(binary.parent().context("it is not the path of a program")?.into()),
        None => None,
    };
    package(PackageArguments {
        format: vec![PackageFormat::Deb],
        arch: PackageArch::of_this_machine(),
        fast: programs.is_some(),
        programs,
        pages_from: None,
        output: Some(output.unwrap_or_else(|| target_dir().join("debian"))),
    })
}

/// One run: what is packed, and where to.
#[derive(Debug)]
struct PackageJob {
    programs: Programs,
    arch: PackageArch,
    output: PathBuf,
    compression: Compression,
    /// Time of all files, in seconds since 1970.
    built_at: String,
}

impl PackageJob {
    fn image(&self) -> Result<PathBuf> {
        let programs = [(self.arch, self.programs.clone())];
        image::image(&programs, &self.output, &self.built_at, self.compression)
    }

    fn bills(&self) -> Result<Vec<PathBuf>> {
        std::fs::create_dir_all(&self.output)?;
        let mut bills = Vec::new();
        for (program, member) in [(PACKAGE_NAME, "gateway"), ("edge-provision", "provisioning")] {
            // Static programs are those for boxes only.
            if self.programs.path(program).exists() {
                let (target, features) = if self.programs.is_static(program)? {
                    (self.arch.musl_target(), BUNDLED_ZONES)
                } else {
                    (self.arch.gnu_target(), "")
                };
                let build = sbom::ProgramBuild { member, target, features };
                bills.push(sbom::write(program, &build, &self.output)?);
            }
        }
        Ok(bills)
    }

    /// Returns an empty directory for the files of a package.
    fn staging_dir(&self, package: &str) -> Result<staging::StagingDir> {
        staging::StagingDir::new(self.output.join(format!("{package}.{}", std::process::id())))
    }
}

/// Returns the directory for packages, absolute: tar and dpkg-deb run in the workspace.
fn output_dir(wanted: Option<PathBuf>) -> Result<PathBuf> {
    let dir = wanted.unwrap_or_else(|| target_dir().join("packages"));
    std::path::absolute(&dir).with_context(|| dir.display().to_string())
}

/// Builds the programs for this machine and returns their directory.
fn release_build(arch: PackageArch) -> Result<PathBuf> {
    let here = PackageArch::of_this_machine();
    if arch != here {
        bail!("this machine builds for {here}: give the programs for {arch} with --programs DIR");
    }
    run(&mut cargo(&["build", "--release", "--locked", "-p", "gateway", "-p", "provisioning"]))?;
    Ok(target_dir().join("release"))
}

/// Returns the date of the changelog in seconds since 1970, for reproducible packages.
fn built_at() -> Result<String> {
    let path = workspace().join("deploy/deb/changelog");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
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
