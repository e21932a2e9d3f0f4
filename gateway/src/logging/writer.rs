//! The only writer to standard error while the gateway runs: a thread of its own, fed by a bounded
//! queue. A reader that is gone, full or slow costs log lines and nothing else.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait for standard error. With [`MAX_LINE_BYTES`] at most 8 MiB.
const MAX_WAITING: usize = 2048;
/// Longest line in bytes; the rest is cut off.
const MAX_LINE_BYTES: usize = 4 * 1024;
/// Time for standard error to take what waits when the process ends.
const FLUSH_GRACE: Duration = Duration::from_millis(500);
/// Pause before a pipe that another program made non-blocking is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(50);

/// The sending end of the log.
#[derive(Clone, Debug)]
pub(super) struct LogQueue {
    jobs: SyncSender<WriterJob>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum WriterJob {
    Line(Vec<u8>),
    /// Is answered when everything before it has been written.
    Flush(SyncSender<()>),
}

impl LogQueue {
    /// Starts the thread that writes to standard error. It calls `idle` at least once in each
    /// `idle_interval`, and writes the lines that this returns.
    pub(super) fn start(
        idle_interval: Duration,
        idle: impl FnMut() -> Vec<String> + Send + 'static,
    ) -> io::Result<Self> {
        // Not `io::stderr()`: a write that blocks would hold its lock.
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        Self::start_with(stderr, idle_interval, idle)
    }

    fn start_with(
        output: impl Write + Send + 'static,
        idle_interval: Duration,
        idle: impl FnMut() -> Vec<String> + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel(MAX_WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = LogWriter { output, dropped: Arc::clone(&dropped) };
        let run = move || writer.run(&waiting, idle_interval, idle);
        thread::Builder::new().name("log".to_owned()).spawn(run)?;
        Ok(Self { jobs, dropped })
    }

    /// Queues a text that ends with a line break, as it is; counts it as dropped when the queue is
    /// full.
    pub(super) fn push(&self, text: impl Into<Vec<u8>>) {
        if self.jobs.try_send(WriterJob::Line(text.into())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything is written, at most [`FLUSH_GRACE`].
    pub(super) fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.jobs.try_send(WriterJob::Flush(done)).is_ok() {
            // An error: standard error takes nothing, and the end must not wait for it.
            let _ = written.recv_timeout(FLUSH_GRACE);
        }
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Takes one event per call: tracing-subscriber formats an event as a whole before it writes it.
impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match line.split_at_checked(MAX_LINE_BYTES) {
            // An event that is held back is written as nothing.
            _ if line.is_empty() => {}
            Some((start, rest)) if !rest.is_empty() => {
                let text = String::from_utf8_lossy(start);
                self.push(format!("{}..\n", text.trim_end_matches(char::REPLACEMENT_CHARACTER)));
            }
            _ => self.push(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The receiving end, on a thread of its own.
#[derive(Debug)]
struct LogWriter<W> {
    output: W,
    dropped: Arc<AtomicU64>,
}

impl<W: Write> LogWriter<W> {
    fn run(
        mut self,
        waiting: &Receiver<WriterJob>,
        idle_interval: Duration,
        mut idle: impl FnMut() -> Vec<String>,
    ) {
        let mut idle_at = Instant::now() + idle_interval;
        loop {
            let left = idle_at.saturating_duration_since(Instant::now());
            match waiting.recv_timeout(left) {
                Ok(WriterJob::Line(text)) => self.write(&text),
                Ok(WriterJob::Flush(done)) => {
                    // The other end has waited long enough.
                    let _ = done.try_send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= idle_at {
                idle().into_iter().for_each(|line| self.write(line.as_bytes()));
                idle_at = Instant::now() + idle_interval;
            }
        }
    }

    fn write(&mut self, text: &[u8]) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let verb = if dropped == 1 { "line was" } else { "lines were" };
            let report = format!(" WARN {dropped} log {verb} dropped: standard error was full\n");
            if self.write_all(report.as_bytes()).is_err() {
                self.dropped.fetch_add(dropped, Ordering::Relaxed);
            }
        }
        if self.write_all(text).is_err() {
            // The reader has gone. It may come back: a restarted journal passes on the old socket.
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write_all(&mut self, mut text: &[u8]) -> io::Result<()> {
        while !text.is_empty() {
            match self.output.write(text) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => text = text.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL_PAUSE),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    const NEVER: Duration = Duration::from_secs(3600);

    fn start_on(output: impl Write + Send + 'static) -> LogQueue {
        LogQueue::start_with(output, NEVER, Vec::new).unwrap()
    }

    #[test]
    fn lines_are_written_in_order_and_cut() {
        let (mut reader, output) = UnixStream::pair().unwrap();
        let mut log = start_on(output);
        log.write_all(b"one\n").unwrap();
        log.write_all(b"").unwrap();
        log.write_all(&[b'x'; MAX_LINE_BYTES + 1]).unwrap();
        LogQueue::flush(&log);
        drop(log);

        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();

        assert_eq!(text.len(), "one\n".len() + MAX_LINE_BYTES + "..\n".len());
        assert!(text.starts_with("one\nxxx") && text.ends_with("xx..\n"));
    }

    #[test]
    fn a_reader_that_takes_nothing_blocks_neither_the_log_nor_the_end() {
        let (mut reader, output) = UnixStream::pair().unwrap();
        let log = start_on(output);
        // More than a socket holds. After its first byte the thread waits in the write of the rest.
        log.push(vec![b'y'; 4 << 20]);
        reader.read_exact(&mut [0]).unwrap();
        let pushed = 4 * MAX_WAITING;
        for _ in 0..pushed {
            log.push(vec![b'x'; 1024]);
        }
        LogQueue::flush(&log);

        let dropped = log.dropped.load(Ordering::Relaxed);
        assert_eq!(dropped, u64::try_from(pushed - MAX_WAITING).unwrap());
        // The reader comes back: the rest arrives, and the first line says what is missing.
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let report = format!("{dropped} log lines were dropped");
        assert_eq!(text.matches(&report).count(), 1, "{report}");
        let bytes = text.matches('x').count();
        assert_eq!(bytes, (pushed - usize::try_from(dropped).unwrap()) * 1024);
    }

    #[test]
    fn a_reader_that_has_gone_costs_lines_and_nothing_else() {
        let (reader, output) = UnixStream::pair().unwrap();
        let log = start_on(output);
        drop(reader);
        for _ in 0..10 {
            log.push("lost\n");
        }
        LogQueue::flush(&log);
        assert_eq!(log.dropped.load(Ordering::Relaxed), 10);
    }

    #[test]
    fn lines_that_were_held_back_are_written_while_nothing_else_is() {
        let (mut reader, output) = UnixStream::pair().unwrap();
        let mut held = vec!["late\n".to_owned()];
        let idle = move || std::mem::take(&mut held);
        let _log = LogQueue::start_with(output, Duration::from_millis(10), idle).unwrap();
        let mut text = [0; 5];
        reader.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"late\n");
    }
}
