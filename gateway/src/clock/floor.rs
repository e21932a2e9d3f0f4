//! The floor on disk: one RFC 3339 date in a file of its own.

use std::path::Path;

use jiff::Timestamp;

use crate::model::UnixTime;
use crate::state_file::StateFile;

/// The file, in `state_dir`.
pub(super) fn state_file(state_dir: &Path) -> StateFile {
    let loss = "the time cannot be kept: a start with a wrong clock may not be noticed";
    StateFile::new(state_dir, "clock", loss)
}

/// What an earlier run has kept; nothing when there is nothing legible.
pub(super) fn load(file: &StateFile) -> Option<UnixTime> {
    let timestamp: Timestamp = file.read()?.trim().parse().ok()?;
    Some(UnixTime::from_micros(timestamp.as_microsecond()))
}

/// Its text.
pub(super) fn to_text(floor: UnixTime) -> String {
    format!("{floor}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_stored_is_loaded_and_garbage_is_nothing() {
        let name = format!("edge-gateway-clock-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let mut file = state_file(&directory);
        assert_eq!(load(&file), None);

        let floor = UnixTime::from_micros(1_800_000_000_250_000);
        assert!(file.write(to_text(floor)).await);
        assert_eq!(load(&file), Some(floor));
        for garbage in ["", "yesterday", "\0\0\0\0", "99999999-01-01T00:00:00Z"] {
            assert!(file.write(garbage.to_owned()).await);
            assert_eq!(load(&file), None, "{garbage}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
