//! The UDP socket and its options.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SetSockOpt, SockFlag, SockType, SockaddrIn,
    SockaddrIn6, SockaddrStorage, bind, recvmsg, setsockopt, socket, sockopt,
};
use tracing::debug;

use super::SocketFamily;
use crate::core::{PathError, PathErrorCause};
use crate::transport::RecvBatch;

/// Requested size of both kernel buffers. With the default of 208 KiB, one stream to the site lost
/// 109,000 segments in three seconds.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// ICMP errors that are read at once; further ones are ignored.
const MAX_ERRORS_READ: usize = 64;

/// The local port of this end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LocalPort {
    /// A new one at the start and with each rebind.
    Any,
    /// Always this one, because others have it in their configuration. A rebind does nothing.
    Fixed(u16),
}

nix::setsockopt_impl!(
    MtuDiscover,
    libc::IPPROTO_IP,
    libc::IP_MTU_DISCOVER,
    i32,
    sockopt::SetStruct<'_, i32>
);
nix::setsockopt_impl!(
    MtuDiscover6,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU_DISCOVER,
    i32,
    sockopt::SetStruct<'_, i32>
);

#[derive(Clone, Copy)]
struct MtuDiscover;
#[derive(Clone, Copy)]
struct MtuDiscover6;

/// Opens a socket on every address of the host.
pub(super) fn open(port: LocalPort) -> io::Result<(UdpSocket, SocketFamily)> {
    let port = match port {
        LocalPort::Any => 0,
        LocalPort::Fixed(port) => port,
    };
    let (fd, family) = match open_dual_stack(port) {
        Ok(fd) => (fd, SocketFamily::DualStack),
        // A kernel without IPv6, or with IPv6 disabled.
        Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => (open_v4(port)?, SocketFamily::Ipv4Only),
        Err(errno) => return Err(errno.into()),
    };
    Ok((UdpSocket::from(fd), family))
}

fn open_dual_stack(port: u16) -> Result<OwnedFd, Errno> {
    let fd = new_socket(AddressFamily::Inet6)?;
    // Must precede `bind`. Distributions differ in the default (net.ipv6.bindv6only).
    setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
    set_optional(&fd, sockopt::Ipv6RecvErr, &true);
    set_optional(&fd, MtuDiscover6, &libc::IPV6_PMTUDISC_DONT);
    set_options(&fd);
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    bind(fd.as_raw_fd(), &SockaddrStorage::from(any))?;
    Ok(fd)
}

pub(super) fn open_v4(port: u16) -> Result<OwnedFd, Errno> {
    let fd = new_socket(AddressFamily::Inet)?;
    set_options(&fd);
    bind(fd.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, port))?;
    Ok(fd)
}

fn new_socket(family: AddressFamily) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    socket(family, SockType::Datagram, flags, None)
}

/// Sets the options that improve speed or diagnosis but are not required.
fn set_options(fd: &OwnedFd) {
    set_optional(fd, sockopt::Ipv4RecvErr, &true);
    // With path MTU discovery the kernel would reject datagrams longer than the path MTU, and
    // WireGuard cannot split them. Without it routers fragment them.
    set_optional(fd, MtuDiscover, &libc::IP_PMTUDISC_DONT);
    set_optional(fd, sockopt::UdpGroSegment, &true);
    set_optional(fd, sockopt::RxqOvfl, &1);
    // The first needs CAP_NET_ADMIN, the second is limited by the host's configuration.
    if setsockopt(fd, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
        set_optional(fd, sockopt::RcvBuf, &BUFFER_BYTES);
    }
    if setsockopt(fd, sockopt::SndBufForce, &BUFFER_BYTES).is_err() {
        set_optional(fd, sockopt::SndBuf, &BUFFER_BYTES);
    }
}

fn set_optional<O: SetSockOpt>(fd: &OwnedFd, option: O, value: &O::Val) {
    if let Err(errno) = setsockopt(fd, option, value) {
        debug!(option = std::any::type_name::<O>(), error = errno.desc(), "option refused");
    }
}

