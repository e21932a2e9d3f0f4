//! Changes the configuration of the gateway to that of another bundle, and back if it loses the
//! hub. Drives [`provisioning::trial`].
//!
//! A bundle comes from a person, in a file, or from the office: it publishes an offer, and the
//! gateway fetches the bundle from the web server that its present configuration names. The bundle
//! is verified and staged; then the gateway starts again with it. It is confirmed when everything
//! was reached with it that the next change needs, and taken back otherwise.

mod active;
mod bundle_dir;
mod fetch;
mod offer;
mod sentence;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use provisioning::bundle::BundleSource;
use provisioning::trial::{Evidence, RevertReason, Verdict};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tunnel::{PublicKey, TunnelReport};

pub use active::{ActiveBundle, BOX_RUN_DIR, Bundles, BundlesError};
pub use fetch::{PullError, WebFile};
pub use offer::{Offer, OfferDesk, OfferVerdict, PullFault};
pub use sentence::{BundleEvent, BundleSentence};

use crate::metrics::{BundleMetrics, OfferOutcome};
use crate::uplink::Uplink;

/// Target of the lines about bundles: the limit of the log counts them apart.
pub(crate) const LOG_TARGET: &str = "gateway::bundle";
/// How often evidence is judged.
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// How often the inbox is looked at.
const INBOX_INTERVAL: Duration = Duration::from_secs(3);
/// How often the running time of a trial is recorded: what is not recorded does not count after a
/// power cut.
const RECORD_INTERVAL: Duration = Duration::from_secs(30);
/// Pause between two attempts to fetch the manifest of the bundle on trial.
const PROOF_PAUSE: Duration = Duration::from_secs(10);
/// Time for the pump to take the last words of a configuration.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// What the session with the broker shows, since it began.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SessionEvidence {
    /// The broker has accepted the connection.
    pub is_connected: bool,
    /// It has refused the subscription to `offer`.
    pub offer_refused: bool,
    /// It has refused the subscription to `set`.
    pub set_refused: bool,
    /// It has acknowledged a status, which carries the counter of the bundle in use.
    pub status_accepted: bool,
}

/// A message to the pump: what to show in the status, and what to publish as an event.
#[derive(Debug)]
pub enum BundleReport {
    /// Shown in the status only.
    Status(Option<BundleEvent>),
    /// Shown and published; the sender waits until it is in the queue.
    Event(BundleEvent, oneshot::Sender<()>),
}

/// What the task needs from outside.
#[derive(Debug)]
pub struct ApplyInputs {
    /// The last message on the topic of offers.
    pub offers: watch::Receiver<Option<Vec<u8>>>,
    /// What the session with the broker shows.
    pub session: watch::Receiver<SessionEvidence>,
    /// State of the tunnel; absent without one.
    pub tunnel: Option<watch::Receiver<TunnelReport>>,
    /// The way to the web server.
    pub uplink: Uplink,
}

/// What the configuration says.
#[derive(Clone, Debug)]
pub struct ApplySettings {
    /// Where the bundles of this gateway are; absent if it fetches none.
    pub url: Option<WebFile>,
    /// The running time that a bundle has to be confirmed.
    pub confirm: Duration,
    /// Public key of the tunnel; absent without one.
    pub tunnel_public_key: Option<PublicKey>,
}

/// The task that applies bundles.
#[derive(Debug)]
pub struct BundleTask {
    /// Absent while a job on a blocking thread has it.
    bundles: Option<Box<Bundles>>,
    settings: ApplySettings,
    inputs: ApplyInputs,
    reports: mpsc::Sender<BundleReport>,
    metrics: BundleMetrics,
    offers: OfferDesk,
    /// Largest counter that was offered since the start.
    largest_offer: u64,
    /// Time since the boot up to which the running time is recorded.
    recorded_at: Duration,
    /// Whether the bundle on trial was fetched again.
    has_proof: bool,
    next_proof: Option<Instant>,
    next_inbox: Instant,
    /// What the status says.
    shown: Option<BundleEvent>,
}

