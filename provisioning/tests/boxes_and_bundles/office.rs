//! An office and its boxes, for the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Timestamp;
use provisioning::bundle::{BundleSource, SigningKeys, Verified, VerifyPolicy, verify};
use provisioning::enrolment::BoxKeys;
use provisioning::office::build::{Build, BuildError, BuiltSite};
use provisioning::office::certificates::Certificates;
use provisioning::office::fleet::Fleet;
use provisioning::office::fleet_signing::{SigningLists, read_key_file};

pub(crate) const SITE: &str = "amsterdam-01";

/// A directory that is removed with the test.
pub(crate) struct TempDir(pub(crate) PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        let name = format!("edge-office-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A box on site.
pub(crate) struct TestBox {
    pub(crate) dir: TempDir,
    pub(crate) keys: BoxKeys,
}

impl TestBox {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new();
        let keys = BoxKeys::open_or_create(&dir.0.join("keys")).unwrap();
        Self { dir, keys }
    }

    /// Returns the path of the enrolment file, as on its stick.
    pub(crate) fn enrolment_file(&self) -> PathBuf {
        let enrolment = self.keys.enrolment().unwrap();
        let path = self.dir.0.join(enrolment.file_name());
        fs::write(&path, enrolment.to_string()).unwrap();
        path
    }

    /// Loads a bundle as a box does: verifies it, decrypts the secrets, adds its own keys, and lets
    /// the gateway's code read the configuration. Returns the password.
    pub(crate) fn load(&self, bytes: &[u8], keys: Option<&SigningKeys>) -> String {
        let Verified { bundle, .. } = verify(bytes, &self.policy(keys)).unwrap();
        let dir = self.dir.0.join("active");
        let _ = fs::remove_dir_all(&dir);
        let write = |name: &str, content: &[u8]| {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        for (name, content) in bundle.files() {
            write(name, content);
        }
        if let Some(sealed) = bundle.sealed_secrets() {
            for (name, content) in self.keys.unseal(sealed).unwrap() {
                write(&name, &content);
            }
        }
        let own = |name: &str| fs::read(self.dir.0.join("keys").join(name)).unwrap();
        if !bundle.has_clear_secrets() {
            write("secrets/tunnel.key", &own("tunnel.key"));
        }
        write("secrets/mqtt.key", &own("certificate.key"));
        let loaded = provisioning::config::load(&dir.join("gateway.toml"));
        let loaded = loaded.unwrap_or_else(|rejected| panic!("{rejected}"));
        assert_eq!(loaded.config.gateway.id, SITE);
        fs::read_to_string(dir.join("secrets/mqtt.password")).unwrap_or_default().trim().to_owned()
    }

    pub(crate) fn policy<'a>(&self, keys: Option<&'a SigningKeys>) -> VerifyPolicy<'a> {
        VerifyPolicy {
            keys,
            gateway: None,
            tunnel_public_key: Some(self.keys.tunnel_public_key()),
            last_counter: None,
            source: BundleSource::ByHand,
        }
    }
}

/// A fleet with one site, and everything that its commands have printed.
pub(crate) struct Office {
    pub(crate) dir: TempDir,
    pub(crate) printed: std::cell::RefCell<String>,
}

impl Office {
    /// With one site that has no box yet.
    pub(crate) fn new() -> Self {
        let office = Self::empty();
        office.done(&["add", SITE, "--location", "Amsterdam", "--template", "pump"]);
        office
    }

    pub(crate) fn empty() -> Self {
        let office = Self { dir: TempDir::new(), printed: String::new().into() };
        office.done(&["init", ".", "--endpoint", "192.0.2.1:51820"]);
        office
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.0.join(name)
    }

    pub(crate) fn bundle(&self) -> Vec<u8> {
        fs::read(self.path("out/bundles/edge-bundle-amsterdam-01.tar")).unwrap()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_edge-provision"))
            .args(arguments)
            .current_dir(&self.dir.0)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        self.printed.borrow_mut().push_str(&text);
        (output.status.success(), text)
    }

    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let (is_done, text) = self.run(arguments);
        assert!(is_done, "{arguments:?}: {text}");
        text
    }

    /// Runs a command that must be refused and change nothing.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let before = files(&self.dir.0);
        let (is_done, text) = self.run(arguments);
        assert!(!is_done, "{arguments:?}: {text}");
        assert_eq!(files(&self.dir.0), before, "{arguments:?} changed a file");
        text
    }

    pub(crate) fn enrol(&self, own: &TestBox) {
        self.done(&["enrol", SITE, own.enrolment_file().to_str().unwrap()]);
    }

    pub(crate) fn secret(&self, name: &str) -> String {
        fs::read_to_string(self.path("secrets").join(name)).unwrap().trim().to_owned()
    }

    pub(crate) fn keys(&self) -> SigningKeys {
        fs::read_to_string(self.path("signing/keys-1.txt")).unwrap().parse().unwrap()
    }

    /// Builds at another time than now.
    pub(crate) fn build_at(&self, now: Timestamp) -> Result<Vec<BuiltSite>, BuildError> {
        self.build_fleet(&Fleet::load(&self.dir.0).unwrap(), now)
    }

    /// Builds a fleet as it was read before.
    pub(crate) fn build_fleet(
        &self,
        fleet: &Fleet,
        now: Timestamp,
    ) -> Result<Vec<BuiltSite>, BuildError> {
        let dir = &self.dir.0;
        let lists = SigningLists::load(dir).unwrap();
        let signer = read_key_file(&self.path("secrets/signing.key")).unwrap().open(None).unwrap();
        let certificates = Certificates::open(dir, None, now).unwrap();
        let (out, mut built) = (self.path("out/bundles"), Vec::new());
        let build = Build {
            dir,
            fleet,
            certificates: &certificates,
            lists: &lists,
            signer: Some(&signer),
            out: &out,
            again: &BTreeSet::new(),
        };
        let sites: Vec<_> = fleet.sites().iter().collect();
        build.run(&sites, |_, part| {
            built.extend_from_slice(part);
            Ok::<(), BuildError>(())
        })?;
        Ok(built)
    }
}

/// Returns every file below a directory with its content.
pub(crate) fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            found.insert(path.strip_prefix(dir).unwrap().to_owned(), fs::read(&path).unwrap());
        }
    }
    found
}

pub(crate) fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
