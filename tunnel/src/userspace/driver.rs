//! The task that owns the tunnel, the stack and the path.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{self, JoinSet};
use tokio::time;
use tracing::debug;

use super::Order;
use super::connection::{Connection, Moved};
use super::stream::{Listener, TcpStream};
use crate::core::{DropReason, Event, LookUp, Now, Request, Tunnel};
use crate::path::{Inbox, Outbox, Path};
use crate::report::{Losses, Reporter, look_up};
use crate::stack::{OpenError, Stack, Waiting};

/// Connections at once: 192 MiB of buffers if all of them were full both ways, 72 MiB if nobody
/// reads what the other ends send.
const CONNECTIONS: usize = 96;
/// Connections that have come in and that nobody has accepted; more are reset.
const UNACCEPTED: usize = 16;
/// Time to say goodbye on stop.
const GOODBYE: Duration = Duration::from_secs(2);
/// The longest wait when nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// The task of a tunnel in userspace mode.
#[derive(Debug)]
pub struct Driver<P> {
    stack: Stack,
    path: P,
    orders: mpsc::Receiver<Order>,
    /// No more orders are taken.
    is_ending: bool,
    reporter: Reporter,
    losses: Losses,
    connections: Vec<Connection>,
    listeners: Vec<Listening>,
    look_ups: JoinSet<(usize, Vec<SocketAddr>)>,
    inbox: Inbox,
    outbox: Outbox,
}

#[derive(Debug)]
struct Listening {
    port: u16,
    waiting: Waiting,
    accepted: mpsc::Sender<TcpStream>,
}

/// Why the task woke up.
enum Wake {
    Received(io::Result<()>),
    Moved,
    Order(Option<Order>),
    Found(usize, Vec<SocketAddr>),
    Timer,
    Stop,
}

impl<P: Path> Driver<P> {
    pub(super) fn new(
        tunnel: Tunnel,
        path: P,
        seed: u64,
        orders: mpsc::Receiver<Order>,
        reporter: Reporter,
    ) -> Self {
        let now = Now::read();
        Self {
            stack: Stack::new(tunnel, now, seed),
            path,
            orders,
            is_ending: false,
            reporter,
            losses: Losses::default(),
            connections: Vec::new(),
            listeners: Vec::new(),
            look_ups: JoinSet::new(),
            inbox: Inbox::new(),
            outbox: Outbox::new(),
        }
    }

