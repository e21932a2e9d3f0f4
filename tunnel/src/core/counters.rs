//! What a tunnel has done since it started.

use std::fmt;

/// Counters of a tunnel since its start; none ever wraps or goes back.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Packets that were encrypted and sent.
    pub sent_packets: u64,
    /// Their bytes, without what WireGuard adds.
    pub sent_bytes: u64,
    /// Packets that were decrypted and handed on.
    pub received_packets: u64,
    /// Their bytes, without what WireGuard adds.
    pub received_bytes: u64,
    /// Initiations of a handshake that were sent.
    pub initiations: u64,
    /// Handshakes that ended in a session, whoever began them.
    pub handshakes: u64,
    /// Initiations that stayed without an answer.
    pub unanswered: u64,
    /// Cookie replies: the other end is under load, or under attack.
    pub cookies: u64,
    /// Times that a new local port was asked for.
    pub rebinds: u64,
    /// Changes from one hub to another.
    pub hub_changes: u64,
    /// Changes of the address that the other end sends from.
    pub endpoint_changes: u64,
    /// Jumps of the wall clock.
    pub clock_steps: u64,
    /// Faults inside the protocol's implementation that were caught. Each costs one handshake.
    pub panics: u64,
    /// What was dropped, by reason; read with [`Counters::dropped`].
    pub(super) dropped: [u64; DropReason::ALL.len()],
}

/// Why a packet or a datagram was dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DropReason {
    /// Our packet: it waited for a session longer than 5 s.
    Waited,
    /// Our packet: more than 64 waited for a session.
    QueueFull,
    /// Our packet: it goes to an address outside the allowed networks of the hub in use.
    NotAllowedOut,
    /// Their packet: it comes from an address outside the allowed networks of its sender.
    NotAllowedIn,
    /// It is no whole IP packet, no WireGuard datagram, or has no valid first MAC.
    Malformed,
    /// Our packet: it is longer than the MTU.
    TooLong,
    /// It belongs to no peer, session or handshake that is known here.
    Stranger,
    /// It does not decrypt: garbage, or a wrong key.
    Undecryptable,
    /// It was there before, or is older than the window of 1024 packets or the last handshake.
    Replayed,
    /// There was no room for it between the tunnel and the network or the host.
    NoRoom,
    /// Our datagram: the kernel did not take it. No route, a firewall, or a link that stands still.
    Unsent,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 11] = [
        Self::Waited,
        Self::QueueFull,
        Self::NotAllowedOut,
        Self::NotAllowedIn,
        Self::Malformed,
        Self::TooLong,
        Self::Stranger,
        Self::Undecryptable,
        Self::Replayed,
        Self::NoRoom,
        Self::Unsent,
    ];

    /// Its name in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Waited => "waited",
            Self::QueueFull => "queue_full",
            Self::NotAllowedOut => "not_allowed_out",
            Self::NotAllowedIn => "not_allowed_in",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Stranger => "stranger",
            Self::Undecryptable => "undecryptable",
            Self::Replayed => "replayed",
            Self::NoRoom => "no_room",
            Self::Unsent => "unsent",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl Counters {
    /// How many packets or datagrams were dropped for a reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped.get(reason as usize).copied().unwrap_or_default()
    }

    pub(super) fn count_dropped(&mut self, reason: DropReason) {
        self.add_dropped(reason, 1);
    }

    pub(super) fn add_dropped(&mut self, reason: DropReason, count: u64) {
        if let Some(counter) = self.dropped.get_mut(reason as usize) {
            *counter += count;
        }
    }

    pub(super) fn on_sent(&mut self, length: usize) {
        self.sent_packets += 1;
        self.sent_bytes += length as u64;
    }

    pub(super) fn on_received(&mut self, length: usize) {
        self.received_packets += 1;
        self.received_bytes += length as u64;
    }
}
