//! The files that a configuration names, found without checking it.

use std::path::{Path, PathBuf};

use super::layers::ENV_PREFIX;
use super::load::MAX_FILE_BYTES;
use super::scalar::SecretFile;
use crate::regular_file;

/// Returns the files with secrets and certificates that a configuration names, as far as they can
/// be seen in a file that is perhaps invalid: the values of keys that end with `_file`, there and
/// in `EDGE_*` variables.
#[must_use]
pub fn named_files(config_file: &Path) -> Vec<PathBuf> {
    let bytes = regular_file::read(config_file, MAX_FILE_BYTES).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        let is_file = name.starts_with(ENV_PREFIX) && name.ends_with("_FILE");
        is_file.then(|| value.into_string().ok()).flatten()
    });
    let names = values(&text).map(str::to_owned).chain(variables);
    names.filter_map(|name| SecretFile::resolve(&name, config_file)).collect()
}

/// Returns the values of all keys that end with `_file`.
fn values(text: &str) -> impl Iterator<Item = &str> {
    const KEY_END: &str = "_file";
    text.match_indices(KEY_END).filter_map(|(at, _)| {
        let rest = text.get(at + KEY_END.len()..)?.trim_start_matches([' ', '\t', '"', '\'']);
        let rest = rest.strip_prefix('=')?.trim_start();
        let quote = rest.chars().next().filter(|quote| ['"', '\''].contains(quote))?;
        rest.get(1..)?.split_once(quote).map(|(value, _)| value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_in_sections_and_in_inline_tables() {
        let text = "password_file = \"a\"\n# a key_file\nx_file=1\n\
                    hub = [{ preshared_key_file = 'b', name = \"n\" }]\n\"ca_file\"=\"c\"";
        assert_eq!(values(text).collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}
