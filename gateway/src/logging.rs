//! The log on standard error: which lines are logged, and a writer that blocks nothing.

#[cfg(test)]
mod captured_log;
mod limiter;
mod writer;

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

#[cfg(test)]
pub(crate) use self::captured_log::CapturedLog;
use self::limiter::{Admission, LateLine, LineLimiter, LineTopic};
use self::writer::LogQueue;

/// Log filter unless `RUST_LOG` is set. boringtun is silenced: it warns about every unanswered
/// handshake, thousands a day while a hub is down, and reports an idle tunnel as an error. The
/// tunnel itself logs each change of its state once.
fn default_filter() -> Targets {
    Targets::new().with_default(LevelFilter::INFO).with_target("boringtun", LevelFilter::OFF)
}

/// Returns the filter that the user wants, or why the text is no filter. A variable that is empty
/// says nothing.
fn wanted_filter(wanted: Option<OsString>) -> Result<Targets, String> {
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else {
        return Ok(default_filter());
    };
    let wanted = wanted.to_str().ok_or("it is no text in UTF-8")?;
    wanted.parse().map_err(|error: ParseError| error.to_string())
}

/// Variable with a filter: a level, or `TARGET=LEVEL,...`.
const FILTER_VARIABLE: &str = "RUST_LOG";

/// How often lines that were held back are looked at.
const RELEASE_INTERVAL: Duration = Duration::from_secs(10);

/// Fields that name what a line is about.
const SUBJECT_FIELDS: [&str; 6] = ["plc", "topic", "hub", "stage", "file", "path"];

/// The log of a running command.
#[derive(Debug)]
pub(crate) struct Logging(LogQueue);

impl Logging {
    /// Starts logging to standard error, filtered by `RUST_LOG`; without a time where systemd's
    /// journal adds one. Panics are logged like everything else: the usual hook would wait for a
    /// standard error that takes nothing.
    ///
    /// # Errors
    /// When the system has no thread or descriptor for it.
    pub(crate) fn start() -> io::Result<Self> {
        let limiter = Arc::new(Mutex::new(LineLimiter::default()));
        let held = Arc::clone(&limiter);
        let release = move || lock(&held).release(Instant::now()).iter().map(late_text).collect();
        let queue = LogQueue::start(RELEASE_INTERVAL, release)?;
        let (filter, fault) = match wanted_filter(std::env::var_os(FILTER_VARIABLE)) {
            Ok(filter) => (filter, None),
            Err(reason) => (default_filter(), Some(reason)),
        };
        let lines = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_writer(queue.clone())
            .log_internal_errors(false)
            .with_target(false)
            .with_ansi(io::stderr().is_terminal());
        if std::env::var_os("JOURNAL_STREAM").is_some() {
            let lines = lines.without_time();
            let lines = lines.map_event_format(|inner| LimitedFormat { inner, limiter });
            lines.finish().with(filter).init();
        } else {
            let lines = lines.map_event_format(|inner| LimitedFormat { inner, limiter });
            lines.finish().with(filter).init();
        }
        if let Some(reason) = fault {
            tracing::warn!("{FILTER_VARIABLE} is ignored: {reason}; write a level, such as debug");
        }
        std::panic::set_hook(Box::new(|panic| {
            let text = panic.payload_as_str().unwrap_or("no message");
            match panic.location() {
                Some(at) => tracing::error!(%at, "a task panicked: {text}"),
                None => tracing::error!("a task panicked: {text}"),
            }
        }));
        Ok(Self(queue))
    }

    /// Writes a text and a line break as they are, without a limit.
    pub(crate) fn print(&self, text: impl fmt::Display) {
        self.0.push(format!("{text}\n"));
    }

    /// Writes the error of a command, as `main` does where nothing is logged.
    pub(crate) fn print_error(&self, error: &anyhow::Error) {
        self.print(format_args!("edge-gateway: {error:#}"));
    }
}

