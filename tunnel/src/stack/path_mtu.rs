//! The path MTU to each host behind the hub, as far as it is smaller than the MTU of the tunnel
//! (RFC 1191, RFC 8201). Pure.
//!
//! Behind the hub there may be another tunnel with a smaller MTU. Routers there report it with
//! ICMP, or drop long packets without a report. smoltcp has one MTU for all destinations, so its
//! long segments are split afterwards.

mod icmp;
#[cfg(test)]
pub(super) mod tests;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::core::TcpSegment;
use icmp::PacketTooBig;

/// Least path MTU of IPv4 that is believed: every host takes packets of this length (RFC 1122,
/// 3.3.2), and a lower one would only serve an attacker.
const MIN_MTU_V4: u16 = 576;
/// The same of IPv6 (RFC 8200, 5).
const MIN_MTU_V6: u16 = 1280;
/// Path MTUs to try in turn when no router reports one.
const STEPS: [u16; 3] = [1280, 1000, MIN_MTU_V4];
/// Transmissions of a segment that must be lost before the first step. After each further step one
/// loss is enough: the pauses between retransmissions double.
const LOSSES_BEFORE_FIRST_STEP: u32 = 3;
/// Least time between two transmissions of a segment whose loss counts: a fast retransmission
/// proves that later segments arrive.
const MIN_RETRANSMIT_PAUSE: Duration = Duration::from_millis(500);
/// Losses count only while the hub was heard within this time: otherwise the link is down. A hub
/// that receives data and has nothing to send answers after 10 s (KEEPALIVE_TIMEOUT).
const HUB_HEARD_WITHIN: Duration = Duration::from_secs(15);
/// Time after which a path MTU is forgotten, because the path may be another one (RFC 1191, 6.3).
const LIFETIME: Duration = Duration::from_secs(10 * 60);
/// The same for the first one that only losses suggest: the link may have been down.
const FIRST_GUESS_LIFETIME: Duration = Duration::from_secs(60);
/// Destinations and connections that are remembered; a gateway has a handful.
const MAX_PATHS: usize = 64;
const MAX_FLOWS: usize = 128;

/// What is known about the paths.
#[derive(Debug, Default)]
pub(super) struct PathMtus {
    paths: Vec<KnownPath>,
    flows: Vec<Flow>,
}

/// The path to one host.
#[derive(Debug)]
struct KnownPath {
    to: IpAddr,
    /// Its MTU, until that time; `None` for that of the tunnel.
    mtu: Option<(u16, Instant)>,
    /// What losses have suggested before, to be used again after one loss.
    last_guess: Option<u16>,
    /// Lost transmissions since something long was acknowledged.
    losses: u32,
    /// No shorter segment was acknowledged either, so until this time losses have another cause.
    ignored_until: Option<Instant>,
}

/// A connection with long segments.
#[derive(Debug)]
struct Flow {
    from: SocketAddr,
    to: SocketAddr,
    /// The unacknowledged bytes: sequence numbers of the first, and of the one after the last.
    unacknowledged: u32,
    next: u32,
    last_sent: Instant,
    /// Length of its longest packet since everything was acknowledged.
    longest: usize,
}

impl PathMtus {
    /// Records a packet that is sent, and returns the longest one that its path takes if it is
    /// longer, or if it is a SYN, whose segment size must be fitted. `hub_silence` is the time
    /// since the hub was heard.
    pub(super) fn on_sent(
        &mut self,
        now: Instant,
        packet: &[u8],
        hub_silence: Option<Duration>,
    ) -> Option<u16> {
        let is_long = packet.len() > usize::from(MIN_MTU_V4);
        if !is_long && self.paths.is_empty() && self.flows.is_empty() {
            return None;
        }
        let segment = TcpSegment::parse(packet)?;
        if segment.is_reset {
            self.forget_flow(&segment);
        } else if is_long {
            let is_hub_alive = hub_silence.is_none_or(|silence| silence < HUB_HEARD_WITHIN);
            if self.is_retransmission(now, &segment, packet.len())
                && is_hub_alive
                && let Some(path) = self.path(segment.to.ip())
            {
                path.on_loss(now, packet.len());
            }
        }
        let path = self.paths.iter_mut().find(|path| path.to == segment.to.ip())?;
        let mtu = path.mtu(now)?;
        (segment.is_syn || packet.len() > usize::from(mtu)).then_some(mtu)
    }

