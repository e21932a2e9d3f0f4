//! The loop of one session: sends messages, receives acknowledgements.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::connect::{BrokerConnection, EarlyMessages, payload_capacity};
use super::failure::SessionFailure;
use super::inbox::{DueAck, Inbox, InboxDecision, ReceivedPublish, UnsolicitedRemedy};
use super::inflight::{Inflight, InflightMessage, WrittenMessage};
use super::session::{
    ConnackLimits, MAX_PACKET_LEN, NotSendable, Publisher, SessionEvent, SlotState,
};
use super::{MAX_INFLIGHT, MqttEvent, MqttRequest, OutgoingMessage, reason_code};
use crate::metrics::{MessageOutcome, MqttMetrics};
use crate::model::UntrustedText;
use crate::uplink::RenewalRequests;

/// Longest wait for acknowledgements before a DISCONNECT.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// A session in which messages before SUBACK did not fit is renewed after this time: soon, because
/// commands wait, but the broker cannot keep values from being published.
const OVERFLOW_RENEWAL: Duration = Duration::from_secs(10);
/// Longest wait until the DISCONNECT is written.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Target of the lines about messages without a subscription: the log's limit counts them apart.
const UNSOLICITED: &str = "gateway::unsolicited_messages";
/// Bytes of Correlation Data other than its content: identifier, length, a longer property length.
const CORRELATION_OVERHEAD: usize = 4;
/// Longest topic that fits a packet (MQTT 5.0, 1.5.4).
const MAX_TOPIC_LEN: usize = 65_535;

/// State of one session and its event channel.
pub(super) struct SessionLoop {
    session: u32,
    limits: ConnackLimits,
    inflight: Inflight,
    inbox: Inbox,
    is_kept: bool,
    may_begin_clean: bool,
    phase: SessionPhase,
    is_outbox_closed: bool,
    /// Why the gateway ends the session although the outbox is open.
    renewal: Option<SessionFailure>,
    /// When and why it will do so.
    planned_renewal: Option<(Instant, SessionFailure)>,
    timer: Pin<Box<Sleep>>,
    is_timer_set: bool,
    events: mpsc::Sender<MqttEvent>,
    metrics: MqttMetrics,
}

/// What the loop has to know about its session.
pub(super) struct SessionTerms {
    /// Its number.
    pub(super) session: u32,
    /// Whether the broker sends unacknowledged messages again in the next session.
    pub(super) is_kept: bool,
    /// Whether the session may be ended over an unknown subscription, so that it begins clean.
    pub(super) may_begin_clean: bool,
    /// When and why it is ended with DISCONNECT.
    pub(super) planned_renewal: Option<(Instant, SessionFailure)>,
}

/// How a session ended.
pub(super) enum SessionEnd {
    /// The outbox is closed, or the receiver of events is gone.
    Finished,
    /// Any other way; another session follows.
    Failed(SessionFailure),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SessionPhase {
    /// Messages are sent.
    Open,
    /// No more messages are sent; the loop waits for acknowledgements.
    Draining,
    /// DISCONNECT was handed over.
    Disconnecting,
}

/// Why the session loop woke up.
enum Wake {
    Session(Result<SessionEvent, SessionFailure>),
    Request(Option<MqttRequest>),
    Renewal,
    Timer,
}

impl BrokerConnection {
    /// Creates the loop for this connection.
    pub(super) fn session_loop(
        &self,
        inbox: Inbox,
        terms: SessionTerms,
        events: mpsc::Sender<MqttEvent>,
        metrics: MqttMetrics,
    ) -> SessionLoop {
        let SessionTerms { session, is_kept, may_begin_clean, planned_renewal } = terms;
        SessionLoop {
            session,
            limits: self.limits,
            inflight: Inflight::new(self.limits.packet_ids, MAX_INFLIGHT, Instant::now()),
            inbox,
            is_kept,
            may_begin_clean,
            phase: SessionPhase::Open,
            is_outbox_closed: false,
            renewal: None,
            planned_renewal,
            timer: Box::pin(sleep(Duration::ZERO)),
            is_timer_set: false,
            events,
            metrics,
        }
    }
}

impl SessionLoop {
    /// Runs until the session ends.
    pub(super) async fn run(
        mut self,
        mut connection: BrokerConnection,
        outbox: &mut mpsc::Receiver<MqttRequest>,
        mut renewals: RenewalRequests,
    ) -> SessionEnd {
        let end = match self.run_until_end(&mut connection, outbox, &mut renewals).await {
            Err(SessionEnd::Failed(failure)) => self.finish(&mut connection, failure).await,
            Err(SessionEnd::Finished) | Ok(()) => {
                self.renewal.take().map_or(SessionEnd::Finished, SessionEnd::Failed)
            }
        };
        let BrokerConnection { publisher, driver, mut stream, .. } = connection;
        // Closes the socket of rumqttc, so that the copying ends once the DISCONNECT has passed.
        drop((publisher, driver));
        if self.phase == SessionPhase::Disconnecting {
            let _ = timeout(DISCONNECT_TIMEOUT, stream.copy_to_end()).await;
        }
        end
    }

