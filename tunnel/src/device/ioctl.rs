//! What no safe wrapper knows: the only file with unsafe code.

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
    /// Makes an open /dev/net/tun the other end of a device.
    set_interface,
    TUNSETIFF,
    libc::ifreq
);
ioctl_write_int_bad!(
    /// Tells the kernel what it may leave to us.
    set_offload,
    TUNSETOFFLOAD
);

/// Makes a device of that name behind `fd`. It lives as long as `fd`.
pub(super) fn create_interface(fd: &OwnedFd, name: &[u8; libc::IFNAMSIZ]) -> nix::Result<()> {
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

/// Has the kernel join as much as it can, up to `most`, and tells how much that is.
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

/// Has the runtime watch `fd`, which must not block.
pub(crate) fn watch_fd(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        unsafe_code,
        reason = "an OwnedFd is open, and the same, for as long as the AsyncFd owns it"
    )]
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(watched?)
}
