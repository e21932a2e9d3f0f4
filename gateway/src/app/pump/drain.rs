//! The end of the pump: what is left goes to the broker or stays on the disk.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout_at;

use super::sending::More;
use super::{Pump, due_at};
use crate::mqtt;
use crate::queue::{Done, Left, Stats};

/// What a card that is at work gets beyond the grace; one that hangs must not hold up the stop.
const CARD: Duration = Duration::from_secs(2);

impl Pump {
    /// Sends what is left, says that this gateway is offline, and counts what nobody took.
    pub(super) async fn drain(mut self, mut broker: mpsc::Receiver<mqtt::Event>, grace: Duration) {
        let deadline = tokio::time::Instant::now() + grace;
        self.announce_gaps();
        loop {
            let mut more = More::Perhaps;
            while more == More::Perhaps {
                more = self.send();
            }
            self.turn();
            if self.queue.is_empty() || self.waits_for_nobody() {
                break;
            }
            let due = self.queue.due().into_iter().chain(more.later()).min();
            let step = async {
                tokio::select! {
                    event = broker.recv() => Step::Broker(event),
                    Some(done) = self.jobs.join_next() => Step::Done(done),
                    () = due_at(due) => Step::Due,
                }
            };
            match timeout_at(deadline, step).await {
                Ok(Step::Broker(Some(event))) => self.heed(&event),
                Ok(Step::Done(done)) => self.done(done),
                Ok(Step::Due) => {}
                Ok(Step::Broker(None)) | Err(_) => break,
            }
        }
        if let Some(session) = &self.session {
            let outgoing = self.board.offline(session.number);
            let _ = timeout_at(deadline, self.outbox.send(outgoing)).await;
        }
        let patience = deadline.max(tokio::time::Instant::now() + CARD);
        while let Ok(Some(done)) = timeout_at(patience, self.jobs.join_next()).await {
            self.done(done);
        }
        self.give_up().await;
    }

    /// Whether all that is left is safe on the disk and nobody takes it.
    fn waits_for_nobody(&self) -> bool {
        self.session.is_none() && self.queue.is_stored()
    }

    /// What is left waits for the next start; without storage it goes with the process.
    async fn give_up(self) {
        let Stats { entries: messages, samples, .. } = self.queue.stats();
        let mut ended = self.queue.end(Instant::now());
        let end = tokio::time::Instant::now() + CARD;
        while let Some(job) = ended.job(Instant::now())
            && let Ok(Ok(done)) = timeout_at(end, spawn_blocking(|| job.run())).await
        {
            ended.done(done, Instant::now());
        }
        match (messages, ended.left(Instant::now())) {
            (0, _) => {}
            (_, Left::Stored) => tracing::info!(messages, samples, "left for the next start"),
            (_, Left::Written) => tracing::warn!(
                messages,
                samples,
                "left for the next start, but the disk takes long and has not confirmed it"
            ),
            (_, Left::Lost) => tracing::warn!(messages, samples, "lost with this stop"),
        }
    }
}

/// What the drain waits for.
enum Step {
    Broker(Option<mqtt::Event>),
    Done(Result<Done, JoinError>),
    Due,
}
