//! An update with real files, and a package manager that only remembers.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::box_dir::{BoxFiles, BoxStorage as _, RECORD};
use super::super::box_record::BoxRecord;
use super::super::dpkg::{PackageError, PackageManager};
use super::super::run_dir::RunDir;
use super::super::update::InstalledPackage;
use super::super::updater::{UpdateProgress, Updater, announce};
use super::{KEYS, key_list};
use crate::bundle::{Bundle, Manifest, PackageDigest, PackageName, seal};
use crate::update_notice::UpdateState;

/// No update takes more of them without waiting.
const MAX_STEPS: usize = 50;
const HOUR: Duration = Duration::from_hours(1);

fn name(version: &str) -> PackageName {
    PackageName::new(version, "arm64").unwrap()
}

/// dpkg: what is installed, and whether it takes the next package.
struct Packages {
    installed: Option<InstalledPackage>,
    fails: bool,
    /// Installs packages that are called otherwise.
    takes_anything: bool,
    /// A package that is not ours lacks what it needs.
    is_another_broken: bool,
    log: Vec<String>,
}

impl Packages {
    /// Installs a package, whose content is its name, unless it is to fail.
    fn install(&mut self, package: &Path) -> bool {
        let file = package.file_name().unwrap().to_str().unwrap().to_owned();
        let content = fs::read_to_string(package).unwrap();
        assert!(content == file || self.takes_anything, "only what the bundle names");
        let is_complete = !std::mem::take(&mut self.fails);
        self.log.push(file);
        let installed = self.installed.as_mut().unwrap();
        installed.is_complete = is_complete;
        if is_complete {
            installed.name = content.parse().unwrap();
        }
        is_complete
    }
}

fn failed(program: &'static str, words: &str) -> PackageError {
    PackageError::Failed { program, words: words.to_owned() }
}

impl PackageManager for &RefCell<Packages> {
    fn installed(&self) -> Result<Option<InstalledPackage>, PackageError> {
        Ok(self.borrow().installed.clone())
    }

    fn finish(&mut self) -> Result<(), PackageError> {
        self.borrow_mut().log.push("finish".to_owned());
        if let Some(installed) = &mut self.borrow_mut().installed {
            installed.is_complete = true;
        }
        Ok(())
    }

    fn install(&mut self, package: &Path) -> Result<(), PackageError> {
        let mut packages = self.borrow_mut();
        // apt-get refuses both.
        let is_complete =
            packages.installed.as_ref().is_some_and(|installed| installed.is_complete);
        if !is_complete || packages.is_another_broken {
            return Err(failed("apt-get", "unmet dependencies"));
        }
        packages.install(package).then_some(()).ok_or_else(|| failed("apt-get", "no space"))
    }

    fn restore(&mut self, package: &Path) -> Result<(), PackageError> {
        let is_done = self.borrow_mut().install(package);
        is_done.then_some(()).ok_or_else(|| failed("dpkg", "no space"))
    }
}

/// A box with version 0.1.0, on which bundle 16 is confirmed and bundle 17 is on trial.
struct UpdateBox {
    dir: PathBuf,
    run_dir: RunDir,
    packages: RefCell<Packages>,
}

impl UpdateBox {
    fn new(manifest: Manifest) -> Self {
        let name = format!("edge-update-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(dir.join("state/packages")).unwrap();
        let run_dir = RunDir::open(&dir.join("run")).unwrap();
        let installed = InstalledPackage { name: self::name("0.1.0"), is_complete: true };
        let packages = Packages {
            installed: Some(installed),
            fails: false,
            takes_anything: false,
            is_another_broken: false,
            log: Vec::new(),
        };
        let new = Self { dir, run_dir, packages: RefCell::new(packages) };
        let mut files = new.files();
        let files_of = [("gateway.toml", &b"x"[..])].into();
        let contents = Bundle::new(manifest, files_of).unwrap().render().unwrap();
        let lists = [key_list(1, &KEYS.first, &KEYS.first)];
        let bundle = seal(&lists, &contents, &KEYS.first.sign(&contents).unwrap()).unwrap();
        files.write_bundle(17, &bundle).unwrap();
        new.set_bundles(&mut files, Some(16), Some(17));
        announce(&files, &files.record().unwrap(), &new.run_dir, true).unwrap();
        drop(files);
        new
    }

    fn files(&self) -> BoxFiles {
        BoxFiles::open(&self.dir.join("box"), None).unwrap()
    }

    fn set_bundles(&self, files: &mut BoxFiles, confirmed: Option<u64>, on_trial: Option<u64>) {
        let record = BoxRecord { last: 17, confirmed, on_trial, ..BoxRecord::default() };
        files.write(RECORD, &record.to_string()).unwrap();
    }

    /// Runs steps of a new process until one has to wait.
    fn run(&self) -> UpdateProgress {
        let (box_dir, state_dir) = (self.dir.join("box"), self.dir.join("state"));
        let mut updater = Updater::new(&box_dir, &state_dir, &self.run_dir, &self.packages, HOUR);
        let steps = (0..MAX_STEPS).map(|_| updater.step().unwrap());
        let at_once = UpdateProgress::After(Duration::ZERO);
        steps.into_iter().find(|progress| *progress != at_once).expect("it comes to an end")
    }

    fn fetch(&self, name: &PackageName, content: &str) {
        fs::write(self.dir.join("state/packages").join(name.to_string()), content).unwrap();
    }

    fn fetch_all(&self) {
        for name in [name("0.1.0"), name("0.2.0")] {
            self.fetch(&name, &name.to_string());
        }
    }

    fn told(&self) -> Option<UpdateState> {
        self.run_dir.update_notice().map(|notice| notice.state)
    }

    /// Returns what was installed.
    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.packages.borrow_mut().log)
    }

    fn is_due(&self) -> bool {
        self.dir.join("run/update-due").exists()
    }

    fn kept(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.join("box/packages")).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        names.map(|entry| name(entry).into_string().unwrap()).collect()
    }
}