    /// Records a packet from the hub.
    pub(super) fn on_received(&mut self, now: Instant, packet: &[u8]) {
        if self.flows.is_empty() {
            return;
        }
        if let Some(segment) = TcpSegment::parse(packet) {
            self.on_segment(now, &segment);
        } else if let Some(report) = PacketTooBig::parse(packet) {
            self.on_packet_too_big(now, &report);
        }
    }

    fn on_segment(&mut self, now: Instant, segment: &TcpSegment) {
        if segment.is_reset {
            let is_other = |flow: &Flow| (flow.to, flow.from) != (segment.from, segment.to);
            return self.flows.retain(is_other);
        }
        let Some(acknowledged) = segment.acknowledged else { return };
        let flow =
            self.flows.iter_mut().find(|flow| (flow.to, flow.from) == (segment.from, segment.to));
        let Some(flow) = flow.filter(|flow| flow.has_new(acknowledged)) else { return };
        flow.unacknowledged = acknowledged;
        let longest = flow.longest;
        if let Some(path) = self.paths.iter_mut().find(|path| path.to == segment.from.ip()) {
            path.on_acknowledged(now, longest);
        }
    }

    /// Takes a smaller path MTU from a router's report, if it quotes a segment in flight: anyone
    /// can forge a report, but only those on the path know the sequence numbers (RFC 5927, 7.2).
    fn on_packet_too_big(&mut self, now: Instant, report: &PacketTooBig) {
        let is_in_flight = |flow: &Flow| {
            (flow.from, flow.to) == (report.from, report.to) && flow.is_in_flight(report.sequence)
        };
        if self.flows.iter().any(is_in_flight)
            && let Some(path) = self.path(report.to.ip())
        {
            path.on_packet_too_big(now, report);
        }
    }

    /// Records a long segment; returns whether the same bytes were sent before, long enough ago.
    fn is_retransmission(&mut self, now: Instant, segment: &TcpSegment, length: usize) -> bool {
        let is_same = |flow: &&mut Flow| (flow.from, flow.to) == (segment.from, segment.to);
        let Some(flow) = self.flows.iter_mut().find(is_same) else {
            if self.flows.len() >= MAX_FLOWS {
                self.flows.remove(0);
            }
            let (unacknowledged, next) = (segment.first_sequence, segment.end_sequence);
            let TcpSegment { from, to, .. } = *segment;
            let flow = Flow { from, to, unacknowledged, next, last_sent: now, longest: length };
            self.flows.push(flow);
            return false;
        };
        if flow.unacknowledged == flow.next {
            (flow.unacknowledged, flow.last_sent) = (segment.first_sequence, now);
            (flow.next, flow.longest) = (segment.end_sequence, length);
            return false;
        }
        flow.longest = flow.longest.max(length);
        if is_before(flow.next, segment.end_sequence) {
            flow.next = segment.end_sequence;
        }
        let is_again = segment.first_sequence == flow.unacknowledged
            && now >= flow.last_sent + MIN_RETRANSMIT_PAUSE;
        if segment.first_sequence == flow.unacknowledged {
            flow.last_sent = now;
        }
        is_again
    }

    fn forget_flow(&mut self, segment: &TcpSegment) {
        self.flows.retain(|flow| (flow.from, flow.to) != (segment.from, segment.to));
    }