impl BundleTask {
    /// Returns the task. `bundles` is what the start has opened.
    #[must_use]
    pub fn new(
        mut bundles: Bundles,
        settings: ApplySettings,
        inputs: ApplyInputs,
        reports: mpsc::Sender<BundleReport>,
        metrics: BundleMetrics,
    ) -> Self {
        bundles.trials.set_limit(settings.confirm);
        let active = bundles.active.as_ref();
        let counter = active.map_or(0, |active| i64::try_from(active.counter).unwrap_or(i64::MAX));
        metrics.counter.set(counter);
        metrics.on_trial.set(active.is_some_and(|active| active.is_on_trial).into());
        Self {
            bundles: Some(Box::new(bundles)),
            settings,
            inputs,
            reports,
            metrics,
            offers: OfferDesk::default(),
            largest_offer: 0,
            recorded_at: since_boot(),
            has_proof: false,
            next_proof: None,
            next_inbox: now(),
            shown: None,
        }
    }

    /// Runs until `stop` fires. Cancels `restart` when the gateway has to start again with another
    /// configuration.
    pub async fn run(mut self, restart: CancellationToken, stop: CancellationToken) {
        self.report_start().await;
        let mut ticks = interval(TICK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let work = async {
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    Ok(()) = self.inputs.offers.changed() => self.on_offer(),
                }
                if self.advance().await {
                    restart.cancel();
                    return;
                }
            }
        };
        let is_stopped = stop.run_until_cancelled(work).await.is_none();
        if is_stopped {
            self.record_running_time().await;
        }
        // A task that ends before the stop would be taken for one that failed.
        stop.cancelled().await;
    }

    /// Publishes what happened before the start.
    async fn report_start(&mut self) {
        let events = self.bundles.as_mut().map(|bundles| std::mem::take(&mut bundles.events));
        for event in events.unwrap_or_default() {
            self.publish(event).await;
        }
        let reverted = self.bundles.as_ref().and_then(|bundles| {
            let reverted = bundles.trials.record().reverted.as_ref()?;
            let (counter, reason) = (reverted.counter, reverted.reason.clone());
            let sentence = BundleSentence::Reverted { counter, reason };
            Some(BundleEvent::new("reverted", Some(counter), &sentence))
        });
        if let Some(reverted) = reverted {
            self.show(Some(reverted)).await;
        }
    }

    fn on_offer(&mut self) {
        let Some(bundles) = &self.bundles else { return };
        let last = bundles.trials.record().last_counter();
        let message = self.inputs.offers.borrow_and_update().clone();
        let Some(payload) = message else { return };
        let offered = Offer::parse(&payload).map_or(0, |offer| offer.counter);
        self.largest_offer = self.largest_offer.max(offered);
        let verdict = self.offers.on_message(&payload, last, now());
        let outcome = match verdict {
            OfferVerdict::New => OfferOutcome::Followed,
            OfferVerdict::Old => OfferOutcome::Old,
            OfferVerdict::Malformed => OfferOutcome::Malformed,
            OfferVerdict::Withdrawn => OfferOutcome::Withdrawn,
        };
        self.metrics.count_offer(outcome);
        if verdict != OfferVerdict::New {
            tracing::debug!(target: LOG_TARGET, ?verdict, "an offer");
        }
    }

    /// Does what is due. Returns whether the gateway has to start again.
    async fn advance(&mut self) -> bool {
        let Some(bundles) = &self.bundles else { return false };
        let on_trial = bundles.active.as_ref().filter(|active| active.is_on_trial).cloned();
        if let Some(active) = &on_trial
            && self.advance_trial(active).await
        {
            return true;
        }
        // While there is one to go back to, the next one waits for the verdict.
        if on_trial.is_some_and(|active| active.has_predecessor) {
            return false;
        }
        self.take_inbox().await || self.pull().await
    }

    /// Judges the bundle on trial. Returns whether it was taken back.
    async fn advance_trial(&mut self, active: &ActiveBundle) -> bool {
        let mut evidence = self.evidence(active);
        let with_proof = Evidence { manifest: true, ..evidence };
        if !evidence.manifest && with_proof.missing().is_empty() {
            self.fetch_proof(active).await;
            evidence = self.evidence(active);
        }
        let running = since_boot().saturating_sub(self.recorded_at);
        let verdict = match &self.bundles {
            Some(bundles) => bundles.trials.judge(&evidence, running),
            None => return false,
        };
        match verdict {
            Verdict::Confirm => {
                self.confirm(active.counter).await;
                false
            }
            Verdict::Revert(reason) => self.revert(active.counter, reason).await,
            Verdict::Wait => {
                if running >= RECORD_INTERVAL {
                    self.record_running_time().await;
                }
                self.show_trial(active, &evidence).await;
                false
            }
        }
    }

    /// Returns what was reached with the configuration in use.
    fn evidence(&self, active: &ActiveBundle) -> Evidence {
        let session = *self.inputs.session.borrow();
        let tunnel = self.inputs.tunnel.as_ref();
        Evidence {
            tunnel: tunnel.is_none_or(|report| report.borrow().state.has_session()),
            broker: session.is_connected,
            offer: session.is_connected
                && !session.offer_refused
                && (!active.is_offered || self.largest_offer >= active.counter),
            set: session.is_connected && !session.set_refused,
            status: session.status_accepted,
            manifest: self.has_proof || self.settings.url.is_none(),
        }
    }

    /// Fetches the bundle on trial by its own configuration, or a later one of this gateway: the
    /// office may have made the next one meanwhile.
    async fn fetch_proof(&mut self, active: &ActiveBundle) {
        let Some(url) = self.settings.url.clone() else { return };
        if self.next_proof.is_some_and(|next| now() < next) {
            return;
        }
        self.next_proof = Some(now() + PROOF_PAUSE);
        let fetched = fetch::fetch(&self.inputs.uplink, &url).await;
        self.has_proof = match fetched {
            Ok(bytes) => {
                self.with_bundles(move |bundles| bundles.is_own_or_later(&bytes)).await
                    == Some(true)
            }
            Err(error) => {
                tracing::warn!(target: LOG_TARGET, counter = active.counter, "{error}");
                false
            }
        };
    }

    async fn confirm(&mut self, counter: u64) {
        let confirmed = self
            .with_bundles(|bundles| {
                let confirmed = bundles.trials.confirm();
                if let (Ok(()), Some(active)) = (&confirmed, &mut bundles.active) {
                    (active.is_on_trial, active.has_predecessor) = (false, false);
                }
                confirmed.map_err(|error| error.to_string())
            })
            .await;
        match confirmed {
            Some(Ok(())) => {
                let sentence = BundleSentence::Confirmed { counter };
                tracing::info!(target: LOG_TARGET, "{sentence}");
                self.metrics.on_trial.set(0);
                self.publish(BundleEvent::new("confirmed", Some(counter), &sentence)).await;
                self.show(None).await;
            }
            // Tried again at the next tick: the disk may have room then.
            Some(Err(reason)) => self.show_unusable(reason).await,
            None => {}
        }
    }

    /// Takes the bundle on trial back. Returns whether that is recorded.
    async fn revert(&mut self, counter: u64, reason: RevertReason) -> bool {
        let reverted = self
            .with_bundles(|bundles| {
                let reverted = bundles.revert(reason).map_err(|error| error.to_string());
                reverted.map(|()| std::mem::take(&mut bundles.events))
            })
            .await;
        match reverted {
            Some(Ok(events)) => {
                for event in events {
                    self.publish(event).await;
                }
                true
            }
            Some(Err(reason)) => {
                tracing::error!(target: LOG_TARGET, counter, reason, "cannot be taken back");
                self.show_unusable(reason).await;
                false
            }
            None => false,
        }
    }

    /// Takes a bundle that a person brought. Returns whether the gateway has to start with it.
    async fn take_inbox(&mut self) -> bool {
        if now() < self.next_inbox {
            return false;
        }
        self.next_inbox = now() + INBOX_INTERVAL;
        let own_key = self.settings.tunnel_public_key;
        let taken = self.with_bundles(move |bundles| {
            let has_inbox = bundles.trials.storage().has_inbox();
            has_inbox.then(|| bundles.take_inbox(own_key))
        });
        let Some(Some(event)) = taken.await else { return false };
        let is_staged = event.state == "staged";
        self.publish(event).await;
        is_staged
    }

    /// Fetches an offered bundle if one is due. Returns whether the gateway has to start with it.
    async fn pull(&mut self) -> bool {
        let (Some(offer), Some(url)) = (self.offers.due(now()), self.settings.url.clone()) else {
            return false;
        };
        let fetched = fetch::fetch_offered(&self.inputs.uplink, &url, &offer).await;
        let (reason, fault) = match fetched {
            Ok(bytes) => {
                let own_key = self.settings.tunnel_public_key;
                let staged = self.with_bundles(move |bundles| {
                    bundles.stage(&bytes, BundleSource::Pulled, own_key)
                });
                match staged.await {
                    Some(Ok(event)) => {
                        self.offers.close();
                        self.metrics.count_offer(OfferOutcome::Taken);
                        self.publish(event).await;
                        return true;
                    }
                    Some(Err(reason)) => (reason, PullFault::Wrong),
                    None => return false,
                }
            }
            Err(error) => (error.to_string(), error.fault()),
        };
        self.on_not_pulled(offer.counter, reason, fault).await;
        false
    }

    async fn on_not_pulled(&mut self, counter: u64, reason: String, fault: PullFault) {
        let pause = self.offers.on_failed(fault, now(), fastrand::f64());
        let (state, sentence) = match pause {
            Some(pause) => {
                let minutes = pause.as_secs().div_ceil(60);
                ("fetching", BundleSentence::NotFetched { counter, reason, minutes })
            }
            None => ("refused", BundleSentence::GivenUp { counter, reason }),
        };
        self.metrics.count_offer(OfferOutcome::Failed);
        tracing::warn!(target: LOG_TARGET, "{sentence}");
        let event = BundleEvent::new(state, Some(counter), &sentence);
        if pause.is_none() {
            self.publish(event).await;
        } else {
            self.show(Some(event)).await;
        }
    }

    async fn show_trial(&mut self, active: &ActiveBundle, evidence: &Evidence) {
        let Some(bundles) = &self.bundles else { return };
        let used = bundles.trials.record().tried.as_ref().map(|tried| tried.used);
        let left = self.settings.confirm.saturating_sub(used.unwrap_or_default());
        let left = active.has_predecessor.then(|| left.as_secs().div_ceil(60));
        let sentence = BundleSentence::on_trial(active.counter, &evidence.missing(), left);
        self.show(Some(BundleEvent::new("trying", Some(active.counter), &sentence))).await;
    }

    async fn show_unusable(&mut self, reason: String) {
        let sentence = BundleSentence::Unusable { reason };
        self.show(Some(BundleEvent::new("refused", None, &sentence))).await;
    }

    /// Shows this in the status, if it is not there already.
    async fn show(&mut self, event: Option<BundleEvent>) {
        if self.shown != event {
            self.shown.clone_from(&event);
            // The pump ends only when the gateway stops.
            let _ = self.reports.send(BundleReport::Status(event)).await;
        }
    }

    /// Shows this in the status and publishes it. Returns when it is in the queue, so that it
    /// outlives this process.
    async fn publish(&mut self, event: BundleEvent) {
        let (done, queued) = oneshot::channel();
        self.shown = Some(event.clone());
        if self.reports.send(BundleReport::Event(event, done)).await.is_ok() {
            // A pump that is busy for longer must not hold up a change that brings the hub back.
            let _ = timeout(LAST_WORDS_TIMEOUT, queued).await;
        }
    }

    async fn record_running_time(&mut self) {
        let now = since_boot();
        let running = now.saturating_sub(std::mem::replace(&mut self.recorded_at, now));
        let is_on_trial = |bundles: &Bundles| bundles.trials.record().tried.is_some();
        if !self.bundles.as_deref().is_some_and(is_on_trial) {
            return;
        }
        let recorded =
            self.with_bundles(move |bundles| bundles.trials.add_running_time(running)).await;
        if let Some(Err(error)) = recorded {
            tracing::warn!(target: LOG_TARGET, %error, "the running time is not recorded");
        }
    }

    /// Runs a job with the files of the bundles on a blocking thread: an SD card may take seconds.
    async fn with_bundles<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(&mut Bundles) -> T + Send + 'static,
    ) -> Option<T> {
        let mut bundles = self.bundles.take()?;
        let (bundles, done) = spawn_blocking(move || {
            let done = job(&mut bundles);
            (bundles, done)
        })
        .await
        .ok()?;
        self.bundles = Some(bundles);
        Some(done)
    }
}

/// Returns the time of the runtime, which tests advance.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Returns the time since the boot, with the time that the machine slept: clock_gettime(2).
fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}
