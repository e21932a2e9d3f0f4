//! A network device of Linux whose other end is this process.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::str::FromStr;

use nix::errno::Errno;
use nix::fcntl::{self, OFlag};
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::stat::Mode;
use nix::sys::uio::writev;
use thiserror::Error;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use super::{Device, Offload, ioctl};

const TUN_DEVICE_PATH: &str = "/dev/net/tun";
/// Longest name of a device, without the byte that ends it.
const MAX_NAME_LEN: usize = libc::IFNAMSIZ - 1;

/// Name of a network device: 1 to 15 printable characters of ASCII without `/`, `:` and `%`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InterfaceName([u8; libc::IFNAMSIZ]);

/// It cannot be the name of a network device.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error(
    "`{0}` cannot be the name of a network device: use 1 to 15 letters, digits, `-`, `_` and `.`"
)]
pub struct InterfaceNameError(String);

/// Why there is no device.
#[derive(Debug, Error)]
pub enum TunError {
    /// The process may not make one.
    #[error(
        "making the network device `{0}` needs the capability CAP_NET_ADMIN: run as root, give the \
         service AmbientCapabilities=CAP_NET_ADMIN, or use the mode \"userspace\""
    )]
    Denied(InterfaceName),
    /// The kernel has no such devices, or keeps them from us.
    #[error(
        "there is no {TUN_DEVICE_PATH} here: load the kernel module `tun`, allow the container or service the \
         device, or use the mode \"userspace\""
    )]
    NoTun,
    /// Another program has it.
    #[error("there is a network device `{0}` already: choose another name, or remove it")]
    Taken(InterfaceName),
    /// Something else.
    #[error("cannot make the network device `{0}`")]
    Failed(InterfaceName, #[source] io::Error),
}

/// A TUN device. When it is dropped, or the process ends in whatever way, the kernel removes it
/// with its addresses and routes.
#[derive(Debug)]
pub(crate) struct Tun {
    fd: AsyncFd<OwnedFd>,
    index: u32,
    offload: Offload,
}

impl Tun {
    /// Makes the device, down and without an address. Has to be called in a tokio runtime.
    pub(crate) fn create(name: InterfaceName, offload: Offload) -> Result<Self, TunError> {
        let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let failed = |errno| TunError::from_errno(name, errno);
        let fd = fcntl::open(TUN_DEVICE_PATH, flags, Mode::empty()).map_err(|errno| {
            let is_missing = [Errno::ENOENT, Errno::ENODEV, Errno::ENXIO].contains(&errno);
            if is_missing { TunError::NoTun } else { failed(errno) }
        })?;
        ioctl::create_interface(&fd, &name.0).map_err(failed)?;
        let offload = ioctl::enable_offload(&fd, offload);
        let index = if_nametoindex(name.as_str()).map_err(failed)?;
        let fd = ioctl::watch_fd(fd).map_err(|error| TunError::Failed(name, error))?;
        Ok(Self { fd, index, offload })
    }

    /// Its number in this network namespace, which stays when it is renamed.
    #[must_use]
    pub(crate) const fn index(&self) -> u32 {
        self.index
    }
}

impl TunError {
    fn from_errno(name: InterfaceName, errno: Errno) -> Self {
        if [Errno::EPERM, Errno::EACCES].contains(&errno) {
            Self::Denied(name)
        } else if [Errno::EBUSY, Errno::EEXIST, Errno::EINVAL].contains(&errno) {
            Self::Taken(name)
        } else {
            Self::Failed(name, errno.into())
        }
    }
}

impl Device for Tun {
    async fn readable(&mut self) -> io::Result<()> {
        let mut guard = self.fd.ready(Interest::READABLE | Interest::ERROR).await?;
        if guard.ready().is_error() {
            guard.clear_ready_matching(Ready::ERROR);
            return Err(Errno::ENODEV.into());
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let read = self.fd.try_io(Interest::READABLE, |fd| Ok(nix::unistd::read(fd, buffer)?));
        match read {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(map_removed(error)),
        }
    }

    fn write(&mut self, frame: &[IoSlice<'_>]) -> io::Result<()> {
        match writev(self.fd.get_ref(), frame) {
            Ok(_) => Ok(()),
            // The device is down, or the kernel has no memory now.
            Err(Errno::EIO | Errno::ENOMEM | Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(errno) => Err(map_removed(errno.into())),
        }
    }

    fn offload(&self) -> Offload {
        self.offload
    }
}

/// Binds a socket to a device: it sends and receives through that one and no other, and fails
/// without it. An address alone does not do this: Linux takes packets for any of its addresses on
/// any device, and sends by whatever route there is.
///
/// For a socket that is not connected and not bound to another device; needs no capability.
pub fn bind_to_device(socket: &impl AsFd, interface: InterfaceName) -> io::Result<()> {
    setsockopt(socket, sockopt::BindToDevice, &OsString::from(interface.as_str()))?;
    Ok(())
}

/// A removed device says "file descriptor in bad state", which helps nobody.
fn map_removed(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EBADFD) => Errno::ENODEV.into(),
        _ => error,
    }
}

impl InterfaceName {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(MAX_NAME_LEN);
        self.0.get(..end).and_then(|name| str::from_utf8(name).ok()).unwrap_or_default()
    }
}

impl FromStr for InterfaceName {
    type Err = InterfaceNameError;

    fn from_str(text: &str) -> Result<Self, InterfaceNameError> {
        let is_good = |c: char| c.is_ascii_graphic() && !"/:%".contains(c);
        let mut name = [0; libc::IFNAMSIZ];
        let place =
            name.get_mut(..text.len()).filter(|place| (1..=MAX_NAME_LEN).contains(&place.len()));
        match place {
            Some(place) if text.chars().all(is_good) && text != "." && text != ".." => {
                place.copy_from_slice(text.as_bytes());
                Ok(Self(name))
            }
            _ => Err(InterfaceNameError(text.to_owned())),
        }
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
