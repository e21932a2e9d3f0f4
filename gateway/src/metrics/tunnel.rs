//! Series of the tunnel.

use prometheus::{Gauge, IntCounter, IntGauge};
use tunnel::{Counters, DropReason};

use super::registrar::Registrar;

/// Series of the tunnel; all 0 when there is no tunnel.
#[derive(Clone, Debug)]
pub struct TunnelMetrics {
    /// `edge_tunnel_up`.
    pub up: IntGauge,
    /// `edge_tunnel_last_handshake_timestamp_seconds`; 0 before the first.
    pub last_handshake_timestamp: Gauge,
    established: IntCounter,
    unanswered: IntCounter,
    received: IntCounter,
    sent: IntCounter,
    dropped: [IntCounter; DropReason::ALL.len()],
}

impl TunnelMetrics {
    pub(super) fn register(series: &Registrar) -> Result<Self, prometheus::Error> {
        let handshakes = series.counters(
            "edge_tunnel_handshakes_total",
            "WireGuard handshakes by outcome.",
            &["outcome"],
        )?;
        let bytes = series.counters(
            "edge_tunnel_bytes_total",
            "Bytes of the packets that passed through the tunnel.",
            &["direction"],
        )?;
        let dropped = series.counters(
            "edge_tunnel_dropped_packets_total",
            "Packets and datagrams that the tunnel dropped, by reason.",
            &["reason"],
        )?;
        Ok(Self {
            up: series.gauge("edge_tunnel_up", "1 while the tunnel has a session, else 0.")?,
            last_handshake_timestamp: series.float_gauge(
                "edge_tunnel_last_handshake_timestamp_seconds",
                "Unix time of the last completed handshake with a hub; 0 before the first.",
            )?,
            established: handshakes.with_label_values(&["established"]),
            unanswered: handshakes.with_label_values(&["unanswered"]),
            received: bytes.with_label_values(&["received"]),
            sent: bytes.with_label_values(&["sent"]),
            dropped: DropReason::ALL.map(|reason| dropped.with_label_values(&[reason.label()])),
        })
    }

    /// Raises the counters to those of the tunnel.
    pub fn update(&self, counters: &Counters) {
        set_max(&self.established, counters.handshakes);
        set_max(&self.unanswered, counters.unanswered);
        set_max(&self.received, counters.received_bytes);
        set_max(&self.sent, counters.sent_bytes);
        for (counter, reason) in self.dropped.iter().zip(DropReason::ALL) {
            set_max(counter, counters.dropped(reason));
        }
    }
}

/// Raises a counter to `to`; a counter never goes down.
fn set_max(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}
