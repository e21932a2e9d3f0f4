//! The steps of one process, and what must hold after each of them.

use super::*;

impl CrashTest {
    pub(super) fn step(&mut self) {
        // Now and then the device answers nothing for longer than anybody waits.
        let most = if self.rng.u8(..40) == 0 { 20_000 } else { 700 };
        self.now += Duration::from_millis(self.rng.u64(..most));
        let now = self.now;
        let what = self.rng.u8(..21);
        self.trace(what);
        match what {
            0..6 => {
                for _ in 0..self.rng.usize(1..8) {
                    self.push();
                }
            }
            6..11 => self.send(),
            11..14 => self.acknowledge(),
            14 => {
                if let Some(id) = self.pick_in_flight() {
                    self.queue().discard(id, DropReason::Refused, now);
                }
            }
            15 => {
                self.in_flight.clear();
                self.queue().rewind(now);
            }
            16 => drop(self.queue().announce_losses(now)),
            17 => self.run_jobs(),
            18 => {
                let faults = self.draw_faults();
                self.disk.set_faults(faults);
            }
            _ => self.start_jobs(),
        }
    }

    fn start_jobs(&mut self) {
        let now = self.now;
        while let Some(job) = self.queue.as_mut().unwrap().next_job(now) {
            self.jobs.push(job);
        }
        if self.rng.bool() {
            self.run_jobs();
        }
    }

    pub(super) fn run_jobs(&mut self) {
        let now = self.now;
        for job in std::mem::take(&mut self.jobs) {
            self.queue().on_job_done(job.run(), now);
        }
        // A device that fails may have lost what it had promised.
        if !self.faulty {
            let synced = self.queue().log.as_ref().unwrap().durability().synced();
            self.mark_safe(synced);
        }
    }

    /// Records that entries in the log up to this position must not be lost.
    pub(super) fn mark_safe(&mut self, position: u64) {
        let queue = self.queue.as_ref().unwrap();
        for id in queue.index.ids() {
            if self.safe_ids.contains(&id) {
                continue;
            }
            let held = queue.index.get(id).unwrap();
            if held.location.is_durable(position) {
                let topic = consumer::topic(queue.topic(held.topic).unwrap());
                self.safe_ids.insert(id);
                self.safe.insert((topic, consumer::epoch(&held.epoch), held.seq));
            }
        }
    }

    /// Returns the samples produced and recovered, less those delivered, dropped and stored.
    pub(super) fn imbalance(&self) -> u64 {
        let metrics = &self.metrics.queue;
        let stored = u64::try_from(metrics.stored.get()).unwrap();
        let taken = metrics.produced.get() + metrics.recovered.get();
        taken.wrapping_sub(metrics.delivered.get() + metrics.dropped() + stored)
    }

    pub(super) fn check_balance(&mut self) {
        self.queue().update_gauges();
        assert_eq!(self.imbalance(), self.base_imbalance, "seed {}", self.seed);
        // In a full log a start, a trial after a failure, and the record that frees files may each
        // take a segment more.
        let used = self.disk.used();
        assert!(
            used <= self.config.max_size + MAX_SEGMENT + 2 * SEGMENT,
            "seed {}: {used}",
            self.seed
        );
    }

    pub(super) fn trace(&self, what: impl std::fmt::Debug) {
        if self.is_tracing {
            let queue = self.queue.as_ref().unwrap();
            println!("{} untold {:?}", describe(queue), queue.ledger.pending_announcements());
            println!("{what:?} used {}", self.disk.used());
        }
    }
}

/// Describes the queue, for a traced history.
pub(super) fn describe(queue: &Queue<SimulatedDisk>) -> String {
    let held = queue.index.ids().into_iter().filter_map(|id| Some((id, queue.index.get(id)?)));
    let held: Vec<String> = held
        .map(|(id, held)| {
            let place = match held.location {
                index::Location::Memory => "memory".to_owned(),
                index::Location::Appended { position, .. } => position.to_string(),
                index::Location::Stored { .. } => "disk".to_owned(),
            };
            let sent = if held.handed_out_at.is_some() { " sent" } else { "" };
            format!("{id}:{}/{}/{}@{place}{sent}", held.topic.index(), held.epoch, held.seq)
        })
        .collect();
    let (stats, health, log) = (queue.stats(), queue.health(), &queue.log);
    format!("{stats:?} held {held:?} {health:?} {log:?}")
}
