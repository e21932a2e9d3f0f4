//! The keys and sessions of one peer. The only module that uses boringtun's `Tunn`.
//!
//! boringtun reads its own clock and decides itself when to begin a handshake. This module turns
//! its results into values without borrowed buffers and its panics into results, and tracks the age
//! of its sessions, so that the rest of the core can decide instead.

use std::fmt;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::{Tunn, TunnResult};
use nix::time::{ClockId, clock_gettime};

use super::clock::Now;
use super::counters::DropReason;
use super::limiter::HandshakeLimiter;
use super::wire;
use crate::key::{PresharedKey, PrivateKey, PublicKey};

/// Bytes that WireGuard adds to a packet.
pub(super) const DATA_OVERHEAD: usize = 32;
/// Length that holds every handshake message and every keepalive.
pub(super) const MAX_HANDSHAKE_LEN: usize = 148;
/// Length of a keepalive. With a buffer of this length boringtun makes no initiation, and keeps the
/// state of the last two, whose responses may still arrive.
pub(super) const KEEPALIVE_LEN: usize = DATA_OVERHEAD;
/// How long a session is used for sending. The other end may refuse it from 180 s on
/// (REJECT_AFTER_TIME), by its own clock and after the network's delay.
const SESSION_USABLE_FOR: Duration = Duration::from_secs(170);
/// boringtun notices the passing of time only in its timer function, which is called this often.
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// The same for an idle peer, so that an idle machine can sleep.
const IDLE_TICK_INTERVAL: Duration = Duration::from_secs(10);
/// boringtun may have something to send until this long after the last datagram: a keepalive after
/// 10 s, an initiation after 15 s.
const BUSY_AFTER_USE: Duration = Duration::from_secs(16);
/// A peer that has received data and sent nothing sends a keepalive after this (KEEPALIVE_TIMEOUT).
/// boringtun forgets it if both happen in the same tick, and the other end then begins a handshake
/// to find out whether this end is alive.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// When no initiation was answered for 90 s (REKEY_ATTEMPT_TIME), boringtun ends the handshake at its
/// next tick, and drops the response to the latest initiation. One second less, because its clock
/// may be that old.
const ATTEMPT_TIME: Duration = Duration::from_secs(89);
/// How long the response to an initiation is awaited (REKEY_TIMEOUT).
const RESPONSE_TIME: Duration = Duration::from_secs(5);
/// Maximum age of a tick before a handshake, whose time decides the age of the session.
const HANDSHAKE_TICK_INTERVAL: Duration = Duration::from_millis(250);

/// The keys of both ends.
#[derive(Clone, Debug)]
pub(super) struct PeerKeys {
    pub(super) private_key: PrivateKey,
    pub(super) public_key: PublicKey,
    pub(super) preshared_key: Option<PresharedKey>,
}

/// The keys and sessions with one peer.
pub(super) struct Peer {
    tunn: Box<Tunn>,
    stamps: StampEstimate,
    index: u32,
    last_tick: Instant,
    /// Whether the clocks have stepped since the last tick, so that boringtun may have expired the
    /// session.
    is_marked_stale: bool,
    /// When the first initiation of the handshake in progress was sent, and the latest.
    attempt: Option<(Instant, Instant)>,
    /// When the last datagram was sent or received.
    last_used: Instant,
    /// When the session that is used for sending began.
    sending_since: Option<Instant>,
    /// When a keepalive is due, because data was received and nothing sent since.
    keepalive_due: Option<Instant>,
    /// Index and start of a session that the other end began and has not used yet.
    unconfirmed: Option<(u32, Instant)>,
}

/// The timestamps of a peer's initiations, which boringtun does not show. It counts up from the
/// wall clock at the creation of the peer with the time since the boot, and so does this.
#[derive(Clone, Copy, Debug)]
struct StampEstimate {
    first: SystemTime,
    /// Time since the boot at `first`.
    from: Duration,
    /// The timestamp of the latest initiation.
    latest: Option<SystemTime>,
}

impl StampEstimate {
    fn starting_at(now: Instant) -> Self {
        Self { first: Now::at(now).wall, from: time_since_boot(), latest: None }
    }

