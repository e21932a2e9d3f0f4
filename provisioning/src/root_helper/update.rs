//! An update of the program, as root decides about it; pure.
//!
//! A bundle on trial names the version to run. When its package and that of the version before are
//! there, the new one is installed and tried with its bundle. If the bundle is not confirmed, the
//! version before comes back. The record is written before each change, so after a power cut the
//! next run finishes what was begun.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;
use toml::{Table, Value};

use crate::bundle::{Manifest, PackageName, compare_versions};

/// How long a version is tried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct TrialLimits {
    /// In this time the gateway has to answer.
    pub(super) silence: Duration,
    /// Longest trial: the gateway ends its own before. None for the first bundle, which is tried
    /// for ever.
    pub(super) trial: Option<Duration>,
}

/// An update that was begun.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct UpdateRecord {
    /// Counter of the bundle that asks for it.
    pub(super) bundle: u64,
    /// The version before.
    pub(super) from: PackageName,
    /// The version of the bundle.
    pub(super) to: PackageName,
    /// How far it is.
    pub(super) phase: UpdatePhase,
}

/// How far an update is. Each is recorded before what follows from it is done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum UpdatePhase {
    /// The packages are not all there.
    Fetching,
    /// The new version is being installed.
    Installing,
    /// The new version is installed, and its bundle is on trial.
    OnTrial {
        /// Running time since then.
        run_time: Duration,
        /// Running time since the gateway has answered.
        silence: Duration,
    },
    /// The version before is being installed, although the bundle is still on trial.
    GoingBack {
        /// Why.
        reason: String,
    },
    /// The version before is installed. The gateway has to roll the bundle back.
    Failed {
        /// Why.
        reason: String,
    },
}

/// Why a bundle's version is not installed. Nothing was changed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(super) enum UpdateRefusal {
    /// The bundle lists no package of a version.
    #[error(
        "the bundle lists no {name}, {purpose}: put it into packages/ at the office, and build with \
         --again"
    )]
    NotListed {
        /// The package.
        name: String,
        /// What it is needed for.
        purpose: &'static str,
    },
    /// The version is older than a confirmed bundle allows.
    #[error(
        "version {version} is older than {min_version}, the `min_version` of the last confirmed \
         bundle: write a later one at the office, and build the next bundle"
    )]
    TooOld {
        /// The version of the bundle.
        version: String,
        /// The oldest that is allowed.
        min_version: String,
    },
}

/// What has become of the bundle of an update.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BundleFate {
    /// It is on trial.
    OnTrial,
    /// It is confirmed.
    Confirmed,
    /// It was rolled back.
    RolledBack,
}

/// What dpkg says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct InstalledPackage {
    /// Version and architecture.
    pub(super) name: PackageName,
    /// It is installed completely: no run of dpkg was cut.
    pub(super) is_complete: bool,
}

/// What to do next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum UpdateStep {
    /// Take the packages from the gateway.
    Fetch,
    /// Record this phase.
    Enter(UpdatePhase),
    /// Install this package.
    Install(PackageName),
    /// Wait for the gateway, and count the time.
    Watch,
    /// Wait for the gateway to roll the bundle back.
    Wait,
    /// Forget the update.
    End,
}

impl InstalledPackage {
    /// Returns whether this package is installed completely.
    pub(super) fn is(&self, name: &PackageName) -> bool {
        self.is_complete && self.name == *name
    }
}

impl UpdateRecord {
    /// Returns the update that a bundle on trial asks for; none if its version is installed.
    ///
    /// # Errors
    /// When it cannot be installed, or there would be no way back.
    pub(super) fn begin(
        manifest: &Manifest,
        installed: &PackageName,
        min_version: Option<&str>,
    ) -> Result<Option<Self>, UpdateRefusal> {
        let Some(version) = manifest.version.as_deref() else { return Ok(None) };
        if version == installed.version() {
            return Ok(None);
        }
        if let Some(min_version) = min_version.filter(|min| compare_versions(version, min).is_lt())
        {
            let (version, min_version) = (version.to_owned(), min_version.to_owned());
            return Err(UpdateRefusal::TooOld { version, min_version });
        }
        let listed = |version: &str, purpose| {
            let name = PackageName::new(version, installed.architecture());
            let name = name.ok().filter(|name| manifest.packages.contains_key(name));
            let shown = || format!("edge-gateway_{version}_{}.deb", installed.architecture());
            name.ok_or_else(|| UpdateRefusal::NotListed { name: shown(), purpose })
        };
        Ok(Some(Self {
            bundle: manifest.counter,
            to: listed(version, "the version to run")?,
            from: listed(installed.version(), "the version to go back to")?,
            phase: UpdatePhase::Fetching,
        }))
    }

