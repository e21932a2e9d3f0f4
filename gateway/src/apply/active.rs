//! Which configuration a start uses: that of the bundle in use, or the file of the box itself.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use provisioning::bundle::{
    Bundle, BundleError, BundleSource, GATEWAY_TOML, MAX_BUNDLE_BYTES, PackageDigest, PackageName,
    VerifyPolicy, verify,
};
use provisioning::regular_file;
use provisioning::trial::{BundleInUse, BundleTrial, RevertReason, TrialError, TrialSlot};
use thiserror::Error;
use tunnel::PublicKey;

use super::bundle_dir::BundleDir;
use super::sentence::{BundleEvent, BundleSentence};
use crate::model::with_sources;

/// Where `edge-gateway-box` puts the decrypted secrets of each bundle.
pub const BOX_RUN_DIR: &str = "/run/edge-gateway-box";
/// The running time that a bundle has to be confirmed, until its configuration says another one.
const DEFAULT_LIMIT: Duration = Duration::from_mins(10);
/// Time for `edge-gateway-box` to decrypt the secrets of a bundle and to set up its network.
const BOX_TIMEOUT: Duration = Duration::from_secs(60);
const BOX_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Longest sentence of `edge-gateway-box`.
const MAX_SENTENCE_BYTES: u64 = 4096;

