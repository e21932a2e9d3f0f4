//! The beginning of a run: what the last one left, and a first segment.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::capacity::Purpose;
use super::checkpoint::RunContext;
use super::recover::recover;
use super::replay::RecoveredLog;
use super::segment::{Segment, file_name, segment_number};
use super::{AppendError, DiskCounters, FileOps, Log, LogLimits, PendingRecycle, job};
use crate::metrics::DropReason;
use crate::queue::ledger::{Ledger, PendingAnnouncement};
use crate::queue::storage::{Storage, StoredFile};
use crate::queue::unclean::UncleanShutdown;
use crate::queue::{ConfigNames, Gap};

/// What a run is called and what it promises.
#[derive(Clone, Debug)]
pub(in crate::queue) struct RunSettings {
    /// Which start of the machine this is.
    pub(in crate::queue) boot: String,
    /// Seconds of data that a power cut may take.
    pub(in crate::queue) power_window: u64,
    /// Seconds of data that the death of the process may take.
    pub(in crate::queue) kill_window: u64,
    /// How often it was tried before: in the end what cannot be read is set aside.
    pub(in crate::queue) attempt: u32,
}

/// A log at the beginning of a run.
#[derive(Debug)]
pub(in crate::queue) struct OpenedLog<S: Storage> {
    pub(in crate::queue) log: Log<S>,
    pub(in crate::queue) last_run: LastRunEnd,
    /// Whether anything can be written.
    pub(in crate::queue) first_segment: Result<(), AppendError>,
    /// Samples in segments that are gone.
    pub(in crate::queue) lost_samples: u64,
}

/// How the last run ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::queue) enum LastRunEnd {
    /// There was none.
    None,
    /// With its last word.
    Clean,
    /// In the middle of something.
    Unclean,
}

impl<S: Storage> Log<S> {
    /// Reads what is there and begins a run. The ledger takes over what has to be remembered. A
    /// storage that cannot be written is no error: what lies there can be sent all the same.
    pub(in crate::queue) fn open(
        storage: S,
        limits: LogLimits,
        names: ConfigNames,
        start: &RunSettings,
        ledger: &mut Ledger,
    ) -> io::Result<OpenedLog<S>> {
        let found = recover(&storage, &mut ledger.topics, start.attempt)?;
        let end = match &found.context {
            None => LastRunEnd::None,
            Some(_) if found.is_clean => LastRunEnd::Clean,
            Some(_) => LastRunEnd::Unclean,
        };
        inherit(ledger, &found, start, end);
        let context = RunContext {
            run: found.next_number,
            epoch: Arc::clone(&ledger.epoch),
            boot: start.boot.clone(),
            power_window: start.power_window,
            kill_window: start.kill_window,
            topics: ledger.topics.all().to_vec(),
        };
        let mut log = Self {
            storage,
            limits,
            names,
            context,
            segments: found.state.segments,
            tail: None,
            line: FileOps::default(),
            idle: Vec::new(),
            retiring: Vec::new(),
            moved: BTreeSet::new(),
            next_number: found.next_number,
            waiting_ids: found.state.waiting,
            appended: found.state.appended.max(found.state.next_id),
            link: found.state.chain_seq,
            has_lost: false,
            settled: BTreeMap::new(),
            position: 0,
            written: 0,
            synced: 0,
            dirty: Vec::new(),
            syncing: Vec::new(),
            renamed: None,
            loaded: None,
            under_way: job::RunningJobs::default(),
            counts: DiskCounters {
                written: 0,
                set_aside: found.newer_version_files,
                unreadable: found.unreadable_files,
            },
            is_marked: found.has_failing_marker,
        };
        log.classify_files(found.idle_files);
        let lost = log.drop_damaged(&found.damaged);
        log.truncate_newest(found.used_bytes);
        let run = found.context.as_ref().map(|context| context.run);
        if run.is_some_and(|run| log.sync_previous_run(run).is_err()) {
            log.on_previous_run_unsyncable(ledger);
        }
        let began = log.begin_first_segment(ledger);
        if began.is_err() {
            // Nobody knows for how long it has been so.
            let last = found.context.iter();
            last.for_each(|context| ledger.clear_loss_window(&context.epoch));
        }
        Ok(OpenedLog { log, last_run: end, first_segment: began, lost_samples: lost })
    }

    /// How many samples were in segments that are gone.
    fn drop_damaged(&mut self, damaged: &[Segment]) -> u64 {
        for segment in damaged {
            let range = segment.first_id..self.first_id_after(segment.first_id);
            if range.end > range.start {
                self.waiting_ids.remove_range((range.start, range.end - 1));
            }
        }
        damaged.iter().map(|segment| segment.waiting.samples).sum()
    }

