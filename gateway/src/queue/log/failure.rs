//! A storage that fails: what is not durable is given up, and begun again in a new file.

use std::sync::Arc;

use super::capacity::Purpose;
use super::file_ops::FileOp;
use super::segment::{FAILING_MARKER, file_name, segment_number};
use super::{AppendError, EntryCounts, Log, PendingRecycle, Unsynced};
use crate::queue::ledger::Ledger;
use crate::queue::storage::Storage;

impl<S: Storage> Log<S> {
    /// A job came to no end; [`Log::fail`] has to follow.
    pub(in crate::queue) const fn on_jobs_lost(&mut self) {
        self.under_way.on_jobs_lost();
    }

    /// Gives the tail up after an error. What was appended and is not durable has to be appended
    /// again, after [`Log::withdraw`].
    pub(in crate::queue) fn on_storage_failed(&mut self, ledger: &Ledger) {
        self.under_way.on_storage_failed();
        let left = self.line.cancel_writes();
        self.retire_unused(left);
        self.write_failing_marker();
        self.renamed = None;
        let mut dirty = std::mem::take(&mut self.syncing);
        dirty.append(&mut self.dirty);
        if let Some(tail) = self.tail.take() {
            let from = self.position - tail.end();
            let (file, end) = (Arc::clone(&tail.file), self.position);
            dirty.push(Unsynced { file, number: tail.segment.number, from, end });
            self.seal(tail.segment, ledger);
        }
        dirty.iter().for_each(|segment| self.truncate_unsynced(segment));
        (self.position, self.written) = (self.synced, self.synced);
        self.retiring.iter_mut().for_each(|file| {
            file.from = file.from.filter(|from| *from <= self.synced);
        });
    }

    /// Cuts off what is not durable. After a failed sync Linux takes it for written: a process that
    /// follows this one would read it, sync it with success, and lose it with the power.
    fn truncate_unsynced(&mut self, segment: &Unsynced<S::File>) {
        let durable = self.synced.saturating_sub(segment.from);
        self.line.push(FileOp::Truncate { file: Arc::clone(&segment.file), size: durable });
        let name = file_name(segment.number);
        let sealed = self.segments.iter_mut().find(|sealed| sealed.number == segment.number);
        let retiring = self.retiring.iter_mut().find(|retiring| retiring.name == name);
        let sizes = [sealed.map(|sealed| &mut sealed.size), retiring.map(|file| &mut file.size)];
        sizes.into_iter().flatten().for_each(|size| *size = (*size).min(durable));
    }

    /// Takes back an entry that was appended to a tail that failed.
    pub(in crate::queue) fn withdraw(&mut self, id: u64, held: EntryCounts) {
        if self.waiting_ids.remove(id)
            && let Some(segment) = self.segment_mut(id)
        {
            segment.waiting.subtract(held);
            let (number, is_empty) = (segment.number, segment.waiting.entries == 0);
            if is_empty {
                self.retire(number);
            }
        }
        self.appended = self.appended.min(id);
    }

    /// Begins a new segment after the storage failed.
    pub(in crate::queue) fn begin_after_failure(
        &mut self,
        ledger: &Ledger,
    ) -> Result<(), AppendError> {
        self.remove_empty();
        self.begin_segment(ledger, 0, Purpose::Control)
    }

    /// Nothing of this run is durable: what it does goes under another epoch.
    pub(in crate::queue) fn change_epoch(&mut self, epoch: Arc<str>) {
        self.context.epoch = epoch;
        self.context.run = self.next_number;
    }

    /// Files of this run of which nothing was durable when the storage failed: no start needs them,
    /// and every trial would leave one more.
    fn remove_empty(&mut self) {
        let run = self.context.run;
        let is_stillborn = |file: &mut PendingRecycle| {
            file.size == 0 && segment_number(&file.name).is_some_and(|number| number >= run)
        };
        for PendingRecycle { name, .. } in self.retiring.extract_if(.., is_stillborn) {
            self.line.push(FileOp::Remove { name });
        }
    }

    /// Leaves a mark for the next run: what this one takes from now on is in its memory alone.
    fn write_failing_marker(&mut self) {
        self.is_marked = true;
        self.line.push(FileOp::MarkFailing);
    }

    /// Everything is durable again.
    pub(super) fn remove_failing_marker(&mut self) {
        if std::mem::take(&mut self.is_marked) {
            self.line.push(FileOp::Remove { name: FAILING_MARKER.to_owned() });
            // Whatever is written next is written behind it.
            self.renamed = Some(self.position + 1);
        }
    }
}