    /// Carries everything until `stop` is ready or every handle is gone. Then all connections send
    /// what was written and say goodbye, which takes 2 s at most.
    ///
    /// Fails only when the path fails for good.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) -> io::Result<()> {
        let mut stop = std::pin::pin!(stop);
        loop {
            self.settle().await?;
            let due = self.due();
            let wake = tokio::select! {
                () = &mut stop => Wake::Stop,
                wake = self.wake(due) => wake,
            };
            if matches!(wake, Wake::Stop | Wake::Order(None)) {
                break;
            }
            let is_more = !self.inbox.has_room();
            self.handle(wake)?;
            if is_more {
                // Others share the thread: a PLC wants to be read on time.
                task::yield_now().await;
            }
        }
        self.orders.close();
        self.is_ending = true;
        self.say_goodbye().await
    }

    async fn wake(&mut self, due: Instant) -> Wake {
        let Self { stack, path, orders, is_ending, connections, look_ups, inbox, .. } = self;
        tokio::select! {
            received = path.receive(inbox) => Wake::Received(received),
            () = poll_fn(|cx| pump(cx, stack, connections)) => Wake::Moved,
            order = orders.recv(), if !*is_ending => Wake::Order(order),
            Some(Ok((hub, addresses))) = look_ups.join_next() => Wake::Found(hub, addresses),
            () = time::sleep_until(due.into()) => Wake::Timer,
        }
    }

    fn handle(&mut self, wake: Wake) -> io::Result<()> {
        let now = Now::read();
        match wake {
            Wake::Received(received) => {
                received?;
                for from in self.inbox.refused() {
                    self.stack.tunnel.handle_event(now, Event::Refused(*from));
                }
                if self.inbox.has_moved() {
                    self.stack.tunnel.handle_event(now, Event::NetworkChanged);
                }
                for datagram in self.inbox.datagrams() {
                    self.stack.handle_datagram(now, datagram, &mut self.outbox);
                }
                self.inbox.clear();
            }
            Wake::Order(Some(order)) => self.obey(now, order),
            Wake::Found(hub, addresses) => {
                self.stack.tunnel.handle_event(now, Event::Resolved { hub, addresses });
            }
            Wake::Moved | Wake::Timer | Wake::Order(None) | Wake::Stop => {}
        }
        Ok(())
    }

    fn obey(&mut self, now: Now, order: Order) {
        match order {
            Order::Connect { to, answer } if self.connections.len() < CONNECTIONS => {
                match self.stack.connect(to) {
                    Ok(socket) => {
                        self.connections.push(Connection::calling(socket, answer, now.instant));
                    }
                    // Whoever asked may be gone.
                    Err(error) => drop(answer.send(Err(failed(error)))),
                }
            }
            Order::Connect { answer, .. } => {
                drop(answer.send(Err(io::ErrorKind::ResourceBusy.into())));
            }
            Order::Listen { port, answer } => drop(answer.send(self.listen(port))),
            Order::Tell(event) => self.stack.tunnel.handle_event(now, event),
        }
    }

    fn listen(&mut self, port: u16) -> io::Result<Listener> {
        if self.listeners.iter().any(|listening| listening.port == port) {
            return Err(failed(OpenError::Port));
        }
        let waiting = self.stack.listen(port).map_err(failed)?;
        let (accepted, streams) = mpsc::channel(UNACCEPTED);
        self.listeners.push(Listening { port, waiting, accepted });
        Ok(Listener { port, accepted: streams })
    }

    /// Does everything that can be done without waiting.
    async fn settle(&mut self) -> io::Result<()> {
        loop {
            let now = Now::read();
            let is_done = self.stack.poll(now, &mut self.outbox);
            self.accept(now.instant);
            self.sweep();
            self.fulfil();
            if !self.outbox.is_empty() {
                self.path.send(&mut self.outbox).await?;
            }
            self.count();
            self.reporter.look(&self.stack.tunnel, now);
            if is_done {
                return Ok(());
            }
        }
    }

    fn accept(&mut self, now: Instant) {
        let Self { stack, listeners, connections, .. } = self;
        listeners.retain_mut(|listening| {
            if listening.accepted.is_closed() {
                stack.unlisten(&listening.waiting);
                return false;
            }
            while let Some(handle) = stack.accept(&mut listening.waiting) {
                let (connection, stream) = Connection::accepted(handle, stack.socket(handle), now);
                connections.push(connection);
                let is_full = connections.len() > CONNECTIONS;
                if is_full || listening.accepted.try_send(stream).is_err() {
                    debug!(port = listening.port, "nobody accepts connections");
                    stack.socket(handle).abort();
                }
            }
            true
        });
    }

    /// Forgets connections that are over.
    fn sweep(&mut self) {
        let Self { stack, connections, .. } = self;
        connections.retain(|connection| {
            let is_over = connection.is_over(stack.socket(connection.socket));
            if is_over {
                stack.remove(connection.socket);
            }
            !is_over
        });
    }

    /// Does what the tunnel asks for. Before anything is sent: an initiation that follows a rebind
    /// must leave from the new port.
    fn fulfil(&mut self) {
        while let Some(request) = self.stack.tunnel.next_request() {
            match request {
                Request::Rebind => {
                    if let Err(error) = self.path.rebind() {
                        debug!(error = &error as &dyn std::error::Error, "no new port");
                    }
                }
                Request::Resolve(LookUp { hub, endpoint }) => {
                    self.look_ups.spawn(async move { (hub, look_up(endpoint).await) });
                }
            }
        }
    }

    /// Tells the tunnel what was lost outside.
    fn count(&mut self) {
        let no_room = self.inbox.lost() + self.outbox.lost();
        let sums = [(DropReason::NoRoom, no_room), (DropReason::Unsent, self.path.unsent())];
        for (reason, sum) in sums {
            if let Some(more) = self.losses.more(reason, sum) {
                self.stack.tunnel.count_dropped(reason, more);
            }
        }
    }

    fn due(&mut self) -> Instant {
        let now = Instant::now();
        let ends = self.connections.iter().filter_map(Connection::ends_at);
        let due = self.stack.poll_at(now).into_iter().chain(ends).min();
        due.unwrap_or(now + IDLE).min(now + IDLE)
    }

    async fn say_goodbye(mut self) -> io::Result<()> {
        let end = Instant::now() + GOODBYE;
        // What streams have written and the task has not seen yet.
        poll_fn(|cx| {
            let _ = pump(cx, &mut self.stack, &mut self.connections);
            Poll::Ready(())
        })
        .await;
        for connection in &mut self.connections {
            connection.finish(self.stack.socket(connection.socket));
        }
        self.settle().await?;
        while self.is_talking() && Instant::now() < end {
            let due = self.due().min(end);
            let wake = self.wake(due).await;
            self.handle(wake)?;
            self.settle().await?;
        }
        Ok(())
    }

    /// Whether a connection has not been told everything.
    fn is_talking(&mut self) -> bool {
        let Self { stack, connections, .. } = self;
        connections.iter().any(|connection| {
            use smoltcp::socket::tcp::State;
            let state = stack.socket(connection.socket).state();
            !matches!(state, State::FinWait2 | State::TimeWait | State::Closed)
        })
    }
}

/// Moves bytes of all connections; ready when the stack has something to do.
fn pump(cx: &mut Context<'_>, stack: &mut Stack, connections: &mut [Connection]) -> Poll<()> {
    let now = Instant::now();
    let mut moved = Moved::Nothing;
    for connection in connections {
        if connection.pump(cx, stack.socket(connection.socket), now) == Moved::Something {
            moved = Moved::Something;
        }
    }
    if moved == Moved::Something { Poll::Ready(()) } else { Poll::Pending }
}

fn failed(error: OpenError) -> io::Error {
    let kind = match error {
        OpenError::Unreachable => io::ErrorKind::AddrNotAvailable,
        OpenError::Port => io::ErrorKind::AddrInUse,
    };
    io::Error::new(kind, error)
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("socket", &self.socket).finish_non_exhaustive()
    }
}
