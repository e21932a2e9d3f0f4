//! A trial of a bundle: staged, tried, then confirmed or reverted. Pure: time and storage are
//! arguments.
//!
//! The storage has two slots for whole bundles, and one record that says which slot is in use. A
//! bundle goes into the slot that is not in use, and the record changes in one step. So at every
//! instant of a power cut the old bundle or the new one is in use, and it is whole.
//!
//! A bundle on trial is confirmed when everything that it must reach was reached in time. The time
//! is that of running, summed over restarts. The first bundle has nothing to roll back to, so it is
//! tried for ever.

mod evidence;
mod record;
mod state;
#[cfg(test)]
mod tests;

use std::time::Duration;

use thiserror::Error;

use crate::bundle::BundleSource;

pub use evidence::{Evidence, MissingEvidence};
pub use record::{BundleOnTrial, RevertedBundle, TrialRecord, TrialRecordError};
pub use state::TrialState;

/// Starts of a bundle on trial after which it is rolled back: a power cut or a crash ends one.
pub const MAX_STARTS: u32 = 5;

/// Place for a whole bundle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TrialSlot {
    /// The first place.
    A,
    /// The second place.
    B,
}

/// Where bundles and the record are kept. Each write is on the disk when it returns.
pub trait TrialStorage {
    /// Why something cannot be read or written.
    type Error;

    /// Returns the record; none if there was no bundle yet.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read_record(&self) -> Result<Option<String>, Self::Error>;

    /// Replaces the record in one step: after a power cut it is the old one or the new one.
    ///
    /// # Errors
    /// When it cannot be written; it may be the old one or the new one then.
    fn write_record(&mut self, record: &str) -> Result<(), Self::Error>;

    /// Writes a bundle into a slot. After a power cut the slot may hold anything.
    ///
    /// # Errors
    /// When it cannot be written, as when the disk is full.
    fn write_slot(&mut self, slot: TrialSlot, bundle: &[u8]) -> Result<(), Self::Error>;
}

/// Why a trial cannot go on.
#[derive(Debug, Error)]
pub enum TrialError<E> {
    /// The storage fails.
    #[error(
        "the bundles of this box cannot be read or written: make room on the disk, and check the \
         owner of state_dir"
    )]
    Storage(#[source] E),
    /// The record is damaged.
    #[error(transparent)]
    Record(#[from] TrialRecordError),
    /// The bundle is not newer than the last one.
    #[error("a bundle with counter {counter} was here before; the last one has {last}")]
    NotNewer {
        /// Counter of the bundle.
        counter: u64,
        /// Largest counter that was here.
        last: u64,
    },
    /// Another bundle is on trial.
    #[error("bundle {counter} is on trial; the next one has to wait until it is confirmed or not")]
    OnTrial {
        /// Counter of the bundle on trial.
        counter: u64,
    },
}

/// Why a bundle was rolled back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RevertReason {
    /// Something was not reached in time.
    NotReached {
        /// What is missing.
        missing: Vec<MissingEvidence>,
        /// The time that it had.
        limit: Duration,
    },
    /// It was started too often without being confirmed.
    TooManyStarts,
    /// The version that it names cannot be installed, or did not run.
    VersionFailed {
        /// Why, as a sentence for people.
        cause: String,
    },
    /// The gateway cannot start with it.
    Unusable {
        /// What is wrong with it, as a sentence for people.
        cause: String,
    },
}

/// What to run, and whether it is on trial.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BundleInUse {
    /// No bundle: the configuration of the box itself.
    Nothing,
    /// A confirmed bundle.
    Confirmed(TrialSlot),
    /// A bundle on trial.
    OnTrial {
        /// Where it is.
        slot: TrialSlot,
        /// The running time that is left; none if there is nothing to roll back to.
        time_left: Option<Duration>,
    },
}

/// What follows from the evidence at some time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TrialDecision {
    /// The trial goes on.
    Wait,
    /// Everything was reached.
    Confirm,
    /// The time is over: the bundle before it is to be used.
    Revert(RevertReason),
}

/// The bundles of one box: the confirmed one, and the one on trial.
#[derive(Debug)]
pub struct BundleTrial<S> {
    storage: S,
    record: TrialRecord,
    /// Whether the storage may hold another record, after a failed write.
    is_record_uncertain: bool,
    /// The time that a bundle has to be confirmed.
    limit: Duration,
}

impl<S: TrialStorage> BundleTrial<S> {
    /// Reads the record. `limit` is the running time that a bundle has to be confirmed.
    ///
    /// # Errors
    /// When it cannot be read or is damaged; [`Self::renew`] is the way on from a damaged one.
    pub fn open(storage: S, limit: Duration) -> Result<Self, TrialError<S::Error>> {
        let text = storage.read_record().map_err(TrialError::Storage)?;
        let record = text.as_deref().map(str::parse).transpose()?.unwrap_or_default();
        Ok(Self { storage, record, is_record_uncertain: false, limit })
    }

    /// Begins again without a record, as a box that has had no bundle: the next bundle is its
    /// first one. For a record that is damaged, when a person brings a bundle; what was in use, and
    /// which counters were here, is not known any more.
    pub fn renew(storage: S, limit: Duration) -> Self {
        Self { storage, record: TrialRecord::default(), is_record_uncertain: true, limit }
    }

    /// Sets the running time that a bundle has to be confirmed.
    pub const fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Returns the record: which bundles are there, and what became of them.
    pub const fn record(&self) -> &TrialRecord {
        &self.record
    }

    /// Returns the storage.
    pub const fn storage(&self) -> &S {
        &self.storage
    }

