//! Packages that programs depend on, read from the programs.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::run::{command, output_of};

/// Returns the `Depends` field: `fixed`, and what follows from the libraries that the programs are
/// linked to. objdump reads programs of every architecture.
pub(super) fn depends(fixed: &str, binaries: &[PathBuf]) -> Result<String> {
    let mut newest_libc = None;
    let mut needs_libgcc = false;
    for binary in binaries {
        let path = binary.display().to_string();
        let headers = output_of(&mut command("objdump", &["-p", &path]))?;
        let symbols = output_of(&mut command("objdump", &["-T", &path]))?;
        for library in libraries(&headers) {
            match library {
                "libc.so.6" => newest_libc = newest_libc.max(Some(newest_glibc(&symbols)?)),
                "libgcc_s.so.1" => needs_libgcc = true,
                part_of_libc if is_part_of_libc(part_of_libc) => {}
                other => bail!("no package is known for {other}: add it to dependencies.rs"),
            }
        }
    }
    let libc = newest_libc.map(|(major, minor)| format!("libc6 (>= {major}.{minor})"));
    let libgcc = needs_libgcc.then(|| "libgcc-s1".to_owned());
    let packages: Vec<_> = [Some(fixed.to_owned()), libc, libgcc].into_iter().flatten().collect();
    Ok(packages.join(", "))
}

fn libraries(headers: &str) -> impl Iterator<Item = &str> {
    headers.lines().filter_map(|line| Some(line.trim().strip_prefix("NEEDED")?.trim()))
}

fn is_part_of_libc(library: &str) -> bool {
    ["libm.so", "libdl.so", "libpthread.so", "librt.so", "ld-linux"]
        .iter()
        .any(|part| library.starts_with(part))
}

/// Returns the newest version of a glibc symbol, which is the oldest libc6 that works.
fn newest_glibc(symbols: &str) -> Result<(u32, u32)> {
    let version = |rest: &str| -> Option<(u32, u32)> {
        let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    let newest = symbols.split("GLIBC_").skip(1).filter_map(version).max();
    newest.context("linked to libc but uses none of its symbols")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_symbol_decides() {
        let symbols = "0 DF *UND* 0 (GLIBC_2.9) a\n0 DF *UND* 0 (GLIBC_2.34) b\n\
                       0 DF *UND* 0 (GLIBC_2.2.5) c\n";
        assert_eq!(newest_glibc(symbols).unwrap(), (2, 34));
        assert!(newest_glibc("none").is_err());
    }

    #[test]
    fn needed_libraries_are_found() {
        let headers =
            "Dynamic Section:\n  NEEDED               libgcc_s.so.1\n  NEEDED   libc.so.6\n";
        assert_eq!(libraries(headers).collect::<Vec<_>>(), ["libgcc_s.so.1", "libc.so.6"]);
    }
}
