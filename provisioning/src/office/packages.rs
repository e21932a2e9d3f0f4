//! The Debian packages of edge-gateway in `packages/`: which of them the bundle of a site names,
//! and their copies for web servers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};

use super::output_batch::OutputBatch;
use super::output_file::{FileAccess, FileError, remove_if_there};
use crate::bundle::{MAX_PACKAGE_BYTES, PackageDigest, PackageName, compare_versions};
use crate::diagnostics::{Problem, RejectedFile, SourceSpan};
use crate::regular_file;

/// Directory with the packages in the fleet, and with their copies below that of the bundles.
pub const PACKAGES_DIR: &str = "packages";

/// Maximum number of versions whose packages a bundle names: a box goes back a few versions at most.
const MAX_VERSIONS: usize = 8;
/// Maximum number of packages of one version, so that a manifest holds those of 8 versions.
const MAX_ARCHITECTURES: usize = 8;
/// First bytes of every Debian package, as of every archive of ar(1).
const MAGIC: &[u8; 8] = b"!<arch>\n";

/// The packages in `packages/`. Each is a regular file of at most 32 MiB that begins as a Debian
/// package does.
#[derive(Clone, Debug)]
pub struct PackageList {
    dir: PathBuf,
    names: BTreeSet<PackageName>,
    /// Every version, the newest first.
    versions: Vec<String>,
    ignored: Vec<PathBuf>,
}

/// Packages that bundles name, with their copies in place.
#[derive(Clone, Debug, Default)]
pub struct PublishedPackages {
    digests: BTreeMap<PackageName, PackageDigest>,
    /// Number of copies that were written.
    pub new: usize,
    /// Number of copies that were removed.
    pub removed: usize,
}

/// When the versions that a bundle names are chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NamedVersion {
    /// Only if the site shall run another version than at its last bundle.
    IfChanged,
    /// In any case.
    Renew,
}

impl PackageList {
    /// Reads the directory `packages/` of a fleet; `None` if there is none.
    ///
    /// # Errors
    /// With every file that has the name of a package and is none.
    pub(crate) fn read(fleet: &Path) -> Result<Option<Self>, Vec<RejectedFile>> {
        let dir = fleet.join(PACKAGES_DIR);
        let files = match file_names(&dir) {
            Ok(files) => files,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(vec![rejected(&dir, &error)]),
        };
        let (mut names, mut ignored, mut problems) = (BTreeSet::new(), Vec::new(), Vec::new());
        for file in files {
            let path = dir.join(&file);
            if let Ok(name) = file.parse() {
                problems.extend(open(&path).err().map(|error| rejected(&path, &error)));
                names.insert(name);
            } else if file.starts_with("edge-gateway_") && file.ends_with(".deb") {
                ignored.push(path);
            }
        }
        let list = Self::new(dir, names, ignored);
        let is_crowded = |version: &&String| {
            let of_version = list.names.iter().filter(|name| name.version() == version.as_str());
            of_version.count() > MAX_ARCHITECTURES
        };
        let crowded = list.versions.iter().filter(is_crowded);
        problems.extend(crowded.map(|version| {
            let message = format!("there are more than {MAX_ARCHITECTURES} packages of {version}");
            reject(&list.dir, message, "remove those that no box needs")
        }));
        if problems.is_empty() { Ok(Some(list)) } else { Err(problems) }
    }

    fn new(dir: PathBuf, names: BTreeSet<PackageName>, ignored: Vec<PathBuf>) -> Self {
        let versions: BTreeSet<&str> = names.iter().map(PackageName::version).collect();
        let mut versions: Vec<String> = versions.into_iter().map(str::to_owned).collect();
        versions.sort_by(|a, b| compare_versions(b, a));
        Self { dir, names, versions, ignored }
    }

    /// Returns the number of packages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Returns whether there is no package.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Returns the files that are probably meant to be packages, but have no name of one.
    #[must_use]
    pub fn ignored(&self) -> &[PathBuf] {
        &self.ignored
    }

    /// Returns whether there is a package of a version.
    #[must_use]
    pub fn has_version(&self, version: &str) -> bool {
        self.versions.iter().any(|known| known == version)
    }

    /// Returns every version, the newest first.
    #[must_use]
    pub fn versions(&self) -> &[String] {
        &self.versions
    }

