//! The task that is the PLC: it owns memory, program, port and connections.
//!
//! One task is the simplest owner, and the truest: in the PLC too, program and answers take turns.
//! Connections are small tasks that turn bytes into whole requests and wait for their answers;
//! handles ask through the same mailbox. So there is no lock, a client never sees a value half
//! written, and what is asked later sees what was asked before.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};
use tokio_util::sync::CancellationToken;

use super::connection::{self, ClientStream, RequestBatch};
use super::controller::Controller;
use super::faults::FaultInjector;
use super::handle::{SimulatedPlc, SimulatorCommand, SimulatorCounts};

/// Connections that the Modbus server of an M241 or M251 holds (programming guides).
const MAX_CONNECTIONS: usize = 8;
/// The program catches up at least so often, so that a long silence costs nothing at its end.
const PROGRAM_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after the system could not accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Lets the PLC run and answer on `listener` until `stop` fires; then everything is closed.
pub async fn serve(plc: SimulatedPlc, listener: TcpListener, stop: CancellationToken) {
    let mut server = PlcServer::new(plc, listener);
    loop {
        match server.next_event(&stop).await {
            ServerEvent::Stop => return,
            ServerEvent::Accepted(stream) => server.admit(stream),
            ServerEvent::Disconnected(task) => server.clients.retain(|seat| seat.task.id() != task),
            ServerEvent::Command(SimulatorCommand::Exchange(exchange, reply)) => {
                server.queue_requests(exchange, reply)
            }
            ServerEvent::Command(SimulatorCommand::WithController(act)) => {
                server.run_program();
                act(&mut server.controller);
            }
            ServerEvent::Command(SimulatorCommand::SwitchOff(reply)) => {
                drop(reply.send(server.switch_off().await))
            }
            ServerEvent::Command(SimulatorCommand::SwitchOn(reply)) => {
                drop(reply.send(server.switch_on().await))
            }
            ServerEvent::Command(SimulatorCommand::Connect(stream)) => server.admit_if_open(stream),
            ServerEvent::Command(SimulatorCommand::InjectFaults(mischief, reply)) => {
                server.faults = mischief;
                let _ = reply.send(()); // The asker may have stopped waiting.
            }
            ServerEvent::Command(SimulatorCommand::GetCounts(reply)) => {
                let _ = reply.send(server.counts()); // The asker may have stopped waiting.
            }
            ServerEvent::CycleEnd => server.on_cycle_end(),
            ServerEvent::ProgramDue => server.run_program(),
        }
    }
}

struct PlcServer {
    controller: Controller,
    faults: Option<Box<FaultInjector>>,
    port: ServerPort,
    mailbox: mpsc::Receiver<SimulatorCommand>,
    sender: mpsc::Sender<SimulatorCommand>,
    connections: JoinSet<()>,
    /// The open connections, the oldest first.
    clients: VecDeque<ConnectedClient>,
    counts: SimulatorCounts,
    power_on: Instant,
    mast: Duration,
    /// Requests whose answers leave at the end of this cycle.
    pending: Vec<PendingAnswer>,
    cycle_timer: Pin<Box<Sleep>>,
    program_timer: Interval,
}

/// The Modbus server of the Ethernet settings: on, or off with the place where it was.
enum ServerPort {
    Open(TcpListener),
    Closed(SocketAddr),
}

struct ConnectedClient {
    number: u64,
    task: AbortHandle,
}

struct PendingAnswer {
    exchange: RequestBatch,
    reply: oneshot::Sender<RequestBatch>,
}

enum ServerEvent {
    Stop,
    Accepted(TcpStream),
    Disconnected(tokio::task::Id),
    Command(SimulatorCommand),
    CycleEnd,
    ProgramDue,
}

