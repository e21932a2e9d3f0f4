//! Stages: start, fatal on early end, drain in order.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tasks that stop together: first those that read, then the queue, then the broker connection.
#[derive(Debug)]
pub struct Stage {
    name: &'static str,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Stage {
    /// A stage without tasks; the name is for the log.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, stop: CancellationToken::new(), tasks: TaskTracker::new() }
    }

    /// Starts a task that ends soon after the token it is given fires.
    ///
    /// A task that ends earlier, by return or by panic, fires `fatal`: the service manager
    /// restarts a gateway better than the gateway can restart its parts.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
    pub fn spawn<F>(&self, fatal: CancellationToken, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let alarm = Alarm { stage: self.name, stop: self.stop.clone(), fatal };
        let work = task(self.stop.clone());
        self.tasks.spawn(async move {
            let _alarm = alarm;
            work.await;
        });
    }

    /// Asks every task of this stage to stop and waits for them, at most `grace`.
    ///
    /// Returns whether all of them came to an end. One that did not runs on until the runtime
    /// stops.
    pub async fn drain(self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        let drained = timeout(grace, self.tasks.wait()).await.is_ok();
        if !drained {
            let left = self.tasks.len();
            tracing::warn!(stage = self.name, left, ?grace, "tasks did not stop in time");
        }
        drained
    }
}

/// Fires `fatal` when it is dropped before the stage was asked to stop; a panic drops it too.
#[derive(Debug)]
struct Alarm {
    stage: &'static str,
    stop: CancellationToken,
    fatal: CancellationToken,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            tracing::error!(stage = self.stage, "a task ended that should run for ever");
            self.fatal.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const GRACE: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_fatal() {
        let (stage, fatal) = stage();

        stage.spawn(fatal.clone(), |_| async { panic!("the panic of this test") });

        fatal.cancelled().await;
        assert!(stage.drain(GRACE).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_returns_early_is_fatal() {
        let (stage, fatal) = stage();

        stage.spawn(fatal.clone(), |_| async {});

        fatal.cancelled().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_stops_when_asked_is_not_fatal() {
        let (stage, fatal) = stage();
        stage.spawn(fatal.clone(), |stop| async move { stop.cancelled().await });

        assert!(stage.drain(GRACE).await);

        assert!(!fatal.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_work_that_is_still_on_hand() {
        let (stage, fatal) = stage();
        let (done, result) = tokio::sync::oneshot::channel();
        stage.spawn(fatal, |stop| async move {
            stop.cancelled().await;
            tokio::time::sleep(GRACE / 2).await;
            let _ = done.send("written");
        });

        assert!(stage.drain(GRACE).await);

        assert_eq!(result.await, Ok("written"));
    }

    #[tokio::test(start_paused = true)]
    async fn drain_gives_up_on_a_task_that_does_not_stop() {
        let (stage, fatal) = stage();
        stage.spawn(fatal.clone(), |_| pending());
        let before = tokio::time::Instant::now();

        assert!(!stage.drain(GRACE).await);

        assert_eq!(before.elapsed(), GRACE);
        assert!(!fatal.is_cancelled());
    }

    fn stage() -> (Stage, CancellationToken) {
        (Stage::new("test"), CancellationToken::new())
    }
}