    async fn run_until_end(
        &mut self,
        connection: &mut BrokerConnection,
        outbox: &mut mpsc::Receiver<MqttRequest>,
        renewals: &mut RenewalRequests,
    ) -> Result<(), SessionEnd> {
        let BrokerConnection { publisher, driver, stream, early, .. } = connection;
        let EarlyMessages { kept, overflow, lost, .. } = std::mem::take(early);
        for received in kept {
            self.on_received(publisher, received).await?;
        }
        self.on_overflow(overflow, lost);
        self.set_timer(self.renew_at());
        loop {
            // Not inside `select!`: a dropped `next_event` may lose a message (see `session`).
            let mut next = pin!(driver.next_event());
            let event = loop {
                self.send_acks(publisher)?;
                self.disconnect_when_drained(publisher);
                let wake = select! {
                    // Events first: an acknowledgement makes room for the next message.
                    biased;
                    event = &mut next => Wake::Session(event),
                    request = outbox.recv(), if self.takes_requests() => Wake::Request(request),
                    () = renewals.requested() => Wake::Renewal,
                    () = &mut self.timer, if self.is_timer_set => Wake::Timer,
                    never = stream.copy_forever() => match never {},
                };
                match wake {
                    Wake::Session(event) => break event,
                    Wake::Request(Some(MqttRequest::Publish(message))) => {
                        self.send(publisher, message).await?;
                    }
                    Wake::Request(Some(MqttRequest::Acknowledge(tag))) => {
                        self.inbox.acknowledge(tag);
                    }
                    Wake::Request(None) => self.on_outbox_closed(),
                    Wake::Renewal => self.start_renewal(SessionFailure::CertificateRenewed),
                    Wake::Timer => self.on_timer(publisher)?,
                }
            };
            match event {
                Ok(SessionEvent::DisconnectSent) => return Ok(()),
                Ok(SessionEvent::Received(received)) => {
                    self.on_received(publisher, received).await?;
                }
                Ok(event) => self.on_event(event).await?,
                Err(failure) => return Err(SessionEnd::Failed(failure)),
            }
        }
    }

    /// Handles the messages before SUBACK that did not fit: a persistent session brings those of
    /// QoS 1 and 2 again, once it is resumed. All others are lost, as after any disconnect.
    fn on_overflow(&mut self, overflow: Vec<DueAck>, lost: usize) {
        let is_kept = self.is_kept && !overflow.is_empty();
        let (repeated, lost) =
            if is_kept { (overflow.len(), lost) } else { (0, lost + overflow.len()) };
        if repeated + lost > 0 {
            tracing::warn!(
                repeated,
                lost,
                "the broker sends more before it answers the subscription than the gateway stores"
            );
        }
        if is_kept {
            let due = (Instant::now() + OVERFLOW_RENEWAL, SessionFailure::MessagesWaiting);
            let planned = self.planned_renewal.take().into_iter().chain([due]);
            self.planned_renewal = planned.min_by_key(|(at, _)| *at);
        } else {
            overflow.into_iter().for_each(|ack| self.inbox.on_discarded(ack));
        }
    }

