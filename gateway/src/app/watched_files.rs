//! The files of a configuration, to notice a change.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use provisioning::config;

/// A configuration file and the files that it names, as they were.
#[derive(Debug)]
pub(super) struct WatchedFiles(Vec<(PathBuf, Option<FileStamp>)>);

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
    pub(super) fn of(config_file: &Path, inbox: Option<PathBuf>) -> Self {
        let files = std::iter::once(config_file.to_owned()).chain(inbox);
        let files = files.chain(config::named_files(config_file));
        Self(files.map(|path| (path.clone(), stamp(&path))).collect())
    }

    /// Returns whether one of the files has changed since.
    pub(super) fn has_changed(&self) -> bool {
        let Self(files) = self;
        files.iter().any(|(path, before)| stamp(path) != *before)
    }
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
}
