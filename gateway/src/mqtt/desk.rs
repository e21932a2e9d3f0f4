//! One session at work: messages out, acknowledgements in.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use provisioning::config::Qos;
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::connect::{Connection, room_in};
use super::failure::Failure;
use super::flight::{Flight, Parcel, Written};
use super::session::{Accepted, LONGEST_PACKET, Place, Publisher, Signal};
use super::{Event, Outgoing, WINDOW, code};
use crate::metrics::{MessageOutcome, MqttMetrics};

/// How long a drain waits for acknowledgements.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a drain waits for its DISCONNECT to leave.
const FAREWELL: Duration = Duration::from_secs(2);
/// Longest topic that fits a packet (MQTT 5.0, 1.5.4).
const LONGEST_TOPIC: usize = 65_535;

/// The books and the mouth of one session.
pub(super) struct Desk {
    session: u32,
    accepted: Accepted,
    flight: Flight,
    phase: Phase,
    /// Why we leave although the outbox is open.
    renewal: Option<Failure>,
    renew_at: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
    armed: bool,
    events: mpsc::Sender<Event>,
    metrics: MqttMetrics,
}

/// How a session ended.
pub(super) enum End {
    /// As the caller wanted it.
    Finished,
    /// Otherwise, and another one is needed.
    Failed(Failure),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Messages are taken.
    Open,
    /// No more messages are taken; acknowledgements are waited for.
    Draining,
    /// DISCONNECT was handed over.
    Leaving,
}

/// What the loop of a session wakes up for.
enum Turn {
    Signal(Result<Signal, Failure>),
    Message(Option<Outgoing>),
    Alarm,
}

impl Connection {
    /// Opens the books for this connection. It is given up in an orderly way at `renew_at`.
    pub(super) fn desk(
        &self,
        session: u32,
        renew_at: Option<Instant>,
        events: mpsc::Sender<Event>,
        metrics: MqttMetrics,
    ) -> Desk {
        Desk {
            session,
            accepted: self.accepted,
            flight: Flight::new(self.accepted.packet_ids, WINDOW, Instant::now()),
            phase: Phase::Open,
            renewal: None,
            renew_at,
            alarm: Box::pin(sleep(Duration::ZERO)),
            armed: false,
            events,
            metrics,
        }
    }
}

impl Desk {
    /// Works until the session ends.
    pub(super) async fn work(
        mut self,
        mut connection: Connection,
        outbox: &mut mpsc::Receiver<Outgoing>,
    ) -> End {
        let end = match self.serve(&mut connection, outbox).await {
            Err(End::Failed(failure)) => self.conclude(&mut connection, failure).await,
            Err(End::Finished) | Ok(()) => self.renewal.take().map_or(End::Finished, End::Failed),
        };
        let Connection { publisher, driver, mut wire, .. } = connection;
        drop((publisher, driver));
        if self.phase == Phase::Leaving {
            let _ = timeout(FAREWELL, wire.run_dry()).await;
        }
        end
    }

    async fn serve(
        &mut self,
        connection: &mut Connection,
        outbox: &mut mpsc::Receiver<Outgoing>,
    ) -> Result<(), End> {
        let Connection { publisher, driver, wire, .. } = connection;
        self.arm(self.renew_at);
        loop {
            // A `next` that is dropped before it is done may take a message with it.
            let mut next = pin!(driver.next());
            let signal = loop {
                self.leave_when_drained(publisher);
                let turn = select! {
                    biased;
                    signal = &mut next => Turn::Signal(signal),
                    message = outbox.recv(), if self.takes_messages() => Turn::Message(message),
                    () = &mut self.alarm, if self.armed => Turn::Alarm,
                    never = wire.flow() => match never {},
                };
                match turn {
                    Turn::Signal(signal) => break signal,
                    Turn::Message(Some(message)) => self.send(publisher, message).await?,
                    Turn::Message(None) => self.drain(),
                    Turn::Alarm => self.ring(publisher)?,
                }
            };
            match signal {
                Ok(Signal::Farewell) => return Ok(()),
                Ok(signal) => self.take(signal).await?,
                Err(failure) => return Err(End::Failed(failure)),
            }
        }
    }

    fn takes_messages(&self) -> bool {
        self.phase == Phase::Open && self.flight.has_room()
    }

    /// Hands a message over, unless the broker is known not to take it.
    async fn send(&mut self, publisher: &Publisher, message: Outgoing) -> Result<(), End> {
        let Outgoing { session, ticket, topic, payload, qos, retain } = message;
        if session != self.session {
            return Ok(());
        }
        let packet = self.accepted.longest_packet.unwrap_or(LONGEST_PACKET);
        if topic.len() + payload.len() > room_in(packet) {
            return self.refused(ticket, topic, code::PACKET_TOO_LARGE, None).await;
        }
        let qos = lower(qos, self.accepted.qos);
        let retain = retain && self.accepted.retains;
        let sendable = (1..=LONGEST_TOPIC).contains(&topic.len());
        if !sendable || publisher.publish(&topic, payload, qos, retain).is_err() {
            return self.refused(ticket, topic, code::TOPIC_NAME_INVALID, None).await;
        }
        self.flight.sent(Parcel { ticket, topic, qos, sent: Instant::now() });
        self.arm(self.flight.deadline());
        Ok(())
    }