/// Waits until everything is written, at most half a second.
impl Drop for Logging {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Formats the events that [`LineLimiter`] admits, and nothing for the others. Details that were
/// asked for with `RUST_LOG`, at level debug and trace, are not limited.
#[derive(Debug)]
struct LimitedFormat<F> {
    inner: F,
    limiter: Arc<Mutex<LineLimiter>>,
}

impl<S, N, F> FormatEvent<S, N> for LimitedFormat<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if *event.metadata().level() > Level::INFO {
            return self.inner.format_event(context, writer, event);
        }
        let (topic, now) = (topic_of(event), Instant::now());
        // The lock is not held while the event is formatted: its values are foreign code.
        let admission = lock(&self.limiter).admit(&topic, now);
        if admission == (Admission::Log { left_out: 0 }) {
            return self.inner.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        match admission {
            Admission::Log { left_out } => {
                writeln!(writer, "{} left_out={left_out}", line.trim_end())
            }
            Admission::Hold => {
                lock(&self.limiter).hold(&topic, line, now);
                Ok(())
            }
        }
    }
}

/// Returns a held line as it is logged: with the number of lines left out before it, and its age.
fn late_text(late: &LateLine) -> String {
    let LateLine { text, left_out, age } = late;
    format!("{} left_out={left_out} seconds_ago={}\n", text.trim_end(), age.as_secs())
}

fn lock(limiter: &Mutex<LineLimiter>) -> MutexGuard<'_, LineLimiter> {
    limiter.lock().unwrap_or_else(PoisonError::into_inner)
}

fn topic_of(event: &Event<'_>) -> LineTopic {
    let mut subject = Subject(String::new());
    event.record(&mut subject);
    let Subject(subject) = subject;
    LineTopic { target: event.metadata().target(), subject }
}

/// Collects the values of [`SUBJECT_FIELDS`].
#[derive(Debug)]
struct Subject(String);

impl Visit for Subject {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if SUBJECT_FIELDS.contains(&field.name()) {
            let Self(text) = self;
            // Writing to a string does not fail.
            let _ = write!(text, "{value:?} ");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    /// Runs `work` and returns what it logged.
    fn logged(filter: Targets, work: impl FnOnce()) -> String {
        let lines = CapturedLog::default();
        let writer = lines.clone();
        let limiter = Arc::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .without_time()
            .map_event_format(|inner| LimitedFormat { inner, limiter })
            .finish()
            .with(filter);
        tracing::subscriber::with_default(subscriber, work);
        lines.text()
    }

    fn level(level: LevelFilter) -> Targets {
        Targets::new().with_default(level)
    }

    #[test]
    fn boringtun_is_logged_only_on_request() {
        let log = || {
            tracing::info!("of the gateway");
            tracing::error!(target: "boringtun::noise::timers", "of boringtun");
            tracing::warn!(target: "boringtun::noise", "of boringtun");
        };
        let text = logged(default_filter(), log);
        assert!(text.contains("of the gateway") && !text.contains("of boringtun"), "{text}");
        assert!(logged(level(LevelFilter::INFO), log).contains("of boringtun"));
    }

    #[test]
    fn a_variable_that_is_no_filter_is_reported() {
        let wanted = |text: &str| wanted_filter(Some(text.into()));
        assert_eq!(wanted_filter(None), Ok(default_filter()));
        assert_eq!(wanted(""), Ok(default_filter()), "as if it were not set");
        assert_eq!(wanted("debug"), Ok(level(LevelFilter::DEBUG)));
        assert!(wanted("gateway=trace,boringtun=off").is_ok());
        for text in ["gateway=loud", "a=b=c"] {
            assert!(wanted(text).is_err(), "{text}");
        }
        let latin_1 = OsString::from_vec(vec![b'd', 0xE9]);
        assert!(wanted_filter(Some(latin_1)).unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn a_flapping_plc_does_not_hide_another() {
        let text = logged(level(LevelFilter::INFO), || {
            for _ in 0..1000 {
                tracing::warn!(plc = "p1", "gone");
                tracing::info!(plc = "p1", "back");
            }
            tracing::warn!(plc = "p2", "gone");
        });
        assert_eq!(text.matches("plc=\"p1\"").count(), 5, "{text}");
        assert_eq!(text.matches("plc=\"p2\"").count(), 1, "{text}");
    }

    #[test]
    fn details_are_not_limited() {
        let text = logged(level(LevelFilter::DEBUG), || {
            (0..1000).for_each(|_| tracing::debug!("a detail"));
        });
        assert_eq!(text.lines().count(), 1000);
    }

    #[test]
    fn a_late_line_says_what_was_left_out() {
        let late = LateLine {
            text: " WARN plc=\"p1\" gone\n".to_owned(),
            left_out: 12,
            age: Duration::from_secs(75),
        };
        assert_eq!(late_text(&late), " WARN plc=\"p1\" gone left_out=12 seconds_ago=75\n");
    }
}
