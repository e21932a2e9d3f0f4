//! What the helper keeps, where only root can read: the directory of the box, and the files of the
//! network.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use zeroize::Zeroizing;

use super::box_record::BoxRecord;
use super::network::{NetworkFiles, NetworkService};
use super::open_dir::OpenDir;
use super::sentence::HelperError;
use super::update::UpdateRecord;
use crate::bundle::{
    BundleSource, MAX_BUNDLE_BYTES, MAX_PACKAGE_BYTES, Manifest, PackageDigest, PackageName,
    VerifyPolicy, verify,
};
use crate::enrolment::BoxKeys;
use crate::regular_file;

/// Directory of the keys of the box.
pub(super) const KEYS_DIR: &str = "keys";
/// The list of signing keys that the box trusts.
pub(super) const TRUSTED: &str = "trusted";
/// The record of the box.
pub(super) const RECORD: &str = "record";
/// Directory of copies of the bundles that may be in use.
pub(super) const BUNDLES_DIR: &str = "bundles";
/// Directory of what lay under the names of bundle files before the first network of a bundle.
pub(super) const NETWORK_DIR: &str = "network";
/// The record of an update of the program.
pub(super) const UPDATE: &str = "update";
/// Directory of packages whose SHA-256 a verified bundle names.
pub(super) const PACKAGES_DIR: &str = "packages";
/// Locked by the one process that changes something.
pub(super) const LOCK: &str = "lock";

/// Maximum size of a small file of the helper.
const MAX_SMALL_BYTES: usize = 16 * 1024;
/// Maximum number of packages that are looked at.
const MAX_PACKAGES: usize = 64;
/// Maximum number of files of the network that are looked at.
const MAX_NETWORK_FILES: usize = 4096;

