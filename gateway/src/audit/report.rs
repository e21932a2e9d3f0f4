//! What an audit found, for programs and for people.

use std::fmt;

use serde::Serialize;

use super::ranges::total;
use crate::model::Escaped;

/// Everything that an audit found.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct AuditReport {
    /// By gateway, epoch and topic.
    pub streams: Vec<StreamReport>,
    /// Messages without a stamp, which cannot be checked.
    pub unstamped: u64,
    /// Messages that are missing and were not announced, in all streams together.
    pub unaccounted: u64,
}

/// One topic in one epoch of one gateway.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct StreamReport {
    /// `gateway.id` of the stamp.
    pub gateway: String,
    /// Epoch of the stamp.
    pub epoch: String,
    /// MQTT topic.
    pub topic: String,
    /// The first number heard when it is not 0: what was before is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joined_at: Option<u64>,
    /// Highest number that arrived or was announced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seq: Option<u64>,
    /// Different messages that arrived.
    pub received: u64,
    /// Copies beyond the first.
    pub duplicates: u64,
    /// Messages that arrived behind a later one.
    pub reordered: u64,
    /// Messages that did not arrive and were announced.
    pub announced: u64,
    /// Samples that the announcements name.
    pub announced_samples: u64,
    /// Where the epoch ended uncleanly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<UncleanWindow>,
    /// Messages that did not arrive and were not announced.
    pub missing: u64,
    /// The numbers of these, first and last of each run; the first runs only.
    pub first_missing: Vec<(u64, u64)>,
}

/// The end of an epoch that ended uncleanly: numbers from here on may never have been sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct UncleanWindow {
    /// The first number of it.
    pub from: u64,
    /// Messages in it that did not arrive and were not announced, below the highest number known.
    pub absent: u64,
    /// How many seconds of data may be missing; nothing when the storage had failed.
    pub seconds: Option<u64>,
}

impl StreamReport {
    /// Most runs in [`StreamReport::first_missing`].
    pub const MAX_RUNS: usize = 20;
}

/// A table, the missing numbers, and one sentence.
impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.streams.is_empty() {
            write_table(f, &self.streams)?;
            writeln!(f)?;
        }
        for stream in self.streams.iter().filter(|stream| stream.missing > 0) {
            let runs: Vec<String> = stream.first_missing.iter().map(format_range).collect();
            let more = if total(&stream.first_missing) < stream.missing { " and more" } else { "" };
            let (topic, epoch) = (plain(&stream.topic), plain(&stream.epoch));
            writeln!(f, "Missing on {topic}, epoch {epoch}: {}{more}.", runs.join(", "))?;
        }
        for stream in &self.streams {
            write_window(f, stream)?;
        }
        if self.unstamped > 0 {
            writeln!(f, "Not checked, for want of a stamp: {} messages.", self.unstamped)?;
        }
        match (self.unaccounted, self.streams.is_empty()) {
            (0, true) => writeln!(f, "Nothing to check: no message with a stamp arrived."),
            (0, false) if self.absent() == 0 => {
                writeln!(f, "Every message arrived or was announced as lost.")
            }
            (0, false) => {
                writeln!(f, "Every other message arrived or was announced as lost.")
            }
            (1, _) => writeln!(f, "1 message is missing and was not announced."),
            (count, _) => writeln!(f, "{count} messages are missing and were not announced."),
        }
    }
}

impl AuditReport {
    /// Messages that did not arrive and lie in the window of an unclean end.
    fn absent(&self) -> u64 {
        let windows = self.streams.iter().filter_map(|stream| stream.window);
        windows.fold(0, |sum, window| sum.saturating_add(window.absent))
    }
}

/// What is absent and accounted for, but by no number.
fn write_window(f: &mut fmt::Formatter<'_>, stream: &StreamReport) -> fmt::Result {
    let Some(UncleanWindow { from, absent, seconds }) =
        stream.window.filter(|window| window.absent > 0)
    else {
        return Ok(());
    };
    let (topic, epoch) = (plain(&stream.topic), plain(&stream.epoch));
    write!(f, "Absent on {topic}, epoch {epoch}: {absent} from number {from} on; ")?;
    match seconds {
        Some(seconds) => writeln!(f, "it ended uncleanly, and up to {seconds} s may be missing."),
        None => writeln!(f, "it ended uncleanly, and its storage had failed."),
    }
}

const COLUMNS: [&str; 10] = [
    "gateway",
    "epoch",
    "topic",
    "numbers",
    "received",
    "twice",
    "late",
    "announced",
    "window",
    "missing",
];

fn write_table(f: &mut fmt::Formatter<'_>, streams: &[StreamReport]) -> fmt::Result {
    let rows: Vec<[String; 10]> =
        std::iter::once(COLUMNS.map(str::to_owned)).chain(streams.iter().map(row)).collect();
    let mut widths = [0; 10];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn row(stream: &StreamReport) -> [String; 10] {
    let numbers = stream
        .last_seq
        .map_or_else(|| "-".to_owned(), |last| format!("{}-{last}", stream.joined_at.unwrap_or(0)));
    [
        plain(&stream.gateway),
        plain(&stream.epoch),
        plain(&stream.topic),
        numbers,
        stream.received.to_string(),
        stream.duplicates.to_string(),
        stream.reordered.to_string(),
        stream.announced.to_string(),
        stream.window.map_or(0, |window| window.absent).to_string(),
        stream.missing.to_string(),
    ]
}

fn format_range((first, last): &(u64, u64)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn plain(text: &str) -> String {
    Escaped(text).to_string()
}
