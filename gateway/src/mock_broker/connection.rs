//! Serves one connection.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use provisioning::config::{MqttVersion, Qos};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::select;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout};

use super::codec::{self, CodecError, Reply, Request};
use super::core::{BrokerCore, ConnectionId, Output, PublishOutcome};
use super::{
    Acks, ConnectInfo, DisconnectKind, Ending, MockBroker, MockBrokerEvent, OnConnect, Pings,
    PublishedMessage, Script,
};

/// CONNACK of 3.1.1 with "unacceptable protocol version" (3.2.2.3).
const V3_WRONG_VERSION: &[u8] = &[0x20, 2, 0, 1];
/// How long the broker keeps reading from a connection that it ended.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// One connection.
struct ClientConnection {
    id: ConnectionId,
    broker: MockBroker,
    waker: Arc<Notify>,
    script: Arc<Script>,
    events: mpsc::Sender<MockBrokerEvent>,
    /// Client id and version; known after CONNECT.
    client: Option<(String, MqttVersion)>,
    messages: u64,
    reversed_acks: Vec<Reply>,
    delayed_acks: VecDeque<(Instant, Reply)>,
    out: BytesMut,
}

/// Why a connection ends.
#[derive(Debug, Error)]
enum EndReason {
    #[error("the client disconnected")]
    Disconnect,
    #[error("the client disconnected and asked for its will")]
    DisconnectWithWill,
    #[error("another client took over the session")]
    TakenOver,
    #[error("the client closed the connection")]
    Closed,
    #[error("the script ended the connection")]
    Scripted,
    #[error("the receiver of events is gone")]
    ReceiverGone,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Serves one connection to its end.
pub(super) async fn serve<S>(
    mut stream: S,
    broker: MockBroker,
    events: mpsc::Sender<MockBrokerEvent>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (id, script, waker) = broker.register();
    let mut connection = ClientConnection {
        id,
        broker,
        waker,
        script,
        events,
        client: None,
        messages: 0,
        reversed_acks: Vec::new(),
        delayed_acks: VecDeque::new(),
        out: BytesMut::new(),
    };
    let reason = match connection.run(&mut stream).await {
        Ok(()) => EndReason::Closed,
        Err(reason) => reason,
    };
    tracing::debug!(%reason, "a connection of the mock broker ended");
    let kind = if matches!(reason, EndReason::Disconnect) {
        DisconnectKind::Clean
    } else {
        DisconnectKind::Unclean
    };
    connection.broker.unregister(id);
    connection.broker.with_core(|core| core.on_closed(id, kind, Instant::now()));
    if let Err(error) = close(&mut stream, &connection.out).await {
        tracing::debug!(%error, "the last packets could not be sent");
    }
    drop(stream);
    if let Some((client_id, _)) = connection.client {
        let _ = connection.events.send(MockBrokerEvent::Ended { client_id, kind }).await;
    }
}

/// Sends the last packets, closes the sending side, and reads on for up to 1 s: closing a socket
/// with unread bytes sends a reset, which may overtake the last packets.
async fn close<S>(stream: &mut S, last: &[u8]) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(last).await?;
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    let drained = async {
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    timeout(LINGER_TIMEOUT, drained).await.unwrap_or(Ok(()))
}

impl ClientConnection {
    async fn run<S>(&mut self, stream: &mut S) -> Result<(), EndReason>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut buffer = BytesMut::with_capacity(8 * 1024);
        loop {
            while let Some(request) = codec::read(self.version(), &mut buffer)? {
                self.on_request(request).await?;
                // Before the answer to the next packet: a PINGRESP tells a client that everything
                // before it has arrived.
                self.write_outputs()?;
            }
            self.write_delayed_acks()?;
            self.write_outputs()?;
            stream.write_all(&self.out).await?;
            self.out.clear();
            let due = self.delayed_acks.front().map(|(due, _)| *due);
            select! {
                read = stream.read_buf(&mut buffer) => if read? == 0 { return Ok(()) },
                () = self.waker.notified() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    fn version(&self) -> Option<MqttVersion> {
        self.client.as_ref().map(|(_, version)| *version)
    }

    async fn on_request(&mut self, request: Request) -> Result<(), EndReason> {
        match request {
            Request::Connect(connect) => {
                self.client = Some((connect.client_id.clone(), connect.version));
                self.on_connect(&connect)?;
                self.emit(MockBrokerEvent::Connected(connect)).await
            }
            Request::Publish { packet_id, message } => self.on_publish(packet_id, message).await,
            Request::Acked(packet_id) => {
                self.with_core(|core, id| core.on_acked(id, packet_id, Instant::now()));
                self.emit(MockBrokerEvent::Acknowledged).await
            }
            Request::PubRec(packet_id) => {
                self.with_core(|core, id| core.on_pubrec(id, packet_id));
                Ok(())
            }
            Request::PubRel(packet_id) => {
                self.with_core(|core, id| core.on_pubrel(id, packet_id));
                self.write(Reply::PubComp(packet_id))
            }
            Request::Subscribe { packet_id, filters } => {
                self.on_subscribe(packet_id, filters).await
            }
            Request::Unsubscribe { packet_id, filters } => {
                let codes = if self.script.keeps_subscriptions {
                    vec![0; filters.len()]
                } else {
                    self.with_core(|core, id| core.on_unsubscribe(id, &filters))
                };
                self.write(Reply::UnsubAck { packet_id, codes })?;
                self.emit(MockBrokerEvent::Unsubscribed { filters }).await
            }
            Request::PingReq => {
                if self.script.pings == Pings::Answer {
                    self.write(Reply::PingResp)?;
                }
                self.emit(MockBrokerEvent::Pinged).await
            }
            Request::Disconnect { with_will: false } => Err(EndReason::Disconnect),
            Request::Disconnect { with_will: true } => Err(EndReason::DisconnectWithWill),
            Request::Other => Ok(()),
        }
    }

    fn with_core<T>(&self, change: impl FnOnce(&mut BrokerCore, ConnectionId) -> T) -> T {
        self.broker.with_core(|core| change(core, self.id))
    }

    fn on_connect(&mut self, info: &ConnectInfo) -> Result<(), EndReason> {
        let Script { connect, session_present: claims, connack: limits, .. } = *self.script;
        match connect {
            OnConnect::Accept => {
                let now = Instant::now();
                let is_present = self.with_core(|core, id| core.on_connect(id, info, now));
                let session_present = claims || is_present;
                self.write(Reply::ConnAck { code: 0, session_present, limits })?;
                self.with_core(|core, id| core.resume(id, now));
                self.write_outputs()
            }
            OnConnect::Refuse(code) => {
                self.write(Reply::ConnAck { code, session_present: false, limits })?;
                Err(self.reject())
            }
            OnConnect::RefuseVersion => {
                self.write(Reply::Raw(V3_WRONG_VERSION))?;
                Err(self.reject())
            }
            OnConnect::Ignore => Ok(()),
            OnConnect::Close => Err(self.reject()),
        }
    }

    /// Forgets the client, so that its end is not reported.
    fn reject(&mut self) -> EndReason {
        self.client = None;
        EndReason::Scripted
    }

    async fn on_publish(
        &mut self,
        packet_id: u16,
        message: PublishedMessage,
    ) -> Result<(), EndReason> {
        let qos = message.qos;
        let scripted = self.refusal_code(&message.topic).map(PublishOutcome::Refused);
        let outcome = scripted.unwrap_or_else(|| {
            let now = Instant::now();
            self.with_core(|core, id| core.on_publish(id, packet_id, &message, now))
        });
        if outcome == PublishOutcome::Accepted {
            self.emit(MockBrokerEvent::Message(message)).await?;
        }
        self.messages += 1;
        if let Some((_, ending)) = self.script.ending.filter(|(at, _)| *at == self.messages) {
            if let Ending::Disconnect(code) = ending {
                self.write(Reply::Disconnect(code))?;
            }
            return Err(EndReason::Scripted);
        }
        let code = match outcome {
            PublishOutcome::Refused(code) => code,
            PublishOutcome::Accepted | PublishOutcome::Repeated => 0,
        };
        match qos {
            Qos::AtMostOnce => Ok(()),
            Qos::AtLeastOnce => self.acknowledge(Reply::PubAck { packet_id, code }),
            Qos::ExactlyOnce => self.acknowledge(Reply::PubRec { packet_id, code }),
        }
    }

    fn refusal_code(&self, topic: &str) -> Option<u8> {
        let mut refused = self.script.refused_topics.iter();
        refused.find(|(refused, _)| refused == topic).map(|(_, code)| *code)
    }

    fn acknowledge(&mut self, ack: Reply) -> Result<(), EndReason> {
        match self.script.acks {
            Acks::AtOnce => self.write(ack),
            Acks::Never => Ok(()),
            Acks::NotTheFirst if self.messages == 1 => Ok(()),
            Acks::NotTheFirst => self.write(ack),
            Acks::Twice => {
                self.write(ack.clone())?;
                self.write(ack)
            }
            Acks::Reversed(together) => {
                self.reversed_acks.push(ack);
                if self.reversed_acks.len() >= together {
                    while let Some(ack) = self.reversed_acks.pop() {
                        self.write(ack)?;
                    }
                }
                Ok(())
            }
            Acks::Late(after) => {
                self.delayed_acks.push_back((Instant::now() + after, ack));
                Ok(())
            }
        }
    }

    async fn on_subscribe(
        &mut self,
        packet_id: u16,
        filters: Vec<(String, Qos)>,
    ) -> Result<(), EndReason> {
        let scripted = self.script.subscription;
        let granted = |qos| scripted.map_or(qos, qos_of);
        let wanted: Vec<_> =
            filters.into_iter().map(|(filter, qos)| (filter, granted(qos))).collect();
        let codes = match scripted.filter(|code| *code >= 0x80) {
            Some(code) => vec![code; wanted.len()],
            None => self.with_core(|core, id| core.on_subscribe(id, &wanted)),
        };
        self.write(Reply::SubAck { packet_id, codes })?;
        let auto = self.script.auto_subscriptions.iter();
        let auto: Vec<_> = auto.map(|filter| (filter.clone(), Qos::AtLeastOnce)).collect();
        self.with_core(|core, id| core.on_subscribe(id, &auto));
        self.with_core(|core, id| core.send_retained(id, &wanted, Instant::now()));
        for message in self.script.after_subscribe.clone() {
            self.write(Reply::Publish { packet_id: 0, dup: false, message })?;
        }
        let filters = wanted.into_iter().map(|(filter, _)| filter).collect();
        self.emit(MockBrokerEvent::Subscribed { filters }).await
    }

    /// Writes what the state of the broker has for this client.
    fn write_outputs(&mut self) -> Result<(), EndReason> {
        for output in self.with_core(|core, id| core.take_outputs(id, Instant::now())) {
            match output {
                Output::Send(packet) => self.write(packet)?,
                Output::Close => return Err(EndReason::TakenOver),
            }
        }
        Ok(())
    }

    fn write_delayed_acks(&mut self) -> Result<(), EndReason> {
        let now = Instant::now();
        while let Some((_, ack)) = self.delayed_acks.pop_front_if(|(due, _)| *due <= now) {
            self.write(ack)?;
        }
        Ok(())
    }

    fn write(&mut self, reply: Reply) -> Result<(), EndReason> {
        let version = self.version().unwrap_or(MqttVersion::V311);
        Ok(codec::write(version, reply, &mut self.out)?)
    }

    async fn emit(&self, event: MockBrokerEvent) -> Result<(), EndReason> {
        self.events.send(event).await.map_err(|_| EndReason::ReceiverGone)
    }
}

const fn qos_of(code: u8) -> Qos {
    match code {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    }
}
