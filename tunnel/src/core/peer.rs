//! One peer's keys and sessions. The only file that names boringtun's `Tunn`.
//!
//! boringtun keeps its own clock and its own mind about when to begin a handshake. Here its calls
//! become results without borrowed buffers, its panics become a result, and the age of its sessions
//! is known, so that the rest of the core can decide when to do what.

use std::fmt;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::{Tunn, TunnResult};

use super::counters::DropReason;
use super::limiter::HandshakeLimiter;
use super::wire;
use crate::key::{PresharedKey, PrivateKey, PublicKey};

/// What WireGuard adds to a packet.
pub(super) const DATA_OVERHEAD: usize = 32;
/// Room that every message of a handshake and every keepalive needs.
pub(super) const MAX_HANDSHAKE_LEN: usize = 148;
/// Room for a keepalive only: boringtun computes no initiation that it has no room for, and goes on
/// remembering the two that were sent last, whose answers may still come.
pub(super) const KEEPALIVE_LEN: usize = DATA_OVERHEAD;
/// The other end may refuse a session from 180 s on (REJECT_AFTER_TIME), by its own clock and
/// after the way there.
const SESSION_USABLE_FOR: Duration = Duration::from_secs(170);
/// boringtun sees time pass only when it is told to look.
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// The same for a peer that has nothing to do: a box that idles should sleep.
const IDLE_TICK_INTERVAL: Duration = Duration::from_secs(10);
/// boringtun may have something to send this long after the last datagram: a keepalive after 10 s,
/// an initiation after 15 s.
const BUSY_AFTER_USE: Duration = Duration::from_secs(16);
/// Whoever got data and has sent nothing since sends a keepalive (KEEPALIVE_TIMEOUT). boringtun
/// forgets it when both were in the same tick, and the other end then begins a handshake to see
/// whether we live.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The same before a handshake, whose moment decides about the age of a session.
const HANDSHAKE_TICK_INTERVAL: Duration = Duration::from_millis(250);

/// Who the other end is.
#[derive(Clone, Debug)]
pub(super) struct PeerKeys {
    pub(super) private_key: PrivateKey,
    pub(super) public_key: PublicKey,
    pub(super) preshared_key: Option<PresharedKey>,
}

/// The keys and sessions with one peer.
pub(super) struct Peer {
    tunn: Box<Tunn>,
    index: u32,
    last_tick: Instant,
    /// The clocks have jumped since: boringtun may know of time that we do not.
    is_marked_stale: bool,
    /// When the last datagram passed.
    last_used: Instant,
    /// When the session that is used for sending began.
    sending_since: Option<Instant>,
    /// When a keepalive is due, because data came and nothing was sent since.
    keepalive_due: Option<Instant>,
    /// A session that we answered and that the other end has not used yet, and since when.
    unconfirmed: Option<(u32, Instant)>,
}

/// What a data datagram was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Decrypted {
    /// A packet of this length.
    Packet(usize),
    /// A keepalive.
    KeepAlive,
    /// Authentic, but no packet.
    NotAPacket,
    /// Neither.
    Dropped(DropReason),
    /// boringtun panicked.
    Panicked,
}

/// What a handshake datagram was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum HandshakeOutcome {
    /// The answer to our initiation; the keepalive of this length confirms the session.
    Established(usize),
    /// An initiation; the response has this length.
    Responded(usize),
    /// We are under load; the cookie reply has this length.
    CookieSent(usize),
    /// The other end is under load; its cookie goes into our next initiation.
    CookieReceived,
    /// None of these.
    Dropped(DropReason),
    /// boringtun panicked.
    Panicked,
}

/// What became of a packet to be encrypted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Encrypted {
    /// A datagram of this length.
    Datagram(usize),
    /// boringtun has no session any more.
    NoSession,
    /// boringtun panicked.
    Panicked,
}

/// What boringtun wants to send because time has passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TimerOutcome {
    Nothing,
    Initiation(usize),
    KeepAlive(usize),
    Panicked,
}

impl Peer {
    /// Takes 24 random bits for `index`. `None` if the wall clock is before 1970.
    pub(super) fn new(
        identity: &PeerKeys,
        index: u32,
        limiter: &HandshakeLimiter,
        now: Instant,
    ) -> Option<Self> {
        let index = index & wire::PEER_INDEX_MASK;
        let tunn = catch_unwind(AssertUnwindSafe(|| {
            let preshared_key = identity.preshared_key.as_ref().map(|key| *key.bytes());
            let mut tunn = Tunn::new(
                identity.private_key.to_static_secret(),
                identity.public_key.to_x25519(),
                preshared_key,
                None,
                index,
                Some(Arc::clone(limiter.inner())),
            );
            // Else a handshake in the first second is taken to have been at time 0.
            let mut room = [0; MAX_HANDSHAKE_LEN];
            tunn.update_timers(&mut room);
            tunn
        }));
        let tunn = Box::new(tunn.ok()?);
        let (ticked, used, is_doubtful) = (now, now, false);
        let (sending, owed, answered) = (None, None, None);
        Some(Self {
            tunn,
            index,
            last_tick: ticked,
            is_marked_stale: is_doubtful,
            last_used: used,
            sending_since: sending,
            keepalive_due: owed,
            unconfirmed: answered,
        })
    }

