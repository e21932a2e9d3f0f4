//! Counters of a tunnel.

use std::fmt;

/// Counters of a tunnel since its start; they only grow and do not wrap.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Packets that were encrypted and sent.
    pub sent_packets: u64,
    /// Bytes of these packets, without WireGuard's overhead.
    pub sent_bytes: u64,
    /// Packets that were decrypted and passed on.
    pub received_packets: u64,
    /// Bytes of these packets, without WireGuard's overhead.
    pub received_bytes: u64,
    /// Handshake initiations that were sent.
    pub initiations: u64,
    /// Handshakes that led to a session, begun by either end.
    pub handshakes: u64,
    /// Initiations without a response.
    pub unanswered: u64,
    /// Cookie replies: the other end is under load, or under attack.
    pub cookies: u64,
    /// Requests for a new local port.
    pub rebinds: u64,
    /// Changes from one hub to another.
    pub hub_changes: u64,
    /// Changes of the address that the other end sends from.
    pub endpoint_changes: u64,
    /// Steps of the wall clock.
    pub clock_steps: u64,
    /// Panics inside boringtun that were caught. Each costs one handshake.
    pub panics: u64,
    /// By reason; read with [`Counters::dropped`].
    pub(super) dropped: [u64; DropReason::ALL.len()],
}

/// Why a packet or a datagram was dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DropReason {
    /// Outgoing packet: waited for a session for more than 5 s.
    Waited,
    /// Outgoing packet: more than 64 waited for a session.
    QueueFull,
    /// Outgoing packet: its destination is outside the allowed networks of the active hub.
    NotAllowedOut,
    /// Incoming packet: its source is outside the allowed networks of the sender.
    NotAllowedIn,
    /// Not a complete IP packet, not a WireGuard datagram, or without a valid first MAC.
    Malformed,
    /// Outgoing packet: longer than the MTU.
    TooLong,
    /// Belongs to no known peer, session or handshake.
    Stranger,
    /// Does not decrypt: garbage, or the wrong key.
    Undecryptable,
    /// Received before, or older than the window of 1024 packets or than the last handshake.
    Replayed,
    /// A buffer between the tunnel and the network or the host was full.
    NoRoom,
    /// Outgoing datagram: refused by the kernel. No route, a firewall, or a stalled link.
    Unsent,
    /// Outgoing packet: a datagram of this tunnel, which the host has routed into the tunnel.
    Looped,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 12] = [
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
        Self::Looped,
    ];

    /// Returns its name in metrics.
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
            Self::Looped => "looped",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl Counters {
    /// Returns how many packets or datagrams were dropped for a reason.
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
