//! The kernel's network configuration through rtnetlink: what is set for the tunnel's interface,
//! and what others change.

mod host_network;
mod interface;
mod message;
mod monitor;
mod reply;
mod route;

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

pub use host_network::{HostNetwork, NetworkConflict};
pub(crate) use interface::{HostInterface, Repair};
pub use interface::{InterfaceError, InterfaceSetting};
pub(crate) use monitor::ChangeMonitor;
pub(crate) use route::{RouteChange, RouteWatch};

use message::NetlinkMessage;
use reply::{DumpMessage, HostRoute};

/// Buffer for one datagram of a reply: the kernel fills at most 8 KiB with routes.
const REPLY_BUFFER_LEN: usize = 16 * 1024;

/// A socket for requests, which the kernel answers at once.
#[derive(Debug)]
struct NetlinkSocket {
    socket: OwnedFd,
    /// Sequence number of the last request.
    sequence: u32,
}

impl NetlinkSocket {
    fn open() -> Result<Self, Errno> {
        Ok(Self { socket: open_socket(SockFlag::empty())?, sequence: 0 })
    }

    /// Sends a request and returns whether the kernel executed it.
    fn execute(&mut self, message: NetlinkMessage) -> Result<(), Errno> {
        reply::parse_ack(&self.request(message)?)
    }

    /// Sends a request and returns its reply, which the kernel queues before `send` returns.
    fn request(&mut self, message: NetlinkMessage) -> Result<Vec<u8>, Errno> {
        self.send(message)?;
        let datagram = self.receive_reply()?;
        Ok(self.own_messages(&datagram).next().unwrap_or_default().to_vec())
    }

    /// Returns all routes of the main table.
    fn dump_routes(&mut self) -> Result<Vec<HostRoute>, Errno> {
        self.send(NetlinkMessage::dump_routes())?;
        let mut routes = Vec::new();
        loop {
            let datagram = self.receive_reply()?;
            for message in self.own_messages(&datagram) {
                match reply::parse_dump(message) {
                    DumpMessage::Route(route) => routes.push(route),
                    DumpMessage::Other => {}
                    DumpMessage::End(ended) => return ended.map(|()| routes),
                }
            }
        }
    }

    fn send(&mut self, mut message: NetlinkMessage) -> Result<(), Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        message.set_sequence(self.sequence);
        send(self.socket.as_raw_fd(), message.bytes(), MsgFlags::empty()).map(drop)
    }

    /// Returns the next datagram with a reply to the last request. Replies to an earlier request,
    /// which was abandoned, are discarded.
    fn receive_reply(&self) -> Result<Vec<u8>, Errno> {
        loop {
            let mut datagram = vec![0; REPLY_BUFFER_LEN];
            // The kernel has queued the reply before `send` returned, so this never has to block.
            let length = recv(self.socket.as_raw_fd(), &mut datagram, MsgFlags::MSG_DONTWAIT)?;
            datagram.truncate(length);
            if self.own_messages(&datagram).next().is_some() {
                return Ok(datagram);
            }
        }
    }

    /// Returns the messages of a datagram that reply to the last request.
    fn own_messages<'a>(&self, datagram: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let number = self.sequence;
        reply::messages(datagram).filter(move |message| reply::sequence(message) == Some(number))
    }
}

fn open_socket(flags: SockFlag) -> Result<OwnedFd, Errno> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Namespace, ip};

    #[test]
    fn as_root_a_reply_that_was_not_read_is_not_mistaken_for_the_next() {
        let _namespace = Namespace::enter();
        let mut socket = NetlinkSocket::open().unwrap();
        let get_route = || NetlinkMessage::get_route("127.0.0.1".parse().unwrap());
        let right = reply::route_fingerprint(&socket.request(get_route()).unwrap());
        assert_ne!(right, None);
        socket.send(NetlinkMessage::set_link_state(4711, 1280, 1000)).unwrap();
        socket.send(NetlinkMessage::dump_routes()).unwrap();
        assert_eq!(reply::route_fingerprint(&socket.request(get_route()).unwrap()), right);
        assert_eq!(
            socket.execute(NetlinkMessage::set_link_state(4711, 1280, 1000)),
            Err(Errno::ENODEV)
        );
    }

    #[test]
    fn as_root_thousands_of_routes_are_listed_completely() {
        let _namespace = Namespace::enter();
        let file = std::env::temp_dir().join(format!("edge-routes-{}", std::process::id()));
        let lines =
            (0..2_000).map(|n| format!("route add 10.{}.{}.0/24 dev lo\n", n / 250, n % 250));
        std::fs::write(&file, lines.collect::<String>()).unwrap();
        ip(&["-batch", file.to_str().unwrap()]);
        std::fs::remove_file(file).unwrap();
        let routes = NetlinkSocket::open().unwrap().dump_routes().unwrap();
        assert_eq!(routes.iter().filter(|route| route.to.prefix_len() == 24).count(), 2_000);
    }
}