    fn renew_at(&self) -> Option<Instant> {
        self.planned_renewal.as_ref().map(|(at, _)| *at)
    }

    /// Returns whether the outbox is read. Before a renewal it is, for the acknowledgements: a
    /// command that was not acknowledged would come again.
    fn takes_requests(&self) -> bool {
        match self.phase {
            SessionPhase::Open => self.inflight.has_room(),
            SessionPhase::Draining => self.renewal.is_some() && !self.is_outbox_closed,
            SessionPhase::Disconnecting => false,
        }
    }

    fn on_outbox_closed(&mut self) {
        self.is_outbox_closed = true;
        if self.phase == SessionPhase::Open {
            self.start_draining();
        }
    }

    /// Hands the acknowledgements that are due to rumqttc.
    fn send_acks(&mut self, publisher: &Publisher) -> Result<(), SessionEnd> {
        if self.phase == SessionPhase::Disconnecting {
            return Ok(());
        }
        while let Some(ack) = self.inbox.poll_ack() {
            // There is room in its queue for all that are handed over.
            let handed = publisher.acknowledge(ack);
            handed.map_err(|NotSendable| SessionEnd::Failed(SessionFailure::Closed))?;
        }
        Ok(())
    }

    /// Handles a message of the broker.
    async fn on_received(
        &mut self,
        publisher: &Publisher,
        received: ReceivedPublish,
    ) -> Result<(), SessionEnd> {
        let topic = UntrustedText::new(&received.message.topic);
        match self.inbox.on_received(received, Instant::now()) {
            InboxDecision::Deliver(message) => self.emit(MqttEvent::Received(message)).await?,
            InboxDecision::Repeated => {}
            InboxDecision::Unsolicited(remedy) => {
                tracing::warn!(
                    target: UNSOLICITED,
                    %topic,
                    "the broker sends a message to which this gateway did not subscribe; discarded"
                );
                self.apply_remedy(publisher, remedy);
            }
        }
        Ok(())
    }

    /// Handles a message that was read together with the end of the session: it cannot be
    /// acknowledged any more, and a persistent session brings it again.
    async fn on_received_at_end(&mut self, received: ReceivedPublish) -> Result<(), SessionEnd> {
        match self.inbox.on_received(received, Instant::now()) {
            InboxDecision::Deliver(message) if message.delivery.is_none() || !self.is_kept => {
                self.emit(MqttEvent::Received(message)).await
            }
            InboxDecision::Deliver(_) | InboxDecision::Repeated | InboxDecision::Unsolicited(_) => {
                Ok(())
            }
        }
    }

    fn apply_remedy(&mut self, publisher: &Publisher, remedy: UnsolicitedRemedy) {
        match remedy {
            UnsolicitedRemedy::Unsubscribe(filters) => {
                for filter in filters {
                    // Without an answer, nothing else is tried in this session.
                    let _ = publisher.unsubscribe(&filter);
                }
            }
            UnsolicitedRemedy::BeginClean if self.may_begin_clean => {
                self.start_renewal(SessionFailure::UnknownSubscription);
            }
            UnsolicitedRemedy::BeginClean | UnsolicitedRemedy::None => {}
        }
    }

    /// Hands a message to rumqttc, unless it exceeds a limit of the broker.
    async fn send(
        &mut self,
        publisher: &Publisher,
        message: OutgoingMessage,
    ) -> Result<(), SessionEnd> {
        let OutgoingMessage { session, ticket, topic, payload, qos, retain, correlation_data } =
            message;
        // From an earlier session, or for the next one. Its entry waits in the queue again and is
        // sent as a new message.
        if session != self.session || self.phase != SessionPhase::Open {
            return Ok(());
        }
        let packet = self.limits.max_packet_len.unwrap_or(MAX_PACKET_LEN);
        let correlation =
            correlation_data.as_ref().map_or(0, |data| CORRELATION_OVERHEAD + data.len());
        if topic.len() + payload.len() + correlation > payload_capacity(packet) {
            return self.report_refused(ticket, topic, reason_code::PACKET_TOO_LARGE, None).await;
        }
        // A broker disconnects a client that exceeds its maximum QoS, or sets RETAIN where that is
        // not available (MQTT 5.0, 3.2.2.3.4 and 3.2.2.3.5).
        let qos = qos.min(self.limits.max_qos);
        let retain = retain && self.limits.retain_available;
        let sendable = (1..=MAX_TOPIC_LEN).contains(&topic.len());
        if !sendable || publisher.publish(&topic, payload, qos, retain, correlation_data).is_err() {
            return self.report_refused(ticket, topic, reason_code::TOPIC_NAME_INVALID, None).await;
        }
        self.inflight.on_sent(InflightMessage { ticket, topic, qos, sent_at: Instant::now() });
        self.set_timer(self.inflight.ack_deadline());
        Ok(())
    }

