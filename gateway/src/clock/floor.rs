//! The floor on disk: one RFC 3339 date in a state file.

use std::path::Path;

use jiff::Timestamp;

use crate::model::UnixTime;
use crate::state_file::StateFile;

/// Returns the file in `state_dir`.
pub(super) fn state_file(state_dir: &Path) -> StateFile {
    let loss = "cannot store the time: a start with a wrong clock may go unnoticed";
    StateFile::new(state_dir, "clock", loss)
}

/// Returns the floor that an earlier run stored; `None` when the file is missing or unreadable.
pub(super) fn load(file: &StateFile) -> Option<UnixTime> {
    let timestamp: Timestamp = file.read()?.trim().parse().ok()?;
    Some(UnixTime::from_micros(timestamp.as_microsecond()))
}

/// Returns the text of the file.
pub(super) fn to_text(floor: UnixTime) -> String {
    format!("{floor}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stored_floor_is_loaded_and_garbage_is_ignored() {
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
