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

use super::connection::{self, Exchange, Wire};
use super::controller::Controller;
use super::handle::{Counts, Mail, SimulatedPlc};
use super::mischief::Mischief;

/// Connections that the Modbus server of an M241 or M251 holds (programming guides).
const MAX_CONNECTIONS: usize = 8;
/// The program catches up at least so often, so that a long silence costs nothing at its end.
const KEEP_UP: Duration = Duration::from_secs(1);
/// Pause after the system could not accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Lets the PLC run and answer on `listener` until `stop` fires; then everything is closed.
pub async fn serve(plc: SimulatedPlc, listener: TcpListener, stop: CancellationToken) {
    let mut server = Server::new(plc, listener);
    loop {
        match server.next(&stop).await {
            Event::Stop => return,
            Event::Accepted(stream) => server.seat(stream),
            Event::Left(task) => server.seats.retain(|seat| seat.task.id() != task),
            Event::Mail(Mail::Exchange(exchange, reply)) => server.take(exchange, reply),
            Event::Mail(Mail::Touch(act)) => {
                server.advance();
                act(&mut server.controller);
            }
            Event::Mail(Mail::SwitchOff(reply)) => drop(reply.send(server.switch_off().await)),
            Event::Mail(Mail::SwitchOn(reply)) => drop(reply.send(server.switch_on().await)),
            Event::Mail(Mail::Connect(stream)) => server.seat_if_on(stream),
            Event::Mail(Mail::Spoil(mischief, reply)) => {
                server.mischief = mischief;
                let _ = reply.send(()); // The asker may have stopped waiting.
            }
            Event::Mail(Mail::Count(reply)) => drop(reply.send(server.counts())),
            Event::CycleEnd => server.end_cycle(),
            Event::KeepUp => server.advance(),
        }
    }
}

struct Server {
    controller: Controller,
    mischief: Option<Box<Mischief>>,
    port: Port,
    mailbox: mpsc::Receiver<Mail>,
    sender: mpsc::Sender<Mail>,
    connections: JoinSet<()>,
    /// The open connections, the oldest first.
    seats: VecDeque<Seat>,
    counts: Counts,
    power_on: Instant,
    mast: Duration,
    /// Requests whose answers leave at the end of this cycle.
    waiting: Vec<Waiting>,
    cycle: Pin<Box<Sleep>>,
    keep_up: Interval,
}

/// The Modbus server of the Ethernet settings: on, or off with the place where it was.
enum Port {
    Open(TcpListener),
    Closed(SocketAddr),
}

struct Seat {
    number: u64,
    task: AbortHandle,
}

struct Waiting {
    exchange: Exchange,
    reply: oneshot::Sender<Exchange>,
}

enum Event {
    Stop,
    Accepted(TcpStream),
    Left(tokio::task::Id),
    Mail(Mail),
    CycleEnd,
    KeepUp,
}

impl Server {
    fn new(plc: SimulatedPlc, listener: TcpListener) -> Self {
        let mut keep_up = tokio::time::interval(KEEP_UP);
        keep_up.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            controller: Controller::new(&plc.settings),
            mischief: plc.settings.mischief.map(Box::new),
            port: Port::Open(listener),
            mailbox: plc.mailbox,
            sender: plc.sender,
            connections: JoinSet::new(),
            seats: VecDeque::with_capacity(MAX_CONNECTIONS),
            counts: Counts::default(),
            power_on: Instant::now(),
            mast: plc.settings.mast,
            waiting: Vec::new(),
            cycle: Box::pin(tokio::time::sleep(Duration::ZERO)),
            keep_up,
        }
    }

    async fn next(&mut self, stop: &CancellationToken) -> Event {
        tokio::select! {
            () = stop.cancelled() => Event::Stop,
            stream = self.port.accept() => Event::Accepted(stream),
            Some(left) = self.connections.join_next_with_id() => Event::Left(match left {
                Ok((task, ())) => task,
                Err(error) => error.id(),
            }),
            Some(mail) = self.mailbox.recv() => Event::Mail(mail),
            () = &mut self.cycle, if !self.waiting.is_empty() => Event::CycleEnd,
            _ = self.keep_up.tick() => Event::KeepUp,
        }
    }

    /// Gives a new client a connection, at the expense of the oldest one when all are taken.
    ///
    /// One whose requests are being answered is not closed; if that is all of them, the new client
    /// is turned away.
    fn seat(&mut self, stream: impl Wire) {
        if self.seats.len() >= MAX_CONNECTIONS {
            let busy = |seat: &Seat| self.waiting.iter().any(|w| w.exchange.seat == seat.number);
            let Some(oldest) = self.seats.iter().position(|seat| !busy(seat)) else {
                self.counts.refused += 1;
                return;
            };
            if let Some(seat) = self.seats.remove(oldest) {
                seat.task.abort();
                self.counts.evicted += 1;
            }
        }
        self.counts.connects += 1;
        let number = self.counts.connects;
        let run = connection::run(stream, number, self.sender.clone());
        self.seats.push_back(Seat { number, task: self.connections.spawn(run) });
    }

    fn seat_if_on(&mut self, stream: impl Wire) {
        if let Port::Open(_) = self.port {
            self.seat(stream);
        }
    }

    fn take(&mut self, exchange: Exchange, reply: oneshot::Sender<Exchange>) {
        let waiting = Waiting { exchange, reply };
        if self.mast.is_zero() {
            self.advance();
            return self.answer(waiting);
        }
        if self.waiting.is_empty() {
            let end = cycle_end(self.power_on.elapsed(), self.mast);
            self.cycle.as_mut().reset(self.power_on + end);
        }
        self.waiting.push(waiting);
    }

    fn end_cycle(&mut self) {
        self.advance();
        let mut all = std::mem::take(&mut self.waiting);
        for waiting in all.drain(..) {
            self.answer(waiting);
        }
        self.waiting = all;
    }

    fn answer(&mut self, waiting: Waiting) {
        let Waiting { mut exchange, reply } = waiting;
        self.controller.answer(&exchange.requests, &mut exchange.answers);
        if let Some(mischief) = &mut self.mischief {
            exchange.steps = mischief.spoil(&exchange.answers);
            exchange.answers.clear();
        }
        let _ = reply.send(exchange); // The client may have left; what it wrote stands.
    }

    fn advance(&mut self) {
        self.controller.advance(self.power_on.elapsed());
    }

    async fn switch_off(&mut self) -> io::Result<()> {
        if let Port::Open(listener) = &self.port {
            self.port = Port::Closed(listener.local_addr()?);
        }
        self.connections.shutdown().await;
        self.seats.clear();
        self.waiting.clear();
        Ok(())
    }

    async fn switch_on(&mut self) -> io::Result<()> {
        if let Port::Closed(address) = self.port {
            self.port = Port::Open(TcpListener::bind(address).await?);
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        Counts {
            open: self.seats.len(),
            waiting: self.waiting.len(),
            requests: self.controller.requests(),
            spoiled: self.mischief.as_ref().map_or(0, |mischief| mischief.spoiled()),
            ..self.counts
        }
    }
}

impl Port {
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