    /// Handles an event of the session.
    async fn on_event(&mut self, event: SessionEvent) -> Result<(), SessionEnd> {
        let now = Instant::now();
        match event {
            // rumqttc reports only the packet id: it belongs to the oldest unwritten message.
            SessionEvent::Written(packet_id) => match self.inflight.on_written(packet_id, now) {
                WrittenMessage::Done(message) => self.on_delivered(&message).await,
                WrittenMessage::AwaitingAck => Ok(()),
                WrittenMessage::Collision => Err(SessionEnd::Failed(SessionFailure::Collision)),
            },
            SessionEvent::PacketIdBusy => Err(SessionEnd::Failed(SessionFailure::Collision)),
            SessionEvent::Acked { packet_id, code, text, slot } => {
                if slot == SlotState::Leaked {
                    self.inflight.leak_slot();
                }
                match self.inflight.on_acked(packet_id, now) {
                    Some(message)
                        if reason_code::is_failure(code)
                            && !reason_code::is_final_for_message(code) =>
                    {
                        self.report_deferred(message, code, text).await?;
                    }
                    Some(message) if reason_code::is_failure(code) => {
                        self.report_refused(message.ticket, message.topic, code, text).await?;
                    }
                    Some(message) => {
                        let waited = now.saturating_duration_since(message.sent_at);
                        self.metrics.ack_seconds.observe(waited.as_secs_f64());
                        self.on_delivered(&message).await?;
                    }
                    None => {}
                }
                if self.inflight.is_exhausted() {
                    self.start_renewal(SessionFailure::InflightSlotsLeaked);
                }
                Ok(())
            }
            SessionEvent::PubrecReceived => {
                self.inflight.on_progress(now);
                Ok(())
            }
            SessionEvent::AckWritten => {
                self.inbox.on_ack_written();
                Ok(())
            }
            SessionEvent::Unsubscribed => {
                self.inbox.on_unsuback(now);
                Ok(())
            }
            SessionEvent::Received(received) => self.on_received_at_end(received).await,
            SessionEvent::Subscribed(_) | SessionEvent::DisconnectSent | SessionEvent::Other => {
                Ok(())
            }
        }
    }

    async fn on_delivered(&self, message: &InflightMessage) -> Result<(), SessionEnd> {
        self.metrics.count_messages(MessageOutcome::Delivered, 1);
        match message.ticket {
            Some(ticket) => self.emit(MqttEvent::Acknowledged { ticket }).await,
            None => Ok(()),
        }
    }

    async fn report_deferred(
        &self,
        message: InflightMessage,
        code: u8,
        text: Option<UntrustedText>,
    ) -> Result<(), SessionEnd> {
        self.metrics.count_messages(MessageOutcome::Deferred, 1);
        let InflightMessage { ticket, topic, .. } = message;
        self.emit(MqttEvent::Deferred { ticket, topic, reason: reason_text(code, text) }).await
    }

    async fn report_refused(
        &self,
        ticket: Option<u64>,
        topic: Arc<str>,
        code: u8,
        text: Option<UntrustedText>,
    ) -> Result<(), SessionEnd> {
        self.metrics.count_messages(MessageOutcome::Refused, 1);
        let reason = reason_text(code, text);
        self.emit(MqttEvent::Refused { ticket, topic, code, reason }).await
    }

    async fn emit(&self, event: MqttEvent) -> Result<(), SessionEnd> {
        self.events.send(event).await.map_err(|_| SessionEnd::Finished)
    }

