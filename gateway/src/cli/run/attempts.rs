//! Starts the gateway. Under systemd a failed start is reported once, and tried again when that may
//! help: a restart by systemd every second would report it 3,600 times an hour.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use provisioning::config::{self, Config, LoadedConfig};
use provisioning::diagnostics::{Notes, RejectedFile};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::ProcessEnd;
use crate::app::{self, AppError, RunOutcome, WatchedFiles, note_state_dir, systemd};
use crate::apply::{BOX_RUN_DIR, Bundles, BundlesError};
use crate::cli::WAITING_FILE;
use crate::cli::{EXIT_NEGATIVE, EXIT_OK};
use crate::logging::Logging;
use crate::model::with_sources;

/// Problems or notes that are logged; `check` shows all.
const MAX_LOGGED: usize = 3;
/// How often the files of a configuration are looked at, and the watchdog is reset.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Pause before the same configuration is tried again; it doubles each time.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// How often the service manager hears of a job that takes longer than usual.
const BUSY_INTERVAL: Duration = Duration::from_secs(1);
/// Longest job of which the service manager hears; after that it restarts the service.
const BUSY_LIMIT: Duration = Duration::from_mins(2);
/// Time for something on this machine that is in the way of a bundle on trial to end.
const BLOCKED_LIMIT: Duration = Duration::from_mins(10);

/// Why the gateway did not start.
#[derive(Debug)]
enum StartFailure {
    /// Waits for a change of the files.
    Rejected(RejectedFile),
    /// Something on this machine is in the way, such as a program on the same port.
    Blocked(AppError),
    /// The gateway had started, and has to be started as a new process.
    Ended(AppError),
}

/// One attempt: the files as they were before it, and what came of it.
struct LoadAttempt {
    watched: WatchedFiles,
    loaded: Result<LoadedConfig, RejectedFile>,
    /// What is to be said about the machine.
    note: Option<String>,
}

/// What is loaded for an attempt.
#[derive(Debug)]
struct LoadJob {
    file: PathBuf,
    /// Its appearance changes which bundle is in use.
    inbox: Option<PathBuf>,
    /// With the configuration of a bundle: the bundles, the queue and the status socket are there,
    /// and a bundle moves none of them.
    state_dir: Option<PathBuf>,
}

impl LoadJob {
    fn new(bundles: Option<&Bundles>, own_file: &Path) -> Self {
        let active = bundles.and_then(|bundles| Some((bundles, bundles.active.as_ref()?)));
        Self {
            file: active.map_or_else(|| own_file.to_owned(), |(_, active)| active.file.clone()),
            inbox: bundles.map(Bundles::inbox),
            state_dir: active.map(|(bundles, _)| bundles.state_dir().to_owned()),
        }
    }

    /// Reads the files, which blocks.
    fn run(self) -> LoadAttempt {
        let Self { file, inbox, state_dir } = self;
        let watched = WatchedFiles::of(&file, inbox);
        let mut loaded = config::load(&file);
        if let (Ok(loaded), Some(state_dir)) = (&mut loaded, state_dir) {
            loaded.config.gateway.state_dir = state_dir;
        }
        let note = loaded
            .as_ref()
            .ok()
            .and_then(|loaded| note_state_dir(&loaded.config.gateway.state_dir));
        LoadAttempt { watched, loaded, note }
    }
}

/// The file in which `status` finds why the gateway waits. It is a help, so errors are ignored, and
/// nothing waits for it: the disk itself may be what is in the way.
#[derive(Debug)]
struct WaitReasonFile(PathBuf);

/// What the attempts so far have logged.
#[derive(Debug, Default)]
struct AttemptLog {
    /// Hash of the configuration that was tried last.
    hash: String,
    /// Reason of the last failure.
    reason: String,
    pause: Duration,
}

