//! Mounts a stick so that nothing on it can do anything: no programs, no devices, no changed ids.

use std::ffi::CString;
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use super::sentence::HelperError;

/// File systems that are mounted: those of sticks. A faulty image of a larger one reaches far more
/// code of the kernel.
const FILE_SYSTEMS: [&str; 2] = ["vfat", "exfat"];

const STICK_MOUNT_FLAGS: MountFlags =
    MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// A mounted stick; unmounted when it is dropped.
#[derive(Debug)]
pub(super) struct MountedStick {
    path: PathBuf,
}

impl MountedStick {
    /// Mounts a device for reading at a directory, which is made if it is missing.
    pub(super) fn mount(device: &Path, path: &Path) -> Result<Self, HelperError> {
        let error = HelperError::io("mount", device.display());
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(&error)?;
        let unknown = "the kernel knows neither FAT nor exFAT: load the module vfat";
        let mut result = Err(io::Error::new(ErrorKind::Unsupported, unknown));
        for file_system in FILE_SYSTEMS {
            let flags = STICK_MOUNT_FLAGS.union(MountFlags::RDONLY);
            match mount(device, path, file_system, flags, None) {
                Ok(()) => return Ok(Self { path: path.to_owned() }),
                // A kernel without exfat must not hide why vfat failed.
                Err(Errno::NODEV) => {}
                Err(Errno::INVAL) => {
                    let other = "it has neither FAT nor exFAT, or is damaged";
                    result = Err(io::Error::new(ErrorKind::InvalidData, other));
                }
                Err(errno) => result = Err(errno.into()),
            }
        }
        result.map_err(error)
    }

    /// Makes the stick writable.
    pub(super) fn make_writable(&self) -> Result<(), HelperError> {
        let error = HelperError::io("write", "the stick");
        mount_remount(&self.path, STICK_MOUNT_FLAGS, CString::default())
            .map_err(|errno| error(errno.into()))
    }

    /// Unmounts the stick: everything is on it when this returns.
    pub(super) fn unmount(self) -> Result<(), HelperError> {
        let error = HelperError::io("unmount", "the stick");
        unmount(&self.path, UnmountFlags::empty()).map_err(|errno| error(errno.into()))
    }
}

impl Drop for MountedStick {
    fn drop(&mut self) {
        // After `unmount` there is nothing to do; otherwise the stick goes as soon as it can.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}