    /// The upper 24 bits of the receiver index of every datagram to us.
    pub(super) const fn index(&self) -> u32 {
        self.index
    }

    /// When the session that is used for sending began; `None` when it may not be used any more.
    pub(super) fn session_start(&self, now: Instant) -> Option<Instant> {
        self.sending_since.filter(|since| now < *since + SESSION_USABLE_FOR)
    }

    /// When [`Peer::tick`] has something to do at the latest.
    pub(super) fn next_tick_at(&self) -> Instant {
        let is_busy = self.last_tick < self.last_used + BUSY_AFTER_USE;
        let at = self.last_tick + if is_busy { TICK_INTERVAL } else { IDLE_TICK_INTERVAL };
        let at = if self.is_marked_stale { self.last_tick } else { at };
        self.keepalive_due.map_or(at, |owed| at.min(owed))
    }

    /// The clocks have jumped, perhaps because the machine has slept: boringtun has to see the time
    /// before anything passes.
    pub(super) const fn mark_stale(&mut self) {
        self.is_marked_stale = true;
    }

    /// The session is of no use any more; its stamps are.
    pub(super) const fn discard_session(&mut self) {
        (self.sending_since, self.keepalive_due, self.unconfirmed) = (None, None, None);
        self.is_marked_stale = true;
    }

    /// Lets boringtun see the time. `room` holds [`HANDSHAKE_ROOM`], or [`KEEPALIVE_ROOM`] for a peer
    /// that is to begin no handshake by itself.
    pub(super) fn update_timers(&mut self, now: Instant, room: &mut [u8]) -> TimerOutcome {
        (self.last_tick, self.is_marked_stale) = (now, false);
        let Self { tunn, .. } = self;
        let seen = catch_unwind(AssertUnwindSafe(|| {
            let message = network_message(tunn.update_timers(room));
            let message = message.map(|message| (wire::message_type(message), message.len()));
            (message, tunn.time_since_last_handshake().is_some())
        }));
        let Ok((message, has_session)) = seen else { return TimerOutcome::Panicked };
        if !has_session {
            // It has expired by boringtun's clock, which counts time asleep. What is given to
            // boringtun to encrypt now would wait there, for nothing.
            self.sending_since = None;
        }
        match message {
            Some((Some(wire::MessageType::Initiation), length)) => TimerOutcome::Initiation(length),
            Some((_, length)) if self.session_start(now).is_some() => {
                self.keepalive_due = None;
                TimerOutcome::KeepAlive(length)
            }
            _ if self.keepalive_due.take_if(|owed| now >= *owed).is_some() => {
                self.send_keepalive(now, room)
            }
            _ => TimerOutcome::Nothing,
        }
    }

    fn send_keepalive(&mut self, now: Instant, room: &mut [u8]) -> TimerOutcome {
        if self.session_start(now).is_none() {
            return TimerOutcome::Nothing;
        }
        match self.encrypt(now, &[], room) {
            Encrypted::Datagram(length) => TimerOutcome::KeepAlive(length),
            Encrypted::NoSession => TimerOutcome::Nothing,
            Encrypted::Panicked => TimerOutcome::Panicked,
        }
    }

