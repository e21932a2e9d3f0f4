mod bundles;
pub(super) mod fetches;
mod task;
mod versions;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::{fs, process};

use provisioning::bundle::{Bundle, Manifest, SigningKeys, seal};
use provisioning::office::signing::{KeyFile, NewKey, Signer};
use provisioning::update_notice::{UpdateNotice, UpdateState};

use super::*;

/// The signing key of the fleet.
static SIGNER: LazyLock<Signer> = LazyLock::new(|| {
    let key = NewKey::generate(None, "test").unwrap();
    KeyFile::parse(key.secret).unwrap().open(None).unwrap()
});

const GATEWAY_TOML: &str = "[gateway]\nid = \"amsterdam-01\"\n";

/// A `state_dir` that is removed at the end.
struct StateDir(PathBuf);

impl StateDir {
    fn new() -> Self {
        let name = format!("edge-gateway-bundles-{}-{:08x}", process::id(), fastrand::u32(..));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join("bundle").join(name)
    }

    /// Puts a bundle where a person puts it.
    fn load(&self, bundle: &[u8]) {
        fs::create_dir_all(self.path("")).unwrap();
        fs::write(self.path("inbox.tar"), bundle).unwrap();
    }

    /// Returns the directory of `edge-gateway-box`, which does not exist yet.
    fn box_run_dir(&self) -> PathBuf {
        self.0.join("box")
    }

    /// Lets `edge-gateway-box` say how far the version of bundle 4 is.
    fn tell(&self, state: UpdateState) {
        fs::create_dir_all(self.box_run_dir()).unwrap();
        let notice = UpdateNotice { bundle: 4, state }.to_string();
        fs::write(self.box_run_dir().join("update.new"), notice).unwrap();
        fs::rename(self.box_run_dir().join("update.new"), self.box_run_dir().join("update"))
            .unwrap();
    }

    /// Does what a start does.
    fn open(&self) -> Bundles {
        Bundles::open(&self.0, &self.box_run_dir()).unwrap()
    }

    /// Returns a box with this bundle confirmed.
    fn with_confirmed(counter: u64) -> Self {
        let dir = Self::new();
        dir.load(&bundle(counter));
        dir.open().trials.confirm().unwrap();
        dir
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn bundle(counter: u64) -> Vec<u8> {
    bundle_of("amsterdam-01", counter, &[("gateway.toml", GATEWAY_TOML)])
}

fn bundle_of(gateway: &str, counter: u64, files: &[(&str, &str)]) -> Vec<u8> {
    let manifest = Manifest { gateway: gateway.to_owned(), counter, ..Manifest::default() };
    bundle_with(manifest, files)
}

fn bundle_with(manifest: Manifest, files: &[(&str, &str)]) -> Vec<u8> {
    let files: BTreeMap<_, _> =
        files.iter().map(|(name, content)| (*name, content.as_bytes())).collect();
    let contents = Bundle::new(manifest, files).unwrap().render().unwrap();
    let list = SigningKeys::new(1, vec![SIGNER.key().clone()]).unwrap();
    let by_own_key = SIGNER.sign(list.to_string().as_bytes()).unwrap();
    seal(&[(list, by_own_key)], &contents, &SIGNER.sign(&contents).unwrap()).unwrap()
}

/// Returns the states of events.
fn states(events: &[BundleEvent]) -> Vec<&str> {
    events.iter().map(|event| event.state.as_str()).collect()
}
