//! The floor on disk: one RFC 3339 date in a file of its own.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::model::UnixTime;

const NAME: &str = "clock";

/// Reads what an earlier run has kept; nothing when there is nothing legible.
pub(super) fn load(state_dir: &Path) -> Option<UnixTime> {
    let text = fs::read_to_string(path(state_dir)).ok()?;
    let timestamp: Timestamp = text.trim().parse().ok()?;
    Some(UnixTime::from_micros(timestamp.as_microsecond()))
}

/// Writes the floor so that a power cut leaves the old one or the new one.
pub(super) fn store(state_dir: &Path, floor: UnixTime) -> io::Result<()> {
    let path = path(state_dir);
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    writeln!(file, "{floor}")?;
    file.sync_data()?;
    fs::rename(&new, path)
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_loaded_and_garbage_is_nothing() {
        let name = format!("edge-gateway-clock-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        assert_eq!(load(&directory), None);

        let floor = UnixTime::from_micros(1_800_000_000_250_000);
        store(&directory, floor).unwrap();
        assert_eq!(load(&directory), Some(floor));
        for garbage in ["", "yesterday", "\0\0\0\0", "99999999-01-01T00:00:00Z"] {
            fs::write(directory.join(NAME), garbage).unwrap();
            assert_eq!(load(&directory), None, "{garbage}");
        }
        fs::remove_dir_all(&directory).unwrap();
        assert!(store(&directory, floor).is_err());
        assert_eq!(load(&directory), None);
    }
}
