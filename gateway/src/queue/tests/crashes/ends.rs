//! The ends of processes, and what they leave.

use super::*;

impl CrashTest {
    pub(super) fn end_process(&mut self) {
        let now = self.now;
        self.trace("end");
        let queue = self.queue();
        if queue.log.as_ref().is_none_or(|log| log.durability().synced() == 0) {
            let epoch = consumer::epoch(queue.epoch());
            self.unreported_epochs.insert(epoch);
        }
        match self.rng.u8(..5) {
            0 => {
                self.disk.set_faults(DiskFaults::NONE);
                self.run_jobs();
                self.queue.take().unwrap().close(now);
            }
            1 | 2 => {
                // Data that the operating system has taken outlives the process.
                self.finish_some_jobs();
                let is_sound = !self.queue().health().is_failing();
                if !self.faulty && is_sound {
                    let written = self.queue().log.as_ref().unwrap().durability().written();
                    self.mark_safe(written);
                }
                self.crashes += 1;
            }
            _ => {
                self.finish_some_jobs();
                self.disk.cut_power();
                self.boot += 1;
                self.crashes += 1;
            }
        }
        self.queue = None;
        self.jobs.clear();
        self.in_flight.clear();
    }

    /// Ends all or some of the running jobs; the process does not learn their results.
    fn finish_some_jobs(&mut self) {
        let now = self.now;
        match self.rng.u8(..4) {
            0 => {}
            1 => {
                self.run_jobs();
                self.queue().flush(now);
            }
            2 => self.run_jobs(),
            _ => {
                let most = self.rng.usize(..=self.jobs.len());
                self.jobs.drain(..most).for_each(|job| drop(job.run()));
            }
        }
    }

    /// Checks on a copy of the disk that nothing promised is missing if all goes well from now on.
    pub(super) fn check_recovery(&mut self) {
        let kept = (self.consumer.clone(), self.starts, self.now, self.unreported_epochs.clone());
        let copy = self.disk.fork();
        let disk = std::mem::replace(&mut self.disk, copy);
        self.start_process(DiskFaults::NONE);
        self.attach_storage();
        self.deliver_everything();
        self.check_accounted_for();
        (self.consumer, self.starts, self.now, self.unreported_epochs) = kept;
        self.disk = disk;
        self.queue = None;
    }

    /// Delivers everything until all gaps and unclean shutdowns are announced: an announcement may
    /// evict another one.
    fn deliver_everything(&mut self) {
        let now = self.now;
        self.queue().rewind(now);
        for _ in 0..2_000 {
            self.now += Duration::from_secs(1);
            let now = self.now;
            self.queue().announce_losses(now);
            while let Some(id) = self.queue.as_mut().unwrap().next(now).map(|queued| queued.id) {
                self.arrive(id);
                self.queue().acknowledge(id, now);
            }
            while let Some(job) = self.queue().next_job(now) {
                self.queue().on_job_done(job.run(), now);
            }
            self.check_balance();
            self.trace("drain");
            let queue = self.queue();
            let is_told =
                queue.ledger.gaps.iter().next().is_none() && queue.ledger.uncleans.is_empty();
            if queue.is_empty() && is_told {
                return;
            }
        }
        let (seed, queue) = (self.seed, steps::describe(self.queue()));
        panic!("seed {seed}: never empty: {queue}");
    }

    fn check_accounted_for(&self) {
        for number in self.pushed.keys() {
            let is_safe = self.safe.contains(number);
            let may_miss =
                self.consumer.may_miss(*number) || self.unreported_epochs.contains(&number.1);
            assert!(
                self.consumer.is_accounted_for(number) || may_miss && !is_safe,
                "seed {}: {number:?} is missing, safe {is_safe}, {:?}",
                self.seed,
                self.config
            );
        }
    }
}
