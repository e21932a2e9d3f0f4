//! The ledger file, and the jobs that write it on blocking threads.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use provisioning::config::{Config, Plc};
use tokio::task::{JoinError, JoinSet};

use super::COMMANDS;
use crate::app::command_file::{COMMANDS_DIR, CommandFile};
use crate::command::LedgerBatch;
use crate::queue::storage::DirStorage;

/// Pause between two attempts to open a directory that was unusable at the start.
const OPEN_RETRY: Duration = Duration::from_secs(10);

type OpenedFile = (CommandFile<DirStorage>, Vec<u8>);

/// The file, or why there is none.
#[derive(Debug)]
pub(super) struct LedgerFile {
    dir: PathBuf,
    state: LedgerState,
    jobs: JoinSet<LedgerJobDone>,
    /// Whether outcomes were written that are not durable.
    is_unsynced: bool,
    is_failing: bool,
}

#[derive(Debug)]
enum LedgerState {
    Ready(CommandFile<DirStorage>),
    /// A job has the file.
    Busy,
    /// It could not be opened.
    Unusable {
        retry_at: Instant,
    },
}

/// The result of a job.
#[derive(Debug)]
enum LedgerJobDone {
    Stored(CommandFile<DirStorage>, io::Result<()>),
    Opened(io::Result<OpenedFile>),
}

/// A job ended.
#[derive(Debug)]
pub(in crate::app::pump) struct LedgerEvent(Result<LedgerJobDone, JoinError>);

/// What a job that ended means.
#[derive(Debug)]
pub(super) enum LedgerOutcome {
    Stored,
    Failed,
    /// The file can be used from now on; it had this content.
    Opened(Vec<u8>),
    StillUnusable,
}

impl LedgerFile {
    /// Opens the file and returns its content, if a PLC is written to. Blocks, so it is called at the
    /// start only.
    pub(super) fn open(config: &Config) -> (Self, Vec<u8>) {
        let dir = config.gateway.state_dir.join(COMMANDS_DIR);
        let mut file = Self {
            dir,
            state: LedgerState::Busy,
            jobs: JoinSet::new(),
            is_unsynced: false,
            is_failing: false,
        };
        if !config.plcs.iter().any(Plc::has_writes) {
            return (file, Vec::new());
        }
        match open_file(&file.dir) {
            Ok((opened, content)) => {
                file.state = LedgerState::Ready(opened);
                (file, content)
            }
            Err(error) => {
                file.on_unusable(&error);
                (file, Vec::new())
            }
        }
    }

    fn on_unusable(&mut self, error: &io::Error) {
        self.state = LedgerState::Unusable { retry_at: super::now() + OPEN_RETRY };
        self.warn(error);
    }

    /// Logs the first of consecutive failures.
    fn warn(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_failing, true) {
            let dir = self.dir.display();
            tracing::warn!(
                target: COMMANDS, %dir, %error,
                "commands cannot be recorded, so all of them are refused"
            );
        }
    }

    /// Returns whether a job runs.
    pub(super) fn is_busy(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Returns whether a job writes to the file. One that opens it has no file yet: what is to be
    /// recorded meanwhile fails at once.
    pub(super) const fn has_file_out(&self) -> bool {
        matches!(self.state, LedgerState::Busy)
    }

    /// Returns whether commands cannot be recorded.
    pub(super) const fn is_failing(&self) -> bool {
        self.is_failing
    }

    /// Starts to store a batch. Returns whether it did: not while the file cannot be used.
    pub(super) fn store(&mut self, batch: LedgerBatch, now: Instant) -> bool {
        match std::mem::replace(&mut self.state, LedgerState::Busy) {
            LedgerState::Ready(mut file) => {
                self.is_unsynced = !batch.has_intents;
                self.jobs.spawn_blocking(move || {
                    let stored = file.store(&batch);
                    LedgerJobDone::Stored(file, stored)
                });
                true
            }
            LedgerState::Unusable { retry_at } => {
                self.state = LedgerState::Unusable { retry_at };
                self.retry_open(now);
                false
            }
            LedgerState::Busy => false,
        }
    }

    /// Makes outcomes durable that no later command has made durable. Called once a second: a reply
    /// does not wait for it.
    pub(super) fn sync_outcomes(&mut self, now: Instant) {
        if self.is_unsynced && !self.is_busy() {
            let nothing =
                LedgerBatch { bytes: Vec::new(), has_intents: true, replaces_file: false };
            self.store(nothing, now);
        }
    }

    /// Tries to open the file when that is due.
    pub(super) fn retry_open(&mut self, now: Instant) {
        if let LedgerState::Unusable { retry_at } = &mut self.state
            && *retry_at <= now
            && self.jobs.is_empty()
        {
            *retry_at = now + OPEN_RETRY;
            let dir = self.dir.clone();
            self.jobs.spawn_blocking(move || LedgerJobDone::Opened(open_file(&dir)));
        }
    }

    /// Waits for the end of a job. Cancel safe.
    pub(super) async fn next_event(&mut self) -> Option<LedgerEvent> {
        self.jobs.join_next().await.map(LedgerEvent)
    }

    /// Takes the file back from a job.
    pub(super) fn on_event(&mut self, LedgerEvent(done): LedgerEvent) -> LedgerOutcome {
        match done {
            Ok(LedgerJobDone::Stored(file, stored)) => {
                self.state = LedgerState::Ready(file);
                let Err(error) = stored else {
                    if std::mem::take(&mut self.is_failing) {
                        tracing::info!(target: COMMANDS, "commands are recorded again");
                    }
                    return LedgerOutcome::Stored;
                };
                self.warn(&error);
                LedgerOutcome::Failed
            }
            Ok(LedgerJobDone::Opened(Ok((file, content)))) => {
                self.state = LedgerState::Ready(file);
                LedgerOutcome::Opened(content)
            }
            Ok(LedgerJobDone::Opened(Err(error))) => {
                self.on_unusable(&error);
                LedgerOutcome::StillUnusable
            }
            Err(died) => {
                // The file went with the job; what it stored is read again.
                self.on_unusable(&io::Error::other(died));
                LedgerOutcome::Failed
            }
        }
    }
}

fn open_file(dir: &std::path::Path) -> io::Result<OpenedFile> {
    CommandFile::open(DirStorage::open(dir).map_err(io::Error::other)?)
}