    /// Sets the timer to this time, unless it fires earlier anyway.
    fn set_timer(&mut self, at: Option<Instant>) {
        if let Some(at) = at.filter(|at| !self.is_timer_set || *at < self.timer.deadline()) {
            self.timer.as_mut().reset(at);
            self.is_timer_set = true;
        }
    }

    /// Handles the timer: checks the acknowledgement time-out and the renewal.
    fn on_timer(&mut self, publisher: &Publisher) -> Result<(), SessionEnd> {
        let now = Instant::now();
        self.is_timer_set = false;
        match self.phase {
            SessionPhase::Open => {
                if self.inflight.ack_deadline().is_some_and(|deadline| deadline <= now) {
                    return Err(SessionEnd::Failed(SessionFailure::NoAcknowledgement));
                }
                match self.planned_renewal.take_if(|(at, _)| *at <= now) {
                    Some((_, cause)) => self.start_renewal(cause),
                    None => {
                        self.set_timer(self.inflight.ack_deadline());
                        self.set_timer(self.renew_at());
                    }
                }
            }
            SessionPhase::Draining => self.disconnect(publisher),
            SessionPhase::Disconnecting => return Err(SessionEnd::Finished),
        }
        Ok(())
    }

    /// Ends the session with DISCONNECT; another one follows.
    fn start_renewal(&mut self, cause: SessionFailure) {
        if self.phase == SessionPhase::Open {
            self.renewal = Some(cause);
            self.start_draining();
        }
    }

    fn start_draining(&mut self) {
        self.phase = SessionPhase::Draining;
        self.is_timer_set = false;
        self.set_timer(Some(Instant::now() + DRAIN_TIMEOUT));
    }

    fn disconnect_when_drained(&mut self, publisher: &Publisher) {
        // A command that the caller has on disk would come again without its acknowledgement.
        let awaits_caller = self.renewal.is_some() && !self.is_outbox_closed;
        let is_inbox_drained = if awaits_caller {
            !self.inbox.has_unacknowledged()
        } else {
            !self.inbox.has_due_acks()
        };
        let is_drained = self.inflight.is_empty() && is_inbox_drained;
        if self.phase == SessionPhase::Draining && is_drained {
            self.disconnect(publisher);
        }
    }

    fn disconnect(&mut self, publisher: &Publisher) {
        if publisher.disconnect().is_err() {
            tracing::warn!("cannot queue DISCONNECT: the broker will publish the will");
        }
        self.phase = SessionPhase::Disconnecting;
        self.is_timer_set = false;
        self.set_timer(Some(Instant::now() + DISCONNECT_TIMEOUT));
    }

    /// Handles the acknowledgements that arrived with the end, and returns its cause.
    async fn finish(
        &mut self,
        connection: &mut BrokerConnection,
        failure: SessionFailure,
    ) -> SessionEnd {
        // Without these, messages that the broker has acknowledged would be sent again.
        for event in connection.driver.buffered_events() {
            if let Err(SessionEnd::Finished) = self.on_event(event).await {
                return SessionEnd::Finished;
            }
        }
        match self.phase {
            SessionPhase::Open => SessionEnd::Failed(connection.stream.refine(failure)),
            SessionPhase::Draining | SessionPhase::Disconnecting => {
                if self.phase == SessionPhase::Draining && self.renewal.is_none() {
                    tracing::warn!(
                        "the connection to the broker ended before DISCONNECT was sent: the broker \
                         will publish the will"
                    );
                }
                self.renewal.take().map_or(SessionEnd::Finished, SessionEnd::Failed)
            }
        }
    }
}

impl Drop for SessionLoop {
    /// Counts the messages that were in flight when the session ended.
    fn drop(&mut self) {
        let open = u64::try_from(self.inflight.len()).unwrap_or(u64::MAX);
        self.metrics.count_messages(MessageOutcome::Interrupted, open);
    }
}

/// Returns the standard's name of a reason code, with the broker's own text.
fn reason_text(code: u8, text: Option<UntrustedText>) -> String {
    let name = reason_code::name(code);
    text.map_or_else(|| name.to_owned(), |text| format!("{name} ({text})"))
}
