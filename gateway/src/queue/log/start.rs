//! The start of a run: what the last one left, and the first segment.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::checkpoint::RunContext;
use super::durability::DurabilityTracker;
use super::file_set::{FileSet, Purpose};
use super::loader::SegmentLoader;
use super::recover::recover;
use super::replay::RecoveredLog;
use super::segment::{file_name, segment_number};
use super::segment_index::SegmentIndex;
use super::writer::Writer;
use super::{AppendError, DiskCounters, Log, LogLimits, job};
use crate::metrics::DropReason;
use crate::queue::ledger::{Ledger, PendingAnnouncement};
use crate::queue::storage::{Storage, StoredFile};
use crate::queue::unclean::UncleanShutdown;
use crate::queue::{ConfigNames, Gap};

/// What a run is called and what it promises.
#[derive(Clone, Debug)]
pub(in crate::queue) struct RunSettings {
    /// Id of the boot of this machine; empty when it is not known.
    pub(in crate::queue) boot: String,
    /// Seconds of data that a power cut may cost.
    pub(in crate::queue) power_window: u64,
    /// Seconds of data that a killed process may cost.
    pub(in crate::queue) kill_window: u64,
    /// Attempts that failed before. The last one sets aside what cannot be read.
    pub(in crate::queue) attempt: u32,
}

/// A log at the start of a run, without a segment to write.
#[derive(Debug)]
pub(in crate::queue) struct OpenedLog<S: Storage> {
    pub(in crate::queue) log: Log<S>,
    pub(in crate::queue) last_run: LastRun,
    /// Samples in segments that are gone.
    pub(in crate::queue) lost_samples: u64,
}

/// How the last run ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::queue) enum LastRun {
    /// There was none.
    None,
    /// With a record of its shutdown.
    Clean,
    /// Without one.
    Unclean { epoch: Arc<str> },
}

impl<S: Storage> Log<S> {
    /// Reads the log that the last run left. The ledger takes over its numbers and what it has to
    /// announce. Creates no segment: [`Log::begin_run`] does.
    pub(in crate::queue) fn open(
        storage: S,
        limits: LogLimits,
        names: ConfigNames,
        settings: &RunSettings,
        ledger: &mut Ledger,
        now: Instant,
    ) -> io::Result<OpenedLog<S>> {
        let found = recover(&storage, &mut ledger.topics, settings.attempt)?;
        let last_run = match &found.context {
            None => LastRun::None,
            Some(_) if found.is_clean => LastRun::Clean,
            Some(context) => LastRun::Unclean { epoch: Arc::clone(&context.epoch) },
        };
        inherit(ledger, &found, settings, &last_run);
        let context = RunContext {
            // The number of its first segment: higher than that of every run before.
            run: found.next_number,
            epoch: Arc::clone(&ledger.epoch),
            boot: settings.boot.clone(),
            power_window: settings.power_window,
            kill_window: settings.kill_window,
            topics: ledger.topics.all().to_vec(),
        };
        let (checkpoint, marker) = (found.checkpoint, found.has_failing_marker);
        let next_id = checkpoint.appended.max(checkpoint.next_id);
        let mut log = Self {
            files: FileSet::new(limits, found.next_number, marker, now),
            writer: Writer::new(names, context, checkpoint.chain_seq),
            durability: DurabilityTracker::default(),
            index: SegmentIndex::new(checkpoint.segments, checkpoint.waiting, next_id),
            loader: SegmentLoader::default(),
            counters: DiskCounters {
                written: 0,
                newer_version_files: found.newer_version_files,
                unreadable_files: found.unreadable_files,
            },
            storage,
        };
        log.files.classify(found.idle_files);
        let lost_samples = log.index.drop_damaged(&found.damaged);
        log.truncate_newest(found.used_bytes);
        log.files.on_measured(job::free_bytes(&log.storage), now);
        let run = found.context.as_ref().map(|context| context.run);
        if run.is_some_and(|run| log.sync_previous_run(run).is_err()) {
            // Nothing is free because of what it wrote, and what it announced is announced again. A
            // sync is never tried twice on one file.
            log.files.retire_idle();
            let announced = std::mem::take(&mut ledger.announced_by_last_run);
            announced.into_iter().for_each(|announced| ledger.requeue(announced));
        }
        Ok(OpenedLog { log, last_run, lost_samples })
    }

