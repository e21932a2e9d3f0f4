//! A tunnel that needs no privileges: TCP streams of this process, carried by one task.
//!
//! `driver` is the task; it owns the tunnel, the stack and the path alone. `connection` moves bytes
//! between a socket of the stack and the stream that the user holds, `listener` hands out what has
//! come in.

mod connection;
mod driver;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;

use tokio::sync::{mpsc, oneshot, watch};

pub use driver::UserspaceDriver;
pub use stream::{TcpListener, TcpStream};

use crate::core::{Now, Tunnel, TunnelEvent, TunnelReport};
use crate::reporter::Reporter;
use crate::transport::Transport;

/// Orders that wait for the task.
const COMMAND_QUEUE_LEN: usize = 16;

/// A handle to a tunnel in userspace mode; cheap to clone.
#[derive(Clone, Debug)]
pub struct UserspaceTunnel {
    commands: mpsc::Sender<Command>,
    reports: watch::Receiver<TunnelReport>,
}

/// What the task is asked to do.
#[derive(Debug)]
enum Command {
    Connect { to: SocketAddr, answer: oneshot::Sender<io::Result<TcpStream>> },
    Listen { port: u16, answer: oneshot::Sender<io::Result<TcpListener>> },
    Event(TunnelEvent),
}

/// Makes a tunnel and the task that drives it, which does nothing before [`Driver::run`]. `seed`
/// decides ports and sequence numbers: another one at each start.
pub fn userspace_tunnel<P: Transport>(
    tunnel: Tunnel,
    path: P,
    seed: u64,
) -> (UserspaceTunnel, UserspaceDriver<P>) {
    let now = Now::read();
    let (orders, inbox) = mpsc::channel(COMMAND_QUEUE_LEN);
    let (reporter, reports) = Reporter::new(&tunnel, now);
    let driver = UserspaceDriver::new(tunnel, path, seed, inbox, reporter);
    (UserspaceTunnel { commands: orders, reports }, driver)
}

impl UserspaceTunnel {
    /// Connects to an address inside the tunnel.
    ///
    /// Takes as long as the tunnel needs to come up and the other end to answer, at most 60 s from
    /// the first packet on; dropping the future gives up. Fails with `ConnectionRefused` when
    /// nothing listens there, with `TimedOut` when nothing answers, with `AddrNotAvailable` when the
    /// tunnel has no address of that family, and with `NotConnected` when the task has ended.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let (answer, connected) = oneshot::channel();
        self.send_command(Command::Connect { to, answer }).await?;
        connected.await.map_err(|_| ended_error())?
    }

    /// Listens at a port on every address of the tunnel. Fails with `AddrInUse` for a port that is
    /// 0 or taken.
    pub async fn listen(&self, port: u16) -> io::Result<TcpListener> {
        let (answer, listening) = oneshot::channel();
        self.send_command(Command::Listen { port, answer }).await?;
        listening.await.map_err(|_| ended_error())?
    }

    /// Tells the tunnel what has happened outside.
    pub async fn send_event(&self, event: TunnelEvent) -> io::Result<()> {
        self.send_command(Command::Event(event)).await
    }

    /// How the tunnel is: at every change of state, and once a second while it is used.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<TunnelReport> {
        self.reports.clone()
    }

    async fn send_command(&self, order: Command) -> io::Result<()> {
        self.commands.send(order).await.map_err(|_| ended_error())
    }
}

fn ended_error() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the tunnel has ended")
}
