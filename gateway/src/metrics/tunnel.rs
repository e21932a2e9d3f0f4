//! Series of the tunnel.

use prometheus::{Gauge, IntCounter, IntGauge};
use tunnel::{Counters, DropReason};

use super::registrar::series;

series! {
    /// Series of the tunnel; all 0 when there is no tunnel.
    pub struct TunnelMetrics {
        pub up: IntGauge = gauge("edge_tunnel_up", "1 while the tunnel has a session, else 0."),
        pub last_handshake_timestamp: Gauge = float_gauge(
            "edge_tunnel_last_handshake_timestamp_seconds",
            "Unix time of the last completed handshake with a hub; 0 before the first."
        ),
        handshakes: [IntCounter; 2] = counters(
            "edge_tunnel_handshakes_total",
            "WireGuard handshakes by outcome.",
            "outcome",
            ["established", "unanswered"]
        ),
        bytes: [IntCounter; 2] = counters(
            "edge_tunnel_bytes_total",
            "Bytes of the packets that passed through the tunnel.",
            "direction",
            ["received", "sent"]
        ),
        dropped: [IntCounter; DropReason::ALL.len()] = counters(
            "edge_tunnel_dropped_packets_total",
            "Packets and datagrams that the tunnel dropped, by reason: looped (a datagram of the \
             tunnel that the machine routed into the tunnel), malformed (no complete IP \
             packet or WireGuard datagram), no_room (a buffer was full), not_allowed_in and \
             not_allowed_out (an address outside allowed_ips, of a packet from or to the hub), \
             queue_full (more than 64 packets waited for a session), replayed (received before, \
             or far too late), stranger (of no known session or handshake), too_long (longer than \
             mtu), undecryptable (garbage, or a wrong key), unsent (refused by the kernel: no \
             route, a firewall, a link that is down), waited (more than 5 s for a session).",
            "reason",
            DropReason::ALL.map(DropReason::label)
        ),
    }
}

impl TunnelMetrics {
    /// Raises the counters to those of the tunnel; never lowers them.
    pub fn update(&self, counters: &Counters) {
        let [established, unanswered] = &self.handshakes;
        let [received, sent] = &self.bytes;
        set_max(established, counters.handshakes);
        set_max(unanswered, counters.unanswered);
        set_max(received, counters.received_bytes);
        set_max(sent, counters.sent_bytes);
        for (counter, reason) in self.dropped.iter().zip(DropReason::ALL) {
            set_max(counter, counters.dropped(reason));
        }
    }
}

/// Raises a counter to `to`; a counter never goes down.
fn set_max(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}
