//! Detects that long packets are lost while short ones pass (a path MTU black hole). Pure.
//!
//! WireGuard acknowledges nothing, and its datagrams may be fragmented on the way, so neither the
//! core nor the kernel learns when a router drops the long ones. But most traffic in a tunnel is
//! TCP, which retransmits what is not acknowledged. So one long segment is watched at a time. Its
//! loss counts only after a retransmission, and after the other end has shown that short packets
//! pass both ways. Random loss, a link that is down and a dead host behind the hub are therefore
//! not mistaken for a black hole.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::tcp_segment::TcpSegment;

/// Packets longer than this are watched. A path that drops them is too narrow for IPv6.
const MIN_LONG_PACKET: usize = 1200;
/// How often a segment must be sent, [`RETRANSMIT_SPACING`] apart, and how long after the first
/// time, before its loss counts.
const MIN_TRANSMISSIONS: u32 = 3;
const RETRANSMIT_SPACING: Duration = Duration::from_secs(1);
const LOSS_AFTER: Duration = Duration::from_secs(5);
/// Time after which a segment of another flow is watched: the first flow may be dead for other
/// reasons.
const FLOW_SWITCH: Duration = Duration::from_secs(10);
/// The same for another segment of the same flow, which may retransmit rarely.
const SAME_FLOW_SWITCH: Duration = Duration::from_secs(60);
/// Consecutive losses that make a black hole.
const LOSS_THRESHOLD: u32 = 8;
/// Longest time between two consecutive losses.
const LOSS_WINDOW: Duration = Duration::from_secs(30 * 60);

/// The watched segment and the losses so far.
#[derive(Debug, Default)]
pub(super) struct BlackHoleDetector {
    watched: Option<WatchedSegment>,
    /// Losses since a long segment was acknowledged, and the time of the last one.
    losses: u32,
    last_loss: Option<Instant>,
}

/// A long segment that was sent and is not acknowledged yet.
#[derive(Debug)]
struct WatchedSegment {
    from: SocketAddr,
    to: SocketAddr,
    first_sequence: u32,
    end_sequence: u32,
    first_sent: Instant,
    last_sent: Instant,
    transmissions: u32,
    /// Whether it was sent again since its loss was last counted.
    is_resent_since_loss: bool,
}

impl BlackHoleDetector {
    /// Records a packet to the hub.
    pub(super) fn on_sent(&mut self, now: Instant, packet: &[u8]) {
        let Some(segment) =
            (packet.len() > MIN_LONG_PACKET).then(|| TcpSegment::parse(packet)).flatten()
        else {
            return;
        };
        let Some(watched) = &mut self.watched else {
            self.watched = Some(WatchedSegment::new(now, &segment));
            return;
        };
        let is_same_stream = (watched.from, watched.to) == (segment.from, segment.to);
        if is_same_stream && watched.first_sequence == segment.first_sequence {
            // Fast retransmissions come in bursts that may be lost together, so they count once.
            if now >= watched.last_sent + RETRANSMIT_SPACING {
                watched.transmissions += 1;
                watched.last_sent = now;
                watched.is_resent_since_loss = true;
            }
        } else if now
            >= watched.last_sent.max(watched.first_sent)
                + if is_same_stream { SAME_FLOW_SWITCH } else { FLOW_SWITCH }
        {
            self.watched = Some(WatchedSegment::new(now, &segment));
        }
    }

    /// Records a packet from the hub.
    pub(super) fn on_received(&mut self, now: Instant, packet: &[u8]) {
        let Some(watched) = &self.watched else { return };
        let Some(segment) = TcpSegment::parse(packet) else { return };
        if (segment.from, segment.to) != (watched.to, watched.from) {
            return;
        }
        // A reset says nothing about the path.
        if segment.is_reset {
            self.watched = None;
        } else if segment
            .acknowledged
            .is_some_and(|acknowledged| acknowledged.wrapping_sub(watched.end_sequence) < 1 << 31)
        {
            *self = Self::default();
        } else {
            self.on_missing(now);
        }
    }

    /// Records that the other end is reachable with short packets and has not received the watched
    /// one.
    pub(super) fn on_missing(&mut self, now: Instant) {
        let Some(watched) = &mut self.watched else { return };
        let is_late =
            watched.transmissions >= MIN_TRANSMISSIONS && now >= watched.first_sent + LOSS_AFTER;
        // One retransmission proves one loss, however many acknowledgements follow it.
        if !is_late || !std::mem::take(&mut watched.is_resent_since_loss) {
            return;
        }
        if self.last_loss.replace(now).is_none_or(|last| now > last + LOSS_WINDOW) {
            self.losses = 0;
        }
        self.losses = self.losses.saturating_add(1);
    }

    /// Returns whether long packets are lost while short ones pass.
    pub(super) const fn is_detected(&self) -> bool {
        self.losses >= LOSS_THRESHOLD
    }
}

