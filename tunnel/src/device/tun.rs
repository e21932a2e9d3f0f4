//! A TUN interface of Linux.

#[cfg(test)]
mod tests;

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
/// Longest name of an interface, without the terminating zero.
const MAX_NAME_LEN: usize = libc::IFNAMSIZ - 1;

/// Name of a network interface: 1 to 15 printable ASCII characters without `/`, `:` and `%`.
///
/// ```
/// use tunnel::InterfaceName;
///
/// assert!("edge0".parse::<InterfaceName>().is_ok());
/// let error = "sixteen-letters-".parse::<InterfaceName>().unwrap_err();
/// assert!(error.to_string().contains("1 to 15 letters"));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InterfaceName([u8; libc::IFNAMSIZ]);

/// A text that cannot be the name of a network interface.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error(
    "`{0}` cannot be the name of a network interface: use 1 to 15 letters, digits, `-`, `_` and `.`"
)]
pub struct InterfaceNameError(String);

/// Why no interface was created.
#[derive(Debug, Error)]
pub enum TunError {
    /// The process lacks the privilege.
    #[error(
        "creating the network interface `{0}` needs the capability CAP_NET_ADMIN: run as root, \
         give the service AmbientCapabilities=CAP_NET_ADMIN, or use the mode \"userspace\""
    )]
    Denied(InterfaceName),
    /// The user has no rights to the device, or the service may not use it.
    #[error(
        "{TUN_DEVICE_PATH} may not be opened by this user: udev gives it the mode 0666; a service \
         needs DeviceAllow={TUN_DEVICE_PATH} rw; or use the mode \"userspace\""
    )]
    NotAllowed,
    /// The kernel has no TUN devices, or a sandbox hides them.
    #[error(
        "{TUN_DEVICE_PATH} is missing: load the kernel module `tun`, allow the container or \
         service to use the device, or use the mode \"userspace\""
    )]
    NoTun,
    /// The name is in use.
    #[error("the network interface `{0}` exists already: choose another name, or remove it")]
    Taken(InterfaceName),
    /// Another error.
    #[error("cannot create the network interface `{0}`")]
    Failed(InterfaceName, #[source] io::Error),
}

/// A TUN interface. When it is dropped, or the process ends in any way, the kernel removes it with
/// its addresses and routes.
#[derive(Debug)]
pub(crate) struct Tun {
    fd: AsyncFd<OwnedFd>,
    index: u32,
    offload: Offload,
}

impl Tun {
    /// Creates the interface, down and without an address. Must be called in a tokio runtime.
    pub(crate) fn create(name: InterfaceName, offload: Offload) -> Result<Self, TunError> {
        let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let failed = |errno| TunError::from_errno(name, errno);
        let fd = fcntl::open(TUN_DEVICE_PATH, flags, Mode::empty()).map_err(|errno| {
            let is_missing = [Errno::ENOENT, Errno::ENODEV, Errno::ENXIO].contains(&errno);
            let is_denied = [Errno::EPERM, Errno::EACCES].contains(&errno);
            if is_missing {
                TunError::NoTun
            } else if is_denied {
                TunError::NotAllowed
            } else {
                failed(errno)
            }
        })?;
        ioctl::create_interface(&fd, &name.0).map_err(failed)?;
        let offload = ioctl::enable_offload(&fd, offload);
        let index = if_nametoindex(name.as_str()).map_err(failed)?;
        let fd = ioctl::watch_fd(fd).map_err(|error| TunError::Failed(name, error))?;
        Ok(Self { fd, index, offload })
    }

    /// Returns its index in this network namespace, which a rename does not change.
    #[must_use]
    pub(crate) const fn index(&self) -> u32 {
        self.index
    }
}

impl TunError {
    fn from_errno(name: InterfaceName, errno: Errno) -> Self {
        if [Errno::EPERM, Errno::EACCES].contains(&errno) {
            Self::Denied(name)
        // EINVAL is the answer for the name of an interface that is not a TUN.
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
        // The kernel reports a removed interface as POLLERR.
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
            // The interface is down, or the kernel is out of memory.
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

/// Index of a network interface in its network namespace, which a rename does not change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InterfaceIndex(pub u32);

nix::setsockopt_impl!(
    BindToIndex,
    libc::SOL_SOCKET,
    libc::SO_BINDTOIFINDEX,
    i32,
    sockopt::SetStruct<'_, i32>
);

#[derive(Clone, Copy)]
struct BindToIndex;

/// Binds a socket to an interface: it sends and receives through that interface only, and fails
/// without it. Binding to an address is not enough: Linux accepts packets for any of its addresses
/// on any interface, and sends by any route. Binding to a name is not either: udev and
/// administrators rename interfaces.
///
/// The socket must not be connected or bound to another interface. Needs no capability.
pub fn bind_to_interface(socket: &impl AsFd, interface: InterfaceIndex) -> io::Result<()> {
    let index = i32::try_from(interface.0).map_err(|_| io::ErrorKind::InvalidInput)?;
    setsockopt(socket, BindToIndex, &index)?;
    Ok(())
}

/// Replaces the error of a removed interface, "file descriptor in bad state".
fn map_removed(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EBADFD) => Errno::ENODEV.into(),
        _ => error,
    }
}

impl InterfaceName {
    /// Returns the name as text.
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
        let target =
            name.get_mut(..text.len()).filter(|target| (1..=MAX_NAME_LEN).contains(&target.len()));
        match target {
            Some(target) if text.chars().all(is_good) && text != "." && text != ".." => {
                target.copy_from_slice(text.as_bytes());
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
