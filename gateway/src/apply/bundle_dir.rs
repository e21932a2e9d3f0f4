//! The bundles of a box on its disk: the directory `bundle` in `state_dir`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use provisioning::bundle::{
    Bundle, GATEWAY_TOML, MAX_BUNDLE_BYTES, SEALED_SECRETS, SECRETS_DIR, SigningKeys,
};
use provisioning::trial::{TrialSlot, TrialStorage};
use provisioning::{atomic_file, regular_file};

use crate::state_file::OWNER_ONLY;

/// Name of the directory in `state_dir`.
const BUNDLE_DIR: &str = "bundle";
/// A bundle that a person brought.
const INBOX: &str = "inbox.tar";
/// Why the last one was refused.
const INBOX_REFUSED: &str = "inbox.refused";
/// The trial's record.
const RECORD: &str = "record";
/// The trusted signing keys.
const KEYS: &str = "keys";
/// Longest record and list of keys: both are a few lines.
const MAX_TEXT_BYTES: u64 = 16 << 10;

/// The directory. Every write is on the disk when it returns.
#[derive(Clone, Debug)]
pub(super) struct BundleDir {
    state_dir: PathBuf,
    dir: PathBuf,
}

impl BundleDir {
    /// Returns the directory of bundles in `state_dir`, without opening it.
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned(), dir: state_dir.join(BUNDLE_DIR) }
    }

    /// Returns the `state_dir` that it is in.
    pub(super) fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Returns whether a person brought a bundle.
    pub(super) fn has_inbox(&self) -> bool {
        self.dir.join(INBOX).symlink_metadata().is_ok()
    }

    /// Returns the file that a person's bundle is put into.
    pub(super) fn inbox(&self) -> PathBuf {
        self.dir.join(INBOX)
    }

    /// Returns the bundle that a person brought.
    pub(super) fn read_inbox(&self) -> io::Result<Vec<u8>> {
        regular_file::read(&self.inbox(), MAX_BUNDLE_BYTES as u64)
    }

    /// Removes the bundle that a person brought. `refusal` says why it was not taken.
    pub(super) fn close_inbox(&self, refusal: Option<&str>) -> io::Result<()> {
        let note = self.dir.join(INBOX_REFUSED);
        match refusal {
            Some(sentence) => fs::write(&note, format!("{sentence}\n"))?,
            None => remove_if_there(&note)?,
        }
        remove_if_there(&self.inbox())?;
        sync_dir(&self.dir)
    }

    /// Returns the trusted signing keys; none if there was no bundle yet.
    pub(super) fn keys(&self) -> Option<SigningKeys> {
        let bytes = regular_file::read(&self.dir.join(KEYS), MAX_TEXT_BYTES).ok()?;
        String::from_utf8(bytes).ok()?.parse().ok()
    }

    /// Replaces the trusted signing keys.
    pub(super) fn set_keys(&self, keys: &SigningKeys) -> io::Result<()> {
        self.replace(KEYS, keys.to_string().as_bytes())
    }

    /// Returns the bundle of a slot.
    pub(super) fn read_slot(&self, slot: TrialSlot) -> io::Result<Vec<u8>> {
        regular_file::read(&self.tar(slot), MAX_BUNDLE_BYTES as u64)
    }

    fn tar(&self, slot: TrialSlot) -> PathBuf {
        self.dir.join(format!("{slot}.tar"))
    }

    /// Returns the directory with the files of a slot's bundle.
    pub(super) fn unpacked(&self, slot: TrialSlot) -> PathBuf {
        self.dir.join(slot.to_string())
    }

    /// Writes the files of a bundle where the gateway reads them, unless they are there, and
    /// returns its `gateway.toml`. `secrets` is the directory with the decrypted secrets.
    pub(super) fn unpack(
        &self,
        slot: TrialSlot,
        bundle: &Bundle<'_>,
        secrets: Option<&Path>,
    ) -> io::Result<PathBuf> {
        let (dir, new) = (self.unpacked(slot), self.dir.join(format!("{slot}-new")));
        let files = bundle.files().iter().filter(|(name, _)| **name != SEALED_SECRETS);
        let linked = secrets.filter(|_| !bundle.has_clear_secrets());
        let is_same = |name: &str, content: &[u8]| {
            regular_file::read(&dir.join(name), MAX_BUNDLE_BYTES as u64)
                .is_ok_and(|there| there == content)
        };
        // Flash wears with each write, and a full disk must not stand in the way of a start.
        if fs::read_link(dir.join(SECRETS_DIR)).ok().as_deref() == linked
            && files.clone().all(|(name, content)| is_same(name, content))
        {
            return Ok(dir.join(GATEWAY_TOML));
        }
        remove_tree(&new)?;
        create_dir(&new)?;
        for (name, content) in files {
            let path = new.join(name);
            if let Some(parent) = path.parent() {
                create_dir(parent)?;
            }
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(content)?;
        }
        if let Some(secrets) = linked {
            symlink(secrets, new.join(SECRETS_DIR))?;
        }
        remove_tree(&dir)?;
        fs::rename(&new, &dir)?;
        Ok(dir.join(GATEWAY_TOML))
    }

    /// Returns the directory for the secrets of a box without `edge-gateway-box`, which its
    /// operator fills.
    pub(super) fn own_secrets(&self) -> Option<PathBuf> {
        let dir = self.dir.join(SECRETS_DIR);
        dir.is_dir().then_some(dir)
    }

    /// Replaces a file in one step.
    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        create_dir(&self.dir)?;
        atomic_file::replace(&self.dir.join(name), content, OWNER_ONLY)
    }
}

impl TrialStorage for BundleDir {
    type Error = io::Error;

    fn read_record(&self) -> io::Result<Option<String>> {
        match regular_file::read(&self.dir.join(RECORD), MAX_TEXT_BYTES) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write_record(&mut self, record: &str) -> io::Result<()> {
        self.replace(RECORD, record.as_bytes())
    }

    fn write_slot(&mut self, slot: TrialSlot, bundle: &[u8]) -> io::Result<()> {
        // The files of the bundle that was there: some may be secrets that this one has not.
        remove_tree(&self.unpacked(slot))?;
        self.replace(&format!("{slot}.tar"), bundle)
    }
}

fn create_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
