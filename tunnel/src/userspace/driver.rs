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

use super::Command;
use super::connection::{Connection, Progress};
use super::stream::{TcpListener, TcpStream};
use crate::core::{DropReason, HubLookup, Now, Tunnel, TunnelEvent, TunnelRequest};
use crate::reporter::{DropDeltas, Reporter, resolve};
use crate::stack::{ListeningSockets, SocketError, Stack};
use crate::transport::{RecvBatch, SendBatch, Transport};

/// Connections at once: 192 MiB of buffers if all of them were full both ways, 72 MiB if nobody
/// reads what the other ends send.
const MAX_CONNECTIONS: usize = 96;
/// Connections that have come in and that nobody has accepted; more are reset.
const MAX_UNACCEPTED: usize = 16;
/// Time to say goodbye on stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest wait when nothing is due.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The task of a tunnel in userspace mode.
#[derive(Debug)]
pub struct UserspaceDriver<P> {
    stack: Stack,
    path: P,
    commands: mpsc::Receiver<Command>,
    /// No more orders are taken.
    is_ending: bool,
    reporter: Reporter,
    drop_deltas: DropDeltas,
    connections: Vec<Connection>,
    listeners: Vec<ActiveListener>,
    lookups: JoinSet<(usize, Vec<SocketAddr>)>,
    inbox: RecvBatch,
    outbox: SendBatch,
}

#[derive(Debug)]
struct ActiveListener {
    port: u16,
    sockets: ListeningSockets,
    accepted: mpsc::Sender<TcpStream>,
}

/// Why the task woke up.
enum UserspaceWake {
    Received(io::Result<()>),
    Moved,
    Command(Option<Command>),
    LookupDone(usize, Vec<SocketAddr>),
    Timer,
    Stop,
}

impl<P: Transport> UserspaceDriver<P> {
    pub(super) fn new(
        tunnel: Tunnel,
        path: P,
        seed: u64,
        orders: mpsc::Receiver<Command>,
        reporter: Reporter,
    ) -> Self {
        let now = Now::read();
        Self {
            stack: Stack::new(tunnel, now, seed),
            path,
            commands: orders,
            is_ending: false,
            reporter,
            drop_deltas: DropDeltas::default(),
            connections: Vec::new(),
            listeners: Vec::new(),
            lookups: JoinSet::new(),
            inbox: RecvBatch::new(),
            outbox: SendBatch::new(),
        }
    }

