//! Child processes that end with their owner, their logs, and waiting for conditions.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// A child process whose standard error is captured. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Log,
}

/// The lines that a child has written so far; a test can wait for more.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<SharedLog>);

#[derive(Debug, Default)]
struct SharedLog {
    written: Mutex<LogLines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LogLines {
    lines: Vec<String>,
    closed: bool,
}

impl Process {
    /// Starts a program. Standard input and output are pipes for [`Self::stdin`] and
    /// [`Self::stdout`].
    pub fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let log = Log::following(child.stderr.take().expect("standard error is a pipe"));
        Self { name, child, log }
    }

    /// Returns the pipe to its standard input; dropping the pipe is its end of file.
    pub fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("standard input is taken once")
    }

    /// Returns the pipe from its standard output.
    pub fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("standard output is taken once")
    }

    /// Returns the lines of its standard error.
    #[must_use]
    pub const fn log(&self) -> &Log {
        &self.log
    }

    /// Returns the process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the resident memory, in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory_field("VmRSS:")
    }

    /// Returns the peak of the resident memory, in bytes.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        self.memory_field("VmHWM:")
    }

    /// Returns the resident memory that is no page of a file, in bytes.
    #[must_use]
    pub fn anonymous_memory(&self) -> u64 {
        self.memory_field("RssAnon:")
    }

    fn memory_field(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.id());
        let text = fs::read_to_string(path).expect("a running process has a status");
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)).expect("the field is there");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        kib * 1024
    }

    /// Returns whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends SIGSTOP: it stops with its connections open.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Sends SIGCONT: it continues.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Sends a signal by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh")
            .args(["-c", "kill -\"$1\" \"$2\"", "sh", name, &self.id().to_string()])
            .status()
            .expect("sh is installed");
        assert!(sent.success(), "cannot send SIG{name} to {}", self.name);
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) -> ExitStatus {
        // An error means that it has already ended.
        let _ = self.child.kill();
        self.child.wait().expect("a child can be waited for")
    }

    /// Waits until it ends.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        assert!(
            self.log.wait_for_end(deadline),
            "{} still runs after {deadline:?}; its log:\n{}",
            self.name,
            self.log.text(),
        );
        self.child.wait().expect("a child can be waited for")
    }

    /// Waits for a line of its log.
    pub fn wait_for_line(&self, part: &str, deadline: Duration) -> String {
        self.log.wait_for_line(part, deadline).unwrap_or_else(|| {
            panic!("{} never wrote {part:?}; its log:\n{}", self.name, self.log.text())
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Log {
    /// Returns all lines so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.written().lines.join("\n")
    }

    /// Returns whether a line so far contains `part`.
    #[must_use]
    pub fn contains(&self, part: &str) -> bool {
        self.written().lines.iter().any(|line| line.contains(part))
    }

    /// Waits for the first line, past or future, that contains `part`. Returns `None` when the
    /// child closes its pipe, or at the deadline.
    #[must_use]
    pub fn wait_for_line(&self, part: &str, deadline: Duration) -> Option<String> {
        let find = |written: &LogLines| written.lines.iter().find(|l| l.contains(part)).cloned();
        let (written, _) = self
            .0
            .changed
            .wait_timeout_while(self.written(), deadline, |written| {
                !written.closed && find(written).is_none()
            })
            .expect("no reader panics");
        find(&written)
    }

    /// Waits until the child closes its pipe, at the latest when it ends. Returns whether it did.
    #[must_use]
    pub fn wait_for_end(&self, deadline: Duration) -> bool {
        let (written, _) = self
            .0
            .changed
            .wait_timeout_while(self.written(), deadline, |written| !written.closed)
            .expect("no reader panics");
        written.closed
    }

    /// Starts to collect the lines of a pipe, until its other end is closed.
    pub(crate) fn following(pipe: impl Read + Send + 'static) -> Self {
        let log = Self::default();
        log.follow(pipe);
        log
    }

    fn follow(&self, pipe: impl Read + Send + 'static) {
        let log = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                log.written().lines.push(String::from_utf8_lossy(&line).into_owned());
                log.0.changed.notify_all();
            }
            log.written().closed = true;
            log.0.changed.notify_all();
        });
    }

    fn written(&self) -> MutexGuard<'_, LogLines> {
        self.0.written.lock().expect("no reader panics")
    }
}

/// Calls `probe` until it returns a value. This is for conditions without an event, such as a
/// metric that must reach a number; where there is an event, wait for the event.
///
/// # Panics
/// When there is no value before the deadline; `what` names the condition.
pub fn eventually<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    const POLL_INTERVAL: Duration = Duration::from_millis(10);
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        thread::sleep(POLL_INTERVAL);
    }
}
