//! Calls without a safe wrapper; the only module with unsafe code.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc::{
    self, IFF_NO_PI, IFF_TUN, IFF_TUN_EXCL, IFF_VNET_HDR, TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6,
    TUN_F_USO4, TUN_F_USO6, TUNSETIFF, TUNSETOFFLOAD,
};
use nix::{ioctl_write_int_bad, ioctl_write_ptr_bad};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Offload;

ioctl_write_ptr_bad!(
    /// Attaches an open /dev/net/tun to an interface.
    set_interface,
    TUNSETIFF,
    libc::ifreq
);
ioctl_write_int_bad!(
    /// Tells the kernel which work it may leave to the reader.
    set_offload,
    TUNSETOFFLOAD
);

/// Creates an interface behind `fd`. It exists as long as `fd` is open.
pub(super) fn create_interface(fd: &OwnedFd, name: &[u8; libc::IFNAMSIZ]) -> nix::Result<()> {
    // IFF_TUN_EXCL: fail instead of attaching to an interface of another program.
    let flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL;
    let ifru_flags = libc::c_short::from_ne_bytes(
        flags.to_le_bytes().first_chunk().copied().unwrap_or_default(),
    );
    let request = libc::ifreq {
        ifr_name: name.map(|byte| libc::c_char::from_ne_bytes([byte])),
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags },
    };
    #[expect(
        unsafe_code,
        reason = "the kernel reads an ifreq, and `request` is one that outlives the call"
    )]
    unsafe { set_interface(fd.as_raw_fd(), &raw const request) }.map(drop)
}

/// Enables as much offload as the kernel supports, up to `most`; returns what is enabled.
pub(super) fn enable_offload(fd: &OwnedFd, most: Offload) -> Offload {
    let tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    let udp = TUN_F_USO4 | TUN_F_USO6;
    [(tcp | udp, Offload::TcpAndUdp), (tcp, Offload::Tcp), (0, Offload::Nothing)]
        .into_iter()
        .filter(|(_, offload)| *offload <= most)
        .find(|(flags, _)| try_offload(fd, *flags))
        .map_or(Offload::Nothing, |(_, offload)| offload)
}

fn try_offload(fd: &OwnedFd, flags: libc::c_uint) -> bool {
    let Ok(flags) = libc::c_int::try_from(flags) else { return false };
    #[expect(unsafe_code, reason = "the kernel takes the flags by value and touches no memory")]
    unsafe { set_offload(fd.as_raw_fd(), flags) }.is_ok()
}

/// Registers `fd`, which must be non-blocking, with the runtime.
pub(crate) fn watch_fd(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        unsafe_code,
        reason = "an OwnedFd is open, and the same, for as long as the AsyncFd owns it"
    )]
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(watched?)
}
