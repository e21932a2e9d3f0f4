//! Whether long packets get through where short ones do. Pure.
//!
//! WireGuard acknowledges nothing, and its datagrams may be fragmented on the way, so neither the
//! core nor the kernel is told when a router drops the long ones. But most of what a tunnel carries
//! is TCP, which repeats what was not acknowledged: one long segment is watched at a time. That it
//! was lost counts only when it was repeated, and the other end has shown since that short packets
//! pass both ways. So a line that loses everything alike, a dead line, and a dead host behind the
//! hub are not mistaken for it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::packet;

/// Packets of more bytes are long. A way that is too narrow for this one is too narrow for IPv6.
const LONG: usize = 1200;
/// How often a segment has to have been sent, each time [`APART`] from the last, before its loss
/// counts, and for how long.
const OFTEN: u32 = 3;
const APART: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_secs(5);
/// A segment of another stream is watched after this, whatever became of the first: its stream may
/// be dead for reasons of its own.
const TURN: Duration = Duration::from_secs(10);
/// The same for one of the same stream, which may repeat seldom.
const STREAM: Duration = Duration::from_secs(60);
/// Losses in a row from which to say so.
const ENOUGH: u32 = 8;
/// Losses further apart are no row.
const ROW: Duration = Duration::from_secs(30 * 60);

/// What became of long packets.
#[derive(Debug, Default)]
pub(super) struct Long {
    watched: Option<Watched>,
    /// Losses since a long segment got through, and when the last was.
    losses: u32,
    last: Option<Instant>,
}

/// A long segment that was sent and not acknowledged yet.
#[derive(Debug)]
struct Watched {
    from: SocketAddr,
    to: SocketAddr,
    start: u32,
    end: u32,
    since: Instant,
    last: Instant,
    count: u32,
    /// It was sent since its loss counted last.
    is_fresh: bool,
}

/// What the header of a TCP segment says.
#[derive(Debug, Eq, PartialEq)]
struct Segment {
    from: SocketAddr,
    to: SocketAddr,
    start: u32,
    end: u32,
    acknowledged: Option<u32>,
    is_reset: bool,
}

impl Long {
    /// A packet goes to the hub.
    pub(super) fn sent(&mut self, now: Instant, packet: &[u8]) {
        let Some(segment) = (packet.len() > LONG).then(|| segment(packet)).flatten() else {
            return;
        };
        let Some(watched) = &mut self.watched else {
            self.watched = Some(Watched::new(now, &segment));
            return;
        };
        let is_same_stream = (watched.from, watched.to) == (segment.from, segment.to);
        if is_same_stream && watched.start == segment.start {
            if now >= watched.last + APART {
                watched.count += 1;
                watched.last = now;
                watched.is_fresh = true;
            }
        } else if now
            >= watched.last.max(watched.since) + if is_same_stream { STREAM } else { TURN }
        {
            self.watched = Some(Watched::new(now, &segment));
        }
    }

    /// A packet came from the hub.
    pub(super) fn received(&mut self, now: Instant, packet: &[u8]) {
        let Some(watched) = &self.watched else { return };
        let Some(segment) = segment(packet) else { return };
        if (segment.from, segment.to) != (watched.to, watched.from) {
            return;
        }
        if segment.is_reset {
            self.watched = None;
        } else if segment.acknowledged.is_some_and(|upto| upto.wrapping_sub(watched.end) < 1 << 31)
        {
            *self = Self::default();
        } else {
            self.is_missed(now);
        }
    }

    /// The other end has shown that short packets pass, and that the long one has not come.
    pub(super) fn is_missed(&mut self, now: Instant) {
        let Some(watched) = &mut self.watched else { return };
        let is_late = watched.count >= OFTEN && now >= watched.since + LATE;
        if !is_late || !std::mem::take(&mut watched.is_fresh) {
            return;
        }
        if self.last.replace(now).is_none_or(|last| now > last + ROW) {
            self.losses = 0;
        }
        self.losses = self.losses.saturating_add(1);
    }

    /// Whether long packets are lost although short ones pass.
    pub(super) const fn is_lost(&self) -> bool {
        self.losses >= ENOUGH
    }
}

impl Watched {
    const fn new(now: Instant, segment: &Segment) -> Self {
        Self {
            from: segment.from,
            to: segment.to,
            start: segment.start,
            end: segment.end,
            since: now,
            last: now,
            count: 1,
            is_fresh: true,
        }
    }
}