impl Drop for UpdateBox {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

/// The manifest of bundle 17; the content of each package is its name.
fn manifest(version: Option<&str>) -> Manifest {
    let package = |version| {
        let name = name(version);
        let digest = PackageDigest::of(name.to_string().as_bytes());
        (name, digest)
    };
    Manifest {
        gateway: "amsterdam-01".to_owned(),
        counter: 17,
        version: version.map(str::to_owned),
        packages: ["0.1.0", "0.2.0"].map(package).into(),
        ..Manifest::default()
    }
}

#[test]
fn a_version_is_fetched_installed_and_confirmed_with_its_bundle() {
    let tested = UpdateBox::new(manifest(Some("0.2.0")));
    assert_eq!((tested.told(), tested.is_due()), (Some(UpdateState::Pending), true));
    assert!(matches!(tested.run(), UpdateProgress::After(_)));
    let both = vec![name("0.1.0"), name("0.2.0")];
    assert_eq!(tested.told(), Some(UpdateState::Fetching(both)));

    // Not what the bundle names, and a link to what it names.
    tested.fetch(&name("0.2.0"), "altered");
    let link = tested.dir.join("state/packages").join(name("0.1.0").to_string());
    fs::write(tested.dir.join("elsewhere"), name("0.1.0").to_string()).unwrap();
    std::os::unix::fs::symlink(tested.dir.join("elsewhere"), &link).unwrap();
    assert!(matches!(tested.run(), UpdateProgress::After(_)));
    assert!(tested.kept().is_empty() && tested.log().is_empty());

    fs::remove_file(link).unwrap();
    tested.fetch_all();
    assert!(matches!(tested.run(), UpdateProgress::After(_)));
    assert_eq!(tested.told(), Some(UpdateState::Installed));
    assert_eq!(tested.log(), [name("0.2.0").to_string()]);

    tested.set_bundles(&mut tested.files(), Some(17), None);
    assert_eq!(tested.run(), UpdateProgress::Ended);
    assert_eq!((tested.told(), tested.kept()), (None, vec![name("0.2.0").to_string()]));
}

#[test]
fn a_bundle_that_is_rolled_back_takes_its_version_along() {
    let tested = UpdateBox::new(manifest(Some("0.2.0")));
    tested.fetch_all();
    tested.run();
    assert_eq!(tested.log(), [name("0.2.0").to_string()]);

    tested.set_bundles(&mut tested.files(), Some(16), None);
    assert_eq!(tested.run(), UpdateProgress::Ended);
    assert_eq!(tested.log(), [name("0.1.0").to_string()]);
    assert_eq!((tested.told(), tested.kept()), (None, vec![name("0.1.0").to_string()]));
}

#[test]
fn what_cannot_be_installed_leaves_the_version_before() {
    let tested = UpdateBox::new(manifest(Some("0.2.0")));
    tested.fetch_all();
    tested.packages.borrow_mut().fails = true;
    assert_eq!(tested.run(), UpdateProgress::Ended);
    assert_eq!(tested.log(), [name("0.2.0").to_string(), name("0.1.0").to_string()]);
    let reason = "edge-gateway_0.2.0_arm64.deb cannot be installed: apt-get has failed: no space";
    assert_eq!(tested.told(), Some(UpdateState::Failed(reason.to_owned())));
    // The gateway is told again after a boot, and the version is not tried again.
    tested.run_dir.put_update(None).unwrap();
    assert_eq!(tested.run(), UpdateProgress::Ended);
    assert_eq!(tested.told(), Some(UpdateState::Failed(reason.to_owned())));
    assert!(tested.log().is_empty());

    tested.set_bundles(&mut tested.files(), Some(16), None);
    assert_eq!((tested.run(), tested.told()), (UpdateProgress::Ended, None));
}

#[test]
fn what_a_power_cut_left_half_installed_is_installed_again() {
    let tested = UpdateBox::new(manifest(Some("0.2.0")));
    tested.run();
    tested.packages.borrow_mut().installed.as_mut().unwrap().is_complete = false;
    tested.fetch_all();
    tested.run();
    assert_eq!(tested.log(), [name("0.2.0").to_string()]);
    assert_eq!(tested.told(), Some(UpdateState::Installed));
}

#[test]
fn another_broken_package_prevents_an_update_and_not_the_way_back() {
    let tested = UpdateBox::new(manifest(Some("0.2.0")));
    tested.fetch_all();
    tested.run();
    assert_eq!(tested.log(), [name("0.2.0").to_string()]);
    tested.packages.borrow_mut().is_another_broken = true;
    tested.set_bundles(&mut tested.files(), Some(16), None);
    assert_eq!(tested.run(), UpdateProgress::Ended);
    assert_eq!(tested.log(), [name("0.1.0").to_string()]);

    tested.set_bundles(&mut tested.files(), Some(16), Some(17));
    tested.fetch_all();
    assert_eq!(tested.run(), UpdateProgress::Ended);
    assert!(tested.log().is_empty());
    assert!(matches!(tested.told(), Some(UpdateState::Failed(_))), "{:?}", tested.told());
}

#[test]
fn what_needs_no_update_is_said_at_once() {
    for (version, expected) in [(None, None), (Some("0.1.0"), Some(UpdateState::Installed))] {
        let tested = UpdateBox::new(manifest(version));
        assert_eq!(tested.is_due(), version.is_some());
        assert_eq!((tested.run(), tested.told()), (UpdateProgress::Ended, expected));
        assert!(tested.log().is_empty());
    }
    let tested = UpdateBox::new(manifest(Some("0.3.0")));
    assert_eq!(tested.run(), UpdateProgress::Ended);
    assert!(matches!(tested.told(), Some(UpdateState::Failed(_))), "{:?}", tested.told());
}

#[test]
fn without_dpkg_the_version_is_left_alone() {
    let tested = UpdateBox::new(manifest(Some("0.2.0")));
    tested.run_dir.put_update(None).unwrap();
    tested.run_dir.set_update_due(false).unwrap();
    let files = tested.files();
    announce(&files, &files.record().unwrap(), &tested.run_dir, false).unwrap();
    assert_eq!((tested.told(), tested.is_due()), (Some(UpdateState::Unmanaged), false));
}

#[test]
fn a_run_of_dpkg_that_was_cut_is_finished_first() {
    let tested = UpdateBox::new(manifest(Some("0.1.0")));
    tested.packages.borrow_mut().installed.as_mut().unwrap().is_complete = false;
    let ended = (UpdateProgress::Ended, Some(UpdateState::Installed));
    assert_eq!((tested.run(), tested.told()), ended);
    assert_eq!(tested.packages.borrow().log, ["finish"]);
}

#[test]
fn a_package_of_an_earlier_bundle_is_not_taken_for_one_of_this() {
    let tested = UpdateBox::new(manifest(Some("0.2.0")));
    let mut files = tested.files();
    files.write_package(&name("0.2.0"), b"of another bundle").unwrap();
    files.write_package(&name("0.1.0"), name("0.1.0").to_string().as_bytes()).unwrap();
    drop(files);
    assert!(matches!(tested.run(), UpdateProgress::After(_)));
    assert_eq!(tested.told(), Some(UpdateState::Fetching(vec![name("0.2.0")])));
    assert_eq!(tested.kept(), [name("0.1.0").to_string()]);
}

#[test]
fn a_file_with_the_name_of_another_version_is_not_installed_again_and_again() {
    let mut renamed = manifest(Some("0.2.0"));
    let other = name("0.1.9").to_string();
    renamed.packages.insert(name("0.2.0"), PackageDigest::of(other.as_bytes()));
    let tested = UpdateBox::new(renamed);
    tested.packages.borrow_mut().takes_anything = true;
    tested.fetch(&name("0.1.0"), &name("0.1.0").to_string());
    tested.fetch(&name("0.2.0"), &other);
    assert_eq!(tested.run(), UpdateProgress::Ended);
    assert_eq!(tested.log(), [name("0.2.0").to_string(), name("0.1.0").to_string()]);
    let Some(UpdateState::Failed(reason)) = tested.told() else { panic!("{:?}", tested.told()) };
    assert!(reason.contains("dpkg has installed edge-gateway_0.1.9_arm64.deb"), "{reason}");
}
