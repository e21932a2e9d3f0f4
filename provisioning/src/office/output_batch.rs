//! Many files that are replaced together: one flush of the file system serves them all, where one
//! for each file would take minutes for a large fleet.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::output_file::{FileAccess, FileError, is_current, prepare_replacement};
use crate::atomic_file::prepared_path;

/// Files that are written, but not yet in their places. They are removed if they never come there.
#[derive(Debug, Default)]
pub struct OutputBatch {
    staged: Vec<PathBuf>,
}

impl OutputBatch {
    /// Writes a file beside its place if its content or its access differs. Returns whether it
    /// does.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn stage(
        &mut self,
        path: &Path,
        content: &[u8],
        access: FileAccess,
    ) -> Result<bool, FileError> {
        if is_current(path, content, access)? {
            return Ok(false);
        }
        prepare_replacement(path, content, access)?;
        self.staged.push(path.to_owned());
        Ok(true)
    }

    /// Adds the files of another batch.
    pub fn append(&mut self, mut other: Self) {
        self.staged.append(&mut other.staged);
    }

    /// Returns the number of files that will be replaced.
    #[must_use]
    pub fn len(&self) -> usize {
        self.staged.len()
    }

    /// Returns whether no file will be replaced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.staged.is_empty()
    }

    /// Puts all files into their places, in the order in which they were staged. After a power cut
    /// each of them holds the old content or the new one.
    ///
    /// # Errors
    /// When the file system cannot be flushed, or a file not be replaced; those before it are.
    pub fn commit(mut self) -> Result<(), FileError> {
        self.sync()?;
        for path in std::mem::take(&mut self.staged) {
            fs::rename(prepared_path(&path), &path)
                .map_err(|error| FileError::new("replace", &path, error))?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), FileError> {
        if self.staged.len() <= FEW {
            for path in &self.staged {
                let new = prepared_path(path);
                let synced = File::open(&new).and_then(|file| file.sync_all());
                synced.map_err(|error| FileError::new("write", path, error))?;
            }
            return Ok(());
        }
        for (path, file) in one_of_each_file_system(&self.staged)? {
            let error = |error| FileError::new("write", path, error);
            rustix::fs::syncfs(&file).map_err(|errno| error(errno.into()))?;
        }
        Ok(())
    }
}

/// Returns the first staged file of each file system, open. `out/` may be on another one than the
/// fleet.
fn one_of_each_file_system(staged: &[PathBuf]) -> Result<Vec<(&Path, File)>, FileError> {
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    for path in staged {
        let new = prepared_path(path);
        let error = |error| FileError::new("write", path, error);
        if seen.insert(fs::metadata(&new).map_err(error)?.dev()) {
            found.push((path.as_path(), File::open(&new).map_err(error)?));
        }
    }
    Ok(found)
}

impl Drop for OutputBatch {
    fn drop(&mut self) {
        for path in &self.staged {
            // Only a leftover: the next run replaces it.
            let _ = fs::remove_file(prepared_path(path));
        }
    }
}

/// So few files are flushed one by one: the whole file system may hold much from other programs.
const FEW: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_system_is_flushed_once() {
        let name = format!("edge-batch-{}-{:08x}", std::process::id(), fastrand::u32(..));
        // The second one is in memory, on every Linux.
        let dirs = [std::env::temp_dir().join(&name), Path::new("/dev/shm").join(&name)];
        let mut batch = OutputBatch::default();
        for number in 0..4 {
            for dir in &dirs {
                let path = dir.join(number.to_string());
                batch.stage(&path, b"text", FileAccess::Public).unwrap();
            }
        }
        let devices: BTreeSet<_> =
            dirs.iter().map(|dir| fs::metadata(dir).unwrap().dev()).collect();
        let found = one_of_each_file_system(&batch.staged).unwrap();
        let flushed: Vec<_> =
            found.iter().map(|(_, file)| file.metadata().unwrap().dev()).collect();
        assert_eq!(flushed.len(), devices.len());
        assert_eq!(BTreeSet::from_iter(flushed), devices);
        batch.commit().unwrap();
        for dir in dirs {
            fs::remove_dir_all(dir).unwrap();
        }
    }

    #[test]
    fn files_are_replaced_together_and_only_if_they_differ() {
        let name = format!("edge-batch-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let dir = std::env::temp_dir().join(name);
        let paths: Vec<_> = (0..=FEW).map(|n| dir.join(format!("{n}/file"))).collect();
        for (text, count) in [("one", paths.len()), ("one", 0), ("two", paths.len())] {
            let mut batch = OutputBatch::default();
            for path in &paths {
                batch.stage(path, text.as_bytes(), FileAccess::Public).unwrap();
            }
            assert_eq!(batch.len(), count);
            let before = fs::read_to_string(&paths[0]).ok();
            assert_ne!(before.as_deref(), Some("two"), "nothing is in place before the end");
            batch.commit().unwrap();
            assert!(paths.iter().all(|path| fs::read_to_string(path).unwrap() == text));
            assert_eq!(fs::read_dir(paths[0].parent().unwrap()).unwrap().count(), 1);
        }
        let mut dropped = OutputBatch::default();
        dropped.stage(&paths[0], b"three", FileAccess::Public).unwrap();
        drop(dropped);
        assert_eq!(fs::read_dir(paths[0].parent().unwrap()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(&paths[0]).unwrap(), "two");
        fs::remove_dir_all(&dir).unwrap();
    }
}
