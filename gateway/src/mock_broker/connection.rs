//! Serves one connection.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use provisioning::config::{MqttVersion, Qos};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::codec::{self, CodecError, Reply, Request};
use super::{
    Acks, DisconnectKind, Ending, MockBrokerEvent, OnConnect, Pings, PublishedMessage, Script,
};

/// CONNACK of 3.1.1 with "unacceptable protocol version" (3.2.2.3).
const V3_WRONG_VERSION: &[u8] = &[0x20, 2, 0, 1];
/// How long the broker keeps reading from a connection that it ended.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// One connection.
struct ClientConnection {
    script: Arc<Script>,
    events: mpsc::Sender<MockBrokerEvent>,
    /// Client id and version; known after CONNECT.
    client: Option<(String, MqttVersion)>,
    /// Packet ids of QoS 2 between PUBLISH and PUBREL.
    qos2_packet_ids: BTreeSet<u16>,
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
    script: Arc<Script>,
    events: mpsc::Sender<MockBrokerEvent>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = ClientConnection {
        script,
        events,
        client: None,
        qos2_packet_ids: BTreeSet::new(),
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
    if let Err(error) = close(&mut stream, &connection.out).await {
        tracing::debug!(%error, "the last packets could not be sent");
    }
    drop(stream);
    if let Some((client_id, _)) = connection.client {
        let kind = if matches!(reason, EndReason::Disconnect) {
            DisconnectKind::Clean
        } else {
            DisconnectKind::Unclean
        };
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
            }
            self.write_delayed_acks()?;
            stream.write_all(&self.out).await?;
            self.out.clear();
            let due = self.delayed_acks.front().map(|(due, _)| *due);
            select! {
                read = stream.read_buf(&mut buffer) => if read? == 0 { return Ok(()) },
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
                self.on_connect()?;
                self.emit(MockBrokerEvent::Connected(connect)).await
            }
            Request::Publish { packet_id, message } => self.on_publish(packet_id, message).await,
            Request::PubRel(packet_id) => {
                self.qos2_packet_ids.remove(&packet_id);
                self.write(Reply::PubComp(packet_id))
            }
            Request::Subscribe { packet_id, filters } => {
                self.on_subscribe(packet_id, filters).await
            }
            Request::Unsubscribe { packet_id, filters } => {
                self.write(Reply::UnsubAck { packet_id, filters })
            }
            Request::PingReq => {
                if self.script.pings == Pings::Answer {
                    self.write(Reply::PingResp)?;
                }
                self.emit(MockBrokerEvent::Pinged).await
            }
            Request::Disconnect => Err(EndReason::Disconnect),
            Request::Other => Ok(()),
        }
    }

    fn on_connect(&mut self) -> Result<(), EndReason> {
        let Script { connect, session_present, connack: limits, .. } = *self.script;
        match connect {
            OnConnect::Accept => self.write(Reply::ConnAck { code: 0, session_present, limits }),
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
        let refusal = self.refusal_code(&message.topic);
        let is_repeated =
            qos == Qos::ExactlyOnce && refusal.is_none() && !self.qos2_packet_ids.insert(packet_id);
        if refusal.is_none() && !is_repeated {
            self.emit(MockBrokerEvent::Message(message)).await?;
        }
        self.messages += 1;
        if let Some((_, ending)) = self.script.ending.filter(|(at, _)| *at == self.messages) {
            if let Ending::Disconnect(code) = ending {
                self.write(Reply::Disconnect(code))?;
            }
            return Err(EndReason::Scripted);
        }
        let code = refusal.unwrap_or(0);
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
        filters: Vec<String>,
    ) -> Result<(), EndReason> {
        let codes = vec![self.script.subscription; filters.len()];
        self.write(Reply::SubAck { packet_id, codes })?;
        for message in self.script.after_subscribe.clone() {
            self.write(Reply::Publish(message))?;
        }
        self.emit(MockBrokerEvent::Subscribed { filters }).await
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