    fn first_id_after(&self, id: u64) -> u64 {
        let behind = self.segments.iter().find(|segment| segment.first_id > id);
        behind.map_or(self.appended, |segment| segment.first_id)
    }

    /// The newest segment is what proves that the others are done with, and stays until the first
    /// checkpoint of this run is durable.
    fn classify_files(&mut self, files: Vec<(String, u64)>) {
        let newest = self.next_number.checked_sub(1);
        for (name, size) in files {
            if self.is_reusable(size) && segment_number(&name) != newest {
                self.idle.push((name, size));
            } else {
                self.retiring.push(PendingRecycle { name, size, from: None });
            }
        }
    }

    /// A segment that was left half full takes no more room than it needs.
    fn truncate_newest(&mut self, end: u64) {
        let newest = self.next_number.wrapping_sub(1);
        let Some(last) = self.segments.last_mut().filter(|last| last.number == newest) else {
            return;
        };
        if end > 0
            && end < last.size
            && let Ok(file) = self.storage.open(&file_name(newest))
            && file.truncate(end).is_ok()
        {
            last.size = end;
        }
    }

    /// What the last run wrote may still be in the memory of the operating system alone, and it is the
    /// reason why files are free: it becomes durable before one of them is written over. One file after
    /// the other: there may be more of them than a process may have open.
    fn sync_previous_run(&self, run: u64) -> io::Result<()> {
        let used = self.segments.iter().map(|segment| file_name(segment.number));
        let idle = self.idle.iter().map(|(name, _)| name.clone());
        let freed = self.retiring.iter().map(|file| file.name.clone());
        let all = used.chain(idle).chain(freed);
        let mut theirs =
            all.filter(|name| segment_number(name).is_some_and(|number| number >= run));
        theirs.try_for_each(|name| self.storage.open(&name)?.sync_data())?;
        self.storage.sync_dir()
    }

    /// What the last run wrote cannot be made durable: nothing is free because of it, and what it told
    /// is told again. A sync is never tried twice.
    fn on_previous_run_unsyncable(&mut self, ledger: &mut Ledger) {
        let idle = std::mem::take(&mut self.idle).into_iter();
        self.retiring.extend(idle.map(|(name, size)| PendingRecycle { name, size, from: None }));
        let told = std::mem::take(&mut ledger.announced_by_last_run);
        told.into_iter().for_each(|told| ledger.requeue(told));
    }

    /// The first segment of a run, in a file that is prepared for it.
    fn begin_first_segment(&mut self, ledger: &Ledger) -> Result<(), AppendError> {
        let size = self.limits.segment_bytes;
        if !self.idle.iter().any(|(_, idle)| *idle == size) {
            let name = format!("spare-{:x}", self.next_number);
            let result = job::prepare(&self.storage, &name, size);
            self.on_prepared(name, size, result);
        }
        self.begin_segment(ledger, 0, Purpose::Control)?;
        Ok(self.write_now()?)
    }
}

/// The ledger may hold what happened in memory before there was a storage.
fn inherit(ledger: &mut Ledger, found: &RecoveredLog, start: &RunSettings, end: LastRunEnd) {
    let state = &found.state;
    ledger.next_id = ledger.next_id.max(state.next_id).max(state.appended);
    state.gaps.iter().for_each(|gap| ledger.gaps.add(gap.clone()));
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
    let uncleans = state.uncleans.iter().cloned().map(PendingAnnouncement::Unclean);
    uncleans.for_each(|unclean| ledger.requeue(unclean));
    let Some(context) = &found.context else { return };
    // Where numbers were given before there was a storage, their epoch goes on.
    if end == LastRunEnd::Clean && !ledger.next_seq.is_empty() {
        return;
    }
    if end == LastRunEnd::Clean {
        ledger.epoch = Arc::clone(&context.epoch);
        ledger.next_seq.clone_from(&state.next_seq);
        return;
    }
    ledger.announced_by_last_run = found.announced.iter().map(|(_, told)| told.clone()).collect();
    let seconds = (!found.has_failing_marker).then(|| context.loss_window(&start.boot));
    let next_seq = state.next_seq.clone();
    let unclean = UncleanShutdown { epoch: Arc::clone(&context.epoch), seconds, next_seq };
    ledger.requeue(PendingAnnouncement::Unclean(unclean));
}