/// Runs the gateway until `stop` fires, and returns how the process ends. The configuration is that
/// of the bundle in use, or `own_file` if there is no bundle.
pub(super) async fn run(own_file: &Path, log: &Logging, stop: &CancellationToken) -> ProcessEnd {
    let mut attempt_log = AttemptLog::default();
    let mut bundles = match on_disk(stop, open_bundles(own_file)).await {
        Ok(bundles) => bundles,
        Err(end) => return end,
    };
    let started_at = Instant::now();
    loop {
        let loading = LoadJob::new(bundles.as_ref(), own_file);
        let path = loading.file.clone();
        let LoadAttempt { watched, loaded, note } = match on_disk(stop, move || loading.run()).await
        {
            Ok(attempt) => attempt,
            Err(end) => return end,
        };
        let wait_reason = loaded.as_ref().ok().map(|loaded| WaitReasonFile::of(&loaded.config));
        wait_reason.iter().for_each(WaitReasonFile::remove);
        let failure = match loaded {
            Ok(loaded) => {
                attempt_log.on_loaded(&loaded, &path, note.as_deref());
                match Box::pin(app::run(loaded, Some(watched.clone()), &mut bundles, stop.clone()))
                    .await
                {
                    Ok(RunOutcome::Stopped) => return ProcessEnd::Exit(EXIT_OK),
                    Ok(RunOutcome::Restart) => return ProcessEnd::Restart,
                    Err(error @ AppError::TaskEnded) => StartFailure::Ended(error),
                    Err(error) => StartFailure::Blocked(error),
                }
            }
            Err(rejected) => StartFailure::Rejected(rejected),
        };
        let reverting = revert_if_unstartable(bundles, &failure, started_at, &path);
        let is_reverted;
        (is_reverted, bundles) = match on_disk(stop, reverting).await {
            Ok(is_reverted) => is_reverted,
            Err(end) => return end,
        };
        if is_reverted {
            continue;
        }
        if !systemd::is_service() || matches!(failure, StartFailure::Ended(_)) {
            log.print(failure.to_text());
            return ProcessEnd::Exit(EXIT_NEGATIVE);
        }
        let retry_at = attempt_log.on_failure(&failure, &path).map(|pause| Instant::now() + pause);
        wait_reason.iter().for_each(|file| file.write(attempt_log.reason.clone()));
        let waited = stop.run_until_cancelled(wait(watched, retry_at)).await;
        wait_reason.iter().for_each(WaitReasonFile::remove);
        if waited.is_none() {
            return ProcessEnd::Exit(EXIT_OK);
        }
        bundles = match on_disk(stop, take_inbox(bundles)).await {
            Ok(bundles) => bundles,
            Err(end) => return end,
        };
    }
}

/// Runs a job on a blocking thread. The stop does not wait for a disk that does not answer, and the
/// service manager waits for [`BUSY_LIMIT`]: `edge-gateway-box` may take a minute to set up a
/// network.
async fn on_disk<T: Send + 'static>(
    stop: &CancellationToken,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ProcessEnd> {
    let mut job = spawn_blocking(job);
    let started_at = Instant::now();
    loop {
        tokio::select! {
            biased;
            done = &mut job => return done.map_err(|_| ProcessEnd::Exit(EXIT_NEGATIVE)),
            () = stop.cancelled() => return Err(ProcessEnd::Exit(EXIT_OK)),
            () = sleep(BUSY_INTERVAL) => {
                if started_at.elapsed() < BUSY_LIMIT {
                    systemd::notify_busy(BUSY_INTERVAL * 10);
                }
            }
        }
    }
}

/// Opens the bundles of this box; without them it runs with its own file.
fn open_bundles(own_file: &Path) -> impl FnOnce() -> Option<Bundles> + use<> {
    let own_file = own_file.to_owned();
    move || {
        let opened = Bundles::open(&config::state_dir_of(&own_file), Path::new(BOX_RUN_DIR));
        opened.inspect_err(log_unusable).ok()
    }
}

/// Takes a bundle that a person brought meanwhile.
fn take_inbox(bundles: Option<Bundles>) -> impl FnOnce() -> Option<Bundles> {
    move || {
        let mut bundles = bundles?;
        if bundles.inbox().symlink_metadata().is_ok() {
            let refreshed = bundles.refresh();
            refreshed.inspect_err(log_unusable).ok()?;
        }
        Some(bundles)
    }
}

/// Rolls back the bundle in use if the gateway cannot start with it. A port that another program
/// uses may become free, so that waits for the time that a trial has. Returns whether there is
/// another configuration to start with.
fn revert_if_unstartable(
    bundles: Option<Bundles>,
    failure: &StartFailure,
    started_at: Instant,
    path: &Path,
) -> impl FnOnce() -> (bool, Option<Bundles>) + use<> {
    let is_unstartable = match failure {
        StartFailure::Rejected(_) => true,
        StartFailure::Blocked(_) => started_at.elapsed() >= BLOCKED_LIMIT,
        StartFailure::Ended(_) => false,
    };
    let cause = failure.to_log_text(path).lines().next().unwrap_or_default().to_owned();
    move || {
        let Some(mut bundles) = bundles else { return (false, None) };
        if !is_unstartable {
            return (false, Some(bundles));
        }
        let is_reverted = bundles.revert_unusable(cause);
        (is_reverted.inspect_err(log_unusable).unwrap_or(false), Some(bundles))
    }
}

fn log_unusable(error: &BundlesError) {
    let reason = with_sources(error);
    tracing::error!("bundles cannot be used, so the gateway runs with its own file: {reason}");
}

/// Waits until one of the files has changed, or until `retry_at`.
async fn wait(mut watched: WatchedFiles, retry_at: Option<Instant>) {
    loop {
        let left = retry_at.map_or(POLL_INTERVAL, |at| at.duration_since(Instant::now()));
        sleep(left.min(POLL_INTERVAL)).await;
        systemd::notify_watchdog();
        let checking = spawn_blocking(move || (watched.has_changed(), watched));
        match checking.await {
            Ok((false, unchanged)) => watched = unchanged,
            Ok((true, _)) | Err(_) => return,
        }
        if retry_at.is_some_and(|at| at <= Instant::now()) {
            return;
        }
    }
}