impl PlcServer {
    fn new(plc: SimulatedPlc, listener: TcpListener) -> Self {
        let mut keep_up = tokio::time::interval(PROGRAM_INTERVAL);
        keep_up.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            controller: Controller::new(&plc.settings),
            faults: plc.settings.faults.map(Box::new),
            port: ServerPort::Open(listener),
            mailbox: plc.commands,
            sender: plc.sender,
            connections: JoinSet::new(),
            clients: VecDeque::with_capacity(MAX_CONNECTIONS),
            counts: SimulatorCounts::default(),
            power_on: Instant::now(),
            mast: plc.settings.mast,
            pending: Vec::new(),
            cycle_timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            program_timer: keep_up,
        }
    }

    async fn next_event(&mut self, stop: &CancellationToken) -> ServerEvent {
        tokio::select! {
            () = stop.cancelled() => ServerEvent::Stop,
            stream = self.port.accept() => ServerEvent::Accepted(stream),
            Some(left) = self.connections.join_next_with_id() => ServerEvent::Disconnected(match left {
                Ok((task, ())) => task,
                Err(error) => error.id(),
            }),
            Some(mail) = self.mailbox.recv() => ServerEvent::Command(mail),
            () = &mut self.cycle_timer, if !self.pending.is_empty() => ServerEvent::CycleEnd,
            _ = self.program_timer.tick() => ServerEvent::ProgramDue,
        }
    }

    /// Gives a new client a connection, at the expense of the oldest one when all are taken.
    ///
    /// One whose requests are being answered is not closed; if that is all of them, the new client
    /// is turned away.
    fn admit(&mut self, stream: impl ClientStream) {
        if self.clients.len() >= MAX_CONNECTIONS {
            let busy = |seat: &ConnectedClient| {
                self.pending.iter().any(|w| w.exchange.client == seat.number)
            };
            let Some(oldest) = self.clients.iter().position(|seat| !busy(seat)) else {
                self.counts.refused += 1;
                return;
            };
            if let Some(seat) = self.clients.remove(oldest) {
                seat.task.abort();
                self.counts.evicted += 1;
            }
        }
        self.counts.connects += 1;
        let number = self.counts.connects;
        let run = connection::run(stream, number, self.sender.clone());
        self.clients.push_back(ConnectedClient { number, task: self.connections.spawn(run) });
    }

    fn admit_if_open(&mut self, stream: impl ClientStream) {
        if let ServerPort::Open(_) = self.port {
            self.admit(stream);
        }
    }

    fn queue_requests(&mut self, exchange: RequestBatch, reply: oneshot::Sender<RequestBatch>) {
        let waiting = PendingAnswer { exchange, reply };
        if self.mast.is_zero() {
            self.run_program();
            return self.answer(waiting);
        }
        if self.pending.is_empty() {
            let end = cycle_end(self.power_on.elapsed(), self.mast);
            self.cycle_timer.as_mut().reset(self.power_on + end);
        }
        self.pending.push(waiting);
    }

    fn on_cycle_end(&mut self) {
        self.run_program();
        let mut all = std::mem::take(&mut self.pending);
        for waiting in all.drain(..) {
            self.answer(waiting);
        }
        self.pending = all;
    }

    fn answer(&mut self, waiting: PendingAnswer) {
        let PendingAnswer { mut exchange, reply } = waiting;
        self.controller.answer(&exchange.requests, &mut exchange.answers);
        if let Some(mischief) = &mut self.faults {
            exchange.steps = mischief.apply(&exchange.answers);
            exchange.answers.clear();
        }
        let _ = reply.send(exchange); // The client may have left; what it wrote stands.
    }

    fn run_program(&mut self) {
        self.controller.advance(self.power_on.elapsed());
    }

    async fn switch_off(&mut self) -> io::Result<()> {
        if let ServerPort::Open(listener) = &self.port {
            self.port = ServerPort::Closed(listener.local_addr()?);
        }
        self.connections.shutdown().await;
        self.clients.clear();
        self.pending.clear();
        Ok(())
    }

    async fn switch_on(&mut self) -> io::Result<()> {
        if let ServerPort::Closed(address) = self.port {
            self.port = ServerPort::Open(TcpListener::bind(address).await?);
        }
        Ok(())
    }

    fn counts(&self) -> SimulatorCounts {
        SimulatorCounts {
            open: self.clients.len(),
            waiting: self.pending.len(),
            requests: self.controller.requests(),
            faulty: self.faults.as_ref().map_or(0, |mischief| mischief.faulty()),
            ..self.counts
        }
    }
}

impl ServerPort {
    async fn accept(&self) -> TcpStream {
        let Self::Open(listener) = self else { return std::future::pending().await };
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// End of the MAST cycle that is running at this age; a cycle never ends at its own beginning.
fn cycle_end(age: Duration, mast: Duration) -> Duration {
    let into = Duration::from_nanos_u128(age.as_nanos() % mast.as_nanos());
    age + mast - into
}

#[cfg(test)]
mod tests;
