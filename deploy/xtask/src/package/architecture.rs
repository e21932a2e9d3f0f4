//! Architectures of boxes.

use std::env::consts;
use std::fmt;

use clap::ValueEnum;

/// An architecture that packages are built for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum PackageArch {
    /// x86-64.
    Amd64,
    /// 64-bit Arm, as on a Raspberry Pi 3 and later.
    Arm64,
    /// 32-bit Arm with a floating-point unit, as in many routers.
    Armv7,
}

impl PackageArch {
    /// Returns the architecture that this program was built for; that of any other machine is
    /// taken for x86-64, and its programs then do not run.
    pub(crate) const fn of_this_machine() -> Self {
        match consts::ARCH.as_bytes() {
            b"aarch64" => Self::Arm64,
            b"arm" => Self::Armv7,
            _ => Self::Amd64,
        }
    }

    /// Returns the name that Debian gives it.
    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
            Self::Armv7 => "armhf",
        }
    }

    /// Returns the target of Rust with the GNU C library, as in Debian's packages.
    pub(crate) const fn gnu_target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
            Self::Armv7 => "armv7-unknown-linux-gnueabihf",
        }
    }

    /// Returns the target of Rust with musl, as in static programs.
    pub(crate) const fn musl_target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
            Self::Armv7 => "armv7-unknown-linux-musleabihf",
        }
    }

    /// Returns the machine in the header of its programs (ELF, `e_machine`).
    pub(crate) const fn elf_machine(self) -> u16 {
        match self {
            Self::Amd64 => 62,
            Self::Arm64 => 183,
            Self::Armv7 => 40,
        }
    }
}

impl fmt::Display for PackageArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
            Self::Armv7 => "armv7",
        })
    }
}
