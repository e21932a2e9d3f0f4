//! WireGuard between a site and its hub, on boringtun, and a TCP stack in it.

mod device;
mod key;
mod path;
mod settings;
#[cfg(test)]
mod testing;

pub use device::{
    Checksum, Device, FRAME, Frame, HEADER, Hostbound, InterfaceName, Joined, Link, LinkError,
    Malformed, NameError, Offload, RouteError, Step, Tun, TunError, captured, routes, segment,
};
pub use key::{KeyError, PresharedKey, PrivateKey, PublicKey};
pub use path::{Batching, Inbox, LocalPort, MAX_DATAGRAM, Outbox, Path, Run, UdpPath};
pub use settings::{Endpoint, Hub, MTU, Settings};
