//! WireGuard between a site and its hub, on boringtun, and a TCP stack in it.

mod core;
mod device;
mod endpoint;
mod key;
mod packets;
mod path;
mod settings;
mod stack;
#[cfg(test)]
mod testing;
mod tun;
mod userspace;
pub mod wg_quick;

pub use core::{ClockBounds, Counters, DropReason, Event, Now, Report, Request, State, Tunnel};
pub use device::{
    Checksum, Device, FRAME, Frame, HEADER, Hostbound, InterfaceName, Joined, Link, LinkError,
    Malformed, NameError, Offload, RouteError, Step, Tun, TunError, bind_to_device, captured,
    routes, segment,
};
pub use endpoint::EndpointError;
pub use key::{KeyError, PresharedKey, PrivateKey, PublicKey};
pub use packets::{Packets, Sink};
pub use path::{
    Batching, Inbox, LocalPort, MAX_DATAGRAM, MemoryPath, Outbox, Path, Run, UdpPath, memory,
};
pub use settings::{Endpoint, Hub, HubEnd, MTU, Settings, SiteKeys};
pub use tun::{Engine, Lost, RunError, Want, run};
pub use userspace::{Driver, Listener, TcpStream, Userspace, userspace};
