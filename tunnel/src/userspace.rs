//! A tunnel that needs no privileges: TCP streams of this process.
//!
//! `driver` is the task, which owns the tunnel, the stack and the transport. `connection` moves
//! bytes between a socket of the stack and the user's stream, `budget` decides how many connections
//! peers may open, and `stream` holds the user's types.

mod budget;
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

/// Commands that may wait for the task.
const COMMAND_QUEUE_LEN: usize = 16;

/// A handle to a tunnel in userspace mode; cheap to clone.
#[derive(Clone, Debug)]
pub struct UserspaceTunnel {
    commands: mpsc::Sender<Command>,
    reports: watch::Receiver<TunnelReport>,
}

/// A command to the task.
#[derive(Debug)]
enum Command {
    Connect { to: SocketAddr, answer: oneshot::Sender<io::Result<TcpStream>> },
    Listen { port: u16, answer: oneshot::Sender<io::Result<TcpListener>> },
    Event(TunnelEvent),
}

/// Creates a tunnel and the task that drives it, which does nothing before
/// [`UserspaceDriver::run`]. `seed` determines ports and sequence numbers and must differ at each
/// start.
pub fn userspace_tunnel<P: Transport>(
    tunnel: Tunnel,
    transport: P,
    seed: u64,
) -> (UserspaceTunnel, UserspaceDriver<P>) {
    let now = Now::read();
    let (commands, queue) = mpsc::channel(COMMAND_QUEUE_LEN);
    let (reporter, reports) = Reporter::new(&tunnel, now);
    let driver = UserspaceDriver::new(tunnel, transport, seed, queue, reporter);
    (UserspaceTunnel { commands, reports }, driver)
}

impl UserspaceTunnel {
    /// Connects to an address inside the tunnel.
    ///
    /// Waits until the tunnel is up and the peer answers, for at most five minutes; dropping the
    /// future cancels the connection. Fails with `ConnectionRefused` if nothing listens there, with
    /// `TimedOut` if nothing answers, with `AddrNotAvailable` if the tunnel has no address of that
    /// family, with `ResourceBusy` if 64 connections that this end opened exist, and with
    /// `NotConnected` if the task has ended.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let (answer, connected) = oneshot::channel();
        self.send_command(Command::Connect { to, answer }).await?;
        connected.await.map_err(|_| ended_error())?
    }

    /// Listens on a port on every address of the tunnel. Peers may open 32 connections, 24 of them
    /// to the same port and 8 from the same peer; further ones are reset, unless one makes room
    /// whose stream was dropped. They never keep [`Self::connect`] from succeeding. Fails with
    /// `AddrInUse` if the port is 0 or in use.
    pub async fn listen(&self, port: u16) -> io::Result<TcpListener> {
        let (answer, listening) = oneshot::channel();
        self.send_command(Command::Listen { port, answer }).await?;
        listening.await.map_err(|_| ended_error())?
    }

    /// Tells the tunnel what has happened outside.
    pub async fn send_event(&self, event: TunnelEvent) -> io::Result<()> {
        self.send_command(Command::Event(event)).await
    }

    /// Returns the reports of the tunnel: one at each change of state, and at most one a second
    /// while it is in use.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<TunnelReport> {
        self.reports.clone()
    }

    async fn send_command(&self, command: Command) -> io::Result<()> {
        self.commands.send(command).await.map_err(|_| ended_error())
    }
}

fn ended_error() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the tunnel has ended")
}
