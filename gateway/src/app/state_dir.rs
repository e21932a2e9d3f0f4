//! Where the state directory lies.

use std::path::Path;

use rustix::fs::{FsWord, statfs};

/// `f_type` of tmpfs (Linux, include/uapi/linux/magic.h).
const TMPFS: FsWord = 0x0102_1994;

/// Returns a note if the directory is in memory, as `/var` is on OpenWrt.
pub(crate) fn note(state_dir: &Path) -> Option<String> {
    // The gateway may have to create it: it will lie where its parent does.
    let found = state_dir.ancestors().find_map(|dir| statfs(dir).ok())?;
    (found.f_type == TMPFS).then(|| {
        format!(
            "state_dir {} is in memory: what waits for the broker is lost when the machine stops; \
             name a directory on flash or a disk",
            state_dir.display()
        )
    })
}