    /// Carries everything until `stop` is ready or every handle is gone. Then all connections send
    /// what was written and say goodbye, which takes 2 s at most.
    ///
    /// Fails only when the path fails for good.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) -> io::Result<()> {
        let mut stop = std::pin::pin!(stop);
        loop {
            self.run_until_blocked().await?;
            let due = self.next_deadline();
            let wake = tokio::select! {
                () = &mut stop => UserspaceWake::Stop,
                wake = self.wake(due) => wake,
            };
            if matches!(wake, UserspaceWake::Stop | UserspaceWake::Command(None)) {
                break;
            }
            let is_more = !self.inbox.has_room();
            self.handle(wake)?;
            if is_more {
                // Others share the thread: a PLC wants to be read on time.
                task::yield_now().await;
            }
        }
        self.commands.close();
        self.is_ending = true;
        self.shut_down().await
    }

    async fn wake(&mut self, due: Instant) -> UserspaceWake {
        let Self {
            stack,
            path,
            commands: orders,
            is_ending,
            connections,
            lookups: look_ups,
            inbox,
            ..
        } = self;
        tokio::select! {
            received = path.receive(inbox) => UserspaceWake::Received(received),
            () = poll_fn(|cx| pump_all(cx, stack, connections)) => UserspaceWake::Moved,
            order = orders.recv(), if !*is_ending => UserspaceWake::Command(order),
            Some(Ok((hub, addresses))) = look_ups.join_next() => UserspaceWake::LookupDone(hub, addresses),
            () = time::sleep_until(due.into()) => UserspaceWake::Timer,
        }
    }

    fn handle(&mut self, wake: UserspaceWake) -> io::Result<()> {
        let now = Now::read();
        match wake {
            UserspaceWake::Received(received) => {
                received?;
                for from in self.inbox.refused() {
                    self.stack.tunnel.handle_event(now, TunnelEvent::PortUnreachable(*from));
                }
                if self.inbox.has_network_changed() {
                    self.stack.tunnel.handle_event(now, TunnelEvent::NetworkChanged);
                }
                for datagram in self.inbox.datagrams() {
                    self.stack.handle_datagram(now, datagram, &mut self.outbox);
                }
                self.inbox.clear();
            }
            UserspaceWake::Command(Some(order)) => self.handle_command(now, order),
            UserspaceWake::LookupDone(hub, addresses) => {
                self.stack.tunnel.handle_event(now, TunnelEvent::Resolved { hub, addresses });
            }
            UserspaceWake::Moved
            | UserspaceWake::Timer
            | UserspaceWake::Command(None)
            | UserspaceWake::Stop => {}
        }
        Ok(())
    }

    fn handle_command(&mut self, now: Now, order: Command) {
        match order {
            Command::Connect { to, answer } if self.connections.len() < MAX_CONNECTIONS => {
                match self.stack.connect(to) {
                    Ok(socket) => {
                        self.connections.push(Connection::connecting(socket, answer, now.instant));
                    }
                    // Whoever asked may be gone.
                    Err(error) => drop(answer.send(Err(to_io_error(error)))),
                }
            }
            Command::Connect { answer, .. } => {
                drop(answer.send(Err(io::ErrorKind::ResourceBusy.into())));
            }
            Command::Listen { port, answer } => drop(answer.send(self.listen(port))),
            Command::Event(event) => self.stack.tunnel.handle_event(now, event),
        }
    }

    fn listen(&mut self, port: u16) -> io::Result<TcpListener> {
        if self.listeners.iter().any(|listening| listening.port == port) {
            return Err(to_io_error(SocketError::PortUnavailable));
        }
        let waiting = self.stack.listen(port).map_err(to_io_error)?;
        let (accepted, streams) = mpsc::channel(MAX_UNACCEPTED);
        self.listeners.push(ActiveListener { port, sockets: waiting, accepted });
        Ok(TcpListener { port, accepted: streams })
    }

    /// Does everything that can be done without waiting.
    async fn run_until_blocked(&mut self) -> io::Result<()> {
        loop {
            let now = Now::read();
            let is_done = self.stack.poll(now, &mut self.outbox);
            self.accept(now.instant);
            self.remove_closed();
            self.serve_requests();
            if !self.outbox.is_empty() {
                self.path.send(&mut self.outbox).await?;
            }
            self.count_dropped();
            self.reporter.publish_if_due(&self.stack.tunnel, now);
            if is_done {
                return Ok(());
            }
        }
    }

    fn accept(&mut self, now: Instant) {
        let Self { stack, listeners, connections, .. } = self;
        listeners.retain_mut(|listening| {
            if listening.accepted.is_closed() {
                stack.close_listener(&listening.sockets);
                return false;
            }
            while let Some(handle) = stack.accept(&mut listening.sockets) {
                let (connection, stream) = Connection::accepted(handle, stack.socket(handle), now);
                connections.push(connection);
                let is_full = connections.len() > MAX_CONNECTIONS;
                if is_full || listening.accepted.try_send(stream).is_err() {
                    debug!(port = listening.port, "nobody accepts connections");
                    stack.socket(handle).abort();
                }
            }
            true
        });
    }

    /// Forgets connections that are over.
    fn remove_closed(&mut self) {
        let Self { stack, connections, .. } = self;
        connections.retain(|connection| {
            let is_over = connection.is_finished(stack.socket(connection.socket));
            if is_over {
                stack.remove(connection.socket);
            }
            !is_over
        });
    }

    /// Does what the tunnel asks for. Before anything is sent: an initiation that follows a rebind
    /// must leave from the new port.
    fn serve_requests(&mut self) {
        while let Some(request) = self.stack.tunnel.next_request() {
            match request {
                TunnelRequest::Rebind => {
                    if let Err(error) = self.path.rebind() {
                        debug!(error = &error as &dyn std::error::Error, "no new port");
                    }
                }
                TunnelRequest::Resolve(HubLookup { hub, endpoint }) => {
                    self.lookups.spawn(async move { (hub, resolve(endpoint).await) });
                }
            }
        }
    }

    /// Tells the tunnel what was lost outside.
    fn count_dropped(&mut self) {
        let no_room = self.inbox.dropped() + self.outbox.dropped();
        let sums = [(DropReason::NoRoom, no_room), (DropReason::Unsent, self.path.unsent())];
        for (reason, sum) in sums {
            if let Some(more) = self.drop_deltas.since_last(reason, sum) {
                self.stack.tunnel.add_dropped(reason, more);
            }
        }
    }

    fn next_deadline(&mut self) -> Instant {
        let now = Instant::now();
        let ends = self.connections.iter().filter_map(Connection::abort_at);
        let due = self.stack.poll_at(now).into_iter().chain(ends).min();
        due.unwrap_or(now + MAX_WAIT).min(now + MAX_WAIT)
    }

    async fn shut_down(mut self) -> io::Result<()> {
        let end = Instant::now() + SHUTDOWN_TIMEOUT;
        // What streams have written and the task has not seen yet.
        poll_fn(|cx| {
            let _ = pump_all(cx, &mut self.stack, &mut self.connections);
            Poll::Ready(())
        })
        .await;
        for connection in &mut self.connections {
            connection.close(self.stack.socket(connection.socket));
        }
        self.run_until_blocked().await?;
        while self.has_unsent_data() && Instant::now() < end {
            let due = self.next_deadline().min(end);
            let wake = self.wake(due).await;
            self.handle(wake)?;
            self.run_until_blocked().await?;
        }
        Ok(())
    }

    /// Whether a connection has not been told everything.
    fn has_unsent_data(&mut self) -> bool {
        let Self { stack, connections, .. } = self;
        connections.iter().any(|connection| {
            use smoltcp::socket::tcp::State;
            let state = stack.socket(connection.socket).state();
            !matches!(state, State::FinWait2 | State::TimeWait | State::Closed)
        })
    }
}

/// Moves bytes of all connections; ready when the stack has something to do.
fn pump_all(cx: &mut Context<'_>, stack: &mut Stack, connections: &mut [Connection]) -> Poll<()> {
    let now = Instant::now();
    let mut moved = Progress::Idle;
    for connection in connections {
        if connection.pump(cx, stack.socket(connection.socket), now) == Progress::Made {
            moved = Progress::Made;
        }
    }
    if moved == Progress::Made { Poll::Ready(()) } else { Poll::Pending }
}

fn to_io_error(error: SocketError) -> io::Error {
    let kind = match error {
        SocketError::Unreachable => io::ErrorKind::AddrNotAvailable,
        SocketError::PortUnavailable => io::ErrorKind::AddrInUse,
    };
    io::Error::new(kind, error)
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("socket", &self.socket).finish_non_exhaustive()
    }
}
