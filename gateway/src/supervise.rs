//! Stages: groups of tasks that stop together. A task that ends too early stops the process.

use std::thread;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A group of tasks that stop together. The stages are drained in order: the tasks that read, the
/// queue, the connection to the broker.
#[derive(Debug)]
pub struct Stage {
    name: &'static str,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Stage {
    /// Returns a stage without tasks; `name` is shown in the log.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, stop: CancellationToken::new(), tasks: TaskTracker::new() }
    }

    /// Starts a task, which must end soon after the token that it is given fires.
    ///
    /// A task that ends earlier, by return or by panic, fires `fatal`: a restart of the process by
    /// the service manager is more reliable than restarting parts of it.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
    pub fn spawn<F>(&self, fatal: CancellationToken, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // A guard inside the future and not a check behind it: a panic unwinds past that.
        let alarm = Alarm { stage: self.name, stop: self.stop.clone(), fatal };
        let work = task(self.stop.clone());
        self.tasks.spawn(async move {
            let _alarm = alarm;
            work.await;
        });
    }

    /// Signals every task of this stage to stop, and waits for them for at most `grace`.
    ///
    /// Returns whether all of them ended. A task that did not runs until the runtime stops.
    pub async fn drain(self, grace: Duration) -> bool {
        // First the signal: a task that ends from here on is stopping, and its alarm stays silent.
        self.stop.cancel();
        // `wait` returns only when the tracker is closed, even if it is empty.
        self.tasks.close();
        let drained = timeout(grace, self.tasks.wait()).await.is_ok();
        if !drained {
            let left = self.tasks.len();
            tracing::warn!(stage = self.name, left, ?grace, "tasks did not stop in time");
        }
        drained
    }
}

/// A stage that is dropped, because the start failed or a second signal came, is stopping too.
impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Fires `fatal` when it is dropped before the stop of the stage began; a panic drops it too.
#[derive(Debug)]
struct Alarm {
    stage: &'static str,
    stop: CancellationToken,
    fatal: CancellationToken,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if self.stop.is_cancelled() {
            return;
        }
        // A panic has been logged by the hook, and logging while it unwinds could panic again.
        if !thread::panicking() {
            tracing::error!(stage = self.stage, "a task ended before the stop");
        }
        self.fatal.cancel();
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
    async fn a_task_that_stops_when_told_is_not_fatal() {
        let (stage, fatal) = stage();
        stage.spawn(fatal.clone(), |stop| async move { stop.cancelled().await });

        assert!(stage.drain(GRACE).await);

        assert!(!fatal.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stage_that_is_dropped_ends_its_tasks_and_is_not_fatal() {
        let (stage, fatal) = stage();
        let (ended, has_ended) = tokio::sync::oneshot::channel::<()>();
        stage.spawn(fatal.clone(), |stop| async move {
            stop.cancelled().await;
            drop(ended);
        });

        drop(stage);

        assert!(has_ended.await.is_err());
        assert!(!fatal.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_unfinished_work() {
        let (stage, fatal) = stage();
        let (done, result) = tokio::sync::oneshot::channel();
        stage.spawn(fatal, |stop| async move {
            stop.cancelled().await;
            tokio::time::sleep(GRACE / 2).await;
            done.send("written").unwrap();
        });

        assert!(stage.drain(GRACE).await);

        assert_eq!(result.await, Ok("written"));
    }

    #[tokio::test(start_paused = true)]
    async fn drain_ends_after_the_grace_period() {
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
