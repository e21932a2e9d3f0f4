//! The task of the PLC: it owns memory, program, port and connections.
//!
//! In a real PLC, too, program and answers take turns. Each connection is a small task that splits
//! bytes into requests and waits for their answers; handles send commands through the same channel.
//! So there is no lock, no client sees a half-written value, and every request sees the effect of
//! those before it.

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

use super::command::{RequestBatch, SimulatorCommand, SimulatorCounts};
use super::connection::{self, ClientStream};
use super::controller::Controller;
use super::faults::FaultInjector;
use super::handle::SimulatedPlc;

/// Connections that the Modbus server of an M241 or M251 holds (programming guides).
const MAX_CONNECTIONS: usize = 8;
/// Longest time between two runs of the program, so that the first request after a long silence
/// does not have to wait for it.
const PROGRAM_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after the operating system failed to accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Runs the PLC and answers on `listener` until `stop` is cancelled; then closes everything.
pub async fn serve(plc: SimulatedPlc, listener: TcpListener, stop: CancellationToken) {
    let mut server = PlcServer::new(plc, listener);
    loop {
        match server.next_event(&stop).await {
            ServerEvent::Stop => return,
            ServerEvent::Accepted(stream) => server.admit(stream),
            ServerEvent::Disconnected(task) => {
                server.clients.retain(|client| client.task.id() != task);
            }
            ServerEvent::Command(command) => server.on_command(command).await,
            ServerEvent::CycleEnd => server.on_cycle_end(),
            ServerEvent::ProgramDue => server.run_program(),
        }
    }
}

struct PlcServer {
    controller: Controller,
    faults: Option<Box<FaultInjector>>,
    port: ServerPort,
    commands: mpsc::Receiver<SimulatorCommand>,
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

/// The port of the Modbus server: open, or closed with the address to open again.
enum ServerPort {
    Open(TcpListener),
    Closed(SocketAddr),
}

struct ConnectedClient {
    number: u64,
    task: AbortHandle,
}

struct PendingAnswer {
    batch: RequestBatch,
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
        let mut program_timer = tokio::time::interval(PROGRAM_INTERVAL);
        program_timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            controller: Controller::new(&plc.settings),
            faults: plc.settings.faults.map(Box::new),
            port: ServerPort::Open(listener),
            commands: plc.commands,
            sender: plc.sender,
            connections: JoinSet::new(),
            clients: VecDeque::with_capacity(MAX_CONNECTIONS),
            counts: SimulatorCounts::default(),
            power_on: Instant::now(),
            mast: plc.settings.mast,
            pending: Vec::new(),
            cycle_timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            program_timer,
        }
    }

    async fn next_event(&mut self, stop: &CancellationToken) -> ServerEvent {
        tokio::select! {
            () = stop.cancelled() => ServerEvent::Stop,
            stream = self.port.accept() => ServerEvent::Accepted(stream),
            Some(ended) = self.connections.join_next_with_id() => {
                ServerEvent::Disconnected(ended.map_or_else(|error| error.id(), |(task, ())| task))
            }
            Some(command) = self.commands.recv() => ServerEvent::Command(command),
            () = &mut self.cycle_timer, if !self.pending.is_empty() => ServerEvent::CycleEnd,
            _ = self.program_timer.tick() => ServerEvent::ProgramDue,
        }
    }

    async fn on_command(&mut self, command: SimulatorCommand) {
        match command {
            SimulatorCommand::Exchange(batch, reply) => self.queue_requests(batch, reply),
            SimulatorCommand::WithController(act) => {
                self.run_program();
                act(&mut self.controller);
            }
            SimulatorCommand::SwitchOff(reply) => drop(reply.send(self.switch_off().await)),
            SimulatorCommand::SwitchOn(reply) => drop(reply.send(self.switch_on().await)),
            SimulatorCommand::Connect(stream) => self.admit_if_open(stream),
            SimulatorCommand::InjectFaults(faults, reply) => {
                self.faults = faults;
                let _ = reply.send(()); // The caller may have stopped waiting.
            }
            SimulatorCommand::GetCounts(reply) => {
                let _ = reply.send(self.counts()); // As above.
            }
        }
    }

    /// Admits a new client. When all connections are in use, evicts the oldest one that has no
    /// request in progress; if all have one, rejects the new client.
    fn admit(&mut self, stream: impl ClientStream) {
        if self.clients.len() >= MAX_CONNECTIONS {
            let busy = |client: &ConnectedClient| {
                self.pending.iter().any(|pending| pending.batch.client == client.number)
            };
            let Some(oldest) = self.clients.iter().position(|client| !busy(client)) else {
                self.counts.refused += 1;
                return;
            };
            if let Some(client) = self.clients.remove(oldest) {
                client.task.abort();
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

    fn queue_requests(&mut self, batch: RequestBatch, reply: oneshot::Sender<RequestBatch>) {
        let pending = PendingAnswer { batch, reply };
        if self.mast.is_zero() {
            self.run_program();
            return self.answer(pending);
        }
        if self.pending.is_empty() {
            let end = cycle_end(self.power_on.elapsed(), self.mast);
            self.cycle_timer.as_mut().reset(self.power_on + end);
        }
        self.pending.push(pending);
    }

    fn on_cycle_end(&mut self) {
        self.run_program();
        let mut all = std::mem::take(&mut self.pending);
        for pending in all.drain(..) {
            self.answer(pending);
        }
        self.pending = all;
    }

    fn answer(&mut self, pending: PendingAnswer) {
        let PendingAnswer { mut batch, reply } = pending;
        self.controller.answer(&batch.requests, &mut batch.answers);
        if let Some(faults) = &mut self.faults {
            batch.steps = faults.apply(&batch.answers);
            batch.answers.clear();
        }
        let _ = reply.send(batch); // The client may have disconnected; what it wrote stays.
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

    /// Returns the open connections, the waiting answers, and the totals since the start.
    fn counts(&self) -> SimulatorCounts {
        SimulatorCounts {
            open: self.clients.len(),
            waiting: self.pending.len(),
            requests: self.controller.requests(),
            faulty: self.faults.as_ref().map_or(0, |faults| faults.faulty()),
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

/// Returns the end of the MAST cycle that is running at this age. A cycle never ends at its start.
fn cycle_end(age: Duration, mast: Duration) -> Duration {
    let into = Duration::from_nanos_u128(age.as_nanos() % mast.as_nanos());
    age + mast - into
}

#[cfg(test)]
mod tests;
