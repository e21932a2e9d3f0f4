//! Reads a capture, and the time from which on it is checked.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use provisioning::config;

use super::recorder::older_file;
use crate::audit::{Auditor, parse_capture_line};
use crate::clock;

/// A time to look back to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Since {
    /// Before now.
    Ago(Duration),
    At(Timestamp),
}

impl Since {
    /// Returns the time that is meant.
    pub(super) fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(duration) => now.checked_sub(duration).unwrap_or(Timestamp::MIN),
            Self::At(at) => at,
        }
    }
}

/// Parses `12h`, `22:00`, `2026-12-01 22:00` or a time with an offset. Without one, it is a time of
/// this machine's time zone; a time of day is the latest one that has passed.
pub(super) fn parse_since(text: &str) -> Result<Since, String> {
    since(text, clock::now().timestamp(), &TimeZone::system()).ok_or_else(|| {
        "write a duration such as 90m or 12h, or a time such as 22:00, \"2026-12-01 22:00\" or \
         2026-12-01T22:00Z"
            .to_owned()
    })
}

fn since(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Since> {
    if let Ok(duration) = config::parse_duration(text) {
        return Some(Since::Ago(duration));
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(Since::At(at));
    }
    let in_zone = |local: DateTime| zone.to_timestamp(local).ok();
    // First, because the parser of a time of day also takes one with a date, and drops that.
    if let Ok(local) = text.parse::<DateTime>() {
        return in_zone(local).map(Since::At);
    }
    let time = text.parse::<Time>().ok()?;
    let today = zone.to_datetime(now).date();
    let passed = in_zone(today.to_datetime(time)).filter(|at| *at <= now);
    let yesterday = || in_zone(today.yesterday().ok()?.to_datetime(time));
    passed.or_else(yesterday).map(Since::At)
}

/// Reads the messages of a capture, of `FILE.1` first, from `since` on. Lines that are no messages
/// are counted.
///
/// # Errors
/// When a file cannot be read, or when no message has the time that `since` needs.
pub(super) fn read_capture(
    path: &Path,
    since: Option<Timestamp>,
    auditor: &mut Auditor,
) -> anyhow::Result<()> {
    let mut reader = CaptureReader { since, latest: None, has_untimed: false, line: 0 };
    if path == Path::new("-") {
        reader.read(io::stdin().lock(), "standard input", auditor)?;
    } else {
        let older = older_file(path);
        let older = older.is_file().then_some(older);
        for file in older.iter().map(|older| older.as_path()).chain([path]) {
            let name = file.display().to_string();
            let opened = File::open(file).with_context(|| format!("cannot open {name}"))?;
            reader.read(BufReader::new(opened), &name, auditor)?;
        }
    }
    if since.is_some() && reader.has_untimed && reader.latest.is_none() {
        bail!(
            "no message of {} says when it was received, so --since cannot be used; record with \
             audit --record, or with \"at\":\"%I\" in the format of mosquitto_sub",
            path.display()
        );
    }
    Ok(())
}

struct CaptureReader {
    since: Option<Timestamp>,
    /// Time of the latest message that has one; a message without counts as received then.
    latest: Option<Timestamp>,
    has_untimed: bool,
    /// Number of lines so far.
    line: u64,
}

impl CaptureReader {
    fn read(
        &mut self,
        input: impl BufRead,
        name: &str,
        auditor: &mut Auditor,
    ) -> anyhow::Result<()> {
        for (line, is_first) in
            input.split(b'\n').zip([true].into_iter().chain(std::iter::repeat(false)))
        {
            let line = line.with_context(|| format!("cannot read {name}"))?;
            self.line += 1;
            // A byte order mark, which Windows adds to a file.
            let text = line.strip_prefix(b"\xef\xbb\xbf").filter(|_| is_first).unwrap_or(&line);
            if !text.trim_ascii().is_empty() {
                self.on_line(text, auditor);
            }
        }
        Ok(())
    }

    fn on_line(&mut self, line: &[u8], auditor: &mut Auditor) {
        let Ok(message) = parse_capture_line(line) else {
            auditor.on_unread_line(self.line);
            return;
        };
        self.has_untimed |= message.at.is_none();
        self.latest = message.at.or(self.latest);
        // Retained messages are old ones, here as at a broker.
        if message.retain {
            return;
        }
        if self.since.zip(self.latest).is_some_and(|(since, latest)| latest < since) {
            auditor.on_earlier_message(&message.topic, &message.payload);
        } else {
            auditor.on_message(&message.topic, &message.payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::audit::test_dir::TestDir;

    fn message(at: &str, seq: u64) -> String {
        let stamp = format!(r#"{{"id":"g","epoch":"aaaaaa","seq":{seq}}}"#);
        format!(r#"{{{at}"topic":"edge/g/data/p","payload":{{"t":1,"gateway":{stamp}}}}}"#)
    }

    fn audit(lines: &[u8], since: Option<&str>) -> Auditor {
        let mut auditor = Auditor::default();
        let since = since.map(|since| since.parse().unwrap());
        let mut reader = CaptureReader { since, latest: None, has_untimed: false, line: 0 };
        reader.read(lines, "capture", &mut auditor).unwrap();
        auditor
    }

    #[test]
    fn foreign_lines_are_counted_and_the_rest_is_judged() {
        let own = [0, 1, 2, 3].map(|seq| message("", seq));
        for foreign in [
            &br#"{"topic":"edge/g/status","payload":}"#[..],
            br#"{"topic":"edge/g/note","payload":offline}"#,
            b"{\"topic\":\"edge/g/note\",\"payload\":\"\xff\xfe\"}",
            b"edge/g/note 7",
            br#"{"topic":"edge/g/data/p","payl"#,
        ] {
            let mut lines = b"\xef\xbb\xbf".to_vec();
            for part in [own[0].as_bytes(), b"\r", foreign, own[1].as_bytes(), own[2].as_bytes()] {
                lines.extend_from_slice(part);
                lines.push(b'\n');
            }
            let report = audit(&lines, None).report();
            assert_eq!((report.unaccounted, report.streams[0].received), (0, 3), "{report}");
            assert!(
                report.to_string().contains("Not read: 1 line, the first is line 3"),
                "{report}"
            );
        }
        let cut = format!("{}\n{}\nfoo\nbar\n{}", own[0], own[1], own[3]);
        let report = audit(cut.as_bytes(), None).report();
        assert_eq!(report.unaccounted, 1);
        assert!(report.to_string().contains("Not read: 2 lines, the first is line 3"), "{report}");
    }

    #[test]
    fn since_leaves_out_what_was_received_before() {
        let at = |hour: u64, seq| message(&format!(r#""at":"2026-12-01T{hour:02}:00:00Z","#), seq);
        let lines = [at(1, 0), at(2, 5), at(3, 6), message("", 7), at(4, 9)].join("\n");

        let all = audit(lines.as_bytes(), None);
        let late = audit(lines.as_bytes(), Some("2026-12-01T02:30:00Z"));

        assert_eq!((all.unaccounted(), late.unaccounted()), (5, 1));
        assert_eq!(late.report().streams[0].joined_at, Some(6));
    }

    #[test]
    fn an_announcement_before_since_accounts_for_a_later_gap() {
        let event = r#"{"at":"2026-12-01T01:00:00Z","topic":"edge/g/event","payload":{"event":"gap","topic":"edge/g/data/p","first_seq":7,"last_seq":8,"samples":2,"reason":"full","gateway":{"id":"g","epoch":"aaaaaa","seq":0}}}"#;
        let at = |seq| message(r#""at":"2026-12-01T03:00:00Z","#, seq);
        let lines = [event.to_owned(), at(6), at(9)].join("\n");

        let report = audit(lines.as_bytes(), Some("2026-12-01T02:00:00Z")).report();

        assert_eq!((report.unaccounted, report.streams.len()), (0, 1));
        assert_eq!(report.streams[0].announced, 2);
    }

    #[test]
    fn a_capture_without_times_cannot_look_back() {
        let dir = TestDir::new();
        let path = dir.0.join("capture");
        std::fs::write(&path, message("", 0)).unwrap();
        let since = Some("2026-12-01T02:00:00Z".parse().unwrap());
        let error = read_capture(&path, since, &mut Auditor::default()).unwrap_err();
        assert!(error.to_string().contains("says when it was received"), "{error}");
    }

    #[test]
    fn a_time_is_a_duration_a_time_of_day_or_a_date() {
        let now: Timestamp = "2026-12-01T07:00:00Z".parse().unwrap();
        let zone = TimeZone::get("Europe/Amsterdam").unwrap();
        let since = |text: &str| since(text, now, &zone);
        let at = |text: &str| Some(Since::At(text.parse().unwrap()));
        assert_eq!(since("12h"), Some(Since::Ago(Duration::from_secs(43_200))));
        assert_eq!(since("07:30"), at("2026-12-01T06:30:00Z"));
        assert_eq!(since("22:00"), at("2026-11-30T21:00:00Z"));
        assert_eq!(since("2026-11-29 22:00"), at("2026-11-29T21:00:00Z"));
        assert_eq!(since("2026-11-29T22:00Z"), at("2026-11-29T22:00:00Z"));
        assert_eq!((since("yesterday"), since("25:00")), (None, None));
        let ago = Since::Ago(Duration::from_secs(60)).resolve(now);
        assert_eq!(ago, "2026-12-01T06:59:00Z".parse().unwrap());
    }
}
