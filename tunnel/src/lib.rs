//! WireGuard between a site and its hub, on boringtun, and a TCP stack in it.

mod key;
mod path;
mod settings;

pub use key::{KeyError, PresharedKey, PrivateKey, PublicKey};
pub use path::{Batching, Inbox, LocalPort, MAX_DATAGRAM, Outbox, Path, Run, UdpPath};
pub use settings::{Endpoint, Hub, MTU, Settings};
