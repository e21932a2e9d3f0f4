mod bundles;
mod fetches;
mod task;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::{fs, process};

use provisioning::bundle::{Bundle, Manifest, SigningKeys, seal};
use provisioning::office::signing::{KeyFile, NewKey, Signer};

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

    /// Does what a start does, without `edge-gateway-box`.
    fn open(&self) -> Bundles {
        Bundles::open(&self.0, Path::new("/nonexistent")).unwrap()
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