    /// Returns the versions that the next bundle of a site names: that which it shall run, those
    /// that its last bundle named (`last`), and the newest others; at most 8.
    ///
    /// A box that does not confirm a bundle goes back to the version that it ran before. That is one
    /// of those that earlier bundles named, older or newer, or before the first of them any version
    /// that a person has installed. So the choice is made once for each change of the version, and
    /// kept in the file of the site. A version that is added to `packages/` later, for another site
    /// or for the next roll-out, leaves all other bundles as they are.
    ///
    /// `min_version` excludes none of them: a box that was away for long may run an older version,
    /// and it installs a newer one only if the bundle names the way back. What a box that has
    /// confirmed `min_version` may install, it decides itself.
    #[must_use]
    pub fn choose(&self, version: &str, last: &[String], choice: NamedVersion) -> Vec<String> {
        let is_same = last.first().is_some_and(|first| first == version);
        if is_same && choice == NamedVersion::IfChanged {
            return last.to_vec();
        }
        let mut chosen: Vec<String> = Vec::new();
        let others = last.iter().chain(&self.versions).map(String::as_str);
        for version in std::iter::once(version).chain(others) {
            if self.has_version(version) && !chosen.iter().any(|known| known == version) {
                chosen.push(version.to_owned());
            }
        }
        chosen.truncate(MAX_VERSIONS);
        chosen
    }

    /// Hashes the packages of some versions and puts copies of them below `out`. Each is read once.
    ///
    /// A copy, and no link: a package that is overwritten here must not change below a bundle that
    /// names it.
    ///
    /// # Errors
    /// When a package cannot be read, or its copy not be written.
    pub(crate) fn publish(
        &self,
        versions: &BTreeSet<String>,
        out: &Path,
    ) -> Result<PublishedPackages, FileError> {
        let mut published = PublishedPackages::default();
        let mut batch = OutputBatch::default();
        for name in self.names.iter().filter(|name| versions.contains(name.version())) {
            let path = self.dir.join(name.to_string());
            let content = read(&path).map_err(|error| FileError::new("read", &path, error))?;
            let mut sha256 = PackageDigest([0; 32]);
            sha256.0.copy_from_slice(digest(&SHA256, &content).as_ref());
            let copy = out.join(PACKAGES_DIR).join(name.to_string());
            published.new += usize::from(batch.stage(&copy, &content, FileAccess::Public)?);
            published.digests.insert(name.clone(), sha256);
        }
        batch.commit()?;
        Ok(published)
    }
}

impl PublishedPackages {
    /// Returns the number of packages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// Returns whether there is no package.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Returns the packages of some versions with their SHA-256.
    pub(crate) fn of_versions(&self, versions: &[String]) -> BTreeMap<PackageName, PackageDigest> {
        let is_named = |name: &PackageName| versions.iter().any(|known| known == name.version());
        let named = self.digests.iter().filter(|(name, _)| is_named(name));
        named.map(|(name, digest)| (name.clone(), *digest)).collect()
    }

    /// Removes the copies below `out` of all versions but these.
    ///
    /// # Errors
    /// When the directory cannot be read, or a copy not be removed.
    pub(crate) fn remove_others(
        &mut self,
        versions: &BTreeSet<String>,
        out: &Path,
    ) -> Result<(), FileError> {
        let dir = out.join(PACKAGES_DIR);
        let files = match file_names(&dir) {
            Ok(files) => files,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(FileError::new("read", &dir, error)),
        };
        for file in files {
            let is_other = |name: PackageName| !versions.contains(name.version());
            if file.parse().is_ok_and(is_other) && remove_if_there(&dir.join(file))? {
                self.removed += 1;
            }
        }
        Ok(())
    }
}

/// Returns the names of the files in a directory, sorted, without those that are no text.
fn file_names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// Opens a package.
fn open(path: &Path) -> io::Result<File> {
    // Its copy is public, and a link may lead to anything.
    if fs::symlink_metadata(path)?.is_symlink() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is a link"));
    }
    let mut file = regular_file::open(path, MAX_PACKAGE_BYTES as u64)?;
    let mut start = [0; MAGIC.len()];
    match file.read_exact(&mut start) {
        Ok(()) if start == *MAGIC => Ok(file),
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(error),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let rest = regular_file::read_opened(open(path)?, (MAX_PACKAGE_BYTES - MAGIC.len()) as u64)?;
    Ok([MAGIC.as_slice(), &rest].concat())
}