/// Reads a TCP segment (RFC 9293, 3.1); `None` for anything else, and for a fragment.
fn segment(packet: &[u8]) -> Option<Segment> {
    const TCP: u8 = 6;
    let header = packet::parse(packet)?;
    let first = *packet.first()?;
    let (protocol, at) = match first >> 4 {
        4 if packet.get(6..8)?.first_chunk().map(|word| u16::from_be_bytes(*word) & 0x3fff)
            == Some(0) =>
        {
            (*packet.get(9)?, usize::from(first & 0x0f) * 4)
        }
        6 => (*packet.get(6)?, 40),
        _ => return None,
    };
    let tcp = packet.get(at..header.length).filter(|_| protocol == TCP)?;
    let (ports, rest) = tcp.split_first_chunk::<4>()?;
    let (start, rest) = rest.split_first_chunk::<4>()?;
    let (upto, rest) = rest.split_first_chunk::<4>()?;
    let [offset, flags, ..] = *rest else { return None };
    let [from_high, from_low, to_high, to_low] = *ports;
    let start = u32::from_be_bytes(*start);
    let length = tcp.len().checked_sub(usize::from(offset >> 4) * 4)?;
    Some(Segment {
        from: SocketAddr::new(header.source, u16::from_be_bytes([from_high, from_low])),
        to: SocketAddr::new(header.destination, u16::from_be_bytes([to_high, to_low])),
        start,
        end: start.wrapping_add(u32::try_from(length).ok()?),
        acknowledged: (flags & 0x10 != 0).then(|| u32::from_be_bytes(*upto)),
        is_reset: flags & 0x04 != 0,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const ACK: u8 = 0x10;
    const RST: u8 = 0x04;

    /// A segment between the site's `port` and port 1883 of a host, either way.
    fn tcp(is_ours: bool, port: u16, start: u32, upto: u32, flags: u8, length: usize) -> Vec<u8> {
        let total = u16::try_from(40 + length).unwrap().to_be_bytes();
        let mut packet = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0];
        let (ours, theirs) = ([10, 77, 0, 12], [10, 77, 0, 1]);
        packet.extend(if is_ours { [ours, theirs] } else { [theirs, ours] }.concat());
        let ports = if is_ours { [port, 1883] } else { [1883, port] };
        ports.iter().for_each(|port| packet.extend(port.to_be_bytes()));
        packet.extend(start.to_be_bytes());
        packet.extend(upto.to_be_bytes());
        packet.extend([0x50, flags, 1, 0, 0, 0, 0, 0]);
        packet.resize(40 + length, 7);
        packet
    }

    /// Sends a long segment four times in seven seconds.
    fn repeat(long: &mut Long, start: Instant, port: u16) -> Instant {
        for second in [0, 1, 3, 7] {
            long.sent(start + second * SECOND, &tcp(true, port, 1000, 0, ACK, 1240));
        }
        start + 8 * SECOND
    }

    /// The other end says what it has.
    fn says(long: &mut Long, now: Instant, port: u16, upto: u32, flags: u8) {
        long.received(now, &tcp(false, port, 0, upto, flags, 0));
    }

    #[test]
    fn long_segments_that_the_other_end_keeps_asking_for_are_lost_until_one_comes() {
        let (mut long, mut now) = (Long::default(), Instant::now());
        for port in 1..=8 {
            assert!(!long.is_lost());
            now = repeat(&mut long, now, port);
            says(&mut long, now, port, 1000, ACK);
            says(&mut long, now, port, 1000, ACK);
            now += TURN;
        }
        assert!(long.is_lost());
        now = repeat(&mut long, now, 9);
        says(&mut long, now, 9, 2240, ACK);
        assert!(!long.is_lost());
    }

    #[test]
    fn a_host_that_says_nothing_or_ends_the_stream_misses_nothing() {
        let (mut long, mut now) = (Long::default(), Instant::now());
        for port in 1..=50 {
            now = repeat(&mut long, now, port);
            says(&mut long, now, port + 1, 1000, ACK);
            says(&mut long, now, port, 1000, ACK | RST);
            says(&mut long, now, port, 1000, ACK);
            now += TURN;
        }
        assert_eq!(long.losses, 0);
    }

    #[test]
    fn what_was_sent_a_moment_ago_or_once_is_not_missed_yet() {
        let (mut long, now) = (Long::default(), Instant::now());
        for burst in 0..100 {
            long.sent(now + burst * SECOND / 100, &tcp(true, 1, 1000, 0, ACK, 1240));
        }
        for second in 1..20 {
            says(&mut long, now + second * SECOND, 1, 1000, ACK);
            long.is_missed(now + second * SECOND);
        }
        assert_eq!(long.losses, 0);
    }

    #[test]
    fn a_stuck_stream_beside_one_that_works_and_losses_far_apart_are_no_pattern() {
        let (mut long, mut now) = (Long::default(), Instant::now());
        for round in 0..50 {
            now = repeat(&mut long, now, 1);
            long.is_missed(now);
            now += TURN;
            long.sent(now, &tcp(true, 2, round, 0, ACK, 1240));
            says(&mut long, now, 2, round + 1240, ACK);
            assert!(!long.is_lost());
        }
        for _ in 0..50 {
            now = repeat(&mut long, now + ROW, 1);
            long.is_missed(now);
        }
        assert!(!long.is_lost());
    }

    #[test]
    fn only_long_segments_are_watched_in_both_families() {
        let (mut long, now) = (Long::default(), Instant::now());
        let mut udp = tcp(true, 1, 0, 0, ACK, 1240);
        udp[9] = 17;
        let mut fragment = tcp(true, 1, 0, 0, ACK, 1240);
        fragment[7] = 9;
        for other in [tcp(true, 1, 0, 0, ACK, 1160), udp, fragment] {
            long.sent(now, &other);
            assert!(long.watched.is_none());
        }
        let mut v6 = vec![0x60, 0, 0, 0, 4, 0xec, 6, 64];
        v6.extend([[0xfd; 16], [0xfe; 16]].concat());
        v6.extend(&tcp(true, 1, 5, 0, ACK, 1240)[20..]);
        let read = segment(&v6).unwrap();
        assert_eq!((read.start, read.end, read.acknowledged), (5, 1245, Some(0)));
        assert_eq!(read.to.to_string(), "[fefe:fefe:fefe:fefe:fefe:fefe:fefe:fefe]:1883");
    }

    proptest! {
        #[test]
        fn no_packet_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..100), is_v4: bool) {
            if is_v4 && bytes.len() > 20 {
                bytes[..10].copy_from_slice(&[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6]);
                bytes[3] = bytes.len().to_le_bytes()[0];
            }
            let _ = segment(&bytes);
        }
    }
}