    /// Whether boringtun has not seen the time for so long that data must not pass before it does.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.is_marked_stale || now > self.last_tick + TICK_INTERVAL
    }

    /// The same for a handshake.
    pub(super) fn is_stale_for_handshake(&self, now: Instant) -> bool {
        self.is_marked_stale || now > self.last_tick + HANDSHAKE_TICK_INTERVAL
    }

    /// Encrypts a packet, or a keepalive when it is empty, into `room`: [`OVERHEAD`] longer than the
    /// packet. Only while there is a [`Peer::session`].
    pub(super) fn encrypt(&mut self, now: Instant, packet: &[u8], room: &mut [u8]) -> Encrypted {
        self.last_used = now;
        let Self { tunn, .. } = self;
        let sealed = catch_unwind(AssertUnwindSafe(|| {
            let message = network_message(tunn.encapsulate(packet, room));
            message
                .filter(|message| wire::is_data(message))
                .map_or(Encrypted::NoSession, |message| Encrypted::Datagram(message.len()))
        }));
        let sealed = sealed.unwrap_or(Encrypted::Panicked);
        self.keepalive_due = None;
        if !matches!(sealed, Encrypted::Datagram(_)) {
            self.sending_since = None;
        }
        sealed
    }

    /// Decrypts a data datagram into `room`, which is as long as the datagram.
    pub(super) fn decrypt(
        &mut self,
        now: Instant,
        receiver: u32,
        datagram: &[u8],
        room: &mut [u8],
    ) -> Decrypted {
        self.last_used = now;
        let Self { tunn, .. } = self;
        let opened =
            catch_unwind(AssertUnwindSafe(|| match tunn.decapsulate(None, datagram, room) {
                TunnResult::WriteToTunnelV4(packet, _) => Decrypted::Packet(packet.len()),
                TunnResult::WriteToTunnelV6(packet, _) => Decrypted::Packet(packet.len()),
                TunnResult::Done => Decrypted::KeepAlive,
                // It was parsed before: this is the verdict on what was decrypted.
                TunnResult::Err(WireGuardError::InvalidPacket) => Decrypted::NotAPacket,
                TunnResult::Err(error) => Decrypted::Dropped(drop_reason(&error)),
                TunnResult::WriteToNetwork(_) => Decrypted::Dropped(DropReason::Malformed),
            }));
        let opened = opened.unwrap_or(Decrypted::Panicked);
        if !matches!(opened, Decrypted::Dropped(_) | Decrypted::Panicked) {
            self.confirm_session(receiver);
        }
        if matches!(opened, Decrypted::Packet(_) | Decrypted::NotAPacket) {
            self.keepalive_due.get_or_insert(now + KEEPALIVE_TIMEOUT);
        }
        opened
    }

    /// A session that we answered may be used from the other end's first use on.
    fn confirm_session(&mut self, receiver: u32) {
        if let Some((_, since)) = self.unconfirmed.take_if(|(index, _)| *index == receiver) {
            self.sending_since = Some(since);
        }
    }

    /// Takes a handshake message; what answers it is written to `room`, at least
    /// [`HANDSHAKE_ROOM`] long.
    pub(super) fn handle_handshake(
        &mut self,
        now: Instant,
        from: IpAddr,
        datagram: &[u8],
        room: &mut [u8],
    ) -> HandshakeOutcome {
        self.last_used = now;
        let Self { tunn, .. } = self;
        let shaken =
            catch_unwind(AssertUnwindSafe(|| match tunn.decapsulate(Some(from), datagram, room) {
                TunnResult::WriteToNetwork(answer) => classify_reply(answer),
                TunnResult::Done => (HandshakeOutcome::CookieReceived, 0),
                TunnResult::Err(error) => (HandshakeOutcome::Dropped(drop_reason(&error)), 0),
                TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => {
                    (HandshakeOutcome::Dropped(DropReason::Malformed), 0)
                }
            }));
        let (shaken, index) = shaken.unwrap_or((HandshakeOutcome::Panicked, 0));
        match shaken {
            HandshakeOutcome::Established(_) => {
                (self.sending_since, self.keepalive_due) = (Some(now), None)
            }
            HandshakeOutcome::Responded(_) => self.unconfirmed = Some((index, now)),
            HandshakeOutcome::CookieSent(_)
            | HandshakeOutcome::CookieReceived
            | HandshakeOutcome::Dropped(_)
            | HandshakeOutcome::Panicked => {}
        }
        shaken
    }

    /// Begins a handshake, whatever is in flight. `None` when boringtun panicked.
    pub(super) fn initiate(&mut self, now: Instant, room: &mut [u8]) -> Option<usize> {
        self.last_used = now;
        let Self { tunn, .. } = self;
        let initiation = catch_unwind(AssertUnwindSafe(|| {
            network_message(tunn.format_handshake_initiation(room, true))
                .map(|message| message.len())
        }));
        initiation.ok().flatten()
    }
}

fn network_message(result: TunnResult<'_>) -> Option<&[u8]> {
    if let TunnResult::WriteToNetwork(message) = result { Some(message) } else { None }
}

fn classify_reply(answer: &[u8]) -> (HandshakeOutcome, u32) {
    let length = answer.len();
    match wire::message_type(answer) {
        Some(wire::MessageType::Data) => (HandshakeOutcome::Established(length), 0),
        Some(wire::MessageType::Response) => {
            (HandshakeOutcome::Responded(length), wire::sender_index(answer).unwrap_or_default())
        }
        Some(wire::MessageType::CookieReply) => (HandshakeOutcome::CookieSent(length), 0),
        Some(wire::MessageType::Initiation) | None => {
            (HandshakeOutcome::Dropped(DropReason::Malformed), 0)
        }
    }
}

pub(super) const fn drop_reason(error: &WireGuardError) -> DropReason {
    match error {
        WireGuardError::InvalidCounter
        | WireGuardError::DuplicateCounter
        | WireGuardError::WrongTai64nTimestamp => DropReason::Replayed,
        WireGuardError::InvalidAeadTag => DropReason::Undecryptable,
        WireGuardError::NoCurrentSession
        | WireGuardError::WrongIndex
        | WireGuardError::WrongKey
        | WireGuardError::UnexpectedPacket
        | WireGuardError::ConnectionExpired => DropReason::Stranger,
        WireGuardError::DestinationBufferTooSmall
        | WireGuardError::IncorrectPacketLength
        | WireGuardError::WrongPacketType
        | WireGuardError::InvalidTai64nTimestamp
        | WireGuardError::InvalidMac
        | WireGuardError::InvalidPacket
        | WireGuardError::LockFailed
        | WireGuardError::UnderLoad => DropReason::Malformed,
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("index", &self.index)
            .field("sending", &self.sending_since)
            .finish_non_exhaustive()
    }
}
