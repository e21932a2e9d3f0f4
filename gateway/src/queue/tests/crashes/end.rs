//! The ends of lives, and what they leave.

use super::*;

impl World {
    pub(super) fn end(&mut self) {
        let now = self.now;
        self.trace("end");
        let queue = self.queue();
        if queue.log.as_ref().is_none_or(|log| log.synced() == 0) {
            let epoch = far_end::epoch(queue.epoch());
            self.mute.insert(epoch);
        }
        match self.rng.u8(..5) {
            0 => {
                self.disk.set_faults(Faults::NONE);
                self.run_jobs();
                self.queue.take().unwrap().close(now);
            }
            1 | 2 => {
                // Whatever was handed to the operating system outlives the process.
                self.hand_over();
                let is_sound = !self.queue().health().is_failing();
                if !self.faulty && is_sound {
                    let written = self.queue().log.as_ref().unwrap().written();
                    self.note_safe(written);
                }
                self.crashes += 1;
            }
            _ => {
                self.hand_over();
                self.disk.cut_power();
                self.boot += 1;
                self.crashes += 1;
            }
        }
        self.queue = None;
        self.jobs.clear();
        self.in_flight.clear();
    }

    /// What is under way comes to its end, or some of it, and nobody hears of it any more.
    fn hand_over(&mut self) {
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

    /// What would come of what is left, if everything went well from now on: nothing is missing that
    /// was promised.
    pub(super) fn look_ahead(&mut self) {
        let kept = (self.far_end.clone(), self.starts, self.now, self.mute.clone());
        let copy = self.disk.fork();
        let disk = std::mem::replace(&mut self.disk, copy);
        self.begin(Faults::NONE);
        self.take_up();
        self.drain();
        self.check();
        (self.far_end, self.starts, self.now, self.mute) = kept;
        self.disk = disk;
        self.queue = None;
    }

    /// The broker takes everything, and every gap and every unclean start is told: telling one may
    /// give up the event that told another.
    fn drain(&mut self) {
        let now = self.now;
        self.queue().rewind(now);
        for _ in 0..2_000 {
            self.now += Duration::from_secs(1);
            let now = self.now;
            self.queue().tell(now);
            while let Some(id) = self.queue.as_mut().unwrap().next(now).map(|queued| queued.id) {
                self.arrive(id);
                self.queue().acknowledge(id, now);
            }
            while let Some(job) = self.queue().turn(now) {
                self.queue().done(job.run(), now);
            }
            self.balance();
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

    fn check(&self) {
        for number in self.pushed.keys() {
            let is_safe = self.safe.contains(number);
            let may_miss = self.far_end.may_miss(*number) || self.mute.contains(&number.1);
            assert!(
                self.far_end.knows(number) || may_miss && !is_safe,
                "seed {}: {number:?} is missing, safe {is_safe}, {:?}",
                self.seed,
                self.config
            );
        }
    }
}
