//! Carries out an update of the program, step by step: takes packages from the gateway, installs,
//! watches the new version, and goes back.

use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::box_dir::{BoxFiles, PACKAGES_DIR};
use super::box_record::BoxRecord;
use super::dpkg::PackageManager;
use super::gateway_state::StateFiles;
use super::headline::headline_code;
use super::run_dir::RunDir;
use super::sentence::HelperError;
use super::update::{
    BundleFate, InstalledPackage, TrialLimits, UpdatePhase, UpdateRecord, UpdateStep,
};
use crate::bundle::{PackageDigest, PackageName};
use crate::update_notice::{UpdateNotice, UpdateState};

/// Pause between two looks at what the gateway has fetched, and at the trial of its bundle.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// How often the running time is recorded: what is not recorded does not count after a power cut.
const RECORD_INTERVAL: Duration = Duration::from_secs(30);
/// Longest trial of a version: `[bundle] confirm` may be 24 h, and the gateway ends its trial itself
/// then.
const MAX_TRIAL: Duration = Duration::from_hours(25);
/// Pauses between attempts to install the version before.
const FIRST_RETRY_PAUSE: Duration = Duration::from_mins(1);
const MAX_RETRY_PAUSE: Duration = Duration::from_hours(1);

/// Says after each run of `apply` whether there is something to do for [`Updater`], and lets the
/// gateway wait for it.
pub(super) fn announce(
    files: &BoxFiles,
    record: &BoxRecord,
    run_dir: &RunDir,
    manages_package: bool,
) -> Result<(), HelperError> {
    let on_trial = record.on_trial.map(|counter| files.manifest(counter)).transpose()?.flatten();
    let asking = on_trial.filter(|manifest| manifest.version.is_some());
    let told = run_dir.update_notice();
    let is_begun = files.update()?.is_some();
    let notice = match &asking {
        None => None,
        Some(asking) if !manages_package => {
            Some(UpdateNotice { bundle: asking.counter, state: UpdateState::Unmanaged })
        }
        Some(asking) => match told {
            Some(told) if told.bundle == asking.counter => Some(told),
            _ => Some(UpdateNotice { bundle: asking.counter, state: UpdateState::Pending }),
        },
    };
    let is_due = is_begun
        || notice.as_ref().is_some_and(|notice| {
            // What has failed is looked at again: a person may have installed the version.
            !notice.state.is_reached()
        });
    run_dir.put_update(notice.as_ref())?;
    // What is due already may be under way.
    if is_due { run_dir.set_update_due(true) } else { Ok(()) }
}

/// What follows from a step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum UpdateProgress {
    /// The next step is due after this time.
    After(Duration),
    /// There is nothing to do until `apply` says so.
    Ended,
}

/// Carries out an update.
#[derive(Debug)]
pub(super) struct Updater<'a, P> {
    box_dir: &'a Path,
    state_dir: &'a Path,
    run_dir: &'a RunDir,
    packages: P,
    /// Time since the boot up to which the running time of a trial is recorded.
    recorded_at: Duration,
    retry_pause: Duration,
    max_silence: Duration,
    /// The package whose installation was announced.
    announced: Option<PackageName>,
    /// A version is being watched.
    is_watching: bool,
    /// The gateway has answered since the running time was recorded.
    has_answered: bool,
    /// What was printed last.
    said: String,
}

impl<'a, P: PackageManager> Updater<'a, P> {
    pub(super) fn new(
        box_dir: &'a Path,
        state_dir: &'a Path,
        run_dir: &'a RunDir,
        packages: P,
        max_silence: Duration,
    ) -> Self {
        Self {
            box_dir,
            state_dir,
            run_dir,
            packages,
            recorded_at: since_boot(),
            retry_pause: FIRST_RETRY_PAUSE,
            max_silence,
            announced: None,
            is_watching: false,
            has_answered: false,
            said: String::new(),
        }
    }