    /// Returns what is in use.
    pub fn in_use(&self) -> BundleInUse {
        match (&self.record.on_trial, self.record.confirmed) {
            (Some(on_trial), confirmed) => BundleInUse::OnTrial {
                slot: on_trial.slot,
                time_left: confirmed.map(|_| self.limit.saturating_sub(on_trial.run_time)),
            },
            (None, Some((slot, _))) => BundleInUse::Confirmed(slot),
            (None, None) => BundleInUse::Nothing,
        }
    }

    /// Puts a verified bundle on trial: from now on it is in use.
    ///
    /// # Errors
    /// When another one is on trial, the counter is not larger than all before it, or the storage
    /// fails; what was in use is still in use then.
    pub fn stage(
        &mut self,
        bundle: &[u8],
        counter: u64,
        source: BundleSource,
    ) -> Result<TrialSlot, TrialError<S::Error>> {
        if let Some(on_trial) =
            self.record.on_trial.as_ref().filter(|_| self.record.confirmed.is_some())
        {
            return Err(TrialError::OnTrial { counter: on_trial.counter });
        }
        let last = self.record.last_counter();
        if counter <= last {
            return Err(TrialError::NotNewer { counter, last });
        }
        if self.is_record_uncertain {
            // The slot that is free here may be in use in the storage.
            self.write(self.record.clone())?;
        }
        let slot = self.record.free_slot();
        self.storage.write_slot(slot, bundle).map_err(TrialError::Storage)?;
        let on_trial = BundleOnTrial { slot, counter, source, starts: 0, run_time: Duration::ZERO };
        self.write(TrialRecord { on_trial: Some(on_trial), last: counter, ..self.record.clone() })?;
        Ok(slot)
    }

    /// Records that the bundle on trial is about to run. Returns why it was rolled back if it was
    /// started too often; then [`Self::in_use`] is the one before it.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn start(&mut self) -> Result<Option<RevertReason>, TrialError<S::Error>> {
        let Some(mut on_trial) = self.record.on_trial.clone() else { return Ok(None) };
        let has_previous = self.record.confirmed.is_some();
        if has_previous && on_trial.starts >= MAX_STARTS {
            self.revert(RevertReason::TooManyStarts).map(Some)
        } else {
            on_trial.starts = on_trial.starts.saturating_add(1);
            self.write(TrialRecord { on_trial: Some(on_trial), ..self.record.clone() })?;
            Ok(None)
        }
    }

    /// Returns what follows from the evidence after the bundle has run for `running` since the last
    /// [`Self::add_running_time`].
    pub fn judge(&self, evidence: &Evidence, running: Duration) -> TrialDecision {
        let Some(on_trial) = &self.record.on_trial else { return TrialDecision::Wait };
        let missing = evidence.missing();
        if missing.is_empty() {
            return TrialDecision::Confirm;
        }
        let is_over = on_trial.run_time.saturating_add(running) >= self.limit;
        if is_over && self.record.confirmed.is_some() {
            return TrialDecision::Revert(RevertReason::NotReached { missing, limit: self.limit });
        }
        TrialDecision::Wait
    }

    /// Records time that the bundle on trial has run, before a restart and about every half minute:
    /// what is not recorded does not count after a power cut, which counts as a start.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn add_running_time(&mut self, running: Duration) -> Result<(), TrialError<S::Error>> {
        let Some(mut on_trial) = self.record.on_trial.clone() else { return Ok(()) };
        on_trial.run_time = on_trial.run_time.saturating_add(running);
        self.write(TrialRecord { on_trial: Some(on_trial), ..self.record.clone() })
    }

    /// Confirms the bundle on trial.
    ///
    /// # Errors
    /// When the storage fails; it is still on trial then.
    pub fn confirm(&mut self) -> Result<(), TrialError<S::Error>> {
        let Some(on_trial) = &self.record.on_trial else { return Ok(()) };
        let confirmed = Some((on_trial.slot, on_trial.counter));
        // A confirmed bundle makes the last rollback obsolete.
        self.write(TrialRecord { confirmed, on_trial: None, reverted: None, ..self.record.clone() })
    }

    /// Rolls back the bundle on trial, if there is one before it. Its counter is never taken again.
    ///
    /// # Errors
    /// When the storage fails. The one before it is in use all the same; after a restart the trial
    /// may go on.
    pub fn revert(&mut self, reason: RevertReason) -> Result<RevertReason, TrialError<S::Error>> {
        if let Some(on_trial) =
            self.record.on_trial.as_ref().filter(|_| self.record.confirmed.is_some())
        {
            let reverted = RevertedBundle { counter: on_trial.counter, reason: reason.to_string() };
            self.record.reverted = Some(reverted);
            self.record.on_trial = None;
            self.write(self.record.clone())?;
        }
        Ok(reason)
    }

    fn write(&mut self, record: TrialRecord) -> Result<(), TrialError<S::Error>> {
        self.is_record_uncertain = true;
        self.storage.write_record(&record.to_string()).map_err(TrialError::Storage)?;
        self.is_record_uncertain = false;
        self.record = record;
        Ok(())
    }
}

impl std::fmt::Display for RevertReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotReached { missing, limit } => {
                let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
                let minutes = limit.as_secs_f64() / 60.0;
                write!(f, "after {minutes:.0} min of running: {}", missing.join("; "))
            }
            Self::TooManyStarts => write!(
                f,
                "it was started {MAX_STARTS} times without being confirmed: the program crashed, \
                 or the power failed"
            ),
            Self::VersionFailed { cause } => write!(f, "its version does not run here: {cause}"),
            Self::Unusable { cause } => write!(f, "the gateway cannot start with it: {cause}"),
        }
    }
}
