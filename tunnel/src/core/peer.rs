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
use super::limiter::Limiter;
use super::wire;
use crate::key::{PresharedKey, PrivateKey, PublicKey};

/// What WireGuard adds to a packet.
pub(super) const OVERHEAD: usize = 32;
/// Room that every message of a handshake and every keepalive needs.
pub(super) const HANDSHAKE_ROOM: usize = 148;
/// Room for a keepalive only: boringtun computes no initiation that it has no room for, and goes on
/// remembering the two that were sent last, whose answers may still come.
pub(super) const KEEPALIVE_ROOM: usize = OVERHEAD;
/// The other end may refuse a session from 180 s on (REJECT_AFTER_TIME), by its own clock and
/// after the way there.
const SENDABLE: Duration = Duration::from_secs(170);
/// boringtun sees time pass only when it is told to look.
const TICK: Duration = Duration::from_secs(1);
/// The same for a peer that has nothing to do: a box that idles should sleep.
const IDLE_TICK: Duration = Duration::from_secs(10);
/// boringtun may have something to send this long after the last datagram: a keepalive after 10 s,
/// an initiation after 15 s.
const BUSY: Duration = Duration::from_secs(16);
/// Whoever got data and has sent nothing since sends a keepalive (KEEPALIVE_TIMEOUT). boringtun
/// forgets it when both were in the same tick, and the other end then begins a handshake to see
/// whether we live.
const OWED: Duration = Duration::from_secs(10);
/// The same before a handshake, whose moment decides about the age of a session.
const FINE_TICK: Duration = Duration::from_millis(250);

/// Who the other end is.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) private_key: PrivateKey,
    pub(super) public_key: PublicKey,
    pub(super) preshared_key: Option<PresharedKey>,
}

/// The keys and sessions with one peer.
pub(super) struct Peer {
    tunn: Box<Tunn>,
    index: u32,
    ticked: Instant,
    /// The clocks have jumped since: boringtun may know of time that we do not.
    is_doubtful: bool,
    /// When the last datagram passed.
    used: Instant,
    /// When the session that is used for sending began.
    sending: Option<Instant>,
    /// When a keepalive is due, because data came and nothing was sent since.
    owed: Option<Instant>,
    /// A session that we answered and that the other end has not used yet, and since when.
    answered: Option<(u32, Instant)>,
}

/// What a data datagram was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Opened {
    /// A packet of this length.
    Packet(usize),
    /// A keepalive.
    KeepAlive,
    /// Authentic, but no packet.
    NoPacket,
    /// Neither.
    Dropped(DropReason),
    /// boringtun panicked.
    Panicked,
}

/// What a handshake datagram was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shaken {
    /// The answer to our initiation; the keepalive of this length confirms the session.
    Established(usize),
    /// An initiation; the response has this length.
    Answered(usize),
    /// We are under load; the cookie reply has this length.
    Cookie(usize),
    /// The other end is under load; its cookie goes into our next initiation.
    CookieTaken,
    /// None of these.
    Dropped(DropReason),
    /// boringtun panicked.
    Panicked,
}

/// What became of a packet to be encrypted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sealed {
    /// A datagram of this length.
    Datagram(usize),
    /// boringtun has no session any more.
    NoSession,
    /// boringtun panicked.
    Panicked,
}

/// What boringtun wants to send because time has passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ticked {
    Nothing,
    Initiation(usize),
    KeepAlive(usize),
    Panicked,
}

impl Peer {
    /// Takes 24 random bits for `index`. `None` if the wall clock is before 1970.
    pub(super) fn new(
        identity: &Identity,
        index: u32,
        limiter: &Limiter,
        now: Instant,
    ) -> Option<Self> {
        let index = index & wire::INDEX_MASK;
        let tunn = catch_unwind(AssertUnwindSafe(|| {
            let preshared_key = identity.preshared_key.as_ref().map(|key| *key.bytes());
            let mut tunn = Tunn::new(
                identity.private_key.secret(),
                identity.public_key.point(),
                preshared_key,
                None,
                index,
                Some(Arc::clone(limiter.shared())),
            );
            // Else a handshake in the first second is taken to have been at time 0.
            let mut room = [0; HANDSHAKE_ROOM];
            tunn.update_timers(&mut room);
            tunn
        }));
        let tunn = Box::new(tunn.ok()?);
        let (ticked, used, is_doubtful) = (now, now, false);
        let (sending, owed, answered) = (None, None, None);
        Some(Self { tunn, index, ticked, is_doubtful, used, sending, owed, answered })
    }