    /// Does the next step. The directory of the box is free between two steps, and while a package
    /// is installed: `apply` has its work then.
    ///
    /// # Errors
    /// When the files of the box cannot be used, or dpkg does not answer.
    pub(super) fn step(&mut self) -> Result<UpdateProgress, HelperError> {
        // Before the directory is locked: the gateway may be slow, or hostile.
        if self.is_watching && headline_code(self.state_dir).is_some() {
            self.has_answered = true;
        }
        self.is_watching = false;
        let mut files = BoxFiles::open(self.box_dir, None)?;
        let own = files.record()?;
        let Some(update) = files.update()? else { return self.begin(files, &own) };
        let Some(installed) = self.packages.installed()? else {
            // A person has removed the package.
            files.end_update(&update.to)?;
            return Ok(UpdateProgress::Ended);
        };
        let update = adopt(&mut files, &own, update)?;
        let fate = fate_of(update.bundle, &own);
        let trial = own.confirmed.map(|_| MAX_TRIAL);
        let limits = TrialLimits { silence: self.max_silence, trial };
        let has = |name: &PackageName| files.package_path(name).is_file();
        let has_packages = has(&update.from) && has(&update.to);
        match update.next_step(fate, &installed, has_packages, limits) {
            UpdateStep::Fetch => self.take_packages(&mut files, &update),
            UpdateStep::Enter(phase) => self.enter(&mut files, update, phase),
            UpdateStep::Install(name) => self.install(files, update, fate, &installed, &name),
            UpdateStep::Watch => self.watch(&mut files, update),
            UpdateStep::Wait => {
                self.tell(&update)?;
                Ok(UpdateProgress::Ended)
            }
            UpdateStep::End => self.end(&mut files, fate, &installed),
        }
    }

    /// Begins the update that the bundle on trial asks for, if it does.
    fn begin(
        &mut self,
        mut files: BoxFiles,
        own: &BoxRecord,
    ) -> Result<UpdateProgress, HelperError> {
        let manifest = own.on_trial.map(|counter| files.manifest(counter)).transpose()?.flatten();
        let Some(manifest) = manifest.filter(|manifest| manifest.version.is_some()) else {
            self.run_dir.put_update(None)?;
            return Ok(UpdateProgress::Ended);
        };
        let bundle = manifest.counter;
        let Some(installed) = self.packages.installed()? else {
            let state = UpdateState::Unmanaged;
            self.run_dir.put_update(Some(&UpdateNotice { bundle, state }))?;
            return Ok(UpdateProgress::Ended);
        };
        let confirmed = own.confirmed.map(|counter| files.manifest(counter)).transpose()?.flatten();
        let min_version = confirmed.and_then(|manifest| manifest.min_version);
        if !installed.is_complete {
            drop(files);
            return self.finish_package(bundle);
        }
        let state = match UpdateRecord::begin(&manifest, &installed.name, min_version.as_deref()) {
            Ok(Some(update)) => {
                let kept = files.keep_packages(&manifest.packages);
                kept.map_err(HelperError::io("use", PACKAGES_DIR))?;
                files.write_update(&update)?;
                return Ok(UpdateProgress::After(Duration::ZERO));
            }
            Ok(None) => {
                self.say(&format!("bundle {bundle}: {} is installed already", installed.name));
                UpdateState::Installed
            }
            Err(refusal) => {
                self.say(&format!("bundle {bundle}: {refusal}"));
                UpdateState::Failed(refusal.to_string())
            }
        };
        self.run_dir.put_update(Some(&UpdateNotice { bundle, state }))?;
        Ok(UpdateProgress::Ended)
    }

    /// Finishes a run of dpkg that was cut before this update.
    fn finish_package(&mut self, bundle: u64) -> Result<UpdateProgress, HelperError> {
        let finished = self.packages.finish();
        if self.packages.installed()?.is_none_or(|installed| installed.is_complete) {
            return Ok(UpdateProgress::After(Duration::ZERO));
        }
        let why = finished.err().map(|error| format!(": {error}")).unwrap_or_default();
        let reason = format!(
            "edge-gateway is not installed completely{why}; run `sudo dpkg --install FILE` on the \
             box, with the file of its package"
        );
        self.say(&reason);
        let _files = BoxFiles::open(self.box_dir, None)?;
        let state = UpdateState::Failed(reason);
        self.run_dir.put_update(Some(&UpdateNotice { bundle, state }))?;
        Ok(UpdateProgress::Ended)
    }

