//! QEMU, Debian's kernel and busybox for the virtual machines of the tests, below target/.
//!
//! The packages are downloaded and unpacked, not installed: this needs no root and cannot conflict
//! with packages of this machine.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::run::{command, output_of, run, target_dir};

/// Identifies the content of the directory; a directory with another stamp is rebuilt.
const CONTENT_STAMP: &str = "qemu-system-x86, linux-image-amd64, busybox-static; layout 1";

/// Prepares the directory if needed and returns it: `root` with the unpacked packages, `vmlinux`,
/// and `kernel` with the version of the kernel. `None` on machines whose programs cannot run in it.
pub(crate) fn provide() -> Result<Option<PathBuf>> {
    let architecture = output_of(&mut command("dpkg", &["--print-architecture"]))?;
    if architecture.trim() != "amd64" {
        return Ok(None);
    }
    let dir = target_dir().join("guest");
    let stamp = dir.join("holds");
    if fs::read_to_string(&stamp).is_ok_and(|held| held == CONTENT_STAMP) {
        println!("    kernel {} is there", fs::read_to_string(dir.join("kernel"))?);
        return Ok(Some(dir));
    }
    make(&dir)?;
    fs::write(&stamp, CONTENT_STAMP)
        .with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(Some(dir))
}

fn make(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    let root = dir.join("root");
    fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    unpack(&packages()?, dir, &root)?;
    let version = index_modules(&root)?;
    let image = fs::read(root.join(format!("boot/vmlinuz-{version}")))?;
    fs::write(dir.join("vmlinux"), decompress(payload(&image)?, dir)?)?;
    fs::write(dir.join("kernel"), version)?;
    Ok(())
}

/// Returns the packages to download: the kernel of the meta package, busybox, and QEMU with its
/// missing dependencies, none if QEMU is installed.
fn packages() -> Result<Vec<String>> {
    let depends = output_of(&mut command("apt-cache", &["depends", "linux-image-amd64"]))
        .context("`apt-get update` as root lets apt know its packages")?;
    let kernel = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    let kernel = kernel.ok_or_else(|| anyhow!("linux-image-amd64 names no kernel: {depends}"))?;
    let arguments = ["--simulate", "--no-install-recommends", "install", "qemu-system-x86"];
    let plan = output_of(&mut command("apt-get", &arguments))?;
    let missing = plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
    let missing = missing.map(str::to_owned);
    Ok(missing.chain([format!("linux-image-{kernel}"), "busybox-static".to_owned()]).collect())
}

fn unpack(packages: &[String], dir: &Path, root: &Path) -> Result<()> {
    println!("    downloading {} packages", packages.len());
    let debs = dir.join("debs");
    fs::create_dir(&debs)?;
    let download = ["download", "-q"];
    // Without this option APT warns root that its unprivileged user cannot write here.
    let sandbox = ["-o", "APT::Sandbox::User=root"];
    let mut apt = command("apt-get", &download);
    run(apt.args(sandbox).args(packages).current_dir(&debs).stdout(std::process::Stdio::null()))?;
    for entry in fs::read_dir(&debs)? {
        run(command("dpkg", &["--extract"]).arg(entry?.path()).arg(root))?;
    }
    fs::remove_dir_all(debs)?;
    Ok(())
}

/// Indexes the kernel's modules for modprobe, in the directory of Debian 12 or 13. Returns the
/// version of the kernel.
fn index_modules(root: &Path) -> Result<String> {
    let (old, new) = (root.join("lib/modules"), root.join("usr/lib/modules"));
    if new.is_dir() && !old.exists() {
        fs::create_dir_all(root.join("lib"))?;
        symlink("../usr/lib/modules", &old)?;
    } else if !new.exists() {
        fs::create_dir_all(root.join("usr/lib"))?;
        symlink("../../lib/modules", &new)?;
    }
    let version = fs::read_dir(&old)?.next().context("the kernel has modules")??.file_name();
    let version = version.to_string_lossy().into_owned();
    // Debian installs it in /usr/sbin, which may not be in PATH.
    let depmod = r#"PATH=$PATH:/usr/sbin:/sbin exec depmod --basedir "$1" "$2""#;
    run(command("sh", &["-c", depmod, "depmod"]).arg(root).arg(&version))?;
    Ok(version)
}

/// Returns the compressed kernel in a bzImage (Linux, Documentation/arch/x86/boot.rst,
/// `payload_offset`), without the length that follows it.
///
/// Booting the decompressed kernel saves half of the boot time under emulation.
fn payload(image: &[u8]) -> Result<&[u8]> {
    let u32_at = |at: usize| {
        let bytes = image.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        bytes.map(|bytes| u32::from_le_bytes(bytes) as usize).context("the kernel is cut short")
    };
    let sectors = usize::from(*image.get(0x1F1).context("the kernel is cut short")?);
    let start = (sectors + 1) * 512 + u32_at(0x248)?;
    let end = (start + u32_at(0x24C)?).saturating_sub(4);
    image.get(start..end).context("the kernel's header names bytes beyond its end")
}

/// Returns the decompressed ELF file: Debian 12 uses xz, Debian 13 zstd.
fn decompress(payload: &[u8], dir: &Path) -> Result<Vec<u8>> {
    let program = match payload {
        [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => "xz",
        [0x28, 0xB5, 0x2F, 0xFD, ..] => "zstd",
        _ => bail!("the kernel is compressed by neither xz nor zstd"),
    };
    let compressed = dir.join("vmlinux.compressed");
    fs::write(&compressed, payload)?;
    let output = command(program, &["-dc"]).arg(&compressed).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    fs::remove_file(compressed)?;
    if !output.status.success() || !output.stdout.starts_with(b"\x7FELF") {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header that puts the payload 8 bytes behind the first two sectors.
    fn image(length: u32) -> Vec<u8> {
        let mut image = vec![0; 2 * 512 + 8];
        image[0x1F1] = 1;
        image[0x248..0x24C].copy_from_slice(&8_u32.to_le_bytes());
        image[0x24C..0x250].copy_from_slice(&length.to_le_bytes());
        image.extend_from_slice(b"compressed\x01\x02\x03\x04and more");
        image
    }

    #[test]
    fn the_payload_of_a_kernel_lies_where_its_header_says() {
        assert_eq!(payload(&image(14)).unwrap(), b"compressed");
    }

    #[test]
    fn a_header_that_points_beyond_the_kernel_is_an_error() {
        for length in [0, 3, 1000, u32::MAX] {
            assert!(payload(&image(length)).is_err(), "{length}");
        }
        for size in 0..0x250 {
            assert!(payload(&image(14)[..size]).is_err(), "{size}");
        }
    }
}