    /// Returns what to do next. `has_packages` says whether both packages are there. The gateway of
    /// a new version runs if it answers on its status socket within the limit for that.
    pub(super) fn next_step(
        &self,
        fate: BundleFate,
        installed: &InstalledPackage,
        has_packages: bool,
        limits: TrialLimits,
    ) -> UpdateStep {
        match (fate, &self.phase) {
            // The version follows a bundle that was confirmed while the helper went back.
            (
                BundleFate::Confirmed,
                UpdatePhase::Fetching | UpdatePhase::Installing | UpdatePhase::GoingBack { .. },
            ) if has_packages && !installed.is(&self.to) => UpdateStep::Install(self.to.clone()),
            (BundleFate::Confirmed, _) => UpdateStep::End,
            (BundleFate::RolledBack, UpdatePhase::Fetching | UpdatePhase::Failed { .. }) => {
                UpdateStep::End
            }
            (BundleFate::RolledBack, _) if installed.is(&self.from) => UpdateStep::End,
            (BundleFate::RolledBack, _) => UpdateStep::Install(self.from.clone()),
            (BundleFate::OnTrial, UpdatePhase::OnTrial { run_time, silence }) => {
                match self.why_ended(*run_time, *silence, limits) {
                    Some(reason) => UpdateStep::Enter(UpdatePhase::GoingBack { reason }),
                    None => UpdateStep::Watch,
                }
            }
            (BundleFate::OnTrial, phase) => self.next_on_trial(phase, installed, has_packages),
        }
    }

    /// Returns why the new version is not tried any longer; none if it is.
    fn why_ended(
        &self,
        run_time: Duration,
        silence: Duration,
        limits: TrialLimits,
    ) -> Option<String> {
        let version = self.to.version();
        if silence >= limits.silence {
            Some(format!(
                "edge-gateway {version} does not answer on its status socket; `journalctl -u \
                 edge-gateway` says why"
            ))
        } else if limits.trial.is_some_and(|limit| run_time >= limit) {
            Some(format!("edge-gateway {version} has not ended its trial"))
        } else {
            None
        }
    }

    fn next_on_trial(
        &self,
        phase: &UpdatePhase,
        installed: &InstalledPackage,
        has_packages: bool,
    ) -> UpdateStep {
        match phase {
            UpdatePhase::Fetching if has_packages => UpdateStep::Enter(UpdatePhase::Installing),
            UpdatePhase::Fetching => UpdateStep::Fetch,
            UpdatePhase::Installing if installed.is(&self.to) => {
                let (run_time, silence) = (Duration::ZERO, Duration::ZERO);
                UpdateStep::Enter(UpdatePhase::OnTrial { run_time, silence })
            }
            UpdatePhase::Installing => UpdateStep::Install(self.to.clone()),
            UpdatePhase::OnTrial { .. } => UpdateStep::Watch,
            UpdatePhase::GoingBack { reason } if installed.is(&self.from) => {
                UpdateStep::Enter(UpdatePhase::Failed { reason: reason.clone() })
            }
            UpdatePhase::GoingBack { .. } => UpdateStep::Install(self.from.clone()),
            // A person has installed it.
            UpdatePhase::Failed { .. } if installed.is(&self.to) => {
                let (run_time, silence) = (Duration::ZERO, Duration::ZERO);
                UpdateStep::Enter(UpdatePhase::OnTrial { run_time, silence })
            }
            UpdatePhase::Failed { .. } => UpdateStep::Wait,
        }
    }
}

/// The record of an update is not what this program writes.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("it is no record of an update")]
pub(super) struct UpdateRecordError;

impl fmt::Display for UpdateRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bundle, from, to, phase } = self;
        writeln!(f, "bundle = {bundle}\nfrom = \"{from}\"\nto = \"{to}\"")?;
        match phase {
            UpdatePhase::Fetching => writeln!(f, "phase = \"fetching\""),
            UpdatePhase::Installing => writeln!(f, "phase = \"installing\""),
            UpdatePhase::OnTrial { run_time, silence } => {
                writeln!(f, "phase = \"on trial\"\nrun_ms = {}", run_time.as_millis())?;
                writeln!(f, "silent_ms = {}", silence.as_millis())
            }
            UpdatePhase::GoingBack { reason } => {
                writeln!(f, "phase = \"going back\"\nreason = {}", Value::from(reason.as_str()))
            }
            UpdatePhase::Failed { reason } => {
                writeln!(f, "phase = \"failed\"\nreason = {}", Value::from(reason.as_str()))
            }
        }
    }
}

impl FromStr for UpdateRecord {
    type Err = UpdateRecordError;

    fn from_str(text: &str) -> Result<Self, UpdateRecordError> {
        let root: Table = text.parse().map_err(|_| UpdateRecordError)?;
        let text = |key| root.get(key).and_then(Value::as_str).ok_or(UpdateRecordError);
        let number = |key| {
            let number = root.get(key).and_then(Value::as_integer);
            number.and_then(|number| u64::try_from(number).ok()).ok_or(UpdateRecordError)
        };
        let package = |key| text(key)?.parse().map_err(|_| UpdateRecordError);
        let reason = || text("reason").map(str::to_owned);
        Ok(Self {
            bundle: number("bundle")?,
            from: package("from")?,
            to: package("to")?,
            phase: match text("phase")? {
                "fetching" => UpdatePhase::Fetching,
                "installing" => UpdatePhase::Installing,
                "on trial" => UpdatePhase::OnTrial {
                    run_time: Duration::from_millis(number("run_ms")?),
                    silence: Duration::from_millis(number("silent_ms")?),
                },
                "going back" => UpdatePhase::GoingBack { reason: reason()? },
                "failed" => UpdatePhase::Failed { reason: reason()? },
                _ => return Err(UpdateRecordError),
            },
        })
    }
}

#[cfg(test)]
mod tests;