    /// Takes what the gateway has fetched. Its user may be hostile: only the bytes whose SHA-256
    /// the bundle names are kept.
    fn take_packages(
        &mut self,
        files: &mut BoxFiles,
        update: &UpdateRecord,
    ) -> Result<UpdateProgress, HelperError> {
        self.tell_missing(files, update)?;
        let Some(manifest) = files.manifest(update.bundle)? else {
            return Ok(UpdateProgress::After(LOOK_PAUSE));
        };
        let state = StateFiles::open(self.state_dir)
            .map_err(HelperError::io("use", self.state_dir.display()))?;
        for name in [&update.from, &update.to] {
            if files.package_path(name).is_file() {
                continue;
            }
            let Ok(Some(bytes)) = state.package(name) else { continue };
            let is_listed = manifest.packages.get(name) == Some(&PackageDigest::of(&bytes));
            if is_listed && let Err(error) = files.write_package(name, &bytes) {
                let reason = format!("{name} cannot be stored ({error}): make room on the disk");
                return self.enter(files, update.clone(), UpdatePhase::Failed { reason });
            }
        }
        let is_there = |name: &PackageName| files.package_path(name).is_file();
        let are_there = is_there(&update.from) && is_there(&update.to);
        Ok(UpdateProgress::After(if are_there { Duration::ZERO } else { LOOK_PAUSE }))
    }

    fn enter(
        &mut self,
        files: &mut BoxFiles,
        update: UpdateRecord,
        phase: UpdatePhase,
    ) -> Result<UpdateProgress, HelperError> {
        let update = UpdateRecord { phase, ..update };
        files.write_update(&update)?;
        self.recorded_at = since_boot();
        self.tell(&update)?;
        Ok(UpdateProgress::After(Duration::ZERO))
    }

    fn install(
        &mut self,
        files: BoxFiles,
        update: UpdateRecord,
        fate: BundleFate,
        before: &InstalledPackage,
        name: &PackageName,
    ) -> Result<UpdateProgress, HelperError> {
        self.tell(&update)?;
        if self.announced.as_ref() != Some(name) {
            // Said before it is done: the next step does it.
            self.announced = Some(name.clone());
            self.say(&format!("installing {name}"));
            return Ok(UpdateProgress::After(Duration::ZERO));
        }
        self.announced = None;
        let path = files.package_path(name);
        drop(files);
        // Nothing else may be in the way of the version before: it has run here.
        let done = if before.is_complete && *name == update.to {
            self.packages.install(&path)
        } else {
            self.packages.restore(&path)
        };
        // dpkg decides: apt-get also fails because of packages that are not ours.
        let error = match (done, self.packages.installed()?) {
            (_, Some(installed)) if installed.is(name) => {
                self.retry_pause = FIRST_RETRY_PAUSE;
                return Ok(UpdateProgress::After(Duration::ZERO));
            }
            (Err(error), _) => error.to_string(),
            // A file that was renamed.
            (Ok(()), Some(installed)) => format!("dpkg has installed {} from it", installed.name),
            (Ok(()), None) => "dpkg has installed nothing".to_owned(),
        };
        self.say(&format!("{name} is not installed: {error}"));
        if fate == BundleFate::OnTrial && update.phase == UpdatePhase::Installing {
            let mut files = BoxFiles::open(self.box_dir, None)?;
            let reason = format!("{name} cannot be installed: {error}");
            return self.enter(&mut files, update, UpdatePhase::GoingBack { reason });
        }
        let pause = self.retry_pause;
        self.retry_pause = (2 * pause).min(MAX_RETRY_PAUSE);
        Ok(UpdateProgress::After(pause))
    }

