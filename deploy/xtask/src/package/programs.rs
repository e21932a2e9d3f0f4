//! The programs that are packed, and the files that they write themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::architecture::PackageArch;
use super::staging::StagingDir;
use crate::run::{output_of, run};

/// Where bash, zsh and fish look for completions of installed programs.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/{program}"),
    ("zsh", "usr/share/zsh/vendor-completions/_{program}"),
    ("fish", "usr/share/fish/vendor_completions.d/{program}.fish"),
];

/// A directory with the programs, and one with programs that run here.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    dir: PathBuf,
    pages_from: PathBuf,
}

impl Programs {
    pub(super) fn open(dir: &Path, pages_from: &Path) -> Result<Self> {
        let absolute =
            |dir: &Path| fs::canonicalize(dir).with_context(|| dir.display().to_string());
        Ok(Self { dir: absolute(dir)?, pages_from: absolute(pages_from)? })
    }

    /// Returns the path of a program.
    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.dir.join(program)
    }

    /// Returns whether a program names no loader, and so needs no library of its box.
    pub(super) fn is_static(&self, program: &str) -> Result<bool> {
        let mut objdump = Command::new("objdump");
        let headers = output_of(objdump.arg("-p").arg(self.path(program)))?;
        Ok(!headers.lines().any(|line| line.trim_start().starts_with("INTERP ")))
    }

    /// Copies a program to `usr/bin`, without debug symbols.
    pub(super) fn copy(&self, program: &str, arch: PackageArch, stage: &StagingDir) -> Result<()> {
        self.copy_to(program, arch, stage, &format!("usr/bin/{program}"))
    }

    /// Copies a program, without debug symbols.
    pub(super) fn copy_to(
        &self,
        program: &str,
        arch: PackageArch,
        stage: &StagingDir,
        installed: &str,
    ) -> Result<()> {
        let path = self.path(program);
        let machine = elf_machine(&path)?;
        ensure!(machine == arch.elf_machine(), "{} is not a program for {arch}", path.display());
        stage.copy(&path, installed, 0o755)?;
        // A foreign one was stripped by its linker; binutils of this machine do not know it.
        if arch == PackageArch::of_this_machine() { stage.strip(installed) } else { Ok(()) }
    }

    /// Writes the manual pages: one for the program, and one for each of its commands.
    pub(super) fn manual_pages(&self, program: &str, stage: &StagingDir) -> Result<()> {
        let pages = stage.root().join("man");
        run(Command::new(self.pages_from.join(program)).arg("man").arg(&pages))?;
        for page in fs::read_dir(&pages).with_context(|| pages.display().to_string())? {
            let page = page?;
            let to = format!("usr/share/man/man1/{}", page.file_name().to_string_lossy());
            stage.copy(&page.path(), &to, 0o644)?;
            stage.compress(&to)?;
        }
        fs::remove_dir_all(&pages).with_context(|| pages.display().to_string())
    }

    /// Writes the completions of all shells.
    pub(super) fn completions(&self, program: &str, stage: &StagingDir) -> Result<()> {
        for (shell, path) in COMPLETIONS {
            let mut write = Command::new(self.pages_from.join(program));
            let script = output_of(write.args(["completions", shell]))?;
            stage.write(&path.replace("{program}", program), &script)?;
        }
        Ok(())
    }
}

/// Returns `e_machine` of a program (System V ABI, ELF header): two bytes at 18, little-endian on
/// all architectures here.
fn elf_machine(program: &Path) -> Result<u16> {
    use std::io::Read as _;
    let mut header = [0; 20];
    let mut file = fs::File::open(program).with_context(|| program.display().to_string())?;
    file.read_exact(&mut header).with_context(|| program.display().to_string())?;
    let [0x7F, b'E', b'L', b'F', .., low, high] = header else {
        anyhow::bail!("{} is not a program of Linux", program.display());
    };
    Ok(u16::from_le_bytes([low, high]))
}