impl WaitReasonFile {
    fn of(config: &Config) -> Self {
        Self(config.gateway.state_dir.join(WAITING_FILE))
    }

    fn write(&self, reason: String) {
        let path = self.0.clone();
        drop(spawn_blocking(move || fs::write(path, reason)));
    }

    fn remove(&self) {
        let path = self.0.clone();
        drop(spawn_blocking(move || fs::remove_file(path)));
    }
}

impl AttemptLog {
    /// Logs that this configuration is started, unless it was the last one too.
    fn on_loaded(&mut self, loaded: &LoadedConfig, path: &Path, note: Option<&str>) {
        if self.hash == loaded.hash {
            return;
        }
        self.hash.clone_from(&loaded.hash);
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            file = %path.display(),
            configuration = loaded.hash,
            plcs = loaded.config.plcs.len(),
            "starting"
        );
        if !loaded.notes.is_empty() {
            tracing::warn!("{}", notes_text(&loaded.notes, path));
        }
        if let Some(note) = note {
            tracing::warn!("{note}");
        }
    }

    /// Logs a failure, unless it is the last one again. Returns the pause before the next attempt,
    /// or `None` when only a change of the files can help.
    fn on_failure(&mut self, failure: &StartFailure, path: &Path) -> Option<Duration> {
        let reason = failure.to_log_text(path);
        if reason != self.reason {
            tracing::error!("{reason}");
            self.reason = reason;
            self.pause = Duration::ZERO;
        }
        systemd::notify_waiting(&self.reason);
        self.pause = (self.pause * 2).clamp(MIN_PAUSE, MAX_PAUSE);
        match failure {
            StartFailure::Rejected(_) => None,
            StartFailure::Blocked(_) | StartFailure::Ended(_) => Some(self.pause),
        }
    }
}

impl StartFailure {
    /// Returns the reason in full, for a terminal.
    fn to_text(&self) -> String {
        match self {
            Self::Rejected(rejected) => rejected.to_string(),
            Self::Blocked(error) | Self::Ended(error) => {
                format!("edge-gateway: {}", with_sources(error))
            }
        }
    }

    /// Returns the reason in a few lines, and what ends it.
    fn to_log_text(&self, path: &Path) -> String {
        match self {
            Self::Rejected(rejected) => {
                let first: Vec<_> = rejected.lines().take(MAX_LOGGED).collect();
                let (count, path) = (rejected.problems.len(), path.display());
                let noun = if count == 1 { "problem" } else { "problems" };
                format!(
                    "{}\n{path}: {count} {noun}, shown by `edge-gateway check {path}`; the gateway \
                     starts when the file is corrected",
                    first.join("\n")
                )
            }
            Self::Blocked(error) | Self::Ended(error) => {
                format!("{}; the gateway tries again by itself", with_sources(error))
            }
        }
    }
}

/// Returns the first notes, one line each, and the number of the others.
fn notes_text(notes: &Notes, path: &Path) -> String {
    let mut lines: Vec<_> = notes.lines().take(MAX_LOGGED).collect();
    if let more @ 1.. = notes.len().saturating_sub(MAX_LOGGED) {
        let path = path.display();
        lines.push(format!("{path}: {more} more, shown by `edge-gateway check {path}`"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_reported_once_and_in_a_few_lines() {
        let name =
            format!("edge-gateway-reported-{}-{:08x}.toml", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        fs::write(&path, "[gateway]\nidd = 1\n".to_owned() + &"[[plc]]\nx = 1\n".repeat(50))
            .unwrap();
        let rejected = config::load(&path).unwrap_err();
        let count = rejected.problems.len();
        let failure = StartFailure::Rejected(rejected);

        let text = failure.to_log_text(&path);

        assert_eq!(text.lines().count(), MAX_LOGGED + 1, "{text}");
        assert!(text.contains(&format!("{count} problems, shown by")), "{text}");
        let mut attempt_log = AttemptLog::default();
        assert_eq!(attempt_log.on_failure(&failure, &path), None);
        assert_eq!(attempt_log.reason, text);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn an_obstacle_is_tried_again_with_growing_pauses() {
        let mut attempt_log = AttemptLog::default();
        let obstacle = |name: &str| StartFailure::Blocked(AppError::QueueInUse(name.to_owned()));
        let mut pause = |name: &str| attempt_log.on_failure(&obstacle(name), "f".as_ref()).unwrap();
        let seconds: Vec<_> = (0..8).map(|_| pause("a").as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause("b"), MIN_PAUSE, "another reason");
    }
}
