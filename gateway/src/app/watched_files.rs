//! The files of a configuration, to notice a change.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use provisioning::config;

/// A configuration file and the files that it names, as they were.
#[derive(Clone, Debug)]
pub struct WatchedFiles {
    config: WatchedFile,
    inbox: Option<WatchedFile>,
    named: Vec<WatchedFile>,
}

#[derive(Clone, Debug)]
struct WatchedFile {
    path: PathBuf,
    before: Option<FileStamp>,
}

/// Changes with the content of a file, its owner, its mode, and when another file replaces it.
/// `None` instead of it: the file cannot be reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    changed_at: (i64, i64),
}

impl WatchedFiles {
    /// Looks at the files of this configuration, and at the place for a bundle that a person brings.
    #[must_use]
    pub fn of(config_file: &Path, inbox: Option<PathBuf>) -> Self {
        Self {
            config: WatchedFile::new(config_file.to_owned()),
            inbox: inbox.map(WatchedFile::new),
            named: named_by(config_file),
        }
    }

    /// Returns whether one of the files has changed since.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        let files = self.named.iter().chain(&self.inbox).chain([&self.config]);
        files.into_iter().any(WatchedFile::has_changed)
    }

    /// Returns the path of the configuration file, if only files that it names have changed since,
    /// and looks at those again.
    pub(super) fn take_changed_names(&mut self) -> Option<&Path> {
        let is_changed =
            !self.config.has_changed() && self.named.iter().any(WatchedFile::has_changed);
        if !is_changed {
            return None;
        }
        self.named = named_by(&self.config.path);
        Some(&self.config.path)
    }
}

impl WatchedFile {
    fn new(path: PathBuf) -> Self {
        Self { before: stamp(&path), path }
    }

    fn has_changed(&self) -> bool {
        stamp(&self.path) != self.before
    }
}

fn named_by(config_file: &Path) -> Vec<WatchedFile> {
    config::named_files(config_file).into_iter().map(WatchedFile::new).collect()
}

fn stamp(path: &Path) -> Option<FileStamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(FileStamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        changed_at: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_change_of_the_file_or_of_a_secret_is_noticed() {
        let name = format!("edge-gateway-watch-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        let (file, secret) = (dir.join("gateway.toml"), dir.join("password"));
        let text = "[mqtt]\npassword_file = \"password\"\n";
        let mode = fs::Permissions::from_mode(0o600);
        let changes: [(&str, &dyn Fn()); 5] = [
            ("written", &|| fs::write(&file, text).unwrap()),
            ("secret written", &|| fs::write(&secret, "x").unwrap()),
            ("secret closed", &|| fs::set_permissions(&secret, mode.clone()).unwrap()),
            ("secret removed", &|| fs::remove_file(&secret).unwrap()),
            ("file removed", &|| fs::remove_file(&file).unwrap()),
        ];
        for (name, change) in changes {
            let watched = WatchedFiles::of(&file, None);
            assert!(!watched.has_changed(), "before: {name}");
            change();
            assert!(watched.has_changed(), "{name}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_change_of_a_secret_alone_is_taken_once() {
        let name = format!("edge-gateway-names-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        let (file, secret) = (dir.join("gateway.toml"), dir.join("key"));
        fs::write(&file, "[tunnel]\nprivate_key_file = \"key\"\n").unwrap();
        let mut watched = WatchedFiles::of(&file, None);
        assert_eq!(watched.take_changed_names(), None);
        fs::write(&secret, "x").unwrap();
        assert_eq!(watched.take_changed_names(), Some(&*file));
        assert_eq!(watched.take_changed_names(), None);
        // A changed configuration waits for a restart by a person, and its secrets with it.
        fs::write(&file, "[tunnel]\nprivate_key_file = \"key\"\nmtu = 1300\n").unwrap();
        fs::write(&secret, "xy").unwrap();
        assert_eq!(watched.take_changed_names(), None);
        fs::remove_dir_all(&dir).unwrap();
    }
}
