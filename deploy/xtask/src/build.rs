//! `cargo xtask build --target T`: the release programs for a kind of box.
//!
//! With the target's standard library installed this is plain cargo. Otherwise Debian's rustc
//! builds it in a root below target/: with Debian's library for arm64, and for the static targets
//! with a library that is built from rust-src, and zig as C compiler and linker. Both are not the
//! pinned compiler, so the demo of each program is run before it is shipped.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::run::{cargo, command, is_root, output_of, run, step, target_dir, workspace};

/// A target of Rust that is shipped.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum BuildTarget {
    /// x86-64 with the GNU C library.
    #[value(name = "x86_64-unknown-linux-gnu")]
    GnuAmd64,
    /// 64-bit Arm with the GNU C library.
    #[value(name = "aarch64-unknown-linux-gnu")]
    GnuArm64,
    /// x86-64, static.
    #[value(name = "x86_64-unknown-linux-musl")]
    MuslAmd64,
    /// 64-bit Arm, static.
    #[value(name = "aarch64-unknown-linux-musl")]
    MuslArm64,
    /// 32-bit Arm with a floating-point unit, static.
    #[value(name = "armv7-unknown-linux-musleabihf")]
    MuslArmv7,
}

/// The feature of static programs: they go to boxes without tzdata.
pub(crate) const BUNDLED_ZONES: &str = "gateway/bundled-zones";
/// The version of zig; it decides the version of musl.
const ZIG: &str = "ziglang==0.17.1";
/// Where the packages of the root come from.
const MIRROR: &str = "http://deb.debian.org/debian";
const ROOT_PACKAGES: &str = "ca-certificates,cargo/trixie-backports,rustc/trixie-backports,\
    libstd-rust-dev/trixie-backports,libstd-rust-dev:arm64/trixie-backports,\
    rust-src/trixie-backports,gcc,libc6-dev,gcc-aarch64-linux-gnu,libc6-dev-arm64-cross";
/// The place of the workspace, of the target directory and of zig in the root.
const MOUNTS: [&str; 3] = ["src", "cross", "dev"];