    fn now(&self) -> SystemTime {
        self.first + time_since_boot().saturating_sub(self.from)
    }
}

fn time_since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// Content of a data datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Decrypted {
    /// A packet of this length.
    Packet(usize),
    /// A keepalive.
    KeepAlive,
    /// Authentic, but not an IP packet.
    NotAPacket,
    /// Not authentic, or a replay.
    Dropped(DropReason),
    /// boringtun panicked.
    Panicked,
}

/// Result of a handshake datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum HandshakeOutcome {
    /// It was the response to this end's initiation; a keepalive of this length confirms the
    /// session.
    Established(usize),
    /// It was an initiation; the response has this length.
    Responded(usize),
    /// This end is under load; the cookie reply has this length.
    CookieSent(usize),
    /// The other end is under load; its cookie goes into the next initiation.
    CookieReceived,
    /// It was none of these.
    Dropped(DropReason),
    /// boringtun panicked.
    Panicked,
}

/// Result of encrypting a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Encrypted {
    /// A datagram of this length.
    Datagram(usize),
    /// boringtun has no session.
    NoSession,
    /// boringtun panicked.
    Panicked,
}

/// What boringtun sends because time has passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TimerOutcome {
    Nothing,
    Initiation(usize),
    KeepAlive(usize),
    Panicked,
}

impl Peer {
    /// Creates a peer; 24 bits of `index` are used. `None` if the wall clock is before 1970.
    pub(super) fn new(
        keys: &PeerKeys,
        index: u32,
        limiter: &HandshakeLimiter,
        now: Instant,
    ) -> Option<Self> {
        let index = index & wire::PEER_INDEX_MASK;
        let stamps = StampEstimate::starting_at(now);
        // boringtun panics on clocks before 1970 and on a boot-time clock that goes back. Its state
        // may be invalid afterwards, so the peer is discarded.
        let tunn = catch_unwind(AssertUnwindSafe(|| {
            let preshared_key = keys.preshared_key.as_ref().map(|key| *key.bytes());
            let mut tunn = Tunn::new(
                keys.private_key.to_static_secret(),
                keys.public_key.to_x25519(),
                preshared_key,
                None,
                index,
                Some(Arc::clone(limiter.inner())),
            );
            // Without this call boringtun dates a handshake in the first second at time 0.
            let mut buffer = [0; MAX_HANDSHAKE_LEN];
            tunn.update_timers(&mut buffer);
            tunn
        }));
        let tunn = Box::new(tunn.ok()?);
        Some(Self {
            tunn,
            stamps,
            index,
            last_tick: now,
            is_marked_stale: false,
            attempt: None,
            last_used: now,
            sending_since: None,
            keepalive_due: None,
            unconfirmed: None,
        })
    }

    /// Returns the timestamp that an initiation would have now.
    pub(super) fn stamp(&self) -> SystemTime {
        self.stamps.now()
    }

    /// Returns the timestamp of the latest initiation.
    pub(super) const fn latest_stamp(&self) -> Option<SystemTime> {
        self.stamps.latest
    }

    /// Returns the upper 24 bits of the receiver index of every datagram to this peer.
    pub(super) const fn index(&self) -> u32 {
        self.index
    }

    /// Returns when the session that is used for sending began; `None` when it is too old.
    pub(super) fn session_start(&self, now: Instant) -> Option<Instant> {
        self.sending_since.filter(|since| now < *since + SESSION_USABLE_FOR)
    }

    /// Returns when [`Peer::update_timers`] is due.
    pub(super) fn next_tick_at(&self) -> Instant {
        // boringtun owes nothing once a tick has come this long after the last datagram.
        let is_busy = self.last_tick < self.last_used + BUSY_AFTER_USE;
        let at = self.last_tick + if is_busy { TICK_INTERVAL } else { IDLE_TICK_INTERVAL };
        let at = if self.is_marked_stale { self.last_tick } else { at };
        let at = self.keepalive_due.map_or(at, |owed| at.min(owed));
        self.tick_forbidden_until(at).unwrap_or(at)
    }