fn rejected(path: &Path, error: &io::Error) -> RejectedFile {
    let kind = error.kind();
    let (message, help) = if kind == ErrorKind::FileTooLarge {
        ("this file is larger than 32 MiB".to_owned(), "put the package of edge-gateway here")
    } else if kind == ErrorKind::InvalidData {
        let help = "copy it here again; if it is in Git LFS, run `git lfs pull`";
        ("this is not a Debian package".to_owned(), help)
    } else if [ErrorKind::InvalidInput, ErrorKind::IsADirectory].contains(&kind) {
        (format!("this is not a package: {error}"), "put the package itself here")
    } else {
        (format!("this cannot be read: {error}"), "check path and permissions")
    };
    reject(path, message, help)
}

fn reject(path: &Path, message: String, help: &str) -> RejectedFile {
    let problem = Problem::new(SourceSpan::WholeFile, message, help);
    RejectedFile::new(path, String::new(), vec![problem])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::NamedVersion::{IfChanged, Renew};
    use super::*;

    fn list(versions: &[&str]) -> PackageList {
        let names = versions.iter().map(|version| PackageName::new(version, "arm64").unwrap());
        PackageList::new(PathBuf::new(), names.collect(), Vec::new())
    }

    fn texts(versions: &[&str]) -> Vec<String> {
        versions.iter().map(|version| (*version).to_owned()).collect()
    }

    #[test]
    fn the_versions_to_go_back_to_are_those_that_the_box_may_run() {
        let all = list(&["0.1.0", "0.2.0", "0.10.0", "0.3.0"]);
        // Before the first choice, a person has installed any version.
        let first = all.choose("0.2.0", &[], IfChanged);
        assert_eq!(first, ["0.2.0", "0.10.0", "0.3.0", "0.1.0"]);
        // Another site's version came later, and this one is left alone.
        let last = texts(&["0.2.0", "0.1.0"]);
        assert_eq!(all.choose("0.2.0", &last, IfChanged), last);
        assert_eq!(all.choose("0.2.0", &last, Renew), ["0.2.0", "0.1.0", "0.10.0", "0.3.0"]);
        // Back to an older version: the newer one is what the box runs now.
        let last = texts(&["0.3.0", "0.2.0"]);
        assert_eq!(all.choose("0.2.0", &last, IfChanged)[..2], ["0.2.0", "0.3.0"]);
        // What is not there cannot be fetched.
        assert_eq!(list(&["0.2.0"]).choose("0.2.0", &last, IfChanged), ["0.2.0"]);
        assert!(list(&[]).choose("0.2.0", &last, IfChanged).is_empty());
        // A site that was left behind for many versions.
        let many: Vec<String> = (10..30).map(|minor| format!("0.{minor}.0")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let chosen = list(&many).choose("0.29.0", &texts(&["0.10.0"]), IfChanged);
        assert_eq!((chosen.len(), &chosen[..2]), (8, &texts(&["0.29.0", "0.10.0"])[..]));
    }

    proptest! {
        /// In any history of versions, the last one is named, and building again changes nothing.
        #[test]
        fn a_choice_is_stable_and_names_the_last_version(
            history in proptest::collection::vec(0_usize..12, 1..20), added in 0_usize..12,
        ) {
            let names: Vec<String> = (0..12).map(|minor| format!("0.{minor}.0")).collect();
            let there = |count: usize| list(&names[..count].iter().map(String::as_str).collect::<Vec<_>>());
            let (mut last, all) = (Vec::new(), there(12));
            for at in history {
                let version = names[at].as_str();
                let before = last.first().cloned();
                last = all.choose(version, &last, IfChanged);
                prop_assert_eq!(&last[0], version);
                prop_assert!(last.len() <= MAX_VERSIONS);
                prop_assert!(before.is_none_or(|before| last.contains(&before)));
                // Also when packages are added or removed.
                prop_assert_eq!(&there(added).choose(version, &last, IfChanged), &last);
            }
        }
    }
}
