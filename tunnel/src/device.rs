//! Packets in and out of the host: a network device, and what lets it take many at once.

mod bytes;
mod checksum;
mod frame;
mod ioctl;
mod packet_coalescer;
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
pub use routes::RouteError;
pub(crate) use routes::{containing_route, tunnel_routes};
pub(crate) use segment::segment;
pub(crate) use tun::Tun;
pub use tun::{InterfaceName, InterfaceNameError, TunError, bind_to_device};

/// Where the host puts packets for the tunnel, and takes those from it.
///
/// A frame is a header of 10 bytes (struct virtio_net_hdr, VIRTIO 1.2, 5.1.6, in the byte order of
/// the machine) and an IP packet; where [`Offload`] allows it, of up to 64 KiB that stand for
/// several.
pub(crate) trait Device: Send {
    /// Waits until the host has sent something. Cancel safe. Fails when the device is gone.
    fn readable(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// Reads one frame into `buffer`, which holds [`FRAME`] bytes, and gives its length; `None`
    /// when there is none now.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    /// Gives the host one frame in pieces. `InvalidInput` means that the host does not take such a
    /// one, `WouldBlock` that it does not take any now; after other errors the device is of no use.
    fn write(&mut self, frame: &[IoSlice<'_>]) -> io::Result<()>;

    /// What it takes.
    fn offload(&self) -> Offload;
}

/// What a device joins, which is what it gives and takes as one frame.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Offload {
    /// Nothing: a frame is a packet.
    Nothing,
    /// Segments of TCP.
    Tcp,
    /// Segments of TCP, and datagrams of UDP (Linux 6.2).
    TcpAndUdp,
}