    /// Returns until when the timers must not run, if they must not at `at`: they would end the
    /// handshake whose response is awaited.
    fn tick_forbidden_until(&self, at: Instant) -> Option<Instant> {
        let (first, latest) = self.attempt?;
        let until = latest + RESPONSE_TIME;
        (at >= first + ATTEMPT_TIME && at < until).then_some(until)
    }

    /// Records a step of the clocks, perhaps a suspend: the timers must run before the next
    /// datagram.
    pub(super) const fn mark_stale(&mut self) {
        self.is_marked_stale = true;
    }

    /// Discards the session and keeps the timestamps.
    pub(super) const fn discard_session(&mut self) {
        (self.sending_since, self.keepalive_due, self.unconfirmed) = (None, None, None);
        self.is_marked_stale = true;
    }

    /// Runs boringtun's timers. `buffer` holds [`MAX_HANDSHAKE_LEN`], or [`KEEPALIVE_LEN`] for a
    /// peer that must not begin handshakes itself.
    pub(super) fn update_timers(&mut self, now: Instant, buffer: &mut [u8]) -> TimerOutcome {
        (self.last_tick, self.is_marked_stale) = (now, false);
        let Self { tunn, .. } = self;
        let seen = catch_unwind(AssertUnwindSafe(|| {
            let message = network_message(tunn.update_timers(buffer));
            let message = message.map(|message| (wire::message_type(message), message.len()));
            (message, tunn.time_since_last_handshake().is_some(), tunn.is_expired())
        }));
        let Ok((message, has_session, has_given_up)) = seen else { return TimerOutcome::Panicked };
        self.attempt = self.attempt.filter(|_| !has_given_up);
        if !has_session {
            // Expired by boringtun's clock, which counts suspended time. Packets would now be
            // queued inside boringtun, where nothing sends them.
            self.sending_since = None;
        }
        match message {
            Some((Some(wire::MessageType::Initiation), length)) => TimerOutcome::Initiation(length),
            Some((_, length)) if self.session_start(now).is_some() => {
                self.keepalive_due = None;
                TimerOutcome::KeepAlive(length)
            }
            _ if self.keepalive_due.take_if(|owed| now >= *owed).is_some() => {
                self.send_keepalive(now, buffer)
            }
            _ => TimerOutcome::Nothing,
        }
    }

    fn send_keepalive(&mut self, now: Instant, buffer: &mut [u8]) -> TimerOutcome {
        if self.session_start(now).is_none() {
            return TimerOutcome::Nothing;
        }
        match self.encrypt(now, &[], buffer) {
            Encrypted::Datagram(length) => TimerOutcome::KeepAlive(length),
            Encrypted::NoSession => TimerOutcome::Nothing,
            Encrypted::Panicked => TimerOutcome::Panicked,
        }
    }

