//! Changes the configuration of the gateway to that of another bundle, and back if it loses the
//! hub. Drives [`provisioning::trial`].
//!
//! A bundle comes from a person, in a file, or from the office: it publishes an offer, and the
//! gateway fetches the bundle from the web server that its present configuration names. The bundle
//! is verified and staged; then the gateway starts again with it. It is confirmed when everything
//! was reached with it that the next change needs, and rolled back otherwise.

mod active;
mod bundle_dir;
mod fetch;
mod offer;
mod packages;
mod sentence;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use provisioning::bundle::{BundleOffer, BundleSource};
use provisioning::trial::{Evidence, MissingEvidence, RevertReason, TrialDecision};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tunnel::{PublicKey, TunnelReport};

pub use active::{ActiveBundle, BOX_RUN_DIR, Bundles, BundlesError, StagingError, file_in_use};
pub use fetch::{PullError, WebFile};
pub use offer::{OfferTracker, OfferVerdict, PullFault};
pub use sentence::{BundleEvent, BundleSentence};

use self::active::{ActiveTrial, InboxVerdict, unusable};
use self::packages::{PackageDownload, VersionState, remove_packages, version_state};
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
/// Pause between attempts to fetch the bundle on trial again.
const REFETCH_PAUSE: Duration = Duration::from_secs(10);
/// Time for the pump to queue the event before the restart.
const EVENT_QUEUED_TIMEOUT: Duration = Duration::from_secs(1);

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
    offers: OfferTracker,
    /// Largest counter that was offered since the start.
    largest_offer: u64,
    /// Time since the boot up to which the running time is recorded.
    recorded_at: Duration,
    /// Whether the bundle on trial was fetched again.
    is_refetched: bool,
    next_refetch: Option<Instant>,
    /// The packages of the version that the bundle on trial names.
    download: Option<PackageDownload>,
    /// Bytes that it had received at the last look, and when that was since the boot.
    download_seen: (u64, Duration),
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
        metrics.number.set(counter);
        metrics.on_trial.set(bundles.trial().is_some().into());
        Self {
            bundles: Some(Box::new(bundles)),
            settings,
            inputs,
            reports,
            metrics,
            offers: OfferTracker::default(),
            largest_offer: 0,
            recorded_at: since_boot(),
            is_refetched: false,
            next_refetch: None,
            download: None,
            download_seen: (0, since_boot()),
            next_inbox: now(),
            shown: None,
        }
    }

    /// Runs until `stop` fires. Cancels `restart` when the gateway has to start again with another
    /// configuration. Ends earlier only after a panic: a trial without this task would never end.
    pub async fn run(mut self, restart: CancellationToken, stop: CancellationToken) {
        self.report_start().await;
        let mut ticks = interval(TICK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let work = async {
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    Ok(()) = self.inputs.offers.changed() => self.on_offer().await,
                }
                let has_to_restart = self.advance().await;
                if has_to_restart || self.bundles.is_none() {
                    return has_to_restart;
                }
            }
        };
        match stop.run_until_cancelled(work).await {
            None => self.record_running_time().await,
            Some(true) => {
                restart.cancel();
                // A task that ends before the stop would be taken for one that failed.
                stop.cancelled().await;
            }
            Some(false) => {}
        }
    }

    /// Publishes what happened before the start.
    async fn report_start(&mut self) {
        let events = self.bundles.as_mut().map(|bundles| std::mem::take(&mut bundles.events));
        for event in events.unwrap_or_default() {
            self.publish(event).await;
        }
        if self.bundles.as_ref().is_some_and(|bundles| bundles.trial().is_none()) {
            self.remove_packages().await;
        }
        self.show_last_reverted().await;
    }

    /// Shows the last rollback, if any.
    async fn show_last_reverted(&mut self) {
        let reverted = self.bundles.as_ref().and_then(|bundles| bundles.last_reverted());
        self.show(reverted).await;
    }

    async fn on_offer(&mut self) {
        let Some(bundles) = &self.bundles else { return };
        let last = bundles.trials.record().last_counter();
        let message = self.inputs.offers.borrow_and_update().clone();
        let Some(payload) = message else { return };
        let offered = BundleOffer::parse(&payload).map_or(0, |offer| offer.counter);
        self.largest_offer = self.largest_offer.max(offered);
        let verdict = self.offers.on_message(&payload, last, now());
        let outcome = match verdict {
            OfferVerdict::New => OfferOutcome::Followed,
            OfferVerdict::Old => OfferOutcome::Old,
            OfferVerdict::Malformed => OfferOutcome::Malformed,
            OfferVerdict::Withdrawn => OfferOutcome::Withdrawn,
        };
        self.metrics.count_offer(outcome);
        // What was said about the offer before is over.
        if verdict == OfferVerdict::Withdrawn {
            self.show_last_reverted().await;
        }
    }

    /// Does what is due. Returns whether the gateway has to start again.
    async fn advance(&mut self) -> bool {
        if let Some(trial) = self.bundles.as_ref().and_then(|bundles| bundles.trial()) {
            let is_reverted = self.advance_trial(trial).await;
            // While there is one to roll back to, the next one waits for the verdict.
            if is_reverted || trial.time_left.is_some() {
                return is_reverted;
            }
        }
        self.take_inbox().await || self.pull().await
    }

    /// Judges the bundle on trial. Returns whether it was rolled back.
    async fn advance_trial(&mut self, trial: ActiveTrial) -> bool {
        let mut evidence = self.evidence(trial);
        let with_refetch = Evidence { bundle_refetched: true, version: true, ..evidence };
        if !evidence.bundle_refetched && with_refetch.missing().is_empty() {
            self.refetch_bundle().await;
            evidence = self.evidence(trial);
        }
        let version = self.version_state().await;
        evidence.version = version == VersionState::Reached;
        if let VersionState::Failed(cause) = &version
            && trial.time_left.is_some()
        {
            return self.revert(RevertReason::VersionFailed { cause: cause.clone() }).await;
        }
        let missing = evidence.missing();
        self.advance_download(&missing, &version);
        let running = since_boot().saturating_sub(self.recorded_at);
        let Some(bundles) = &self.bundles else { return false };
        match bundles.trials.judge(&evidence, running) {
            TrialDecision::Confirm => {
                self.confirm(trial.counter).await;
                false
            }
            TrialDecision::Revert(reason) => self.revert(reason).await,
            TrialDecision::Wait => {
                if running >= RECORD_INTERVAL {
                    self.record_running_time().await;
                }
                let minutes_left = trial.time_left.map(|left| left.as_secs().div_ceil(60));
                let missing = self.describe(&missing, &version);
                let sentence = BundleSentence::on_trial(trial.counter, missing, minutes_left);
                self.show(Some(BundleEvent::new(&sentence))).await;
                false
            }
        }
    }

    /// Returns what was reached with the configuration in use.
    fn evidence(&self, trial: ActiveTrial) -> Evidence {
        let session = *self.inputs.session.borrow();
        let tunnel = self.inputs.tunnel.as_ref();
        let is_offered_again =
            trial.source == BundleSource::ByHand || self.largest_offer >= trial.counter;
        Evidence {
            tunnel: tunnel.is_none_or(|report| report.borrow().state.has_session()),
            broker: session.is_connected,
            offer: session.is_connected && !session.offer_refused && is_offered_again,
            set: session.is_connected && !session.set_refused,
            status: session.status_accepted,
            bundle_refetched: self.is_refetched || self.settings.url.is_none(),
            version: false,
        }
    }

    async fn version_state(&self) -> VersionState {
        let Some(bundles) = &self.bundles else { return VersionState::Waiting };
        let Some(active) = &bundles.active else { return VersionState::Reached };
        version_state(&bundles.box_run_dir, active).await
    }

    /// Fetches packages when nothing else is missing: then the web server can be reached. Time in
    /// which they arrive does not count as time of the trial: the line may be slow.
    fn advance_download(&mut self, missing: &[MissingEvidence], version: &VersionState) {
        let (VersionState::Wanted(wanted), [MissingEvidence::Version]) = (version, missing) else {
            self.download = None;
            return;
        };
        let now = since_boot();
        let bundles = self.bundles.as_ref();
        let active =
            bundles.and_then(|bundles| Some((bundles.state_dir(), bundles.active.as_ref()?)));
        match (&self.download, active, &self.settings.url) {
            (Some(download), ..) if download.has_all(wanted) => {
                let (seen, seen_at) = self.download_seen;
                let received = download.progress().received;
                if received > seen {
                    self.recorded_at += now.saturating_sub(seen_at);
                }
                self.download_seen = (received, now);
            }
            (_, Some((state_dir, active)), Some(url)) => {
                let uplink = &self.inputs.uplink;
                let wanted = wanted.clone();
                let begun = PackageDownload::begin(wanted, active, state_dir, uplink, url);
                self.download = Some(begun);
                self.download_seen = (0, now);
            }
            _ => {}
        }
    }

    /// Returns what is missing, as a sentence for people.
    fn describe(&self, missing: &[MissingEvidence], version: &VersionState) -> String {
        let download = self.download.as_ref().map(PackageDownload::progress);
        let one = |missing: &MissingEvidence| {
            match (missing, version, &download) {
            (MissingEvidence::Version, VersionState::Wanted(_), Some(progress)) => {
                let mebibytes = progress.received as f64 / f64::from(1 << 20);
                format!("{}, {mebibytes:.1} MiB received", progress.sentence)
            }
            (MissingEvidence::Version, VersionState::Wanted(_), None)
                if self.settings.url.is_none() =>
            {
                "its version is not installed: `[bundle] url` names no web server to fetch it from, \
                 so bring the packages on the stick"
                    .to_owned()
            }
            (MissingEvidence::Version, VersionState::Failed(cause), _) => {
                format!("its version does not run here: {cause}")
            }
            (MissingEvidence::Version, VersionState::Waiting, _) => {
                "edge-gateway-box installs its version".to_owned()
            }
            _ => missing.to_string(),
        }
        };
        missing.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    /// Fetches the bundle on trial by its own configuration, or a later one of this gateway: the
    /// office may have made the next one meanwhile.
    async fn refetch_bundle(&mut self) {
        let Some(url) = self.settings.url.clone() else { return };
        if self.next_refetch.is_some_and(|next| now() < next) {
            return;
        }
        self.next_refetch = Some(now() + REFETCH_PAUSE);
        let fetched = fetch::fetch(&self.inputs.uplink, &url).await;
        self.is_refetched = match fetched {
            Ok(bytes) => {
                self.with_bundles(move |bundles| bundles.is_own_or_later(&bytes)).await
                    == Some(true)
            }
            Err(error) => {
                tracing::warn!(target: LOG_TARGET, "{error}");
                false
            }
        };
    }

    async fn confirm(&mut self, counter: u64) {
        match self.with_bundles(|bundles| bundles.trials.confirm()).await {
            Some(Ok(())) => {
                self.metrics.on_trial.set(0);
                self.remove_packages().await;
                self.publish(BundleEvent::logged(&BundleSentence::Confirmed { counter })).await;
                self.show(None).await;
            }
            // Tried again at the next tick: the disk may have room then.
            Some(Err(error)) => self.show(Some(unusable(&error))).await,
            None => {}
        }
    }

    /// Rolls back the bundle on trial. Returns whether that is recorded.
    async fn revert(&mut self, reason: RevertReason) -> bool {
        let reverted = self.with_bundles(|bundles| {
            let reverted = bundles.revert(reason);
            reverted.map(|()| std::mem::take(&mut bundles.events))
        });
        match reverted.await {
            Some(Ok(events)) => {
                for event in events {
                    self.publish(event).await;
                }
                true
            }
            Some(Err(error)) => {
                self.show(Some(unusable(&error))).await;
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
        match self.with_bundles(move |bundles| bundles.take_inbox(own_key)).await.flatten() {
            Some(InboxVerdict::Staged(event)) => {
                self.publish(event).await;
                true
            }
            // It changes nothing about the gateway: the person reads `inbox.refused`.
            Some(InboxVerdict::Refused(event)) => {
                self.publish(event).await;
                self.show_last_reverted().await;
                false
            }
            Some(InboxVerdict::NotStored(event)) => {
                self.show(Some(event)).await;
                false
            }
            None => false,
        }
    }

    /// Fetches an offered bundle if one is due. Returns whether the gateway has to start with it.
    async fn pull(&mut self) -> bool {
        let (Some(offer), Some(url)) = (self.offers.due(now()), self.settings.url.clone()) else {
            return false;
        };
        let own_key = self.settings.tunnel_public_key;
        let error = match fetch::fetch_offered(&self.inputs.uplink, &url, &offer).await {
            Ok(bytes) => {
                let stage = move |bundles: &mut Bundles| {
                    bundles.stage(&bytes, BundleSource::Pulled, own_key)
                };
                match self.with_bundles(stage).await {
                    Some(Ok(event)) => {
                        self.offers.close();
                        self.metrics.count_offer(OfferOutcome::Taken);
                        self.publish(event).await;
                        return true;
                    }
                    Some(Err(error)) => PullError::from(error),
                    None => return false,
                }
            }
            Err(error) => error,
        };
        self.on_not_pulled(offer.counter, &error).await;
        false
    }

    async fn on_not_pulled(&mut self, counter: u64, error: &PullError) {
        self.metrics.count_offer(OfferOutcome::Failed);
        let reason = error.to_string();
        match self.offers.on_failed(error.fault(), now(), fastrand::f64()) {
            Some(pause) => {
                let minutes = (pause.as_secs() + 30) / 60;
                let sentence = BundleSentence::NotFetched { counter, reason, minutes };
                self.show(Some(BundleEvent::logged(&sentence))).await;
            }
            None => {
                let sentence = BundleSentence::GivenUp { counter, reason };
                self.publish(BundleEvent::logged(&sentence)).await;
            }
        }
    }

    /// Removes packages that nothing needs any more.
    async fn remove_packages(&mut self) {
        let removed = self.with_bundles(|bundles| remove_packages(bundles.state_dir())).await;
        if let Some(Err(error)) = removed {
            tracing::warn!(target: LOG_TARGET, %error, "old packages are not removed");
        }
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
            let _ = timeout(EVENT_QUEUED_TIMEOUT, queued).await;
        }
    }

    async fn record_running_time(&mut self) {
        let now = since_boot();
        let running = now.saturating_sub(std::mem::replace(&mut self.recorded_at, now));
        // The first bundle has no limit, and may wait for its hub for weeks: flash would wear.
        let trial = self.bundles.as_ref().and_then(|bundles| bundles.trial());
        if trial.is_none_or(|trial| trial.time_left.is_none()) {
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
