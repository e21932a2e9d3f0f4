//! The TUN interface: packets from and to the host, with segmentation offload.

mod bytes;
mod checksum;
mod frame;
mod ioctl;
mod packet_coalescer;
mod path_fit;
mod routes;
mod segment;
#[cfg(test)]
mod testing;
mod tun;

use std::io::{self, IoSlice};

#[cfg(test)]
pub(crate) use frame::{GsoType, VNET_HEADER_LEN};
pub(crate) use frame::{MAX_FRAME_LEN, VnetHeader};
pub(crate) use ioctl::watch_fd;
pub(crate) use packet_coalescer::PacketCoalescer;
pub(crate) use path_fit::{clamp_mss, has_valid_icmp_checksum, split_tcp};
pub use routes::RouteError;
pub(crate) use routes::tunnel_routes;
pub(crate) use segment::segment;
pub(crate) use tun::Tun;
pub use tun::{InterfaceIndex, InterfaceName, InterfaceNameError, TunError, bind_to_interface};

/// An interface of the host that is read and written in frames.
///
/// A frame is a header of 10 bytes (struct virtio_net_hdr, VIRTIO 1.2, 5.1.6, in native byte order)
/// and an IP packet. With [`Offload`] it is up to 64 KiB long and stands for several packets.
pub(crate) trait Device: Send {
    /// Waits until the host has sent a frame. Cancel safe. Fails when the interface was removed.
    fn readable(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// Reads one frame into `buffer`, which holds [`MAX_FRAME_LEN`] bytes, and returns its length;
    /// `None` if there is none now.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    /// Writes one frame, given in pieces. `InvalidInput` means that the host rejects this frame,
    /// `WouldBlock` that it takes none now; after other errors the device is unusable.
    fn write(&mut self, frame: &[IoSlice<'_>]) -> io::Result<()>;

    /// Returns the offload that the host supports.
    fn offload(&self) -> Offload;
}

/// Which packets the host joins into one frame.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Offload {
    /// None: a frame is a packet.
    Nothing,
    /// TCP segments.
    Tcp,
    /// TCP segments and UDP datagrams (Linux 6.2).
    TcpAndUdp,
}