    /// Returns whether the timers must run before data is sent or received.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.is_older_than(TICK_INTERVAL, now)
    }

    /// Returns whether the timers must run before a handshake.
    pub(super) fn is_stale_for_handshake(&self, now: Instant) -> bool {
        self.is_older_than(HANDSHAKE_TICK_INTERVAL, now)
    }

    fn is_older_than(&self, age: Duration, now: Instant) -> bool {
        let is_old = self.is_marked_stale || now > self.last_tick + age;
        is_old && self.tick_forbidden_until(now).is_none()
    }

    /// Encrypts a packet, or a keepalive if it is empty, into `buffer`, which is [`DATA_OVERHEAD`]
    /// longer. To be called only while there is a [`Peer::session_start`].
    pub(super) fn encrypt(&mut self, now: Instant, packet: &[u8], buffer: &mut [u8]) -> Encrypted {
        self.last_used = now;
        let Self { tunn, .. } = self;
        let encrypted = catch_unwind(AssertUnwindSafe(|| {
            let message = network_message(tunn.encapsulate(packet, buffer));
            message
                .filter(|message| wire::is_data(message))
                .map_or(Encrypted::NoSession, |message| Encrypted::Datagram(message.len()))
        }));
        let encrypted = encrypted.unwrap_or(Encrypted::Panicked);
        self.keepalive_due = None;
        // Without a session boringtun answers with an initiation, which the handshake timer sends
        // instead.
        if !matches!(encrypted, Encrypted::Datagram(_)) {
            self.sending_since = None;
        }
        encrypted
    }

    /// Decrypts a data datagram into `buffer`, which is as long as the datagram.
    pub(super) fn decrypt(
        &mut self,
        now: Instant,
        receiver: u32,
        datagram: &[u8],
        buffer: &mut [u8],
    ) -> Decrypted {
        self.last_used = now;
        let Self { tunn, .. } = self;
        let decrypted =
            catch_unwind(AssertUnwindSafe(|| match tunn.decapsulate(None, datagram, buffer) {
                TunnResult::WriteToTunnelV4(packet, _) => Decrypted::Packet(packet.len()),
                TunnResult::WriteToTunnelV6(packet, _) => Decrypted::Packet(packet.len()),
                TunnResult::Done => Decrypted::KeepAlive,
                // The datagram was parsed before, so this is about the decrypted content.
                TunnResult::Err(WireGuardError::InvalidPacket) => Decrypted::NotAPacket,
                TunnResult::Err(error) => Decrypted::Dropped(drop_reason(&error)),
                TunnResult::WriteToNetwork(_) => Decrypted::Dropped(DropReason::Malformed),
            }));
        let decrypted = decrypted.unwrap_or(Decrypted::Panicked);
        if !matches!(decrypted, Decrypted::Dropped(_) | Decrypted::Panicked) {
            self.confirm_session(receiver);
        }
        if matches!(decrypted, Decrypted::Packet(_) | Decrypted::NotAPacket) {
            self.keepalive_due.get_or_insert(now + KEEPALIVE_TIMEOUT);
        }
        decrypted
    }

    /// Uses a session that the other end began, from its first datagram on.
    fn confirm_session(&mut self, receiver: u32) {
        if let Some((_, since)) = self.unconfirmed.take_if(|(index, _)| *index == receiver) {
            self.sending_since = Some(since);
        }
    }

    /// Handles a handshake message. The reply is written to `buffer`, which holds
    /// [`MAX_HANDSHAKE_LEN`].
    pub(super) fn handle_handshake(
        &mut self,
        now: Instant,
        from: IpAddr,
        datagram: &[u8],
        buffer: &mut [u8],
    ) -> HandshakeOutcome {
        self.last_used = now;
        let Self { tunn, .. } = self;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            match tunn.decapsulate(Some(from), datagram, buffer) {
                TunnResult::WriteToNetwork(answer) => classify_reply(answer),
                TunnResult::Done => (HandshakeOutcome::CookieReceived, 0),
                TunnResult::Err(error) => (HandshakeOutcome::Dropped(drop_reason(&error)), 0),
                TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => {
                    (HandshakeOutcome::Dropped(DropReason::Malformed), 0)
                }
            }
        }));
        let (outcome, index) = outcome.unwrap_or((HandshakeOutcome::Panicked, 0));
        match outcome {
            HandshakeOutcome::Established(_) => {
                (self.sending_since, self.keepalive_due) = (Some(now), None);
                self.attempt = None;
            }
            // The responder must not send before the initiator has (WireGuard whitepaper, 5):
            // until then the response may answer a replay.
            HandshakeOutcome::Responded(_) => self.unconfirmed = Some((index, now)),
            HandshakeOutcome::CookieSent(_)
            | HandshakeOutcome::CookieReceived
            | HandshakeOutcome::Dropped(_)
            | HandshakeOutcome::Panicked => {}
        }
        outcome
    }

    /// Begins a handshake, also while another is outstanding. `None` if boringtun panicked.
    pub(super) fn initiate(&mut self, now: Instant, buffer: &mut [u8]) -> Option<usize> {
        self.last_used = now;
        self.attempt = Some((self.attempt.map_or(now, |(first, _)| first), now));
        self.stamps.latest = Some(self.stamps.now());
        let Self { tunn, .. } = self;
        let initiation = catch_unwind(AssertUnwindSafe(|| {
            network_message(tunn.format_handshake_initiation(buffer, true))
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
