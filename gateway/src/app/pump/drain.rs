//! The end of the pump: what is left goes to the broker or stays on the disk.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout_at;

use super::Pump;
use super::sending::NextSend;
use crate::clock;
use crate::mqtt;
use crate::queue::{CloseOutcome, DiskJobDone, Stats};

/// What a card that is at work gets beyond the grace; one that hangs must not hold up the stop.
const STORAGE_GRACE: Duration = Duration::from_secs(2);

impl Pump {
    /// Sends what is left, says that this gateway is offline, and counts what nobody took.
    pub(super) async fn drain(
        mut self,
        mut broker: mpsc::Receiver<mqtt::MqttEvent>,
        grace: Duration,
    ) {
        let deadline = tokio::time::Instant::now() + grace;
        self.announce_gaps();
        loop {
            let mut more = NextSend::Now;
            while more == NextSend::Now {
                more = self.send();
            }
            self.start_jobs();
            if self.queue.is_empty() || self.can_stop_now() {
                break;
            }
            let due = self.queue.next_deadline().into_iter().chain(more.at()).min();
            let step = async {
                tokio::select! {
                    event = broker.recv() => DrainEvent::Broker(event),
                    Some(done) = self.jobs.join_next() => DrainEvent::JobDone(done),
                    () = clock::sleep_until(due) => DrainEvent::Timer,
                }
            };
            match timeout_at(deadline, step).await {
                Ok(DrainEvent::Broker(Some(event))) => self.on_mqtt_event(&event),
                Ok(DrainEvent::JobDone(done)) => self.on_job_done(done),
                Ok(DrainEvent::Timer) => {}
                Ok(DrainEvent::Broker(None)) | Err(_) => break,
            }
        }
        if let Some(session) = &self.session {
            let outgoing = self.status_tracker.offline_message(session.number);
            let _ = timeout_at(deadline, self.outbox.send(outgoing)).await;
        }
        let patience = deadline.max(tokio::time::Instant::now() + STORAGE_GRACE);
        while let Ok(Some(done)) = timeout_at(patience, self.jobs.join_next()).await {
            self.on_job_done(done);
        }
        self.close_queue().await;
    }

    /// Whether all that is left is safe on the disk and nobody takes it.
    fn can_stop_now(&self) -> bool {
        self.session.is_none() && self.queue.is_all_stored()
    }

    /// What is left waits for the next start; without storage it goes with the process.
    async fn close_queue(self) {
        let Stats { entries: messages, samples, .. } = self.queue.stats();
        let mut ended = self.queue.begin_close(Instant::now());
        let end = tokio::time::Instant::now() + STORAGE_GRACE;
        while let Some(job) = ended.next_job(Instant::now())
            && let Ok(Ok(done)) = timeout_at(end, spawn_blocking(|| job.run())).await
        {
            ended.on_job_done(done, Instant::now());
        }
        match (messages, ended.finish(Instant::now())) {
            (0, _) => {}
            (_, CloseOutcome::Stored) => {
                tracing::info!(messages, samples, "left for the next start")
            }
            (_, CloseOutcome::Written) => tracing::warn!(
                messages,
                samples,
                "left for the next start, but the disk takes long and has not confirmed it"
            ),
            (_, CloseOutcome::Lost) => tracing::warn!(messages, samples, "lost with this stop"),
        }
    }
}

/// What the drain waits for.
enum DrainEvent {
    Broker(Option<mqtt::MqttEvent>),
    JobDone(Result<DiskJobDone, JoinError>),
    Timer,
}
