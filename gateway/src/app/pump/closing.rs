//! Closes the queue at the stop.

use tokio::task::spawn_blocking;
use tokio::time::timeout_at;

use super::{STORAGE_GRACE, now};
use crate::queue::{CloseOutcome, Queue, Stats};

/// Target of the lines about the stop.
const STOP: &str = "gateway::stop";

/// Closes the queue and logs what stays in it. Without storage that is lost with the process.
pub(super) async fn close_queue(queue: Queue) {
    let Stats { entries: messages, samples, .. } = queue.stats();
    let mut closing = queue.begin_close(now());
    let deadline = tokio::time::Instant::now() + STORAGE_GRACE;
    while let Some(job) = closing.next_job(now())
        && let Ok(Ok(done)) = timeout_at(deadline, spawn_blocking(|| job.run())).await
    {
        closing.on_job_done(done, now());
    }
    match (messages, closing.finish(now())) {
        (0, _) => {}
        (_, CloseOutcome::Stored) => {
            tracing::info!(target: STOP, messages, samples, "left for the next start");
        }
        (_, CloseOutcome::Written) => tracing::warn!(
            target: STOP,
            messages,
            samples,
            "left for the next start, but the disk takes long and has not confirmed it"
        ),
        (_, CloseOutcome::Lost) => {
            tracing::warn!(target: STOP, messages, samples, "lost with this stop");
        }
    }
}
