//! What the kernel knows of the host's network, by rtnetlink: what is set for the tunnel's device, and
//! what others change.

mod answer;
mod link;
mod message;
mod news;
mod way;

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

pub use link::LinkError;
pub(crate) use link::{Link, Mended};
pub(crate) use news::News;
pub(crate) use way::{Look, WayOut};

use answer::{Answer, Route};
use message::Message;

/// Room for one datagram of an answer: the kernel fills up to 8 KiB with routes, fewer only where
/// its pages are smaller.
const ANSWER: usize = 16 * 1024;

/// Asks the kernel, which answers at once.
#[derive(Debug)]
struct Asker {
    socket: OwnedFd,
    /// Of the last request.
    number: u32,
}

impl Asker {
    fn open() -> Result<Self, Errno> {
        Ok(Self { socket: open(SockFlag::empty())?, number: 0 })
    }

    /// Wants something done.
    fn order(&mut self, message: Message) -> Result<(), Errno> {
        answer::done(&self.ask(message)?)
    }

    /// Sends one request and takes its answer, which the kernel gives before it returns.
    fn ask(&mut self, message: Message) -> Result<Vec<u8>, Errno> {
        self.send(message)?;
        let datagram = self.answer()?;
        Ok(self.own(&datagram).next().unwrap_or_default().to_vec())
    }

    /// All routes of the main table.
    fn routes(&mut self) -> Result<Vec<Route>, Errno> {
        self.send(Message::all_routes())?;
        let mut routes = Vec::new();
        loop {
            let datagram = self.answer()?;
            for message in self.own(&datagram) {
                match answer::listed(message) {
                    Answer::Route(route) => routes.push(route),
                    Answer::Other => {}
                    Answer::End(ended) => return ended.map(|()| routes),
                }
            }
        }
    }

    fn send(&mut self, mut message: Message) -> Result<(), Errno> {
        self.number = self.number.wrapping_add(1);
        message.set_number(self.number);
        send(self.socket.as_raw_fd(), message.bytes(), MsgFlags::empty()).map(drop)
    }

    /// The next datagram with an answer to the last request. What answers an earlier one, which
    /// somebody has given up, is thrown away.
    fn answer(&self) -> Result<Vec<u8>, Errno> {
        loop {
            let mut datagram = vec![0; ANSWER];
            let length = recv(self.socket.as_raw_fd(), &mut datagram, MsgFlags::MSG_DONTWAIT)?;
            datagram.truncate(length);
            if self.own(&datagram).next().is_some() {
                return Ok(datagram);
            }
        }
    }

    /// The messages of a datagram that answer the last request.
    fn own<'a>(&self, datagram: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let number = self.number;
        answer::split(datagram).filter(move |message| answer::number(message) == Some(number))
    }
}

fn open(flags: SockFlag) -> Result<OwnedFd, Errno> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Namespace, ip};

    #[test]
    fn as_root_an_answer_that_nobody_took_is_not_taken_for_the_next() {
        let _namespace = Namespace::enter();
        let mut asker = Asker::open().unwrap();
        let way = || Message::way("127.0.0.1".parse().unwrap());
        let right = answer::hop(&asker.ask(way()).unwrap());
        assert_ne!(right, None);
        asker.send(Message::state(4711, 1280, 1000)).unwrap();
        asker.send(Message::all_routes()).unwrap();
        assert_eq!(answer::hop(&asker.ask(way()).unwrap()), right);
        assert_eq!(asker.order(Message::state(4711, 1280, 1000)), Err(Errno::ENODEV));
    }

    #[test]
    fn as_root_all_routes_are_told_however_many_there_are() {
        let _namespace = Namespace::enter();
        let file = std::env::temp_dir().join(format!("edge-routes-{}", std::process::id()));
        let lines =
            (0..2_000).map(|n| format!("route add 10.{}.{}.0/24 dev lo\n", n / 250, n % 250));
        std::fs::write(&file, lines.collect::<String>()).unwrap();
        ip(&["-batch", file.to_str().unwrap()]);
        std::fs::remove_file(file).unwrap();
        let routes = Asker::open().unwrap().routes().unwrap();
        assert_eq!(routes.iter().filter(|route| route.to.prefix_len() == 24).count(), 2_000);
    }
}