    /// Counts the running time of the new version, and that in which it has not answered.
    fn watch(
        &mut self,
        files: &mut BoxFiles,
        update: UpdateRecord,
    ) -> Result<UpdateProgress, HelperError> {
        self.tell(&update)?;
        let UpdatePhase::OnTrial { run_time, silence } = update.phase else {
            return Ok(UpdateProgress::After(LOOK_PAUSE));
        };
        self.is_watching = true;
        let now = since_boot();
        let running = now.saturating_sub(self.recorded_at);
        if running >= RECORD_INTERVAL.min(self.max_silence) {
            // A box that slept, or waited for its disk, has not been silent for that long.
            let counted = running.min(2 * RECORD_INTERVAL);
            let has_answered = std::mem::take(&mut self.has_answered);
            let silence = if has_answered { Duration::ZERO } else { silence + counted };
            let phase = UpdatePhase::OnTrial { run_time: run_time + running, silence };
            files.write_update(&UpdateRecord { phase, ..update })?;
            self.recorded_at = now;
        }
        Ok(UpdateProgress::After(LOOK_PAUSE))
    }

    fn end(
        &mut self,
        files: &mut BoxFiles,
        fate: BundleFate,
        installed: &InstalledPackage,
    ) -> Result<UpdateProgress, HelperError> {
        let InstalledPackage { name, .. } = installed;
        self.say(&match fate {
            BundleFate::Confirmed => format!("{name} is confirmed"),
            BundleFate::RolledBack | BundleFate::OnTrial => format!("back at {name}"),
        });
        files.end_update(name)?;
        // A later bundle may ask for the next one.
        Ok(UpdateProgress::After(Duration::ZERO))
    }

    /// Tells the gateway which packages it has to fetch.
    fn tell_missing(&self, files: &BoxFiles, update: &UpdateRecord) -> Result<(), HelperError> {
        let missing = [&update.from, &update.to].into_iter();
        let missing = missing.filter(|name| !files.package_path(name).is_file()).cloned();
        let state = UpdateState::Fetching(missing.collect());
        self.run_dir.put_update(Some(&UpdateNotice { bundle: update.bundle, state }))
    }

    /// Tells the gateway how far an update is.
    fn tell(&self, update: &UpdateRecord) -> Result<(), HelperError> {
        let state = match &update.phase {
            UpdatePhase::Fetching => UpdateState::Pending,
            UpdatePhase::Installing | UpdatePhase::GoingBack { .. } => UpdateState::Installing,
            UpdatePhase::OnTrial { .. } => UpdateState::Installed,
            UpdatePhase::Failed { reason } => UpdateState::Failed(reason.clone()),
        };
        self.run_dir.put_update(Some(&UpdateNotice { bundle: update.bundle, state }))
    }

    fn say(&mut self, text: &str) {
        self.said = text.to_owned();
    }

    /// Returns what is new to say, for the journal.
    pub(super) fn take_said(&mut self) -> Option<String> {
        Some(std::mem::take(&mut self.said)).filter(|said| !said.is_empty())
    }
}

/// Lets the bundle on trial take over an update to the version that it names too, as when a person
/// brings the next one while the first is on trial. Otherwise the version would go and come again.
fn adopt(
    files: &mut BoxFiles,
    own: &BoxRecord,
    update: UpdateRecord,
) -> Result<UpdateRecord, HelperError> {
    let Some(counter) = own.on_trial.filter(|counter| *counter != update.bundle) else {
        return Ok(update);
    };
    let manifest = files.manifest(counter)?;
    let names_it = manifest.is_some_and(|manifest| {
        manifest.version.as_deref() == Some(update.to.version())
            && manifest.packages.contains_key(&update.to)
    });
    let is_under_way =
        matches!(update.phase, UpdatePhase::Installing | UpdatePhase::OnTrial { .. });
    if !names_it || !is_under_way {
        return Ok(update);
    }
    let update = UpdateRecord { bundle: counter, ..update };
    files.write_update(&update)?;
    Ok(update)
}

/// Returns what has become of the bundle of an update.
fn fate_of(bundle: u64, own: &BoxRecord) -> BundleFate {
    if own.confirmed == Some(bundle) {
        BundleFate::Confirmed
    } else if own.on_trial == Some(bundle) {
        BundleFate::OnTrial
    } else {
        BundleFate::RolledBack
    }
}

/// Returns the time since the boot, with the time that the machine slept: clock_gettime(2).
fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}
