//! A box in a directory of its own, with real files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::super::apply::{ApplyReport, Reconciler};
use super::super::box_dir::{BoxFiles, RECORD, TRUSTED};
use super::super::box_record::BoxRecord;
use super::super::gateway_state::StateFiles;
use super::super::load::Loader;
use super::super::network::{CommandReloader, NetworkService};
use super::super::open_dir::OpenDir;
use super::super::run_dir::RunDir;
use super::super::sentence::Refusal;
use super::super::stick::{StickReport, load_newest, write_files};
use super::super::wipe;
use super::{BundleDraft, record_text};
use crate::bundle::PackageName;
use crate::enrolment::BoxKeys;

/// The directories of a box.
pub(super) struct BoxOnDisk {
    root: PathBuf,
}

impl BoxOnDisk {
    pub(super) fn new() -> Self {
        let name = format!("edge-box-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(root.join("state/bundle")).unwrap();
        fs::create_dir(root.join("network")).unwrap();
        Self { root }
    }

    /// Returns a box with bundle 1 confirmed, in slot a.
    pub(super) fn with_confirmed() -> Self {
        let here = Self::new();
        let bundle = BundleDraft::new(1, &here.keys()).sealed();
        here.load(&bundle).unwrap();
        fs::rename(here.bundle("inbox.tar"), here.bundle("a.tar")).unwrap();
        here.say(Some(('a', 1)), None);
        let applied = here.apply();
        assert!(!applied.is_refused(), "{applied}");
        here
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Returns a path in the directory of the gateway's bundles.
    pub(super) fn bundle(&self, name: &str) -> PathBuf {
        self.root.join("state/bundle").join(name)
    }

    fn files(&self) -> BoxFiles {
        BoxFiles::open(&self.path("box"), Some(&self.path("network"))).unwrap()
    }

    pub(super) fn keys(&self) -> BoxKeys {
        self.files().keys().unwrap()
    }

    fn state(&self) -> StateFiles {
        StateFiles::open(&self.path("state")).unwrap()
    }

    pub(super) fn record(&self) -> BoxRecord {
        fs::read_to_string(self.path("box").join(RECORD)).unwrap().parse().unwrap()
    }

    /// Writes the record of the gateway.
    pub(super) fn say(&self, confirmed: Option<(char, u64)>, on_trial: Option<(char, u64)>) {
        fs::write(self.bundle("record"), record_text(confirmed, on_trial)).unwrap();
    }

    /// Returns what `load` says.
    pub(super) fn load(&self, bundle: &[u8]) -> Result<(), String> {
        let (mut files, keys) = (self.files(), self.keys_of_open());
        let loader = Loader::new(&mut files, &keys).map_err(|error| error.to_string())?;
        let contents = loader.verify(bundle).map_err(|refusal| refusal.to_string())?;
        loader.put(bundle, &contents, &self.state()).map_err(|error| error.to_string())
    }

    /// Returns the keys while the directory of the box is locked by this thread.
    fn keys_of_open(&self) -> BoxKeys {
        BoxKeys::open_or_create(&self.path("box/keys")).unwrap()
    }

    pub(super) fn apply(&self) -> ApplyReport {
        let (mut storage, keys) = (self.files(), self.keys_of_open());
        let mut reloader = CommandReloader { program: "true".into() };
        let services = &[NetworkService::Networkd];
        let state = self.state();
        let mut reconciler =
            Reconciler { storage: &mut storage, reloader: &mut reloader, keys: &keys, services };
        let applied = reconciler.apply(&state).unwrap();
        let owner = state.owner().unwrap().only_group();
        RunDir::open(&self.path("run")).unwrap().hand_over(&applied, owner).unwrap();
        applied
    }

    /// Plugs in a stick.
    pub(super) fn plug_in(&self, stick: &Path) -> (StickReport, String) {
        let report = {
            let (mut files, keys) = (self.files(), self.keys_of_open());
            let loader = Loader::new(&mut files, &keys).unwrap();
            {
                let installed = PackageName::new("0.1.0", "arm64").ok();
                let stick = OpenDir::open(stick).unwrap();
                load_newest(&stick, loader, &self.state(), installed.as_ref()).unwrap()
            }
        };
        let enrolment = self.keys().enrolment().unwrap();
        let status = RunDir::open(&self.path("run")).unwrap().status();
        let stick_dir = OpenDir::open(stick).unwrap();
        write_files(&stick_dir, &enrolment, &report, status.as_deref()).unwrap();
        (report, fs::read_to_string(stick.join("edge-status.txt")).unwrap())
    }

    /// Returns the names in the directory in memory.
    pub(super) fn handed_over(&self) -> Vec<String> {
        names(&self.path("run"))
    }
}

impl Drop for BoxOnDisk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn refusal(applied: ApplyReport) -> (u64, Refusal) {
    applied.refused.unwrap()
}

#[test]
fn the_first_bundle_gives_the_box_its_name_and_the_keys_that_it_trusts() {
    let here = BoxOnDisk::new();
    let bundle = BundleDraft::new(1, &here.keys()).sealed();
    fs::write(here.bundle("a.tar"), &bundle).unwrap();
    here.say(None, Some(('a', 1)));
    // Without a person, nothing is trusted.
    assert!(matches!(refusal(here.apply()), (1, Refusal::NoTrust)));
    assert_eq!(here.handed_over(), ["1.refused", "status.txt"]);

    here.load(&bundle).unwrap();

    assert_eq!(fs::read(here.bundle("inbox.tar")).unwrap(), bundle);
    assert_eq!(mode(&here.bundle("inbox.tar")), 0o600);
    assert_eq!(here.record().gateway.as_deref(), Some("amsterdam-01"));
    let trusted = fs::read_to_string(here.path("box").join(TRUSTED)).unwrap();
    assert!(trusted.starts_with("edge-gateway signing keys 1\n"));
    assert_eq!(mode(&here.path("box")), 0o700);
    let applied = here.apply();
    assert!(applied.refused.is_none(), "{applied}");
    assert_eq!(here.handed_over(), ["1", "status.txt"]);
}

#[test]
fn the_gateway_gets_the_secrets_of_its_bundle_and_of_its_box() {
    let here = BoxOnDisk::with_confirmed();
    let secrets = here.path("run/1");
    assert_eq!(names(&secrets), ["mqtt.key", "mqtt.password", "tunnel.key"]);
    assert_eq!(fs::read(secrets.join("mqtt.password")).unwrap(), b"horse 1");
    assert_eq!((mode(&secrets), mode(&secrets.join("tunnel.key"))), (0o750, 0o440));
    let key: tunnel::PrivateKey =
        fs::read_to_string(secrets.join("tunnel.key")).unwrap().trim().parse().unwrap();
    assert_eq!(key.public_key(), here.keys().tunnel_public_key());
    let inode = || fs::metadata(&secrets).unwrap().ino();
    let before = inode();
    here.apply();
    assert_eq!(inode(), before, "nothing to do the second time");
    fs::write(secrets.join("mqtt.password"), "damaged").unwrap();
    here.apply();
    assert_eq!(fs::read(secrets.join("mqtt.password")).unwrap(), b"horse 1");
    assert_eq!(here.handed_over(), ["1", "status.txt"]);
}

#[test]
fn a_trial_is_followed_and_a_bundle_that_was_rolled_back_stays_away() {
    let here = BoxOnDisk::with_confirmed();
    let draft = BundleDraft::new(2, &here.keys());
    let bundle = draft.with("network/10-edge-machine.network", "[Match]\n").sealed();
    fs::write(here.bundle("b.tar"), &bundle).unwrap();
    here.say(Some(('a', 1)), Some(('b', 2)));
    let installed = here.path("network/05-edge-10-edge-machine.network");

    let applied = here.apply().to_string();

    assert!(
        applied.contains("bundle: 2, on trial\nnetwork: of bundle 2, by networkd"),
        "{applied}"
    );
    assert_eq!(here.handed_over(), ["1", "2", "status.txt"]);
    assert_eq!((fs::read(&installed).unwrap(), mode(&installed)), (b"[Match]\n".to_vec(), 0o644));
    here.say(Some(('a', 1)), None);
    assert!(here.apply().refused.is_none());
    assert!(!installed.exists());
    assert_eq!(here.handed_over(), ["1", "status.txt"]);
    here.say(Some(('a', 1)), Some(('b', 2)));
    assert!(matches!(refusal(here.apply()), (2, Refusal::Older { counter: 2, last: 2 })));
    assert!(!installed.exists());
}

#[test]
fn a_network_that_cannot_be_installed_keeps_no_secrets_back() {
    let here = BoxOnDisk::with_confirmed();
    let draft = BundleDraft::new(2, &here.keys());
    let bundle = draft.with("network/10-edge-machine.network", "[Match]\n").sealed();
    fs::write(here.bundle("b.tar"), &bundle).unwrap();
    here.say(Some(('a', 1)), Some(('b', 2)));
    let installed = here.path("network/05-edge-10-edge-machine.network");
    fs::create_dir(&installed).unwrap();

    let applied = here.apply();

    let said = applied.to_string();
    assert!(said.contains("network: not installed: cannot"), "{said}");
    assert!(applied.is_refused() && here.path("run/2/tunnel.key").exists());
    fs::remove_dir(&installed).unwrap();
    assert!(!here.apply().is_refused());
    assert!(installed.is_file());
}

#[test]
fn a_confirmed_bundle_replaces_the_one_before_for_ever() {
    let here = BoxOnDisk::with_confirmed();
    fs::write(here.bundle("b.tar"), BundleDraft::new(3, &here.keys()).sealed()).unwrap();
    here.say(Some(('a', 1)), Some(('b', 3)));
    assert!(here.apply().refused.is_none());
    here.say(Some(('b', 3)), None);
    assert_eq!(here.apply().record.confirmed, Some(3));
    assert_eq!(names(&here.path("box/bundles")), ["3.tar"]);
    here.say(Some(('a', 1)), None);
    assert!(matches!(refusal(here.apply()), (1, Refusal::Older { .. })));
    assert_eq!(here.handed_over(), ["1.refused", "3", "status.txt"]);
}

#[test]
fn a_box_that_was_not_enrolled_gets_the_key_that_its_bundle_brings() {
    let here = BoxOnDisk::new();
    let key = tunnel::PrivateKey::generate();
    let draft = |key: &tunnel::PrivateKey, named| BundleDraft {
        gateway: "amsterdam-01",
        counter: 1,
        key: Some(named),
        files: [
            ("gateway.toml", b"x".to_vec()),
            ("secrets/tunnel.key", key.expose().as_bytes().to_vec()),
        ]
        .into(),
        version: None,
        packages: BTreeMap::new(),
    };
    let other = tunnel::PrivateKey::generate().public_key();
    let refused = here.load(&draft(&key, other).sealed()).unwrap_err();
    assert!(refused.contains("is not the key that the bundle names"), "{refused}");
    here.load(&draft(&key, key.public_key()).sealed()).unwrap();
    fs::rename(here.bundle("inbox.tar"), here.bundle("a.tar")).unwrap();
    here.say(None, Some(('a', 1)));

    assert!(here.apply().refused.is_none());

    assert_eq!(names(&here.path("run/1")), ["tunnel.key"]);
    let text = fs::read_to_string(here.path("run/1/tunnel.key")).unwrap();
    assert_eq!(text, *key.expose());
}

#[test]
fn a_wiped_box_has_nothing_left_and_follows_no_link() {
    let here = BoxOnDisk::with_confirmed();
    let draft = BundleDraft::new(2, &here.keys());
    let bundle = draft.with("network/10-edge-machine.network", "[Match]\n").sealed();
    fs::write(here.bundle("b.tar"), bundle).unwrap();
    here.say(Some(('a', 1)), Some(('b', 2)));
    here.apply();
    let outside = here.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "kept").unwrap();
    std::os::unix::fs::symlink(&outside, here.path("state/queue")).unwrap();
    std::os::unix::fs::symlink(&outside, here.bundle("link")).unwrap();
    fs::write(here.path("network/05-other.network"), "kept").unwrap();

    let (boxes, run, state) = (here.path("box"), here.path("run"), here.path("state"));
    {
        let files = here.files();
        let plan = wipe::plan(&files, &boxes, &run, &state).unwrap();
        assert!(boxes.join("keys/tunnel.key").exists(), "a plan removes nothing");
        wipe::wipe(&plan).unwrap();
    }

    assert_eq!(names(&boxes), ["lock"]);
    assert_eq!((names(&run), names(&state)), (vec![], vec![]));
    assert_eq!(names(&here.path("network")), ["05-other.network"]);
    assert_eq!(fs::read(outside.join("kept")).unwrap(), b"kept");
}

#[test]
fn as_root_secrets_are_for_the_group_of_the_gateway_alone() {
    const USER: u32 = 12_345;
    const GROUP: u32 = 54_321;
    assert!(rustix::process::geteuid().is_root(), "run this as root");
    let here = BoxOnDisk::new();
    fs::remove_dir(here.path("state/bundle")).unwrap();
    std::os::unix::fs::chown(here.path("state"), Some(USER), Some(GROUP)).unwrap();
    here.load(&BundleDraft::new(1, &here.keys()).sealed()).unwrap();
    let owner = |path: PathBuf| {
        let found = fs::metadata(path).unwrap();
        (found.uid(), found.gid())
    };
    assert_eq!(owner(here.path("state/bundle")), (USER, GROUP));
    assert_eq!(owner(here.bundle("inbox.tar")), (USER, GROUP));
    fs::rename(here.bundle("inbox.tar"), here.bundle("a.tar")).unwrap();
    here.say(None, Some(('a', 1)));

    here.apply();

    assert_eq!(owner(here.path("run/1")), (0, GROUP));
    assert_eq!(owner(here.path("run/1/tunnel.key")), (0, GROUP));
}