    /// The upper 24 bits of the receiver index of every datagram to us.
    pub(super) const fn index(&self) -> u32 {
        self.index
    }

    /// When the session that is used for sending began; `None` when it may not be used any more.
    pub(super) fn session(&self, now: Instant) -> Option<Instant> {
        self.sending.filter(|since| now < *since + SENDABLE)
    }

    /// When [`Peer::tick`] has something to do at the latest.
    pub(super) fn tick_at(&self) -> Instant {
        let is_busy = self.ticked < self.used + BUSY;
        let at = self.ticked + if is_busy { TICK } else { IDLE_TICK };
        let at = if self.is_doubtful { self.ticked } else { at };
        self.owed.map_or(at, |owed| at.min(owed))
    }

    /// The clocks have jumped, perhaps because the machine has slept: boringtun has to see the time
    /// before anything passes.
    pub(super) const fn doubt(&mut self) {
        self.is_doubtful = true;
    }

    /// The session is of no use any more; its stamps are.
    pub(super) const fn rest(&mut self) {
        (self.sending, self.owed, self.answered) = (None, None, None);
        self.is_doubtful = true;
    }

    /// Lets boringtun see the time. `room` holds [`HANDSHAKE_ROOM`], or [`KEEPALIVE_ROOM`] for a peer
    /// that is to begin no handshake by itself.
    pub(super) fn tick(&mut self, now: Instant, room: &mut [u8]) -> Ticked {
        (self.ticked, self.is_doubtful) = (now, false);
        let Self { tunn, .. } = self;
        let seen = catch_unwind(AssertUnwindSafe(|| {
            let message = to_network(tunn.update_timers(room));
            let message = message.map(|message| (wire::kind(message), message.len()));
            (message, tunn.time_since_last_handshake().is_some())
        }));
        let Ok((message, has_session)) = seen else { return Ticked::Panicked };
        if !has_session {
            // It has expired by boringtun's clock, which counts time asleep. What is given to
            // boringtun to encrypt now would wait there, for nothing.
            self.sending = None;
        }
        match message {
            Some((Some(wire::Kind::Initiation), length)) => Ticked::Initiation(length),
            Some((_, length)) if self.session(now).is_some() => {
                self.owed = None;
                Ticked::KeepAlive(length)
            }
            _ if self.owed.take_if(|owed| now >= *owed).is_some() => self.keep_alive(now, room),
            _ => Ticked::Nothing,
        }
    }

    fn keep_alive(&mut self, now: Instant, room: &mut [u8]) -> Ticked {
        if self.session(now).is_none() {
            return Ticked::Nothing;
        }
        match self.seal(now, &[], room) {
            Sealed::Datagram(length) => Ticked::KeepAlive(length),
            Sealed::NoSession => Ticked::Nothing,
            Sealed::Panicked => Ticked::Panicked,
        }
    }

