//! WireGuard between a site and its hub, on boringtun, and a TCP stack in it.

mod core;
mod device;
mod endpoint;
mod key;
mod netlink;
mod packets;
mod path;
mod report;
mod settings;
mod stack;
#[cfg(test)]
mod testing;
mod tun;
mod userspace;
pub mod wg_quick;

pub use core::{
    ClockBounds, Counters, DropReason, Event, LookUp, Now, Report, Request, State, Tunnel,
};
pub use device::{InterfaceName, NameError, RouteError, TunError, bind_to_device};
pub use endpoint::EndpointError;
pub use key::{KeyError, PresharedKey, PrivateKey, PublicKey};
pub use netlink::LinkError;
pub use packets::{Packets, Sink};
pub use path::{
    Batching, Inbox, LocalPort, MAX_DATAGRAM, MemoryPath, Outbox, Path, Run, UdpPath, memory,
};
pub use settings::{Endpoint, Hub, HubEnd, MTU, Settings, SiteKeys};
pub use stack::{OpenError, Stack, Waiting};
pub use tun::{DeviceDriver, DeviceError, DeviceTunnel, RunError, open};
pub use userspace::{Driver, Listener, TcpStream, Userspace, userspace};