    /// Takes what happened.
    async fn take(&mut self, signal: Signal) -> Result<(), End> {
        let now = Instant::now();
        match signal {
            Signal::Written(packet_id) => match self.flight.written(packet_id, now) {
                Written::Done(parcel) => self.delivered(&parcel).await,
                Written::Waits => Ok(()),
                Written::Collision => Err(End::Failed(Failure::Collision)),
            },
            Signal::HeldBack => Err(End::Failed(Failure::Collision)),
            Signal::Settled { packet_id, code, text, place } => {
                if place == Place::Leaked {
                    self.flight.leak();
                }
                match self.flight.settled(packet_id, now) {
                    Some(parcel) if code::is_failure(code) => {
                        self.refused(parcel.ticket, parcel.topic, code, text).await?;
                    }
                    Some(parcel) => {
                        let waited = now.saturating_duration_since(parcel.sent);
                        self.metrics.ack_seconds.observe(waited.as_secs_f64());
                        self.delivered(&parcel).await?;
                    }
                    None => {}
                }
                if self.flight.is_worn_out() {
                    self.renew(Failure::WornOut);
                }
                Ok(())
            }
            Signal::Progress => {
                self.flight.progressed(now);
                Ok(())
            }
            Signal::Received(message) => self.tell(Event::Received(message)).await,
            Signal::Subscribed(_) | Signal::Farewell | Signal::Other => Ok(()),
        }
    }

    async fn delivered(&self, parcel: &Parcel) -> Result<(), End> {
        self.metrics.count_messages(MessageOutcome::Delivered, 1);
        match parcel.ticket {
            Some(ticket) => self.tell(Event::Acknowledged { ticket }).await,
            None => Ok(()),
        }
    }

    async fn refused(
        &self,
        ticket: Option<u64>,
        topic: Arc<str>,
        code: u8,
        text: Option<String>,
    ) -> Result<(), End> {
        self.metrics.count_messages(MessageOutcome::Refused, 1);
        let name = code::name(code);
        let reason = text.map_or_else(|| name.to_owned(), |text| format!("{name} ({text})"));
        self.tell(Event::Refused { ticket, topic, code, reason }).await
    }

    async fn tell(&self, event: Event) -> Result<(), End> {
        self.events.send(event).await.map_err(|_| End::Finished)
    }

    /// Makes the alarm ring at this time, unless it rings earlier anyway.
    fn arm(&mut self, at: Option<Instant>) {
        if let Some(at) = at.filter(|at| !self.armed || *at < self.alarm.deadline()) {
            self.alarm.as_mut().reset(at);
            self.armed = true;
        }
    }

    /// The alarm has rung.
    fn ring(&mut self, publisher: &Publisher) -> Result<(), End> {
        let now = Instant::now();
        self.armed = false;
        match self.phase {
            Phase::Open => {
                if self.flight.deadline().is_some_and(|deadline| deadline <= now) {
                    return Err(End::Failed(Failure::NoAcknowledgement));
                }
                if self.renew_at.is_some_and(|at| at <= now) {
                    self.renew(Failure::SubscribeAgain);
                } else {
                    self.arm(self.flight.deadline());
                    self.arm(self.renew_at);
                }
            }
            Phase::Draining => self.leave(publisher),
            Phase::Leaving => return Err(End::Finished),
        }
        Ok(())
    }

    /// Ends the session in an orderly way, to be followed by another one.
    fn renew(&mut self, why: Failure) {
        if self.phase == Phase::Open {
            self.renewal = Some(why);
            self.drain();
        }
    }

    fn drain(&mut self) {
        self.phase = Phase::Draining;
        self.armed = false;
        self.arm(Some(Instant::now() + DRAIN));
    }

    fn leave_when_drained(&mut self, publisher: &Publisher) {
        if self.phase == Phase::Draining && self.flight.is_empty() {
            self.leave(publisher);
        }
    }

    fn leave(&mut self, publisher: &Publisher) {
        if publisher.disconnect().is_err() {
            tracing::warn!("no room for the goodbye: the broker will publish the will");
        }
        self.phase = Phase::Leaving;
        self.armed = false;
        self.arm(Some(Instant::now() + FAREWELL));
    }

    /// Takes the acknowledgements that came with the end, and finds out what it was.
    async fn conclude(&mut self, connection: &mut Connection, failure: Failure) -> End {
        for signal in connection.driver.leftovers() {
            if let Err(End::Finished) = self.take(signal).await {
                return End::Finished;
            }
        }
        match self.phase {
            Phase::Open => End::Failed(connection.wire.explain(failure)),
            Phase::Draining | Phase::Leaving => {
                self.renewal.take().map_or(End::Finished, End::Failed)
            }
        }
    }
}

impl Drop for Desk {
    /// Whatever ended the session: what was under way is counted.
    fn drop(&mut self) {
        let open = u64::try_from(self.flight.len()).unwrap_or(u64::MAX);
        self.metrics.count_messages(MessageOutcome::Interrupted, open);
    }
}

const fn lower(one: Qos, other: Qos) -> Qos {
    match (one, other) {
        (Qos::AtMostOnce, _) | (_, Qos::AtMostOnce) => Qos::AtMostOnce,
        (Qos::AtLeastOnce, _) | (_, Qos::AtLeastOnce) => Qos::AtLeastOnce,
        (Qos::ExactlyOnce, Qos::ExactlyOnce) => Qos::ExactlyOnce,
    }
}
