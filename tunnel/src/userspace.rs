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

pub use driver::Driver;
pub use stream::{Listener, TcpStream};

use crate::core::{Event, Now, Report, Tunnel};
use crate::path::Path;
use crate::report::Reporter;

/// Orders that wait for the task.
const ORDERS: usize = 16;

/// A handle to a tunnel in userspace mode; cheap to clone.
#[derive(Clone, Debug)]
pub struct Userspace {
    orders: mpsc::Sender<Order>,
    reports: watch::Receiver<Report>,
}

/// What the task is asked to do.
#[derive(Debug)]
enum Order {
    Connect { to: SocketAddr, answer: oneshot::Sender<io::Result<TcpStream>> },
    Listen { port: u16, answer: oneshot::Sender<io::Result<Listener>> },
    Tell(Event),
}

/// Makes a tunnel and the task that drives it, which does nothing before [`Driver::run`]. `seed`
/// decides ports and sequence numbers: another one at each start.
pub fn userspace<P: Path>(tunnel: Tunnel, path: P, seed: u64) -> (Userspace, Driver<P>) {
    let now = Now::read();
    let (orders, inbox) = mpsc::channel(ORDERS);
    let (reporter, reports) = Reporter::new(&tunnel, now);
    let driver = Driver::new(tunnel, path, seed, inbox, reporter);
    (Userspace { orders, reports }, driver)
}

impl Userspace {
    /// Connects to an address inside the tunnel.
    ///
    /// Takes as long as the tunnel needs to come up and the other end to answer, at most 60 s from
    /// the first packet on; dropping the future gives up. Fails with `ConnectionRefused` when
    /// nothing listens there, with `TimedOut` when nothing answers, with `AddrNotAvailable` when the
    /// tunnel has no address of that family, and with `NotConnected` when the task has ended.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let (answer, connected) = oneshot::channel();
        self.order(Order::Connect { to, answer }).await?;
        connected.await.map_err(|_| ended())?
    }

    /// Listens at a port on every address of the tunnel. Fails with `AddrInUse` for a port that is
    /// 0 or taken.
    pub async fn listen(&self, port: u16) -> io::Result<Listener> {
        let (answer, listening) = oneshot::channel();
        self.order(Order::Listen { port, answer }).await?;
        listening.await.map_err(|_| ended())?
    }

    /// Tells the tunnel what has happened outside.
    pub async fn tell(&self, event: Event) -> io::Result<()> {
        self.order(Order::Tell(event)).await
    }

    /// How the tunnel is: at every change of state, and once a second while it is used.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<Report> {
        self.reports.clone()
    }

    async fn order(&self, order: Order) -> io::Result<()> {
        self.orders.send(order).await.map_err(|_| ended())
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the tunnel has ended")
}
