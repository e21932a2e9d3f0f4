//! The stop: sends what is left, and closes the queue.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout_at;

use super::commands::CommandEvent;
use super::sending::NextSend;
use super::{Pump, now};
use crate::clock;
use crate::mqtt::{self, MqttRequest};
use crate::queue::{CloseOutcome, DiskJobDone, Stats};

/// Time for the storage to finish a write after the deadline of the drain. Bounded, so that an
/// SD card that hangs does not hang the stop.
const STORAGE_GRACE: Duration = Duration::from_secs(2);
/// Target of the lines about the stop: the log's limit counts them apart.
const STOP: &str = "gateway::stop";

impl Pump {
    /// Sends what is left until the queue is empty or `grace` is over, publishes the offline
    /// status, and closes the queue.
    pub(super) async fn drain(
        mut self,
        mut broker: mpsc::Receiver<mqtt::MqttEvent>,
        grace: Duration,
    ) {
        let deadline = tokio::time::Instant::now() + grace;
        self.queue.end_pacing();
        // Now, so that the losses up to here are announced in this session.
        self.drop_reports.end_pause();
        self.announce_gaps();
        loop {
            self.advance_commands();
            let mut more = NextSend::Now;
            while more == NextSend::Now {
                more = self.send();
            }
            self.start_jobs();
            if !self.commands.is_recording() && (self.queue.is_empty() || self.can_stop_now()) {
                break;
            }
            let due = self.queue.next_deadline().into_iter().chain(more.at()).min();
            let event = async {
                tokio::select! {
                    event = broker.recv() => DrainEvent::Broker(event),
                    Some(done) = self.jobs.join_next() => DrainEvent::JobDone(done),
                    Some(event) = self.commands.next_event() => DrainEvent::Command(event),
                    () = self.triggers.saved() => DrainEvent::EventsSaved,
                    () = clock::sleep_until(due) => DrainEvent::Timer,
                }
            };
            match timeout_at(deadline, event).await {
                Ok(DrainEvent::Broker(Some(event))) => self.on_mqtt_event(&event),
                Ok(DrainEvent::JobDone(done)) => self.on_job_done(done),
                Ok(DrainEvent::Command(event)) => self.on_command_event(event),
                Ok(DrainEvent::EventsSaved) => self.on_events_saved(),
                Ok(DrainEvent::Timer) => {}
                Ok(DrainEvent::Broker(None)) | Err(_) => break,
            }
        }
        if let Some(session) = &self.session {
            let outgoing = self.status_tracker.offline_message(session.number);
            // Nothing is lost if the MQTT task has ended or is too slow: the broker then publishes
            // the will, which says the same.
            let _ = timeout_at(deadline, self.outbox.send(MqttRequest::Publish(outgoing))).await;
        }
        let storage_deadline = deadline.max(tokio::time::Instant::now() + STORAGE_GRACE);
        while let Ok(Some(done)) = timeout_at(storage_deadline, self.jobs.join_next()).await {
            self.on_job_done(done);
        }
        let _ = timeout_at(storage_deadline, self.close_commands()).await;
        if timeout_at(storage_deadline, self.triggers.close()).await.is_ok() {
            self.on_events_saved();
        }
        self.close_queue().await;
    }

    /// Returns whether everything left is on disk and no broker is connected to take it.
    fn can_stop_now(&self) -> bool {
        self.session.is_none() && self.queue.is_all_stored()
    }

    /// Closes the queue and logs what stays in it. Without storage that is lost with the process.
    async fn close_queue(self) {
        let Stats { entries: messages, samples, .. } = self.queue.stats();
        let mut closing = self.queue.begin_close(now());
        let deadline = tokio::time::Instant::now() + STORAGE_GRACE;
        while let Some(job) = closing.next_job(now())
            && let Ok(Ok(done)) = timeout_at(deadline, spawn_blocking(|| job.run())).await
        {
            closing.on_job_done(done, now());
        }
        match (messages, closing.finish(now())) {
            (0, _) => {}
            (_, CloseOutcome::Stored) => {
                tracing::info!(
                    target: STOP, messages, samples, "undelivered messages kept for the next start"
                );
            }
            (_, CloseOutcome::Written) => tracing::warn!(
                target: STOP,
                messages,
                samples,
                "undelivered messages written, but the disk has not confirmed the sync yet"
            ),
            (_, CloseOutcome::Lost) => {
                tracing::warn!(
                    target: STOP,
                    messages,
                    samples,
                    "undelivered messages lost: there is no storage"
                );
            }
        }
    }
}

/// What the drain waits for.
enum DrainEvent {
    Broker(Option<mqtt::MqttEvent>),
    JobDone(Result<DiskJobDone, JoinError>),
    Command(CommandEvent),
    EventsSaved,
    Timer,
}