impl WatchedSegment {
    const fn new(now: Instant, segment: &TcpSegment) -> Self {
        Self {
            from: segment.from,
            to: segment.to,
            first_sequence: segment.first_sequence,
            end_sequence: segment.end_sequence,
            first_sent: now,
            last_sent: now,
            transmissions: 1,
            is_resent_since_loss: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const ACK: u8 = 0x10;
    const RST: u8 = 0x04;

    /// Returns a segment from the site's `port` to port 1883 of a host, or back.
    fn tcp(
        from_site: bool,
        port: u16,
        start: u32,
        acknowledged: u32,
        flags: u8,
        length: usize,
    ) -> Vec<u8> {
        let total = u16::try_from(40 + length).unwrap().to_be_bytes();
        let mut packet = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0];
        let (ours, theirs) = ([10, 77, 0, 12], [10, 77, 0, 1]);
        packet.extend(if from_site { [ours, theirs] } else { [theirs, ours] }.concat());
        let ports = if from_site { [port, 1883] } else { [1883, port] };
        ports.iter().for_each(|port| packet.extend(port.to_be_bytes()));
        packet.extend(start.to_be_bytes());
        packet.extend(acknowledged.to_be_bytes());
        packet.extend([0x50, flags, 1, 0, 0, 0, 0, 0]);
        packet.resize(40 + length, 7);
        packet
    }

    /// Sends a long segment four times in seven seconds.
    fn retransmit(detector: &mut BlackHoleDetector, start: Instant, port: u16) -> Instant {
        for second in [0, 1, 3, 7] {
            detector.on_sent(start + second * SECOND, &tcp(true, port, 1000, 0, ACK, 1240));
        }
        start + 8 * SECOND
    }

    /// Receives an acknowledgement from the other end.
    fn acknowledge(
        detector: &mut BlackHoleDetector,
        now: Instant,
        port: u16,
        acknowledged: u32,
        flags: u8,
    ) {
        detector.on_received(now, &tcp(false, port, 0, acknowledged, flags, 0));
    }

    #[test]
    fn eight_lost_segments_are_a_black_hole_until_one_is_acknowledged() {
        let (mut detector, mut now) = (BlackHoleDetector::default(), Instant::now());
        for port in 1..=8 {
            assert!(!detector.is_detected());
            now = retransmit(&mut detector, now, port);
            acknowledge(&mut detector, now, port, 1000, ACK);
            acknowledge(&mut detector, now, port, 1000, ACK);
            now += FLOW_SWITCH;
        }
        assert!(detector.is_detected());
        now = retransmit(&mut detector, now, 9);
        acknowledge(&mut detector, now, 9, 2240, ACK);
        assert!(!detector.is_detected());
    }

    #[test]
    fn a_silent_host_and_a_reset_are_no_black_hole() {
        let (mut detector, mut now) = (BlackHoleDetector::default(), Instant::now());
        for port in 1..=50 {
            now = retransmit(&mut detector, now, port);
            acknowledge(&mut detector, now, port + 1, 1000, ACK);
            acknowledge(&mut detector, now, port, 1000, ACK | RST);
            acknowledge(&mut detector, now, port, 1000, ACK);
            now += FLOW_SWITCH;
        }
        assert_eq!(detector.losses, 0);
    }

    #[test]
    fn a_segment_that_was_sent_once_or_a_moment_ago_is_not_lost() {
        let (mut detector, now) = (BlackHoleDetector::default(), Instant::now());
        for burst in 0..100 {
            detector.on_sent(now + burst * SECOND / 100, &tcp(true, 1, 1000, 0, ACK, 1240));
        }
        for second in 1..20 {
            acknowledge(&mut detector, now + second * SECOND, 1, 1000, ACK);
            detector.on_missing(now + second * SECOND);
        }
        assert_eq!(detector.losses, 0);
    }

    #[test]
    fn one_stuck_flow_among_others_and_losses_far_apart_are_no_black_hole() {
        let (mut detector, mut now) = (BlackHoleDetector::default(), Instant::now());
        for round in 0..50 {
            now = retransmit(&mut detector, now, 1);
            detector.on_missing(now);
            now += FLOW_SWITCH;
            detector.on_sent(now, &tcp(true, 2, round, 0, ACK, 1240));
            acknowledge(&mut detector, now, 2, round + 1240, ACK);
            assert!(!detector.is_detected());
        }
        for _ in 0..50 {
            now = retransmit(&mut detector, now + LOSS_WINDOW, 1);
            detector.on_missing(now);
        }
        assert!(!detector.is_detected());
    }

    #[test]
    fn only_long_segments_are_watched_in_both_families() {
        let (mut detector, now) = (BlackHoleDetector::default(), Instant::now());
        let mut udp = tcp(true, 1, 0, 0, ACK, 1240);
        udp[9] = 17;
        let mut fragment = tcp(true, 1, 0, 0, ACK, 1240);
        fragment[7] = 9;
        for other in [tcp(true, 1, 0, 0, ACK, 1160), udp, fragment] {
            detector.on_sent(now, &other);
            assert!(detector.watched.is_none());
        }
        let mut v6 = vec![0x60, 0, 0, 0, 4, 0xec, 6, 64];
        v6.extend([[0xfd; 16], [0xfe; 16]].concat());
        v6.extend(&tcp(true, 1, 5, 0, ACK, 1240)[20..]);
        let read = TcpSegment::parse(&v6).unwrap();
        assert_eq!((read.first_sequence, read.end_sequence, read.acknowledged), (5, 1245, Some(0)));
        assert_eq!(read.to.to_string(), "[fefe:fefe:fefe:fefe:fefe:fefe:fefe:fefe]:1883");
    }
}