    /// Whether boringtun has not seen the time for so long that data must not pass before it does.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.is_doubtful || now > self.ticked + TICK
    }

    /// The same for a handshake.
    pub(super) fn is_stale_for_handshake(&self, now: Instant) -> bool {
        self.is_doubtful || now > self.ticked + FINE_TICK
    }

    /// Encrypts a packet, or a keepalive when it is empty, into `room`: [`OVERHEAD`] longer than the
    /// packet. Only while there is a [`Peer::session`].
    pub(super) fn seal(&mut self, now: Instant, packet: &[u8], room: &mut [u8]) -> Sealed {
        self.used = now;
        let Self { tunn, .. } = self;
        let sealed = catch_unwind(AssertUnwindSafe(|| {
            let message = to_network(tunn.encapsulate(packet, room));
            message
                .filter(|message| wire::is_data(message))
                .map_or(Sealed::NoSession, |message| Sealed::Datagram(message.len()))
        }));
        let sealed = sealed.unwrap_or(Sealed::Panicked);
        self.owed = None;
        if !matches!(sealed, Sealed::Datagram(_)) {
            self.sending = None;
        }
        sealed
    }

    /// Decrypts a data datagram into `room`, which is as long as the datagram.
    pub(super) fn open(
        &mut self,
        now: Instant,
        receiver: u32,
        datagram: &[u8],
        room: &mut [u8],
    ) -> Opened {
        self.used = now;
        let Self { tunn, .. } = self;
        let opened =
            catch_unwind(AssertUnwindSafe(|| match tunn.decapsulate(None, datagram, room) {
                TunnResult::WriteToTunnelV4(packet, _) => Opened::Packet(packet.len()),
                TunnResult::WriteToTunnelV6(packet, _) => Opened::Packet(packet.len()),
                TunnResult::Done => Opened::KeepAlive,
                // It was parsed before: this is the verdict on what was decrypted.
                TunnResult::Err(WireGuardError::InvalidPacket) => Opened::NoPacket,
                TunnResult::Err(error) => Opened::Dropped(reason(&error)),
                TunnResult::WriteToNetwork(_) => Opened::Dropped(DropReason::Malformed),
            }));
        let opened = opened.unwrap_or(Opened::Panicked);
        if !matches!(opened, Opened::Dropped(_) | Opened::Panicked) {
            self.confirm(receiver);
        }
        if matches!(opened, Opened::Packet(_) | Opened::NoPacket) {
            self.owed.get_or_insert(now + OWED);
        }
        opened
    }

    /// A session that we answered may be used from the other end's first use on.
    fn confirm(&mut self, receiver: u32) {
        if let Some((_, since)) = self.answered.take_if(|(index, _)| *index == receiver) {
            self.sending = Some(since);
        }
    }

    /// Takes a handshake message; what answers it is written to `room`, at least
    /// [`HANDSHAKE_ROOM`] long.
    pub(super) fn shake(
        &mut self,
        now: Instant,
        from: IpAddr,
        datagram: &[u8],
        room: &mut [u8],
    ) -> Shaken {
        self.used = now;
        let Self { tunn, .. } = self;
        let shaken =
            catch_unwind(AssertUnwindSafe(|| match tunn.decapsulate(Some(from), datagram, room) {
                TunnResult::WriteToNetwork(answer) => answered(answer),
                TunnResult::Done => (Shaken::CookieTaken, 0),
                TunnResult::Err(error) => (Shaken::Dropped(reason(&error)), 0),
                TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => {
                    (Shaken::Dropped(DropReason::Malformed), 0)
                }
            }));
        let (shaken, index) = shaken.unwrap_or((Shaken::Panicked, 0));
        match shaken {
            Shaken::Established(_) => (self.sending, self.owed) = (Some(now), None),
            Shaken::Answered(_) => self.answered = Some((index, now)),
            Shaken::Cookie(_) | Shaken::CookieTaken | Shaken::Dropped(_) | Shaken::Panicked => {}
        }
        shaken
    }

    /// Begins a handshake, whatever is in flight. `None` when boringtun panicked.
    pub(super) fn initiate(&mut self, now: Instant, room: &mut [u8]) -> Option<usize> {
        self.used = now;
        let Self { tunn, .. } = self;
        let initiation = catch_unwind(AssertUnwindSafe(|| {
            to_network(tunn.format_handshake_initiation(room, true)).map(|message| message.len())
        }));
        initiation.ok().flatten()
    }
}

fn to_network(result: TunnResult<'_>) -> Option<&[u8]> {
    if let TunnResult::WriteToNetwork(message) = result { Some(message) } else { None }
}

fn answered(answer: &[u8]) -> (Shaken, u32) {
    let length = answer.len();
    match wire::kind(answer) {
        Some(wire::Kind::Data) => (Shaken::Established(length), 0),
        Some(wire::Kind::Response) => {
            (Shaken::Answered(length), wire::sender(answer).unwrap_or_default())
        }
        Some(wire::Kind::Cookie) => (Shaken::Cookie(length), 0),
        Some(wire::Kind::Initiation) | None => (Shaken::Dropped(DropReason::Malformed), 0),
    }
}

pub(super) const fn reason(error: &WireGuardError) -> DropReason {
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
            .field("sending", &self.sending)
            .finish_non_exhaustive()
    }
}
