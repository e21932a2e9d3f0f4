//! Series of the tunnel, the clock and the certificates.

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tunnel::{Counters, DropReason};

/// Series of the tunnel; all at 0 without one.
#[derive(Clone, Debug)]
pub struct TunnelMetrics {
    /// `edge_tunnel_up`.
    pub up: IntGauge,
    /// `edge_tunnel_last_handshake_timestamp_seconds`, 0 before the first.
    pub last_handshake_timestamp: Gauge,
    established: IntCounter,
    unanswered: IntCounter,
    received: IntCounter,
    sent: IntCounter,
    dropped: [IntCounter; DropReason::ALL.len()],
}

impl TunnelMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let up = IntGauge::new("edge_tunnel_up", "Whether the tunnel has a session.")?;
        let last_handshake = Gauge::new(
            "edge_tunnel_last_handshake_timestamp_seconds",
            "When the last handshake with a hub was completed; 0 before the first.",
        )?;
        let handshakes = IntCounterVec::new(
            Opts::new("edge_tunnel_handshakes_total", "Handshakes by what became of them."),
            &["outcome"],
        )?;
        let bytes = IntCounterVec::new(
            Opts::new("edge_tunnel_bytes_total", "Bytes of packets that passed the tunnel."),
            &["direction"],
        )?;
        let dropped = IntCounterVec::new(
            Opts::new(
                "edge_tunnel_dropped_packets_total",
                "Packets and datagrams that the tunnel did not let pass.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(up.clone()))?;
        registry.register(Box::new(last_handshake.clone()))?;
        registry.register(Box::new(handshakes.clone()))?;
        registry.register(Box::new(bytes.clone()))?;
        registry.register(Box::new(dropped.clone()))?;
        Ok(Self {
            up,
            last_handshake_timestamp: last_handshake,
            established: handshakes.with_label_values(&["established"]),
            unanswered: handshakes.with_label_values(&["unanswered"]),
            received: bytes.with_label_values(&["received"]),
            sent: bytes.with_label_values(&["sent"]),
            dropped: DropReason::ALL.map(|reason| dropped.with_label_values(&[reason.label()])),
        })
    }

    /// Takes over what a tunnel has counted.
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

fn set_max(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

/// `edge_clock_synchronized`.
pub(super) fn clock(registry: &Registry) -> Result<IntGauge, prometheus::Error> {
    let gauge = IntGauge::new(
        "edge_clock_synchronized",
        "Whether the kernel says that its clock follows a time server.",
    )?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

/// `edge_certificate_not_after_timestamp_seconds`: one series for each file that is configured.
pub(super) fn certificates(registry: &Registry) -> Result<GaugeVec, prometheus::Error> {
    let gauge = GaugeVec::new(
        Opts::new(
            "edge_certificate_not_after_timestamp_seconds",
            "When the first certificate in the file expires.",
        ),
        &["file"],
    )?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}