/// Receives one run of datagrams. Returns the number of datagrams that did not fit into this
/// socket's buffer since it was opened, if there were any.
pub(super) fn receive(
    socket: &impl AsRawFd,
    received: &mut RecvBatch,
) -> Result<Option<u32>, Errno> {
    // Space for UDP_GRO and SO_RXQ_OVFL.
    let mut control = cmsg_space!(i32, u32);
    let mut space = [IoSliceMut::new(received.spare_capacity())];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut space,
        Some(&mut control),
        MsgFlags::empty(),
    )?;
    let (mut segment_size, mut overflow) = (0, None);
    for message in message.cmsgs()? {
        if let ControlMessageOwned::UdpGroSegments(length) = message {
            segment_size = usize::try_from(length).unwrap_or_default();
        } else if let ControlMessageOwned::RxqOvfl(count) = message {
            overflow = Some(count);
        }
    }
    let (from, length) = (message.address.as_ref().and_then(to_socket_addr), message.bytes);
    if let Some(from) = from {
        received.commit(from, length, segment_size);
    }
    Ok(overflow)
}

/// Returns whether an error concerns the socket and not a single datagram.
pub(super) fn is_fatal(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    errno.is_none_or(|errno| [Errno::EBADF, Errno::ENOTSOCK, Errno::EINVAL].contains(&errno))
}

/// Empties the error queue and records what it reports.
pub(super) fn drain_error_queue(socket: &impl AsRawFd, received: &mut RecvBatch) {
    let fd = socket.as_raw_fd();
    for _ in 0..MAX_ERRORS_READ {
        let mut control = cmsg_space!(libc::sock_extended_err, SockaddrIn6, i32);
        let mut nothing = [];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let Ok(message) = recvmsg::<SockaddrStorage>(fd, &mut nothing, Some(&mut control), flags)
        else {
            return;
        };
        let Ok(mut errors) = message.cmsgs() else { continue };
        let Some((error, offender)) = errors.find_map(|error| extended_error(&error)) else {
            continue;
        };
        // Here the address is the destination of the datagram.
        if let Some(to) = message.address.as_ref().and_then(to_socket_addr)
            && let Some(cause) = path_error_cause(&error)
        {
            // The kernel itself reports a neighbour that does not answer, with its own address.
            let reporter = offender.filter(|from| *from == to.ip() || !is_own_address(*from));
            received.push_path_error(PathError { to, cause, reporter });
        }
    }
}

/// Returns an entry of the error queue with the host that reports it.
fn extended_error(
    message: &ControlMessageOwned,
) -> Option<(libc::sock_extended_err, Option<IpAddr>)> {
    if let ControlMessageOwned::Ipv4RecvErr(error, offender) = *message {
        // The kernel stores addresses and ports in network order.
        let offender = offender.map(|from| Ipv4Addr::from(from.sin_addr.s_addr.to_ne_bytes()));
        Some((error, offender.map(IpAddr::from)))
    } else if let ControlMessageOwned::Ipv6RecvErr(error, offender) = *message {
        let offender = offender.map(|from| Ipv6Addr::from(from.sin6_addr.s6_addr));
        Some((error, offender.map(|from| from.to_canonical())))
    } else {
        None
    }
}

/// Returns what an ICMP error means (RFC 792; RFC 1812, 5.2.7.1; RFC 4443, 3.1).
fn path_error_cause(error: &libc::sock_extended_err) -> Option<PathErrorCause> {
    const UNREACHABLE_V4: u8 = 3;
    const UNREACHABLE_V6: u8 = 1;
    match (error.ee_origin, error.ee_type, error.ee_code) {
        (libc::SO_EE_ORIGIN_ICMP, UNREACHABLE_V4, 3)
        | (libc::SO_EE_ORIGIN_ICMP6, UNREACHABLE_V6, 4) => Some(PathErrorCause::PortUnreachable),
        (libc::SO_EE_ORIGIN_ICMP, UNREACHABLE_V4, 9 | 10 | 13)
        | (libc::SO_EE_ORIGIN_ICMP6, UNREACHABLE_V6, 1 | 5 | 6) => Some(PathErrorCause::Prohibited),
        (libc::SO_EE_ORIGIN_ICMP, UNREACHABLE_V4, 0 | 1 | 5..=8 | 11 | 12)
        | (libc::SO_EE_ORIGIN_ICMP6, UNREACHABLE_V6, 0 | 2 | 3) => Some(PathErrorCause::NoRoute),
        _ => None,
    }
}

/// Returns whether this host has the address: only then can a socket be bound to it.
fn is_own_address(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// Returns an address, with IPv4-mapped ones as IPv4.
fn to_socket_addr(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(&address) = storage.as_sockaddr_in() {
        return Some(address.into());
    }
    let address: SocketAddr = (*storage.as_sockaddr_in6()?).into();
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => Some((ip, address.port()).into()),
        IpAddr::V6(_) => Some(address),
    }
}