/// Why the bundles of a box cannot be used.
#[derive(Debug, Error)]
pub enum BundlesError {
    /// The directory cannot be read or written, or the record in it is damaged.
    #[error(transparent)]
    Trial(#[from] TrialError<io::Error>),
    /// The bundle in use is not what it was.
    #[error("the bundle in use is damaged ({0}): load the newest bundle again")]
    Damaged(#[source] BundleError),
    /// The bundle in use cannot be read, or its files cannot be written.
    #[error("the bundle in use cannot be unpacked: make room on the disk, and check its owner")]
    Unpack(#[source] io::Error),
    /// `edge-gateway-box` has not done its part.
    #[error("edge-gateway-box does not prepare the bundle: {0}")]
    Box(String),
}

/// What `edge-gateway-box` has done for a bundle.
enum BoxOutcome {
    /// There is no such program here, or nothing for it to do.
    Nothing,
    /// The secrets are in this directory.
    Ready(PathBuf),
    /// It refuses the bundle, or does not answer.
    Refused {
        /// Why.
        sentence: String,
        /// Where the secrets would be.
        secrets: PathBuf,
    },
}

/// The bundles of a box, and the one in use.
#[derive(Debug)]
pub struct Bundles {
    pub(super) trials: BundleTrial<BundleDir>,
    /// The one in use; none before the first.
    pub active: Option<ActiveBundle>,
    /// What happened with bundles since the last start, to be published.
    pub events: Vec<BundleEvent>,
    /// Directory of `edge-gateway-box`.
    pub(super) box_run_dir: PathBuf,
}

/// The bundle in use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ActiveBundle {
    /// Its `gateway.toml`, unpacked.
    pub file: PathBuf,
    /// Its counter.
    pub counter: u64,
    /// `gateway.id` that it is for.
    pub gateway: String,
    /// Version that it names; none leaves it to the box.
    pub version: Option<String>,
    /// The packages that it names.
    pub packages: BTreeMap<PackageName, PackageDigest>,
}

/// The bundle in use, while it is on trial.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ActiveTrial {
    /// Its counter.
    pub(super) counter: u64,
    /// How it came.
    pub(super) source: BundleSource,
    /// The running time that is left, as far as it is recorded; none if there is no bundle to go
    /// back to.
    pub(super) time_left: Option<Duration>,
}

/// What became of a bundle that a person brought, and what to say about it.
pub(super) enum InboxVerdict {
    /// It is on trial.
    Staged(BundleEvent),
    /// It is removed, and `inbox.refused` says why.
    Refused(BundleEvent),
    /// The disk does not take it now: it stays, and is taken later.
    NotStored(BundleEvent),
}

impl InboxVerdict {
    fn into_event(self) -> BundleEvent {
        match self {
            Self::Staged(event) | Self::Refused(event) | Self::NotStored(event) => event,
        }
    }
}

/// Why a bundle is not put on trial.
#[derive(Debug, Error)]
pub enum StagingError {
    /// The bundle is refused.
    #[error(transparent)]
    Refused(#[from] BundleError),
    /// It cannot be stored now.
    #[error("{}", with_sources(.0))]
    Trial(#[from] TrialError<io::Error>),
    /// The signing keys cannot be stored now.
    #[error("its signing keys cannot be stored ({0}): make room on the disk")]
    Keys(#[source] io::Error),
}

impl Bundles {
    /// Takes a bundle that a person brought, counts the start of one on trial, and unpacks the one
    /// in use. Waits up to 60 s for `edge-gateway-box` if the bundle has something for it.
    ///
    /// # Errors
    /// When bundles cannot be read or written.
    pub fn open(state_dir: &Path, box_run_dir: &Path) -> Result<Self, BundlesError> {
        let dir = BundleDir::new(state_dir);
        let mut events = Vec::new();
        let trials = match BundleTrial::open(dir.clone(), DEFAULT_LIMIT) {
            // A person can still bring the newest bundle.
            Err(error @ TrialError::Record(_)) => {
                events.push(unusable(&error));
                BundleTrial::renew(dir, DEFAULT_LIMIT)
            }
            opened => opened?,
        };
        let box_run_dir = box_run_dir.to_owned();
        let mut bundles = Self { trials, active: None, events, box_run_dir };
        bundles.refresh()?;
        Ok(bundles)
    }

    /// Does what [`Self::open`] does again, for a process that has not started the gateway yet.
    ///
    /// # Errors
    /// When bundles cannot be read or written.
    pub fn refresh(&mut self) -> Result<(), BundlesError> {
        // While one is on trial, the next one waits for the verdict.
        let is_free = self.trials.record().on_trial.is_none() || !self.has_previous();
        let taken = is_free.then(|| self.take_inbox(None)).flatten();
        self.events.extend(taken.map(InboxVerdict::into_event));
        let counter = self.on_trial_counter();
        if let Some(reason) = self.trials.start()? {
            self.report_reverted(counter, &reason);
        }
        if let Err(error) = self.activate() {
            // The gateway runs with the file of the box, and takes the newest bundle.
            self.events.push(unusable(&error));
        }
        Ok(())
    }

    /// Returns `state_dir` of the box.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        self.trials.storage().state_dir()
    }

    /// Returns the file whose appearance changes which bundle is in use.
    #[must_use]
    pub fn inbox(&self) -> PathBuf {
        self.trials.storage().inbox()
    }

    /// Returns the bundle in use unpacked. One on trial that cannot be unpacked is rolled back.
    fn activate(&mut self) -> Result<(), BundlesError> {
        loop {
            let slot = match self.trials.in_use() {
                BundleInUse::Nothing => return Ok(()),
                BundleInUse::Confirmed(slot) | BundleInUse::OnTrial { slot, .. } => slot,
            };
            let has_previous = self.trials.record().on_trial.is_some() && self.has_previous();
            let error = match self.unpack(slot, has_previous) {
                Ok(active) => {
                    self.active = Some(active);
                    return Ok(());
                }
                Err(error) if has_previous => error,
                Err(error) => return Err(error),
            };
            self.revert(RevertReason::Unusable { cause: with_sources(&error) })?;
        }
    }

    fn unpack(
        &mut self,
        slot: TrialSlot,
        has_previous: bool,
    ) -> Result<ActiveBundle, BundlesError> {
        let dir = self.trials.storage().clone();
        let bytes = dir.read_slot(slot).map_err(BundlesError::Unpack)?;
        let keys = dir.keys();
        // It was checked when it came: for this box, with a larger counter.
        let policy = VerifyPolicy {
            keys: keys.as_ref(),
            gateway: None,
            tunnel_public_key: None,
            last_counter: None,
            source: BundleSource::ByHand,
        };
        let verified = verify(&bytes, &policy).map_err(BundlesError::Damaged)?;
        let manifest = verified.bundle.manifest();
        let secrets = match wait_for_box(&verified.bundle, &self.box_run_dir) {
            BoxOutcome::Nothing => dir.own_secrets(),
            BoxOutcome::Ready(secrets) => Some(secrets),
            BoxOutcome::Refused { sentence, .. } if has_previous => {
                return Err(BundlesError::Box(sentence));
            }
            // There is nothing else to run. The gateway waits for the files that it needs.
            BoxOutcome::Refused { sentence, secrets } => {
                self.events.push(unusable(&BundlesError::Box(sentence)));
                Some(secrets)
            }
        };
        let file =
            dir.unpack(slot, &verified.bundle, secrets.as_deref()).map_err(BundlesError::Unpack)?;
        Ok(ActiveBundle {
            file,
            counter: manifest.counter,
            gateway: manifest.gateway.clone(),
            version: manifest.version.clone(),
            packages: manifest.packages.clone(),
        })
    }

    /// Takes the bundle that a person brought, if there is one: it is in use from the next start.
    /// Returns what to say about it. While the disk takes nothing, it stays where it is.
    pub(super) fn take_inbox(&mut self, own_key: Option<PublicKey>) -> Option<InboxVerdict> {
        let dir = self.trials.storage().clone();
        if !dir.has_inbox() {
            return None;
        }
        let staged = match dir.read_inbox() {
            Ok(bytes) => self.stage(&bytes, BundleSource::ByHand, own_key),
            Err(error) => {
                let reason = format!(
                    "{} is not a regular file of at most {MAX_BUNDLE_BYTES} bytes ({error}): load \
                     it again",
                    dir.inbox().display()
                );
                return Some(refuse_inbox(&dir, reason));
            }
        };
        match staged {
            Ok(event) => {
                log_not_closed(dir.close_inbox(None));
                Some(InboxVerdict::Staged(event))
            }
            Err(StagingError::Refused(error)) => Some(refuse_inbox(&dir, error.to_string())),
            Err(error @ (StagingError::Trial(_) | StagingError::Keys(_))) => {
                Some(InboxVerdict::NotStored(unusable(&error)))
            }
        }
    }

    /// Puts a bundle on trial. Returns what to say about it.
    ///
    /// # Errors
    /// When it is refused, or cannot be stored; what was in use is still in use then.
    pub(super) fn stage(
        &mut self,
        bytes: &[u8],
        source: BundleSource,
        own_key: Option<PublicKey>,
    ) -> Result<BundleEvent, StagingError> {
        let keys = self.trials.storage().keys();
        let last = Some(self.trials.record().last_counter()).filter(|last| *last > 0);
        let policy = VerifyPolicy {
            keys: keys.as_ref(),
            gateway: self.active.as_ref().map(|active| active.gateway.as_str()),
            tunnel_public_key: own_key,
            last_counter: last,
            source,
        };
        let verified = verify(bytes, &policy)?;
        let counter = verified.bundle.manifest().counter;
        // First: if this fails, the bundle is not in use. A list of keys is signed by the list
        // before it, so it holds even if the bundle does not.
        self.trials.storage().set_keys(&verified.keys).map_err(StagingError::Keys)?;
        self.trials.stage(bytes, counter, source)?;
        let has_previous = self.has_previous();
        Ok(BundleEvent::logged(&BundleSentence::Staged { counter, has_previous }))
    }

    /// Returns the trial of the bundle in use; none if it is confirmed.
    pub(super) fn trial(&self) -> Option<ActiveTrial> {
        let on_trial = self.trials.record().on_trial.as_ref()?;
        let BundleInUse::OnTrial { time_left, .. } = self.trials.in_use() else { return None };
        // One that was staged since the start is not in use yet.
        let is_active = self.active.as_ref().is_some_and(|one| one.counter == on_trial.counter);
        is_active.then_some(ActiveTrial {
            counter: on_trial.counter,
            source: on_trial.source,
            time_left,
        })
    }

    /// Returns whether there is a bundle to roll back to from one on trial.
    fn has_previous(&self) -> bool {
        self.trials.record().confirmed.is_some()
    }

    /// Returns the last rollback, for the status.
    pub(super) fn last_reverted(&self) -> Option<BundleEvent> {
        let reverted = self.trials.record().reverted.as_ref()?;
        let (counter, reason) = (reverted.counter, reverted.reason.clone());
        Some(BundleEvent::new(&BundleSentence::Reverted { counter, reason }))
    }

    /// Returns whether these bytes are the bundle in use, or a later one of this gateway.
    pub(super) fn is_own_or_later(&self, bytes: &[u8]) -> bool {
        let Some(active) = &self.active else { return false };
        let keys = self.trials.storage().keys();
        let policy = VerifyPolicy {
            keys: keys.as_ref(),
            gateway: Some(&active.gateway),
            tunnel_public_key: None,
            last_counter: Some(active.counter.saturating_sub(1)).filter(|last| *last > 0),
            source: BundleSource::Pulled,
        };
        verify(bytes, &policy).is_ok()
    }

    /// Rolls back the bundle on trial, if there is one before it.
    pub(super) fn revert(&mut self, reason: RevertReason) -> Result<(), BundlesError> {
        let counter = self.on_trial_counter();
        let reason = self.trials.revert(reason)?;
        self.report_reverted(counter, &reason);
        Ok(())
    }

    /// Rolls back the bundle on trial because the gateway cannot start with it, and unpacks the one
    /// before it. Returns whether there is one.
    ///
    /// # Errors
    /// When bundles cannot be read or written.
    pub fn revert_unusable(&mut self, cause: String) -> Result<bool, BundlesError> {
        if self.trial().is_none_or(|trial| trial.time_left.is_none()) {
            return Ok(false);
        }
        self.revert(RevertReason::Unusable { cause })?;
        self.active = None;
        self.activate()?;
        Ok(true)
    }

    fn on_trial_counter(&self) -> Option<u64> {
        self.trials.record().on_trial.as_ref().map(|on_trial| on_trial.counter)
    }

    fn report_reverted(&mut self, counter: Option<u64>, reason: &RevertReason) {
        let sentence = BundleSentence::Reverted {
            counter: counter.unwrap_or_default(),
            reason: reason.to_string(),
        };
        self.events.push(BundleEvent::logged(&sentence));
    }
}

/// Waits until `edge-gateway-box` has done its part.
fn wait_for_box(bundle: &Bundle<'_>, run_dir: &Path) -> BoxOutcome {
    let counter = bundle.manifest().counter;
    let has_network = bundle.files().keys().any(|name| name.starts_with("network/"));
    if !run_dir.is_dir() || !(has_network || bundle.sealed_secrets().is_some()) {
        return BoxOutcome::Nothing;
    }
    let secrets = run_dir.join(counter.to_string());
    let refused = run_dir.join(format!("{counter}.refused"));
    let deadline = Instant::now() + BOX_TIMEOUT;
    loop {
        if secrets.is_dir() {
            return BoxOutcome::Ready(secrets);
        }
        if let Ok(sentence) = regular_file::read(&refused, MAX_SENTENCE_BYTES) {
            let sentence = String::from_utf8_lossy(&sentence).trim().to_owned();
            return BoxOutcome::Refused { sentence, secrets };
        }
        if Instant::now() >= deadline {
            let sentence =
                "nothing after 60 s; `systemctl status edge-gateway-box-apply` shows why";
            return BoxOutcome::Refused { sentence: sentence.to_owned(), secrets };
        }
        thread::sleep(BOX_POLL_INTERVAL);
    }
}

/// Refuses the bundle that a person brought.
fn refuse_inbox(dir: &BundleDir, reason: String) -> InboxVerdict {
    log_not_closed(dir.close_inbox(Some(&reason)));
    InboxVerdict::Refused(BundleEvent::logged(&BundleSentence::InboxRefused { reason }))
}

/// It would be looked at again, and its counter refused.
fn log_not_closed(closed: io::Result<()>) {
    if let Err(error) = closed {
        tracing::warn!(
            target: super::LOG_TARGET, %error, "the bundle that was loaded cannot be removed"
        );
    }
}

pub(super) fn unusable(error: &dyn std::error::Error) -> BundleEvent {
    BundleEvent::logged(&BundleSentence::Unusable { reason: with_sources(error) })
}

/// Returns the `gateway.toml` of the bundle in use; none without one, or if this user may not look.
#[must_use]
pub fn file_in_use(state_dir: &Path) -> Option<PathBuf> {
    let dir = BundleDir::new(state_dir);
    match BundleTrial::open(dir.clone(), DEFAULT_LIMIT).ok()?.in_use() {
        BundleInUse::Nothing => None,
        BundleInUse::Confirmed(slot) | BundleInUse::OnTrial { slot, .. } => {
            Some(dir.unpacked(slot).join(GATEWAY_TOML)).filter(|file| file.is_file())
        }
    }
}
