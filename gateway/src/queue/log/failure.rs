//! A storage that fails: what is not durable is given up, and begun again in a new file.

use std::sync::Arc;

use super::bounds::Purpose;
use super::segment::{FAILING, file_name, number_in};
use super::{Dirty, Log, Refusal, Retiring, Tally};
use crate::queue::ledger::Ledger;
use crate::queue::storage::{Storage, StoredFile};

impl<S: Storage> Log<S> {
    /// A job came to no end; [`Log::fail`] has to follow.
    pub(in crate::queue) const fn forget_jobs(&mut self) {
        self.under_way.died();
    }

    /// Gives the tail up after an error. What was appended and is not durable has to be appended
    /// again, after [`Log::withdraw`].
    pub(in crate::queue) fn fail(&mut self, ledger: &Ledger) {
        self.under_way.failed();
        self.mark();
        self.names_changed = false;
        let mut dirty = std::mem::take(&mut self.syncing);
        dirty.append(&mut self.dirty);
        if let Some(tail) = self.tail.take() {
            let from = self.position - tail.end();
            dirty.push(Dirty { file: Arc::clone(&tail.file), number: tail.segment.number, from });
            self.seal(tail.segment, ledger);
        }
        dirty.iter().for_each(|segment| self.distrust(segment));
        self.position = self.synced;
        self.retiring.iter_mut().for_each(|file| {
            file.from = file.from.filter(|from| *from <= self.synced);
        });
    }

    /// Cuts off what is not durable. After a failed sync Linux takes it for written: a process that
    /// follows this one would read it, sync it with success, and lose it with the power.
    fn distrust(&mut self, segment: &Dirty<S::File>) {
        let durable = self.synced.saturating_sub(segment.from);
        if segment.file.truncate(durable).is_err() {
            return; // A device that takes nothing at all has nothing to lose.
        }
        let name = file_name(segment.number);
        let sealed = self.segments.iter_mut().find(|sealed| sealed.number == segment.number);
        let retiring = self.retiring.iter_mut().find(|retiring| retiring.name == name);
        let sizes = [sealed.map(|sealed| &mut sealed.size), retiring.map(|file| &mut file.size)];
        sizes.into_iter().flatten().for_each(|size| *size = (*size).min(durable));
    }

    /// Takes back an entry that was appended to a tail that failed.
    pub(in crate::queue) fn withdraw(&mut self, id: u64, held: Tally) {
        if self.open.remove(id)
            && let Some(segment) = self.segment_mut(id)
        {
            segment.open.subtract(held);
            let (number, is_empty) = (segment.number, segment.open.entries == 0);
            if is_empty {
                self.retire(number);
            }
        }
        self.appended = self.appended.min(id);
    }

    /// Begins a new segment after the storage failed. Where not a byte is free, in a file in which
    /// nothing waits.
    pub(in crate::queue) fn resume(&mut self, ledger: &Ledger) -> Result<(), Refusal> {
        self.remove_stillborn();
        match self.begin_again(ledger) {
            Err(refusal) if refusal.is_no_space() && self.take_back() => {
                self.fail(ledger);
                self.begin_again(ledger)
            }
            result => result,
        }
    }

    fn begin_again(&mut self, ledger: &Ledger) -> Result<(), Refusal> {
        self.roll(ledger, 0, Purpose::Control)?;
        self.flush()
    }

    /// Nothing of this run is durable: what it does goes under another epoch.
    pub(in crate::queue) fn start_anew(&mut self, epoch: Arc<str>) {
        self.context.epoch = epoch;
        self.context.run = self.next_number;
    }

    /// Files of this run of which nothing was durable when the storage failed: no start needs them,
    /// and every trial would leave one more.
    fn remove_stillborn(&mut self) {
        let run = self.context.run;
        let is_stillborn = |file: &mut Retiring| {
            file.size == 0 && number_in(&file.name).is_some_and(|number| number >= run)
        };
        for Retiring { name, .. } in self.retiring.extract_if(.., is_stillborn) {
            if let Err(error) = self.storage.remove(&name) {
                tracing::debug!(%name, %error, "cannot remove a part of the queue");
            }
        }
    }

    /// Leaves a mark for the next run: what this one takes from now on is in its memory alone.
    fn mark(&mut self) {
        self.is_marked |= self.storage.create(FAILING).is_ok();
    }

    /// Everything is durable again.
    pub(super) fn unmark(&mut self) {
        if self.is_marked && self.storage.remove(FAILING).is_ok() {
            self.is_marked = false;
            self.names_changed = true;
        }
    }
}
