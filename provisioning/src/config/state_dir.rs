//! `gateway.state_dir`, found without checking the file.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::load::MAX_FILE_BYTES;
use super::toml_split::SplitDocument;
use crate::regular_file;

/// The variable of the layer above the file.
const VARIABLE: &str = "EDGE_GATEWAY__STATE_DIR";
/// Without a key: the default of `[gateway]`.
const DEFAULT: &str = "/var/lib/edge-gateway";

/// Returns the directory for the state of a gateway with this configuration file, which may be
/// invalid or missing: the bundle in use is there, and wins over the file.
#[must_use]
pub fn state_dir_of(config_file: &Path) -> PathBuf {
    let is_usable = |path: &PathBuf| path.is_absolute();
    let from_environment = std::env::var_os(VARIABLE).map(PathBuf::from).filter(is_usable);
    from_environment
        .or_else(|| from_file(config_file).filter(is_usable))
        .unwrap_or_else(|| DEFAULT.into())
}

fn from_file(config_file: &Path) -> Option<PathBuf> {
    let bytes = regular_file::read(config_file, MAX_FILE_BYTES).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    // Without the PLCs: a table of 25,000 tags takes 27 MB of memory.
    let split = SplitDocument::split(&text);
    let root: Table = split.as_ref().map_or(&*text, |split| &split.rest).parse().ok()?;
    root.get("gateway")?.get("state_dir").and_then(Value::as_str).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_is_missing_or_invalid_has_the_default() {
        let name =
            format!("edge-gateway-state-dir-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let file = std::env::temp_dir().join(name);
        assert_eq!(state_dir_of(&file), Path::new(DEFAULT));
        for (text, expected) in [
            ("[gateway]\nstate_dir = \"/srv/edge\"\nidd = 1", "/srv/edge"),
            ("[gateway]\nstate_dir = \"relative\"", DEFAULT),
            ("[gateway]\nstate_dir = 7", DEFAULT),
            ("[gateway", DEFAULT),
            ("[[plc]]\nname = \"a\"\n[gateway]\nstate_dir = \"/srv/edge\"", "/srv/edge"),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(state_dir_of(&file), Path::new(expected), "{text}");
        }
        fs::remove_file(&file).unwrap();
    }
}
