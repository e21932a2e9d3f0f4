//! The file with the state of the events, for the next run: each message is queued once, and each
//! word written.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::plc_trigger::{MAX_WAITING, WaitingEvent};
use crate::model::UnixTime;
use crate::state_file::StateFile;

/// Most bytes that one event takes in the file, in `waiting` and in `pending_words`.
const EVENT_BYTES: usize = 80;
/// Most bytes that a PLC takes in addition to its events.
const PLC_BYTES: usize = 4 << 10;

/// What is saved of the event of a PLC.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct SavedEvent {
    /// Name of the tag `on`: what was saved of another tag means nothing to it.
    pub(super) on: String,
    /// Value of this tag.
    pub(super) last: Json,
    /// Words that are not written yet.
    #[serde(default, rename = "owed")]
    pub(super) pending_words: Vec<u16>,
    /// Events that are not acknowledged yet.
    #[serde(default)]
    pub(super) waiting: Vec<SavedWaiting>,
    /// Time of the last event that was acknowledged, in microseconds since 1970-01-01 UTC.
    #[serde(default, rename = "confirmed")]
    pub(super) last_acknowledged: Option<i64>,
}

/// What is saved of an event that is not acknowledged yet.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct SavedWaiting {
    /// Time of its record, in microseconds since 1970-01-01 UTC: [`UnixTime`] is written with
    /// milliseconds.
    at: i64,
    /// What is written to acknowledge it.
    word: u16,
    /// Whether the broker has its message.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    acknowledged: bool,
}

/// Writes one state after the other, on another thread.
#[derive(Debug)]
pub(super) struct EventFile {
    states: watch::Sender<(u64, String)>,
    /// Number of the last state that was written, or that could not be.
    written: watch::Receiver<u64>,
    task: JoinSet<()>,
    /// Number of the present state.
    present: u64,
    /// Number of the last state that was handed over.
    handed_over: u64,
}

impl EventFile {
    /// Opens the file for this number of PLCs and returns what it holds, by their names. Blocks.
    pub(super) fn open(state_dir: &Path, plcs: usize) -> (Self, BTreeMap<String, SavedEvent>) {
        let loss = "the state of the events cannot be saved: after a restart a message may come \
                    twice, and an acknowledgement may be missing";
        let max_bytes = plcs.saturating_mul(PLC_BYTES + MAX_WAITING * EVENT_BYTES);
        let max_bytes = u64::try_from(max_bytes).unwrap_or(u64::MAX);
        let file = StateFile::new(state_dir, "events", loss, max_bytes);
        let known = file.read().and_then(|text| {
            let known = serde_json::from_str(&text);
            known.inspect_err(|error| file.on_unreadable(error)).ok()
        });
        let (states, from_states) = watch::channel((0, String::new()));
        let (to_written, written) = watch::channel(0);
        let mut task = JoinSet::new();
        task.spawn(write_states(file, from_states, to_written));
        let file = Self { states, written, task, present: 0, handed_over: 0 };
        (file, known.unwrap_or_default())
    }

    /// Returns the number of the present state.
    pub(super) const fn present(&self) -> u64 {
        self.present
    }

    /// Returns the number up to which states are written, or could not be.
    pub(super) fn written(&self) -> u64 {
        *self.written.borrow()
    }

    /// Records that the state has changed.
    pub(super) const fn on_changed(&mut self) {
        self.present += 1;
    }

    /// Returns whether the present state is to be handed over: one at a time, because a state takes
    /// longer to write than some events to happen.
    pub(super) fn is_due(&self) -> bool {
        self.is_behind() && self.written() == self.handed_over
    }

    /// Returns whether the present state was not handed over.
    pub(super) const fn is_behind(&self) -> bool {
        self.handed_over < self.present
    }

    /// Hands the present state over.
    pub(super) fn hand_over(&mut self, text: String) {
        self.handed_over = self.present;
        self.states.send_replace((self.present, text));
    }

    /// Waits until a state is written. Cancel safe. Returns whether more can be.
    pub(super) async fn wait(&mut self) -> bool {
        self.written.changed().await.is_ok()
    }

    /// Waits until the last state that was handed over is written.
    pub(super) async fn close(self) {
        drop(self.states);
        // A panic in it is reported by the runtime.
        self.task.join_all().await;
    }
}

/// Writes each state to the file, the latest one if they change faster. A failure is logged by the
/// file and reported like a success: the messages of events are not kept for it.
async fn write_states(
    mut file: StateFile,
    mut states: watch::Receiver<(u64, String)>,
    written: watch::Sender<u64>,
) {
    while states.changed().await.is_ok() {
        let (number, text) = states.borrow_and_update().clone();
        file.write(text).await;
        written.send_replace(number);
    }
}

impl From<&WaitingEvent> for SavedWaiting {
    fn from(event: &WaitingEvent) -> Self {
        Self { at: event.at.as_micros(), word: event.word, acknowledged: event.is_delivered }
    }
}

impl From<SavedWaiting> for WaitingEvent {
    fn from(saved: SavedWaiting) -> Self {
        let SavedWaiting { at, word, acknowledged } = saved;
        let at = UnixTime::from_micros(at);
        Self { at, word, ticket: None, is_delivered: acknowledged }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> std::path::PathBuf {
        let name = format!("edge-gateway-events-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        directory
    }

    /// Returns the longest state of a PLC.
    fn longest() -> SavedEvent {
        let at = UnixTime::from_micros(i64::MIN);
        let waiting = WaitingEvent { at, word: u16::MAX, ticket: None, is_delivered: true };
        SavedEvent {
            on: "n".repeat(200),
            last: i64::MIN.into(),
            pending_words: vec![u16::MAX; MAX_WAITING + 1],
            waiting: (0..MAX_WAITING).map(|_| (&waiting).into()).collect(),
            last_acknowledged: Some(i64::MIN),
        }
    }

    #[tokio::test]
    async fn the_longest_state_is_read_back() {
        let directory = directory();
        let (mut file, known) = EventFile::open(&directory, 3);
        assert!(known.is_empty() && !file.is_due());
        let states: BTreeMap<_, _> = (0..3).map(|plc| (format!("{plc:0200}"), longest())).collect();
        file.on_changed();
        assert!(file.is_due());
        file.hand_over(serde_json::to_string(&states).unwrap());
        file.on_changed();
        assert!(!file.is_due(), "one at a time");
        assert!(file.wait().await);
        assert_eq!(file.written(), 1);
        assert!(file.is_due());
        file.close().await;
        let (_, known) = EventFile::open(&directory, 3);
        assert_eq!(known.len(), 3);
        let saved = &known[&format!("{:0200}", 2)];
        assert_eq!(
            (saved.pending_words.len(), saved.waiting.len()),
            (MAX_WAITING + 1, MAX_WAITING)
        );
        let waiting: WaitingEvent = known.into_values().next().unwrap().waiting.remove(0).into();
        assert_eq!((waiting.at.as_micros(), waiting.is_delivered), (i64::MIN, true));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[tokio::test]
    async fn a_damaged_file_is_ignored_and_a_failed_write_delays_nothing() {
        let directory = directory();
        std::fs::write(directory.join("events"), "{\"p\":{\"last\":5,").unwrap();
        let (mut file, known) = EventFile::open(&directory, 1);
        assert!(known.is_empty());
        std::fs::remove_dir_all(&directory).unwrap();
        file.on_changed();
        file.hand_over(String::new());
        assert!(file.wait().await);
        assert_eq!(file.written(), 1);
    }
}