    /// Cuts off what the newest segment does not use: it may have been left half full.
    fn truncate_newest(&mut self, used_bytes: u64) {
        let newest = self.files.next_number().wrapping_sub(1);
        let Some(last) = self.index.sealed_segment(newest) else { return };
        if used_bytes > 0
            && used_bytes < last.size
            && let Ok(file) = self.storage.open(&file_name(newest))
            && file.truncate(used_bytes).is_ok()
        {
            self.index.shrink(newest, used_bytes);
        }
    }

    /// Makes the files of the last run durable. After a kill what it wrote may be in the memory of
    /// the operating system alone, and it is the reason why files are free: it has to be durable
    /// before one of them is overwritten.
    fn sync_previous_run(&self, run: u64) -> io::Result<()> {
        let used = self.index.all().map(|segment| file_name(segment.number));
        let all = used.chain(self.files.names().map(str::to_owned));
        let is_theirs = |name: &String| segment_number(name).is_some_and(|number| number >= run);
        // One after the other: there may be more of them than a process may have open.
        for name in all.filter(is_theirs) {
            self.storage.open(&name)?.sync_data()?;
        }
        self.storage.sync_dir()
    }

    /// Begins the first segment of a run. A storage that cannot be written still delivers what it
    /// holds.
    pub(in crate::queue) fn begin_run(&mut self, ledger: &Ledger) -> Result<(), AppendError> {
        // On a full disk the segment begins in a file that grows into what is left.
        if !self.files.has_spare() && self.files.fits_file() {
            let size = self.files.segment_bytes();
            let name = format!("spare-{:x}", self.files.next_number());
            let result = job::prepare(&self.storage, &name, size);
            self.on_prepared(name, size, result);
        }
        self.begin_segment(ledger, 0, Purpose::Control)?;
        Ok(self.write_now()?)
    }
}

/// Takes over what the last run left. The ledger may hold what happened before there was a storage.
fn inherit(ledger: &mut Ledger, found: &RecoveredLog, settings: &RunSettings, last_run: &LastRun) {
    let checkpoint = &found.checkpoint;
    ledger.next_id = ledger.next_id.max(checkpoint.next_id).max(checkpoint.appended);
    checkpoint.gaps.iter().for_each(|gap| ledger.gaps.add(gap.clone()));
    for segment in &found.damaged {
        let mut samples = segment.waiting.samples;
        for (topic, seq) in &segment.ends {
            let first_seq = segment.starts.get(topic).copied().unwrap_or(0);
            if first_seq < *seq {
                ledger.gaps.add(Gap {
                    epoch: Arc::clone(&segment.epoch),
                    topic: *topic,
                    first_seq,
                    last_seq: seq - 1,
                    samples: std::mem::take(&mut samples),
                    reason: DropReason::Corrupt,
                });
            }
        }
    }
    let uncleans = checkpoint.uncleans.iter().cloned().map(PendingAnnouncement::Unclean);
    uncleans.for_each(|unclean| ledger.requeue(unclean));
    let Some(context) = &found.context else { return };
    if *last_run == LastRun::Clean {
        // Where numbers were given before there was a storage, their epoch goes on.
        if ledger.next_seq.is_empty() {
            ledger.epoch = Arc::clone(&context.epoch);
            ledger.next_seq.clone_from(&checkpoint.next_seq);
        }
        return;
    }
    ledger.announced_by_last_run =
        found.announced.iter().map(|(_, announced)| announced.clone()).collect();
    let seconds = (!found.has_failing_marker).then(|| context.loss_window(&settings.boot));
    let next_seq = checkpoint.next_seq.clone();
    let unclean = UncleanShutdown { epoch: Arc::clone(&context.epoch), seconds, next_seq };
    ledger.requeue(PendingAnnouncement::Unclean(unclean));
}
