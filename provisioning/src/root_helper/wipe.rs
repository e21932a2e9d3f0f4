//! Removes everything that makes a box the box of a site, before it is disposed of.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::box_dir::{BoxFiles, BoxStorage as _, LOCK, remove_tree};
use super::network::NetworkService;
use super::sentence::HelperError;

/// What is removed, and what it is.
#[derive(Debug)]
pub(super) struct Wiped {
    /// The file or directory.
    pub(super) path: PathBuf,
    /// What it is.
    pub(super) what: &'static str,
}

/// Returns what [`wipe`] would remove.
pub(super) fn plan(
    files: &BoxFiles,
    box_dir: &Path,
    run_dir: &Path,
    state_dir: &Path,
) -> Result<Vec<Wiped>, HelperError> {
    let mut plan = Vec::new();
    for service in NetworkService::ALL {
        let read = |error| HelperError::io("read", format!("the files of {service}"))(error);
        if files.network_before(service).map_err(read)?.is_none() {
            continue;
        }
        let dir = files.network_path(service);
        for name in files.network(service).map_err(read)?.into_keys() {
            plan.push(Wiped { path: dir.join(name), what: "the network of a bundle" });
        }
    }
    // The secrets in clear first, the keys of the box last: what is left can be wiped again.
    for (dir, what) in [
        (run_dir, "secrets of the bundle in use"),
        (state_dir, "state of the gateway"),
        (box_dir, "keys and bundles of this box"),
    ] {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries.map_err(HelperError::io("read", dir.display()))?,
        };
        for entry in entries {
            let path = entry.map_err(HelperError::io("read", dir.display()))?.path();
            // It is held by this process, and holds nothing.
            if path != box_dir.join(LOCK) {
                plan.push(Wiped { path, what });
            }
        }
    }
    Ok(plan)
}

/// Removes what [`plan`] lists. No link is followed, so only the link itself goes.
pub(super) fn wipe(plan: &[Wiped]) -> Result<(), HelperError> {
    for Wiped { path, .. } in plan {
        remove_tree(path).map_err(HelperError::io("remove", path.display()))?;
    }
    let parents = plan.iter().filter_map(|wiped| wiped.path.parent());
    for parent in parents.collect::<std::collections::BTreeSet<_>>() {
        sync(parent).map_err(HelperError::io("write", parent.display()))?;
    }
    Ok(())
}

fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}