/// Where the helper keeps what it must not lose. Each write is one step, and is on the disk when it
/// returns: after a power cut, it is done or not.
pub(super) trait BoxStorage {
    /// Returns a small file, [`RECORD`] or [`TRUSTED`]; none if there is none.
    fn read(&self, name: &'static str) -> io::Result<Option<String>>;

    /// Replaces a small file.
    fn write(&mut self, name: &'static str, text: &str) -> io::Result<()>;

    /// Returns the copy of a bundle; none if there is none.
    fn bundle(&self, counter: u64) -> io::Result<Option<Vec<u8>>>;

    /// Writes the copy of a bundle.
    fn write_bundle(&mut self, counter: u64, bundle: &[u8]) -> io::Result<()>;

    /// Removes all other copies. A power cut may leave some.
    fn keep_bundles(&mut self, counters: &[u64]) -> io::Result<()>;

    /// Returns the installed files of a service that are from bundles.
    fn network(&self, service: NetworkService) -> io::Result<NetworkFiles>;

    /// Installs a file of a service.
    fn write_network(
        &mut self,
        service: NetworkService,
        name: &str,
        content: &[u8],
    ) -> io::Result<()>;

    /// Removes a file of a service.
    fn remove_network(&mut self, service: NetworkService, name: &str) -> io::Result<()>;

    /// Returns what [`Self::write_network_before`] has kept; none if it was not called.
    fn network_before(&self, service: NetworkService) -> io::Result<Option<NetworkFiles>>;

    /// Keeps what was installed before the first bundle, all files in one step.
    fn write_network_before(
        &mut self,
        service: NetworkService,
        files: &NetworkFiles,
    ) -> io::Result<()>;
}

/// The directories on this box.
#[derive(Debug)]
pub(super) struct BoxFiles {
    path: PathBuf,
    dir: OpenDir,
    /// Where the files of the network go; none for the directory of each service.
    network_dir: Option<PathBuf>,
    /// Held until the end.
    _lock: File,
}

impl BoxFiles {
    /// Opens the directory of the box, makes it if it is missing, and waits until no other process
    /// uses it.
    pub(super) fn open(path: &Path, network_dir: Option<&Path>) -> Result<Self, HelperError> {
        let shown = path.display().to_string();
        let error = HelperError::io("use", &shown);
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path).map_err(&error)?;
        let dir = OpenDir::open(path).map_err(&error)?;
        let lock = fs::OpenOptions::new().create(true).append(true).open(path.join(LOCK));
        let lock = lock.map_err(&error)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .map_err(|errno| error(errno.into()))?;
        for name in [BUNDLES_DIR, NETWORK_DIR, PACKAGES_DIR] {
            builder.create(path.join(name)).map_err(&error)?;
        }
        let network_dir = network_dir.map(Path::to_owned);
        Ok(Self { path: path.to_owned(), dir, network_dir, _lock: lock })
    }

    /// Returns the keys of the box, which are made the first time.
    pub(super) fn keys(&self) -> Result<BoxKeys, HelperError> {
        Ok(BoxKeys::open_or_create(&self.path.join(KEYS_DIR))?)
    }

    /// Returns the directory of a service.
    pub(super) fn network_path(&self, service: NetworkService) -> PathBuf {
        self.network_dir.clone().unwrap_or_else(|| PathBuf::from(service.dir()))
    }

    /// Returns what root remembers of the bundles.
    pub(super) fn record(&self) -> Result<BoxRecord, HelperError> {
        let text = self.read(RECORD).map_err(HelperError::io("read", RECORD))?;
        Ok(text.as_deref().map(str::parse).transpose()?.unwrap_or_default())
    }

    /// Returns the manifest of a bundle of which there is a copy. Its signature was verified with
    /// the keys of its time.
    pub(super) fn manifest(&self, counter: u64) -> Result<Option<Manifest>, HelperError> {
        let copy = self.bundle(counter);
        let copy = copy.map_err(HelperError::io("read", format_args!("bundles/{counter}.tar")))?;
        let policy = VerifyPolicy {
            keys: None,
            gateway: None,
            tunnel_public_key: None,
            last_counter: None,
            source: BundleSource::ByHand,
        };
        let verified = copy.as_deref().and_then(|copy| verify(copy, &policy).ok());
        Ok(verified.map(|verified| verified.bundle.manifest().clone()))
    }

    /// Returns the update that was begun; none without one. A record that is damaged, or of a later
    /// version of this program, is removed: the version that is installed stays.
    pub(super) fn update(&self) -> Result<Option<UpdateRecord>, HelperError> {
        let text = self.read(UPDATE).map_err(HelperError::io("read", UPDATE))?;
        let Some(text) = text else { return Ok(None) };
        let update = text.parse().ok();
        if update.is_none() {
            self.dir.remove(UPDATE).map_err(HelperError::io("remove", UPDATE))?;
        }
        Ok(update)
    }

    /// Records an update.
    pub(super) fn write_update(&mut self, update: &UpdateRecord) -> Result<(), HelperError> {
        let write = self.write(UPDATE, &update.to_string());
        write.map_err(HelperError::io("write", UPDATE))
    }

    /// Forgets an update, and removes all packages but the one that is installed.
    pub(super) fn end_update(&mut self, installed: &PackageName) -> Result<(), HelperError> {
        let kept = installed.to_string();
        let ended = self.dir.remove(UPDATE).and_then(|()| self.dir.sync());
        ended.map_err(HelperError::io("remove", UPDATE))?;
        let removed = self.dir.open_below(PACKAGES_DIR).and_then(|dir| {
            let names = dir.names(MAX_PACKAGES)?;
            names
                .iter()
                .map(|name| name.to_string_lossy())
                .filter(|name| *name != kept)
                .try_for_each(|name| dir.remove(&name))
        });
        removed.map_err(HelperError::io("remove", PACKAGES_DIR))
    }

    /// Removes every package that is not one of these: a power cut may leave one of an earlier
    /// bundle, with the same name and other bytes.
    pub(super) fn keep_packages(
        &mut self,
        listed: &BTreeMap<PackageName, PackageDigest>,
    ) -> io::Result<()> {
        let dir = self.dir.open_below(PACKAGES_DIR)?;
        for name in dir.names(MAX_PACKAGES)? {
            let name = name.to_string_lossy();
            let digest = name.parse().ok().and_then(|name: PackageName| listed.get(&name));
            let is_one = digest.is_some_and(|digest| {
                let bytes = dir.read(&name, MAX_PACKAGE_BYTES);
                bytes.is_ok_and(|bytes| PackageDigest::of(&bytes) == *digest)
            });
            if !is_one {
                dir.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Returns the path of a package.
    pub(super) fn package_path(&self, name: &PackageName) -> PathBuf {
        self.path.join(PACKAGES_DIR).join(name.to_string())
    }

    /// Keeps a package whose SHA-256 was verified.
    pub(super) fn write_package(&mut self, name: &PackageName, bytes: &[u8]) -> io::Result<()> {
        self.dir.open_below(PACKAGES_DIR)?.replace(&name.to_string(), bytes, 0o600, None)
    }

    fn before_path(&self, service: NetworkService) -> PathBuf {
        self.path.join(NETWORK_DIR).join(service.name())
    }
}

impl BoxStorage for BoxFiles {
    fn read(&self, name: &'static str) -> io::Result<Option<String>> {
        let bytes = self.dir.read_optional(name, MAX_SMALL_BYTES)?;
        let text = bytes.map(String::from_utf8).transpose();
        text.map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not text"))
    }

    fn write(&mut self, name: &'static str, text: &str) -> io::Result<()> {
        self.dir.replace(name, text.as_bytes(), 0o600, None)
    }

    fn bundle(&self, counter: u64) -> io::Result<Option<Vec<u8>>> {
        let dir = self.dir.open_below(BUNDLES_DIR)?;
        dir.read_optional(&format!("{counter}.tar"), MAX_BUNDLE_BYTES)
    }

    fn write_bundle(&mut self, counter: u64, bundle: &[u8]) -> io::Result<()> {
        let dir = self.dir.open_below(BUNDLES_DIR)?;
        dir.replace(&format!("{counter}.tar"), bundle, 0o600, None)
    }

    fn keep_bundles(&mut self, counters: &[u64]) -> io::Result<()> {
        let dir = self.dir.open_below(BUNDLES_DIR)?;
        let kept: Vec<_> = counters.iter().map(|counter| format!("{counter}.tar")).collect();
        for name in dir.names(MAX_NETWORK_FILES)? {
            let name = name.to_string_lossy();
            if !kept.iter().any(|kept| *kept == name) {
                dir.remove(&name)?;
            }
        }
        Ok(())
    }

    fn network(&self, service: NetworkService) -> io::Result<NetworkFiles> {
        read_files(&self.network_path(service), |name| service.owns(name))
    }

    fn write_network(
        &mut self,
        service: NetworkService,
        name: &str,
        content: &[u8],
    ) -> io::Result<()> {
        let path = self.network_path(service);
        fs::create_dir_all(&path)?;
        OpenDir::open(&path)?.replace(name, content, service.mode(), None)
    }

    fn remove_network(&mut self, service: NetworkService, name: &str) -> io::Result<()> {
        let dir = OpenDir::open(&self.network_path(service))?;
        dir.remove(name)?;
        dir.sync()
    }

    fn network_before(&self, service: NetworkService) -> io::Result<Option<NetworkFiles>> {
        let path = self.before_path(service);
        if path.exists() { read_files(&path, |_| true).map(Some) } else { Ok(None) }
    }

    fn write_network_before(
        &mut self,
        service: NetworkService,
        files: &NetworkFiles,
    ) -> io::Result<()> {
        let path = self.before_path(service);
        let new = path.with_extension("new");
        remove_tree(&new)?;
        DirBuilder::new().mode(0o700).create(&new)?;
        let dir = OpenDir::open(&new)?;
        for (name, content) in files {
            dir.replace(name, content, 0o600, None)?;
        }
        dir.sync()?;
        fs::rename(&new, &path)?;
        self.dir.open_below(NETWORK_DIR)?.sync()
    }
}

/// Removes a file or a directory with everything in it, if there is one. No link is followed.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Returns files of a directory; none if there is no such directory.
fn read_files(path: &Path, is_one: impl Fn(&str) -> bool) -> io::Result<NetworkFiles> {
    let dir = match OpenDir::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(NetworkFiles::new()),
        dir => dir?,
    };
    let mut files = NetworkFiles::new();
    for name in dir.names(MAX_NETWORK_FILES)? {
        let Some(name) = name.to_str().filter(|name| is_one(name)) else { continue };
        // Only root can change these directories, and an administrator may use links.
        let content = regular_file::read(&path.join(name), MAX_BUNDLE_BYTES as u64)?;
        files.insert(name.to_owned(), Zeroizing::new(content));
    }
    Ok(files)
}
