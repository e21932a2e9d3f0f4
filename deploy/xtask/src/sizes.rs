//! Limits that no third-party tool checks.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run::workspace;

/// Directories whose files are held to the limit.
const PRODUCT_DIRS: [&str; 4] =
    ["gateway/src", "provisioning/src", "tunnel/src", "deploy/xtask/src"];

/// Most lines of a file before its tests.
const MAX_FILE_LINES: usize = 600;

/// Fails with every file that is too long. Clippy's `too_many_lines` limits functions.
pub(crate) fn check() -> Result<()> {
    let mut too_long = Vec::new();
    for dir in PRODUCT_DIRS {
        for path in sources(&workspace().join(dir))? {
            let shown = path.strip_prefix(workspace()).unwrap_or(&path);
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let lines = product_lines(&text);
            if is_product(shown) && lines > MAX_FILE_LINES {
                too_long.push(format!("{}: {lines} lines", shown.display()));
            }
        }
    }
    if !too_long.is_empty() {
        bail!("more than {MAX_FILE_LINES} lines before the tests:\n{}", too_long.join("\n"));
    }
    Ok(())
}

/// Returns every source file below a directory.
pub(crate) fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Returns whether a file holds product code: `tests.rs` and files below `tests` do not.
fn is_product(path: &Path) -> bool {
    !path.iter().any(|part| part == "tests" || part == "tests.rs")
}

fn product_lines(text: &str) -> usize {
    text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_before_the_tests_count() {
        assert_eq!(product_lines("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
        assert_eq!(product_lines("a\nb\n"), 2);
    }
}
