//! What the sink does with one connection.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use provisioning::config::{Qos, Version};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::codec::{self, CodecError, Reply, Request};
use super::{Acks, Ending, Heard, Message, OnConnect, Parting, Pings, Script};

/// CONNACK of 3.1.1 with "unacceptable protocol version" (3.2.2.3).
const WRONG_VERSION: &[u8] = &[0x20, 2, 0, 1];
/// How long a connection that the sink ended is read on.
const PARTING: Duration = Duration::from_secs(1);

/// One connection.
struct Peer {
    script: Arc<Script>,
    heard: mpsc::Sender<Heard>,
    /// Known from CONNECT on.
    client: Option<(String, Version)>,
    /// Packet ids of QoS 2 between PUBLISH and PUBREL.
    taken: BTreeSet<u16>,
    messages: u64,
    held: Vec<Reply>,
    late: VecDeque<(Instant, Reply)>,
    out: BytesMut,
}

/// Why a connection ends.
#[derive(Debug, Error)]
enum Stop {
    #[error("the client said goodbye")]
    Goodbye,
    #[error("the client went away")]
    Gone,
    #[error("the script says so")]
    Scripted,
    #[error("nobody listens to the sink")]
    Unheard,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Serves one connection to its end.
pub(super) async fn serve<S>(mut stream: S, script: Arc<Script>, heard: mpsc::Sender<Heard>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut peer = Peer {
        script,
        heard,
        client: None,
        taken: BTreeSet::new(),
        messages: 0,
        held: Vec::new(),
        late: VecDeque::new(),
        out: BytesMut::new(),
    };
    let stop = match peer.talk(&mut stream).await {
        Ok(()) => Stop::Gone,
        Err(stop) => stop,
    };
    tracing::debug!(%stop, "a connection of the sink is over");
    if let Err(error) = part(&mut stream, &peer.out).await {
        tracing::debug!(%error, "the last words did not arrive");
    }
    drop(stream);
    if let Some((client_id, _)) = peer.client {
        let parting = if matches!(stop, Stop::Goodbye) { Parting::Goodbye } else { Parting::Lost };
        let _ = peer.heard.send(Heard::Ended { client_id, parting }).await;
    }
}

/// Sends the last words and reads on for a moment: a close with unread bytes is a reset, which may
/// overtake the words.
async fn part<S>(stream: &mut S, words: &[u8]) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(words).await?;
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    let drained = async {
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    timeout(PARTING, drained).await.unwrap_or(Ok(()))
}

impl Peer {
    async fn talk<S>(&mut self, stream: &mut S) -> Result<(), Stop>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut buffer = BytesMut::with_capacity(8 * 1024);
        loop {
            while let Some(request) = codec::read(self.version(), &mut buffer)? {
                self.answer(request).await?;
            }
            self.write_late()?;
            stream.write_all(&self.out).await?;
            self.out.clear();
            let due = self.late.front().map(|(due, _)| *due);
            select! {
                read = stream.read_buf(&mut buffer) => if read? == 0 { return Ok(()) },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    fn version(&self) -> Option<Version> {
        self.client.as_ref().map(|(_, version)| *version)
    }

    async fn answer(&mut self, request: Request) -> Result<(), Stop> {
        match request {
            Request::Connect(hello) => {
                self.client = Some((hello.client_id.clone(), hello.version));
                self.greet()?;
                self.tell(Heard::Connected(hello)).await
            }
            Request::Publish { packet_id, message } => self.publish(packet_id, message).await,
            Request::PubRel(packet_id) => {
                self.taken.remove(&packet_id);
                self.write(Reply::PubComp(packet_id))
            }
            Request::Subscribe { packet_id, filters } => self.subscribe(packet_id, filters).await,
            Request::Unsubscribe { packet_id, filters } => {
                self.write(Reply::UnsubAck { packet_id, filters })
            }
            Request::PingReq => {
                if self.script.pings == Pings::Answer {
                    self.write(Reply::PingResp)?;
                }
                self.tell(Heard::Pinged).await
            }
            Request::Disconnect => Err(Stop::Goodbye),
            Request::Other => Ok(()),
        }
    }

    fn greet(&mut self) -> Result<(), Stop> {
        let Script { connect, session_present, limits, .. } = *self.script;
        match connect {
            OnConnect::Accept => self.write(Reply::ConnAck { code: 0, session_present, limits }),
            OnConnect::Refuse(code) => {
                self.write(Reply::ConnAck { code, session_present: false, limits })?;
                Err(self.forget())
            }
            OnConnect::RefuseVersion => {
                self.write(Reply::Raw(WRONG_VERSION))?;
                Err(self.forget())
            }
            OnConnect::Ignore => Ok(()),
            OnConnect::Close => Err(self.forget()),
        }
    }

    /// A client that was turned away was never here.
    fn forget(&mut self) -> Stop {
        self.client = None;
        Stop::Scripted
    }

    async fn publish(&mut self, packet_id: u16, message: Message) -> Result<(), Stop> {
        let qos = message.qos;
        let refusal = self.refusal(&message.topic);
        let again = qos == Qos::ExactlyOnce && refusal.is_none() && !self.taken.insert(packet_id);
        if refusal.is_none() && !again {
            self.tell(Heard::Message(message)).await?;
        }
        self.messages += 1;
        if let Some((_, ending)) = self.script.ending.filter(|(at, _)| *at == self.messages) {
            if let Ending::Disconnect(code) = ending {
                self.write(Reply::Disconnect(code))?;
            }
            return Err(Stop::Scripted);
        }
        let code = refusal.unwrap_or(0);
        match qos {
            Qos::AtMostOnce => Ok(()),
            Qos::AtLeastOnce => self.acknowledge(Reply::PubAck { packet_id, code }),
            Qos::ExactlyOnce => self.acknowledge(Reply::PubRec { packet_id, code }),
        }
    }

    fn refusal(&self, topic: &str) -> Option<u8> {
        let mut refused = self.script.refused_topics.iter();
        refused.find(|(refused, _)| refused == topic).map(|(_, code)| *code)
    }

    fn acknowledge(&mut self, ack: Reply) -> Result<(), Stop> {
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
                self.held.push(ack);
                if self.held.len() >= together {
                    while let Some(ack) = self.held.pop() {
                        self.write(ack)?;
                    }
                }
                Ok(())
            }
            Acks::Late(after) => {
                self.late.push_back((Instant::now() + after, ack));
                Ok(())
            }
        }
    }

    async fn subscribe(&mut self, packet_id: u16, filters: Vec<String>) -> Result<(), Stop> {
        let codes = vec![self.script.subscription; filters.len()];
        self.write(Reply::SubAck { packet_id, codes })?;
        for message in self.script.greetings.clone() {
            self.write(Reply::Publish(message))?;
        }
        self.tell(Heard::Subscribed { filters }).await
    }

    fn write_late(&mut self) -> Result<(), Stop> {
        let now = Instant::now();
        while let Some((_, ack)) = self.late.pop_front_if(|(due, _)| *due <= now) {
            self.write(ack)?;
        }
        Ok(())
    }

    fn write(&mut self, reply: Reply) -> Result<(), Stop> {
        let version = self.version().unwrap_or(Version::V311);
        Ok(codec::write(version, reply, &mut self.out)?)
    }

    async fn tell(&self, heard: Heard) -> Result<(), Stop> {
        self.heard.send(heard).await.map_err(|_| Stop::Unheard)
    }
}