    /// Returns the path to a host, which is created if it is new.
    fn path(&mut self, to: IpAddr) -> Option<&mut KnownPath> {
        let known = self.paths.iter().position(|path| path.to == to);
        let at = known.unwrap_or_else(|| {
            if self.paths.len() >= MAX_PATHS {
                self.paths.remove(0);
            }
            self.paths.push(KnownPath::new(to));
            self.paths.len() - 1
        });
        self.paths.get_mut(at)
    }
}

impl KnownPath {
    const fn new(to: IpAddr) -> Self {
        Self { to, mtu: None, last_guess: None, losses: 0, ignored_until: None }
    }

    /// Returns the MTU, unless it is to be forgotten.
    fn mtu(&mut self, now: Instant) -> Option<u16> {
        self.mtu = self.mtu.filter(|(_, until)| now < *until);
        self.mtu.map(|(mtu, _)| mtu)
    }

    const fn min_mtu(&self) -> u16 {
        if self.to.is_ipv4() { MIN_MTU_V4 } else { MIN_MTU_V6 }
    }

    /// Returns the next step below a length.
    fn step_below(&self, length: usize) -> Option<u16> {
        let is_lower = |step: &u16| usize::from(*step) < length && *step >= self.min_mtu();
        STEPS.into_iter().find(is_lower)
    }

    /// Records that a transmission of a packet of this length was lost.
    fn on_loss(&mut self, now: Instant, length: usize) {
        if self.ignored_until.is_some_and(|until| now < until) {
            return;
        }
        self.losses += 1;
        let known = self.mtu(now);
        let length = known.map_or(length, |mtu| length.min(mtu.into()));
        let is_enough =
            known.is_some() || self.last_guess.is_some() || self.losses >= LOSSES_BEFORE_FIRST_STEP;
        if !is_enough {
            return;
        }
        let again = self.last_guess.filter(|guess| known.is_none() && usize::from(*guess) < length);
        match again.or_else(|| self.step_below(length)) {
            Some(step) => {
                let is_first = self.last_guess.is_none() && known.is_none();
                let lifetime = if is_first { FIRST_GUESS_LIFETIME } else { LIFETIME };
                let until = self.mtu.map_or(now + lifetime, |(_, until)| until);
                (self.mtu, self.last_guess) = (Some((step, until)), Some(step));
            }
            // The shortest are lost too, so the length is not the reason.
            None => *self = Self { ignored_until: Some(now + LIFETIME), ..Self::new(self.to) },
        }
    }

    /// Records that packets of at most this length have arrived.
    fn on_acknowledged(&mut self, now: Instant, length: usize) {
        self.losses = 0;
        if self.mtu(now).is_none() && self.last_guess.is_some_and(|guess| length > guess.into()) {
            self.last_guess = None;
        }
    }

    /// Records a report of a router on the path.
    fn on_packet_too_big(&mut self, now: Instant, report: &PacketTooBig) {
        let reported = match report.mtu {
            // A router that does not know RFC 1191 reports none.
            0 => self.step_below(report.length.into()),
            mtu => Some(mtu.max(self.min_mtu())).filter(|mtu| *mtu < report.length),
        };
        let known = self.mtu(now);
        if let Some(mtu) = reported.filter(|mtu| known.is_none_or(|known| *mtu < known)) {
            self.mtu = Some((mtu, now + LIFETIME));
            self.losses = 0;
        }
    }
}

impl Flow {
    /// Returns whether an acknowledgement is for something that is in flight.
    const fn has_new(&self, acknowledged: u32) -> bool {
        is_before(self.unacknowledged, acknowledged) && !is_before(self.next, acknowledged)
    }

    const fn is_in_flight(&self, sequence: u32) -> bool {
        !is_before(sequence, self.unacknowledged) && is_before(sequence, self.next)
    }
}

/// Returns whether a sequence number is before another one (RFC 9293, 3.4).
const fn is_before(one: u32, other: u32) -> bool {
    one != other && other.wrapping_sub(one) < 1 << 31
}