/// Drops options that zig refuses, and keeps the result position independent.
const ZIG_CC: &str = r#"#!/bin/bash
options=()
for option in "$@"; do
    case $option in
        -static-pie) options+=(-static -pie) ;;
        --target=* | -march=* | -lgcc_s | -lgcc_eh | -lgcc) ;;
        *self-contained/* | -Wl,--no-undefined-version) ;;
        *) options+=("$option") ;;
    esac
done
exec /cross/python/zig cc -target {zig_target} "${options[@]}"
"#;
const ZIG_AR: &str = "#!/bin/sh\nexec /cross/python/zig ar \"$@\"\n";

/// Builds the programs and prints their directory.
pub(crate) fn build_and_print(target: BuildTarget) -> Result<()> {
    println!("{}", build(target)?.display());
    Ok(())
}

/// Builds the programs and returns their directory.
pub(crate) fn build(target: BuildTarget) -> Result<PathBuf> {
    if target.has_library()? {
        step("build", || run(cargo(&target.cargo_options()).args(["--target", target.triple()])))?;
        return Ok(target_dir().join(target.triple()).join("release"));
    }
    if !is_root()? {
        bail!(
            "the library of {0} is not installed: rustup target add {0}, or be root",
            target.triple()
        );
    }
    let cross = target_dir().join("cross");
    fs::create_dir_all(&cross)?;
    let root = cross.join("root");
    step("Debian's Rust", || provide_root(&root))?;
    if target.is_static() {
        step("zig", || provide_zig(&cross))?;
    }
    step("build", || target.build_in(&root, &cross))?;
    Ok(cross.join("out").join(target.triple()).join("release"))
}

impl BuildTarget {
    /// Those whose programs are static.
    pub(crate) const STATIC: [Self; 3] = [Self::MuslAmd64, Self::MuslArm64, Self::MuslArmv7];

    /// Returns the name that Rust gives it.
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Self::GnuAmd64 => "x86_64-unknown-linux-gnu",
            Self::GnuArm64 => "aarch64-unknown-linux-gnu",
            Self::MuslAmd64 => "x86_64-unknown-linux-musl",
            Self::MuslArm64 => "aarch64-unknown-linux-musl",
            Self::MuslArmv7 => "armv7-unknown-linux-musleabihf",
        }
    }

    fn zig_target(self) -> Option<&'static str> {
        match self {
            Self::GnuAmd64 | Self::GnuArm64 => None,
            Self::MuslAmd64 => Some("x86_64-linux-musl"),
            Self::MuslArm64 => Some("aarch64-linux-musl"),
            Self::MuslArmv7 => Some("arm-linux-musleabihf"),
        }
    }

    fn is_static(self) -> bool {
        self.zig_target().is_some()
    }

    fn cargo_options(self) -> Vec<&'static str> {
        let mut options = vec!["build", "--release", "--locked", "-p", "gateway"];
        if self.is_static() {
            options.extend(["--features", BUNDLED_ZONES]);
        } else {
            options.extend(["-p", "provisioning"]);
        }
        options
    }

    /// Returns whether the compiler in use has the standard library of the target.
    fn has_library(self) -> Result<bool> {
        let print = ["--print", "target-libdir", "--target", self.triple()];
        Ok(Path::new(output_of(&mut command("rustc", &print))?.trim()).is_dir())
    }

    fn build_in(self, root: &Path, cross: &Path) -> Result<()> {
        for dir in MOUNTS {
            fs::create_dir_all(root.join(dir))?;
        }
        // The host's, because its list of authorities is the one that reaches the registry.
        let authorities = "etc/ssl/certs/ca-certificates.crt";
        fs::copy(Path::new("/").join(authorities), root.join(authorities))?;
        let script = cross.join("build.sh");
        fs::write(&script, self.script(cross)?)?;
        let mut inside = command("unshare", &["--mount", "--propagation", "private", "sh", "-ec"]);
        inside
            .arg(
                "mount --bind \"$2\" \"$1/src\"; mount --bind \"$3\" \"$1/cross\"; \
                 mount --bind /dev \"$1/dev\"; mount -t proc proc \"$1/proc\"; \
                 exec chroot \"$1\" /bin/bash /cross/build.sh",
            )
            .arg("build")
            .args([root, &workspace(), cross]);
        run(&mut inside)
    }

    /// Returns what runs inside of the root.
    fn script(self, cross: &Path) -> Result<String> {
        let triple = self.triple();
        let lower = triple.replace('-', "_");
        let upper = lower.to_uppercase();
        let mut lines = vec![
            "set -e; cd /src".to_owned(),
            "export CARGO_HOME=/cross/cargo CARGO_TARGET_DIR=/cross/out".to_owned(),
            "export CARGO_INCREMENTAL=0".to_owned(),
        ];
        let mut flags = "--remap-path-prefix=/cross/cargo=/cargo".to_owned();
        let (cc, ar, unstable) = match self.zig_target() {
            Some(zig_target) => {
                let name = format!("{triple}-cc");
                write_program(&cross.join(&name), &ZIG_CC.replace("{zig_target}", zig_target))?;
                write_program(&cross.join("zig-ar"), ZIG_AR)?;
                lines.push("export RUSTC_BOOTSTRAP=1".to_owned());
                lines.push("export ZIG_GLOBAL_CACHE_DIR=/cross/zig-cache".to_owned());
                lines.push("export ZIG_LOCAL_CACHE_DIR=/cross/zig-cache".to_owned());
                flags.push_str(" -C link-self-contained=no");
                (format!("/cross/{name}"), "/cross/zig-ar", "-Zbuild-std=std,panic_unwind")
            }
            None => ("aarch64-linux-gnu-gcc".to_owned(), "aarch64-linux-gnu-ar", ""),
        };
        lines.push(format!("export CC_{lower}={cc} AR_{lower}={ar}"));
        lines.push(format!("export CARGO_TARGET_{upper}_LINKER={cc}"));
        lines.push(format!("export CARGO_TARGET_{upper}_RUSTFLAGS=\"{flags}\""));
        let options = self.cargo_options().join(" ");
        lines.push(format!("cargo {options} {unstable} --target {triple}"));
        Ok(lines.join("\n") + "\n")
    }
}

/// Unpacks Debian 13 with its Rust, unless it is there. It is 2 GB.
fn provide_root(root: &Path) -> Result<()> {
    let stamp = root.join("complete");
    if stamp.exists() {
        println!("    it is there");
        return Ok(());
    }
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| root.display().to_string())?;
    }
    let include = format!("--include={ROOT_PACKAGES}");
    let options = ["--variant=minbase", "--mode=root", "--architectures=amd64,arm64", &include];
    let mut mmdebstrap = command("mmdebstrap", &options);
    mmdebstrap.arg("trixie").arg(root);
    mmdebstrap.args(["trixie", "trixie-backports"].map(|s| format!("deb {MIRROR} {s} main")));
    run(&mut mmdebstrap).context("mmdebstrap is in the Debian package of that name")?;
    fs::write(&stamp, "").with_context(|| stamp.display().to_string())
}

/// Installs zig from PyPI below target/, unless it is there.
fn provide_zig(cross: &Path) -> Result<()> {
    let python = cross.join("python");
    let stamp = python.join("holds");
    if fs::read_to_string(&stamp).is_ok_and(|held| held == ZIG) {
        println!("    {ZIG} is there");
        return Ok(());
    }
    let path = python.display().to_string();
    run(&mut command("/usr/bin/python3", &["-m", "venv", "--clear", &path]))?;
    let pip = python.join("bin/python").display().to_string();
    run(&mut command(&pip, &["-m", "pip", "install", "--quiet", ZIG]))?;
    let found =
        output_of(command("find", &[&path, "-name", "zig", "-type", "f"]).current_dir("/"))?;
    let zig = PathBuf::from(found.lines().next().context("the package has no zig")?);
    let inside = Path::new("/cross/python").join(zig.strip_prefix(&python)?);
    write_program(&python.join("zig"), &format!("#!/bin/sh\nexec {} \"$@\"\n", inside.display()))?;
    fs::write(&stamp, ZIG).with_context(|| stamp.display().to_string())
}

fn write_program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
