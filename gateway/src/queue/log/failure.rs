//! A storage that fails: what is not durable is given up, and begun again in a new file.

use std::sync::Arc;

use super::bounds::Purpose;
use super::line::Step;
use super::segment::{FAILING, file_name, number_in};
use super::{Dirty, Log, Refusal, Retiring, Tally};
use crate::queue::ledger::Ledger;
use crate::queue::storage::Storage;

impl<S: Storage> Log<S> {
    /// A job came to no end; [`Log::fail`] has to follow.
    pub(in crate::queue) const fn forget_jobs(&mut self) {
        self.under_way.died();
    }

    /// Gives the tail up after an error. What was appended and is not durable has to be appended
    /// again, after [`Log::withdraw`].
    pub(in crate::queue) fn fail(&mut self, ledger: &Ledger) {
        self.under_way.failed();
        let left = self.line.give_up();
        self.keep(left);
        self.mark();
        self.renamed = None;
        let mut dirty = std::mem::take(&mut self.syncing);
        dirty.append(&mut self.dirty);
        if let Some(tail) = self.tail.take() {
            let from = self.position - tail.end();
            let (file, end) = (Arc::clone(&tail.file), self.position);
            dirty.push(Dirty { file, number: tail.segment.number, from, end });
            self.seal(tail.segment, ledger);
        }
        dirty.iter().for_each(|segment| self.distrust(segment));
        (self.position, self.written) = (self.synced, self.synced);
        self.retiring.iter_mut().for_each(|file| {
            file.from = file.from.filter(|from| *from <= self.synced);
        });
    }

    /// Cuts off what is not durable. After a failed sync Linux takes it for written: a process that
    /// follows this one would read it, sync it with success, and lose it with the power.
    fn distrust(&mut self, segment: &Dirty<S::File>) {
        let durable = self.synced.saturating_sub(segment.from);
        self.line.push(Step::Cut { file: Arc::clone(&segment.file), size: durable });
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

    /// Begins a new segment after the storage failed.
    pub(in crate::queue) fn resume(&mut self, ledger: &Ledger) -> Result<(), Refusal> {
        self.remove_stillborn();
        self.roll(ledger, 0, Purpose::Control)
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
            self.line.push(Step::Remove { name });
        }
    }

    /// Leaves a mark for the next run: what this one takes from now on is in its memory alone.
    fn mark(&mut self) {
        self.is_marked = true;
        self.line.push(Step::Mark);
    }

    /// Everything is durable again.
    pub(super) fn unmark(&mut self) {
        if std::mem::take(&mut self.is_marked) {
            self.line.push(Step::Remove { name: FAILING.to_owned() });
            // Whatever is written next is written behind it.
            self.renamed = Some(self.position + 1);
        }
    }
}
