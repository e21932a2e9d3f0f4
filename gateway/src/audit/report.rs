//! The result of an audit, as JSON and as text.

use std::fmt;

use serde::Serialize;

use super::unreachable::UnreachablePeriods;
use crate::model::Escaped;
use crate::queue::RangeSet;

/// The result of an audit.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct AuditReport {
    /// By gateway, epoch and topic.
    pub streams: Vec<StreamReport>,
    /// Messages without a stamp, which cannot be checked.
    pub unstamped: u64,
    /// Present if lines of the capture are no messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread: Option<UnreadLines>,
    /// Messages that are missing and were not announced, in all streams together.
    pub unaccounted: u64,
    /// Gateways that publish with MQTT 3.1.1: what their broker rejects is missing unannounced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub v3_gateways: Vec<String>,
}

/// Lines of a capture that are no messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct UnreadLines {
    /// How many.
    pub count: u64,
    /// Number of the first, from 1.
    pub first: u64,
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
    /// The first number that arrived, if it is not 0: earlier messages are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joined_at: Option<u64>,
    /// Highest number that arrived or was announced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seq: Option<u64>,
    /// Different messages that arrived.
    pub received: u64,
    /// Copies beyond the first.
    pub duplicates: u64,
    /// Messages that arrived after one with a higher number.
    pub reordered: u64,
    /// Messages that did not arrive and were announced.
    pub announced: u64,
    /// Samples that the announcements name.
    pub announced_samples: u64,
    /// Present if the epoch ended uncleanly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<UncleanWindow>,
    /// Present if values were unreachable: then there was nothing to publish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<UnreachablePeriods>,
    /// Messages that did not arrive and were not announced.
    pub missing: u64,
    /// Their numbers, first and last of each range; at most [`StreamReport::MAX_RANGES`] ranges.
    pub first_missing: Vec<(u64, u64)>,
}

/// The end of an epoch without a clean shutdown: its last numbers may never have been sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct UncleanWindow {
    /// First number of the window.
    pub from: u64,
    /// Messages in it that did not arrive and were not announced, below the highest number known.
    pub absent: u64,
    /// Seconds of data that may be missing; `None` when the storage had failed.
    pub seconds: Option<u64>,
}

impl StreamReport {
    /// Maximum number of ranges in [`StreamReport::first_missing`].
    pub const MAX_RANGES: usize = 20;
}

/// A table with its legend, the missing numbers, and the result in one sentence.
impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.streams.is_empty() {
            write_table(f, &self.streams)?;
            writeln!(f, "\n{LEGEND}")?;
        }
        for stream in self.streams.iter().filter(|stream| stream.missing > 0) {
            let ranges: Vec<String> = stream.first_missing.iter().map(format_range).collect();
            let listed: RangeSet = stream.first_missing.iter().copied().collect();
            let more = if listed.count() < stream.missing { " and more" } else { "" };
            let (topic, epoch) = (plain(&stream.topic), plain(&stream.epoch));
            writeln!(f, "Missing on {topic}, epoch {epoch}: {}{more}.", ranges.join(", "))?;
        }
        for stream in &self.streams {
            write_window(f, stream)?;
        }
        for stream in &self.streams {
            write_unreachable(f, stream)?;
        }
        if let Some(UnreadLines { count, first }) = self.unread {
            let lines = if count == 1 { "1 line".to_owned() } else { format!("{count} lines") };
            writeln!(f, "Not read: {lines}, the first is line {first}: no message of a gateway.")?;
        }
        if self.unstamped > 0 {
            let (count, were) = (messages(self.unstamped), was_or_were(self.unstamped));
            writeln!(f, "{count} without a number (status, or stamp = false) {were} not counted.")?;
        }
        if !self.v3_gateways.is_empty() {
            let gateways: Vec<_> = self.v3_gateways.iter().map(|id| plain(id)).collect();
            writeln!(
                f,
                "With MQTT 3.1.1: {}. In it a broker acknowledges even messages that its access \
                 list (ACL) rejects, so these gateways cannot announce them.",
                gateways.join(", ")
            )?;
        }
        match (self.unaccounted, self.streams.is_empty()) {
            (0, true) => writeln!(f, "Nothing to check: no message with a number arrived."),
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
    /// Returns how many messages did not arrive and lie in the window of an unclean shutdown.
    fn absent(&self) -> u64 {
        let windows = self.streams.iter().filter_map(|stream| stream.window);
        windows.fold(0, |sum, window| sum.saturating_add(window.absent))
    }
}

fn messages(count: u64) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}

const fn was_or_were(count: u64) -> &'static str {
    if count == 1 { "was" } else { "were" }
}

/// Writes what is absent because of an unclean shutdown: accounted for, but not number by number.
fn write_window(f: &mut fmt::Formatter<'_>, stream: &StreamReport) -> fmt::Result {
    let window = stream.window.filter(|window| window.absent > 0);
    let Some(UncleanWindow { from, absent, seconds }) = window else { return Ok(()) };
    let (topic, epoch) = (plain(&stream.topic), plain(&stream.epoch));
    let missing = if absent == 1 { "1 is".to_owned() } else { format!("{absent} are") };
    write!(f, "On {topic}, epoch {epoch}, {missing} missing from number {from} on: ")?;
    write!(f, "the gateway ended without a shutdown, ")?;
    match seconds {
        Some(seconds) => writeln!(f, "and up to {seconds} s of data may be lost."),
        None => writeln!(f, "and its storage had failed."),
    }
}

/// Writes how long the PLC was away according to its messages: no number is missing then.
fn write_unreachable(f: &mut fmt::Formatter<'_>, stream: &StreamReport) -> fmt::Result {
    let Some(UnreachablePeriods { periods, seconds }) = stream.unreachable else { return Ok(()) };
    let (topic, epoch) = (plain(&stream.topic), plain(&stream.epoch));
    let times = if periods == 1 { "once".to_owned() } else { format!("{periods} times") };
    writeln!(
        f,
        "On {topic}, epoch {epoch}, values were unreachable {times}, for {seconds} s in all: \
         the PLC gave no usable answer, so these values do not exist."
    )
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

/// The meaning of each column, a line for each.
pub const LEGEND: &str = "\
numbers    the numbers checked: from the first that must arrive to the last known
received   messages that arrived, also those with a number below the first checked
twice      copies of messages that had arrived before
late       messages that arrived after one with a higher number
announced  messages that the gateway announced as lost
window     messages that may be lost because the gateway ended without a shutdown
missing    messages that are lost and were not announced
";

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

/// Replaces control characters: any client of the broker may have sent them, and they must not
/// reach the terminal.
fn plain(text: &str) -> String {
    Escaped(text).to_string()
}
