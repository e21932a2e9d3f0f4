//! The beginning of a run: what the last one left, and a first segment.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::bounds::Purpose;
use super::recover::recover;
use super::replay::Recovered;
use super::segment::{Segment, file_name, number_in};
use super::state::Context;
use super::{Counts, Limits, Line, Log, Refusal, Retiring, job};
use crate::metrics::DropReason;
use crate::queue::ledger::{Ledger, Untold};
use crate::queue::storage::{Storage, StoredFile};
use crate::queue::unclean::Unclean;
use crate::queue::{Gap, Names};

/// What a run is called and what it promises.
#[derive(Clone, Debug)]
pub(in crate::queue) struct Start {
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
pub(in crate::queue) struct Opened<S: Storage> {
    pub(in crate::queue) log: Log<S>,
    pub(in crate::queue) end: End,
    /// Whether anything can be written.
    pub(in crate::queue) began: Result<(), Refusal>,
    /// Samples in segments that are gone.
    pub(in crate::queue) lost: u64,
}

/// How the last run ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::queue) enum End {
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
        limits: Limits,
        names: Names,
        start: &Start,
        ledger: &mut Ledger,
    ) -> io::Result<Opened<S>> {
        let found = recover(&storage, &mut ledger.topics, start.attempt)?;
        let end = match &found.context {
            None => End::None,
            Some(_) if found.is_clean => End::Clean,
            Some(_) => End::Unclean,
        };
        take_over(ledger, &found, start, end);
        let context = Context {
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
            line: Line::default(),
            idle: Vec::new(),
            retiring: Vec::new(),
            moved: BTreeSet::new(),
            next_number: found.next_number,
            open: found.state.open,
            appended: found.state.appended.max(found.state.next_id),
            link: found.state.link,
            has_lost: false,
            settled: BTreeMap::new(),
            position: 0,
            written: 0,
            synced: 0,
            dirty: Vec::new(),
            syncing: Vec::new(),
            renamed: None,
            loaded: None,
            under_way: job::UnderWay::default(),
            counts: Counts { written: 0, set_aside: found.set_aside, unreadable: found.unreadable },
            is_marked: found.is_marked,
        };
        log.sort_files(found.idle);
        let lost = log.forget_damaged(&found.damaged);
        log.cut_last(found.end);
        let run = found.context.as_ref().map(|context| context.run);
        if run.is_some_and(|run| log.adopt(run).is_err()) {
            log.distrust_last_run(ledger);
        }
        let began = log.begin(ledger);
        if began.is_err() {
            // Nobody knows for how long it has been so.
            let last = found.context.iter();
            last.for_each(|context| ledger.forget_window(&context.epoch));
        }
        Ok(Opened { log, end, began, lost })
    }

    /// How many samples were in segments that are gone.
    fn forget_damaged(&mut self, damaged: &[Segment]) -> u64 {
        for segment in damaged {
            let range = segment.first_id..self.first_id_behind(segment.first_id);
            if range.end > range.start {
                self.open.remove_run((range.start, range.end - 1));
            }
        }
        damaged.iter().map(|segment| segment.open.samples).sum()
    }

    fn first_id_behind(&self, id: u64) -> u64 {
        let behind = self.segments.iter().find(|segment| segment.first_id > id);
        behind.map_or(self.appended, |segment| segment.first_id)
    }

    /// The newest segment is what proves that the others are done with, and stays until the first
    /// checkpoint of this run is durable.
    fn sort_files(&mut self, files: Vec<(String, u64)>) {
        let newest = self.next_number.checked_sub(1);
        for (name, size) in files {
            if self.may_be_idle(size) && number_in(&name) != newest {
                self.idle.push((name, size));
            } else {
                self.retiring.push(Retiring { name, size, from: None });
            }
        }
    }

    /// A segment that was left half full takes no more room than it needs.
    fn cut_last(&mut self, end: u64) {
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
    fn adopt(&self, run: u64) -> io::Result<()> {
        let used = self.segments.iter().map(|segment| file_name(segment.number));
        let idle = self.idle.iter().map(|(name, _)| name.clone());
        let freed = self.retiring.iter().map(|file| file.name.clone());
        let all = used.chain(idle).chain(freed);
        let mut theirs = all.filter(|name| number_in(name).is_some_and(|number| number >= run));
        theirs.try_for_each(|name| self.storage.open(&name)?.sync_data())?;
        self.storage.sync_dir()
    }

    /// What the last run wrote cannot be made durable: nothing is free because of it, and what it told
    /// is told again. A sync is never tried twice.
    fn distrust_last_run(&mut self, ledger: &mut Ledger) {
        let idle = std::mem::take(&mut self.idle).into_iter();
        self.retiring.extend(idle.map(|(name, size)| Retiring { name, size, from: None }));
        let told = std::mem::take(&mut ledger.adopted);
        told.into_iter().for_each(|told| ledger.tell_again(told));
    }

    /// The first segment of a run, in a file that is prepared for it.
    fn begin(&mut self, ledger: &Ledger) -> Result<(), Refusal> {
        let size = self.limits.segment;
        if !self.idle.iter().any(|(_, idle)| *idle == size) {
            let name = format!("spare-{:x}", self.next_number);
            let result = job::prepare(&self.storage, &name, size);
            self.prepared(name, size, result);
        }
        self.roll(ledger, 0, Purpose::Control)?;
        Ok(self.write_now()?)
    }
}

/// The ledger may hold what happened in memory before there was a storage.
fn take_over(ledger: &mut Ledger, found: &Recovered, start: &Start, end: End) {
    let state = &found.state;
    ledger.next_id = ledger.next_id.max(state.next_id).max(state.appended);
    state.gaps.iter().for_each(|gap| ledger.gaps.add(gap.clone()));
    for segment in &found.damaged {
        let mut samples = segment.open.samples;
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
    let uncleans = state.uncleans.iter().cloned().map(Untold::Unclean);
    uncleans.for_each(|unclean| ledger.tell_again(unclean));
    let Some(context) = &found.context else { return };
    // Where numbers were given before there was a storage, their epoch goes on.
    if end == End::Clean && !ledger.next_seq.is_empty() {
        return;
    }
    if end == End::Clean {
        ledger.epoch = Arc::clone(&context.epoch);
        ledger.next_seq.clone_from(&state.next_seq);
        return;
    }
    ledger.adopted = found.told.iter().map(|(_, told)| told.clone()).collect();
    let seconds = (!found.is_marked).then(|| context.window(&start.boot));
    let next_seq = state.next_seq.clone();
    let unclean = Unclean { epoch: Arc::clone(&context.epoch), seconds, next_seq };
    ledger.tell_again(Untold::Unclean(unclean));
}
