//! The task that owns the tunnel, the stack and the transport.

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
use super::budget::{AcceptedConnection, Admission, admit};
use super::connection::{Connection, Origin, Progress};
use super::stream::{TcpListener, TcpStream};
use crate::core::{DropReason, HubLookup, Now, Tunnel, TunnelEvent, TunnelRequest};
use crate::reporter::{DropDeltas, Reporter, host_network_event, resolve};
use crate::stack::{ListeningSockets, SocketError, Stack};
use crate::transport::{RecvBatch, SendBatch, Transport};

/// Most connections that this end has opened.
const MAX_DIALLED: usize = 64;
/// Most established connections that wait to be accepted; further ones are reset.
const MAX_UNACCEPTED: usize = 16;
/// Time to close connections on stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait if nothing is due.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The task of a tunnel in userspace mode.
#[derive(Debug)]
pub struct UserspaceDriver<P> {
    stack: Stack,
    transport: P,
    commands: mpsc::Receiver<Command>,
    /// Whether commands are no longer accepted.
    is_ending: bool,
    reporter: Reporter,
    drop_deltas: DropDeltas,
    connections: Vec<Connection>,
    listeners: Vec<ActiveListener>,
    lookups: JoinSet<(usize, Vec<SocketAddr>)>,
    received: RecvBatch,
    outgoing: SendBatch,
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
        transport: P,
        seed: u64,
        commands: mpsc::Receiver<Command>,
        reporter: Reporter,
    ) -> Self {
        let now = Now::read();
        Self {
            stack: Stack::new(tunnel, now, seed),
            transport,
            commands,
            is_ending: false,
            reporter,
            drop_deltas: DropDeltas::default(),
            connections: Vec::new(),
            listeners: Vec::new(),
            lookups: JoinSet::new(),
            received: RecvBatch::new(),
            outgoing: SendBatch::new(),
        }
    }

    /// Runs the tunnel until `stop` is ready or the last handle is dropped. Then all connections
    /// send what was written and close, which takes at most 2 s.
    ///
    /// Fails only if the transport fails.
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
            let is_full = !self.received.has_room();
            self.handle(wake)?;
            if is_full {
                // The thread is shared: PLCs must be polled on time.
                task::yield_now().await;
            }
        }
        self.commands.close();
        self.is_ending = true;
        self.shut_down().await
    }

    async fn wake(&mut self, due: Instant) -> UserspaceWake {
        let Self { stack, transport, commands, is_ending, connections, lookups, received, .. } =
            self;
        tokio::select! {
            received = transport.receive(received) => UserspaceWake::Received(received),
            () = poll_fn(|cx| pump_all(cx, stack, connections)) => UserspaceWake::Moved,
            command = commands.recv(), if !*is_ending => UserspaceWake::Command(command),
            Some(Ok((hub, addresses))) = lookups.join_next() => {
                UserspaceWake::LookupDone(hub, addresses)
            }
            () = time::sleep_until(due.into()) => UserspaceWake::Timer,
        }
    }

    fn handle(&mut self, wake: UserspaceWake) -> io::Result<()> {
        let now = Now::read();
        match wake {
            UserspaceWake::Received(received) => {
                received?;
                for error in self.received.path_errors() {
                    self.stack.tunnel.handle_event(now, TunnelEvent::PathError(*error));
                }
                if self.received.has_network_changed() {
                    self.stack.tunnel.handle_event(now, TunnelEvent::NetworkChanged);
                }
                for datagram in self.received.datagrams() {
                    self.stack.handle_datagram(now, datagram, &mut self.outgoing);
                }
                self.received.clear();
            }
            UserspaceWake::Command(Some(command)) => self.handle_command(now, command),
            UserspaceWake::LookupDone(hub, addresses) => {
                let host_network = host_network_event(&self.stack.tunnel);
                self.stack.tunnel.handle_event(now, host_network);
                self.stack.tunnel.handle_event(now, TunnelEvent::Resolved { hub, addresses });
            }
            UserspaceWake::Moved
            | UserspaceWake::Timer
            | UserspaceWake::Command(None)
            | UserspaceWake::Stop => {}
        }
        Ok(())
    }

    fn handle_command(&mut self, now: Now, command: Command) {
        match command {
            Command::Connect { to, answer } if self.dialled() < MAX_DIALLED => {
                match self.stack.connect(to) {
                    Ok(socket) => {
                        self.connections.push(Connection::connecting(socket, answer, now.instant));
                    }
                    // The caller may be gone.
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
            let is_done = self.stack.poll(now, &mut self.outgoing);
            self.accept(now.instant);
            self.remove_closed();
            self.serve_requests();
            if !self.outgoing.is_empty() {
                self.transport.send(&mut self.outgoing).await?;
            }
            self.count_dropped();
            if let Some(error) = self.transport.send_error() {
                self.stack.tunnel.handle_event(now, TunnelEvent::PathError(error));
            }
            self.reporter.publish_if_due(&self.stack.tunnel, now);
            if is_done {
                return Ok(());
            }
        }
    }

    /// Returns the number of connections that this end has opened.
    fn dialled(&self) -> usize {
        self.connections.iter().filter(|one| one.origin() == Origin::Dialled).count()
    }

    fn accept(&mut self, now: Instant) {
        let Self { stack, listeners, connections, .. } = self;
        listeners.retain_mut(|listening| {
            if listening.accepted.is_closed() {
                stack.close_listener(&listening.sockets);
                return false;
            }
            // The connection is registered even if it is reset at once: its RST must still be sent.
            while let Some(handle) = stack.accept(&mut listening.sockets) {
                let (connection, stream) = Connection::accepted(handle, stack.socket(handle), now);
                let has_room = make_room(stack, connections, &connection);
                connections.push(connection);
                if !has_room || listening.accepted.try_send(stream).is_err() {
                    debug!(port = listening.port, "connection reset: too many are open");
                    stack.socket(handle).abort();
                }
            }
            true
        });
    }

    /// Removes closed connections.
    fn remove_closed(&mut self) {
        let Self { stack, connections, .. } = self;
        connections.retain(|connection| {
            let is_finished = connection.is_finished(stack.socket(connection.socket));
            if is_finished {
                stack.remove(connection.socket);
            }
            !is_finished
        });
    }

    /// Executes what the tunnel requests. This comes before sending: an initiation that follows a
    /// rebind must leave from the new port.
    fn serve_requests(&mut self) {
        while let Some(request) = self.stack.tunnel.next_request() {
            match request {
                TunnelRequest::Rebind => {
                    if let Err(error) = self.transport.rebind() {
                        debug!(
                            error = &error as &dyn std::error::Error,
                            "cannot open another port"
                        );
                    }
                }
                TunnelRequest::Resolve(HubLookup { hub, endpoint }) => {
                    self.lookups.spawn(async move { (hub, resolve(endpoint).await) });
                }
            }
        }
    }

    /// Adds datagrams that were dropped outside the tunnel to its counters.
    fn count_dropped(&mut self) {
        let no_room = self.received.dropped() + self.outgoing.dropped();
        let sums = [(DropReason::NoRoom, no_room), (DropReason::Unsent, self.transport.unsent())];
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
        // Data that streams have written and the task has not read yet.
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

    /// Returns whether a connection still has data or a FIN to send.
    fn has_unsent_data(&mut self) -> bool {
        let Self { stack, connections, .. } = self;
        connections.iter().any(|connection| {
            use smoltcp::socket::tcp::State;
            let state = stack.socket(connection.socket).state();
            !matches!(state, State::FinWait2 | State::TimeWait | State::Closed)
        })
    }
}

/// Aborts connections in favour of a new one. Returns whether it may stay.
fn make_room(stack: &mut Stack, connections: &[Connection], new: &Connection) -> bool {
    let Some(new) = to_accepted(new) else { return true };
    loop {
        // An aborted connection is removed later, but it has no data any more.
        let is_open = |one: &&Connection| stack.socket(one.socket).is_open();
        let open: Vec<&Connection> = connections.iter().filter(is_open).collect();
        let (held, sockets): (Vec<_>, Vec<_>) =
            open.iter().filter_map(|one| Some((to_accepted(one)?, one.socket))).unzip();
        match admit(&held, new) {
            Admission::Accept => return true,
            Admission::Refuse => return false,
            Admission::Evict(index) => {
                let Some(socket) = sockets.get(index) else { return false };
                debug!(peer = %new.peer, "connection aborted in favour of a new one");
                stack.socket(*socket).abort();
            }
        }
    }
}

fn to_accepted(connection: &Connection) -> Option<AcceptedConnection> {
    let Origin::Accepted { peer, port } = connection.origin() else { return None };
    Some(AcceptedConnection { peer, port, abort_at: connection.abort_at() })
}

/// Moves bytes of all connections; ready if the stack must process them.
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
