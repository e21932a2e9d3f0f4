//! What the kernel knows of the host's network, by rtnetlink: what is set for the tunnel's device, and
//! what others change.

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

use message::Message;

/// Room for the answer to one request.
const ANSWER: usize = 4096;

/// Asks the kernel, which answers at once.
#[derive(Debug)]
struct Asker(OwnedFd);

impl Asker {
    fn open() -> Result<Self, Errno> {
        open(SockFlag::empty()).map(Self)
    }

    /// Wants something done.
    fn order(&self, message: &Message) -> Result<(), Errno> {
        message::done(&self.ask(message)?)
    }

    /// Sends one request and takes its answer, which the kernel gives before it returns.
    fn ask(&self, message: &Message) -> Result<Vec<u8>, Errno> {
        let fd = self.0.as_raw_fd();
        send(fd, message.bytes(), MsgFlags::empty())?;
        let mut answer = vec![0; ANSWER];
        let length = recv(fd, &mut answer, MsgFlags::MSG_DONTWAIT)?;
        answer.truncate(length);
        Ok(answer)
    }
}

fn open(flags: SockFlag) -> Result<OwnedFd, Errno> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)
}
