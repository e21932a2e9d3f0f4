//! What earlier runs knew about the time, on disk: two RFC 3339 dates in a state file.

use std::path::Path;

use jiff::Timestamp;

use crate::model::UnixTime;
use crate::state_file::{SHORT_TEXT_BYTES, StateFile};

/// What is known about the time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KnownTimes {
    /// The right time is later than this: the floor.
    pub floor: UnixTime,
    /// The latest time that a trusted clock has shown, which may have been wrong.
    pub seen: UnixTime,
}

impl KnownTimes {
    /// Returns the text of the file: the floor, then the time seen.
    pub(super) fn to_text(self) -> String {
        format!("{}\n{}\n", self.floor, self.seen)
    }

    /// Returns the times in a text. A single date, as an operator writes it, stands for both.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(|line| {
            let timestamp: Timestamp = line.trim().parse().ok()?;
            Some(UnixTime::from_micros(timestamp.as_microsecond()))
        });
        let floor = lines.next()??;
        Some(Self { floor, seen: lines.next().flatten().unwrap_or(floor) })
    }
}

/// Returns the file in `state_dir`.
pub(super) fn state_file(state_dir: &Path) -> StateFile {
    let loss = "cannot store the time: a start with a wrong clock may go unnoticed";
    StateFile::new(state_dir, "clock", loss, SHORT_TEXT_BYTES)
}

/// Returns what an earlier run stored; `None` when the file is missing or unreadable.
pub(super) fn load(file: &StateFile) -> Option<KnownTimes> {
    KnownTimes::parse(&file.read()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: UnixTime = UnixTime::from_micros(1_800_000_000_250_000);
    const SEEN: UnixTime = UnixTime::from_micros(1_900_000_000_000_000);

    #[tokio::test]
    async fn stored_times_are_loaded_and_garbage_is_ignored() {
        let name = format!("edge-gateway-clock-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let mut file = state_file(&directory);
        assert_eq!(load(&file), None);

        let times = KnownTimes { floor: FLOOR, seen: SEEN };
        assert!(file.write(times.to_text()).await);
        assert_eq!(load(&file), Some(times));
        for garbage in ["", "yesterday", "\0\0\0\0", "99999999-01-01T00:00:00Z", "\n2033-01-01"] {
            assert!(file.write(garbage.to_owned()).await);
            assert_eq!(load(&file), None, "{garbage}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_single_date_is_both_the_floor_and_the_time_seen() {
        let both = Some(KnownTimes { floor: FLOOR, seen: FLOOR });
        for rest in ["", "\n", "\n\n", "\ngarbage", "\n\0"] {
            assert_eq!(KnownTimes::parse(&format!("{FLOOR}{rest}")), both, "{rest:?}");
        }
    }
}
