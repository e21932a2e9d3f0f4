//! The record of a box's bundles, as it stands in one small file.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;
use toml::{Table, Value};

use super::TrialSlot;
use crate::bundle::BundleSource;

/// Maximum length of a reason.
const MAX_REASON: usize = 1000;

/// Which bundles a box has, and what became of them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TrialRecord {
    /// The last confirmed bundle: where it is, and its counter.
    pub confirmed: Option<(TrialSlot, u64)>,
    /// The bundle on trial.
    pub on_trial: Option<BundleOnTrial>,
    /// The last bundle that was rolled back.
    pub reverted: Option<RevertedBundle>,
    /// Largest counter of all bundles that were here.
    pub(super) last: u64,
}

/// A bundle on trial.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BundleOnTrial {
    /// Where it is.
    pub slot: TrialSlot,
    /// Its counter.
    pub counter: u64,
    /// How it came.
    pub source: BundleSource,
    /// How often it was started.
    pub starts: u32,
    /// How long it has run, as far as it is recorded.
    pub run_time: Duration,
}

/// A bundle that was rolled back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RevertedBundle {
    /// Its counter, which is never taken again.
    pub counter: u64,
    /// Why, as a sentence for people.
    pub reason: String,
}

/// The record is not what this program writes.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the record of the bundles is damaged: bring the newest bundle by hand")]
pub struct TrialRecordError;

impl TrialRecord {
    /// Returns the largest counter of all bundles that were here; 0 if there was none.
    #[must_use]
    pub fn last_counter(&self) -> u64 {
        self.last
    }

    /// Returns the slot whose content nothing needs.
    pub(super) fn free_slot(&self) -> TrialSlot {
        // Without a confirmed bundle the one on trial is in use until the next one is whole.
        let on_trial = self.on_trial.as_ref().map(|on_trial| on_trial.slot);
        match self.confirmed.map(|(slot, _)| slot).or(on_trial) {
            Some(TrialSlot::A) => TrialSlot::B,
            Some(TrialSlot::B) | None => TrialSlot::A,
        }
    }
}

impl fmt::Display for TrialRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "last = {}", self.last)?;
        if let Some((slot, counter)) = self.confirmed {
            writeln!(f, "[confirmed]\nslot = \"{slot}\"\ncounter = {counter}")?;
        }
        if let Some(BundleOnTrial { slot, counter, source, starts, run_time }) = &self.on_trial {
            let run_time = run_time.as_millis();
            writeln!(f, "[tried]\nslot = \"{slot}\"\ncounter = {counter}")?;
            writeln!(
                f,
                "origin = \"{}\"\nstarts = {starts}\nused_ms = {run_time}",
                source_word(*source)
            )?;
        }
        if let Some(RevertedBundle { counter, reason }) = &self.reverted {
            let reason: String = reason.chars().take(MAX_REASON).collect();
            writeln!(f, "[reverted]\ncounter = {counter}\nreason = {}", Value::from(reason))?;
        }
        Ok(())
    }
}

impl FromStr for TrialRecord {
    type Err = TrialRecordError;

    fn from_str(text: &str) -> Result<Self, TrialRecordError> {
        let root: Table = text.parse().map_err(|_| TrialRecordError)?;
        let section = |key: &str| match root.get(key) {
            Some(Value::Table(table)) => Ok(Some(table)),
            Some(_) => Err(TrialRecordError),
            None => Ok(None),
        };
        let confirmed = section("confirmed")?
            .map(|table| Ok::<_, TrialRecordError>((slot(table)?, number(table, "counter")?)));
        let on_trial = section("tried")?.map(|table| {
            let starts = u32::try_from(number(table, "starts")?).map_err(|_| TrialRecordError)?;
            Ok::<_, TrialRecordError>(BundleOnTrial {
                slot: slot(table)?,
                counter: number(table, "counter")?,
                source: source(table)?,
                starts,
                run_time: Duration::from_millis(number(table, "used_ms")?),
            })
        });
        let reverted = section("reverted")?.map(|table| {
            let reason = table.get("reason").and_then(Value::as_str).ok_or(TrialRecordError)?;
            let counter = number(table, "counter")?;
            Ok::<_, TrialRecordError>(RevertedBundle { counter, reason: reason.to_owned() })
        });
        Ok(Self {
            confirmed: confirmed.transpose()?,
            on_trial: on_trial.transpose()?,
            reverted: reverted.transpose()?,
            last: number(&root, "last")?,
        })
    }
}

/// Returns the word of `origin`.
const fn source_word(source: BundleSource) -> &'static str {
    match source {
        BundleSource::ByHand => "by-hand",
        BundleSource::Pulled => "offered",
    }
}

impl fmt::Display for TrialSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}

fn slot(table: &Table) -> Result<TrialSlot, TrialRecordError> {
    match table.get("slot").and_then(Value::as_str) {
        Some("a") => Ok(TrialSlot::A),
        Some("b") => Ok(TrialSlot::B),
        _ => Err(TrialRecordError),
    }
}

fn source(table: &Table) -> Result<BundleSource, TrialRecordError> {
    match table.get("origin").and_then(Value::as_str) {
        Some("by-hand") => Ok(BundleSource::ByHand),
        Some("offered") => Ok(BundleSource::Pulled),
        _ => Err(TrialRecordError),
    }
}

fn number(table: &Table, key: &str) -> Result<u64, TrialRecordError> {
    let number = table.get(key).and_then(Value::as_integer);
    number.and_then(|number| u64::try_from(number).ok()).ok_or(TrialRecordError)
}
