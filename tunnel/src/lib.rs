//! A WireGuard tunnel between a site and its hub, based on boringtun, with a TCP stack inside.
//!
//! [`Tunnel`] is the protocol as a state machine without I/O. [`userspace_tunnel`] drives it with
//! TCP streams of this process, [`device_tunnel()`] with a network interface of the host.

mod core;
mod device;
mod device_tunnel;
mod endpoint;
mod key;
mod netlink;
mod packet_buffer;
mod reporter;
mod settings;
mod stack;
#[cfg(test)]
mod testing;
mod time;
mod transport;
mod userspace;

pub use core::{
    ClockBounds, Counters, DropReason, HubLookup, Now, PathError, PathErrorCause, Tunnel,
    TunnelDiagnosis, TunnelEvent, TunnelReport, TunnelRequest, TunnelState,
};
pub use device::{
    InterfaceIndex, InterfaceName, InterfaceNameError, RouteError, TunError, bind_to_interface,
};
pub use device_tunnel::{
    DeviceDriver, DeviceError, DeviceTunnel, RunError, device_tunnel, host_routes,
};
pub use endpoint::EndpointError;
pub use key::{KeyError, PresharedKey, PrivateKey, PublicKey};
pub use netlink::{HostNetwork, InterfaceError, InterfaceSetting, NetworkConflict};
pub use packet_buffer::{PacketBuffer, PacketSink};
pub use settings::{Endpoint, Hub, HubSettings, MTU_RANGE, RoutePolicy, Settings, SitePeer};
pub use stack::{ListeningSockets, SocketError, Stack};
pub use transport::{
    Batching, LocalPort, MAX_DATAGRAM, MemoryTransport, RecvBatch, Segments, SendBatch, Transport,
    UdpTransport, memory_pair,
};
pub use userspace::{TcpListener, TcpStream, UserspaceDriver, UserspaceTunnel, userspace_tunnel};
