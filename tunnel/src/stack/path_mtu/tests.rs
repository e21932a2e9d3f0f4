use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const HEARD: Option<Duration> = Some(Duration::ZERO);
const ACK: u8 = 0x10;
const RST: u8 = 0x04;
const SITE: u8 = 12;
const BROKER: u8 = 2;

/// Returns a segment between port 1883 of a broker and the site's port.
fn tcp(from_site: bool, sequence: u32, acknowledged: u32, flags: u8, length: usize) -> Vec<u8> {
    let total = u16::try_from(length).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0];
    let (site, broker) = ([10, 77, 0, SITE], [10, 88, 0, BROKER]);
    packet.extend(if from_site { [site, broker] } else { [broker, site] }.concat());
    let ports: [u16; 2] = if from_site { [50_000, 1883] } else { [1883, 50_000] };
    packet.extend(ports.map(u16::to_be_bytes).concat());
    packet.extend(sequence.to_be_bytes());
    packet.extend(acknowledged.to_be_bytes());
    packet.extend([0x50, flags, 4, 0, 0, 0, 0, 0]);
    packet.resize(length, 7);
    packet
}

fn long(sequence: u32, length: usize) -> Vec<u8> {
    tcp(true, sequence, 1, ACK, length)
}

/// Returns the ICMP message with which a router reports a packet.
pub(in crate::stack) fn too_big(packet: &[u8], mtu: u16) -> Vec<u8> {
    let is_v4 = packet[0] >> 4 == 4;
    let (kind, quoted) = if is_v4 { ([3, 4], &packet[..28]) } else { ([2, 0], &packet[..60]) };
    // The MTU is at the same place in both families: two bytes of four.
    let mtu = [[0; 2], mtu.to_be_bytes()].concat();
    let message = [&kind[..], &[0; 2], &mtu, quoted].concat();
    let length = u16::try_from(message.len()).unwrap();
    let mut report = if is_v4 {
        let total = (20 + length).to_be_bytes();
        let head = [0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 1, 0, 0, 10, 77, 0, 1];
        [&head[..], &packet[12..16]].concat()
    } else {
        let length = length.to_be_bytes();
        let router: [u8; 16] = "fd77::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
        [&[0x60, 0, 0, 0, length[0], length[1], 58, 64][..], &router, &packet[8..24]].concat()
    };
    let at = report.len();
    report.extend(message);
    let pseudo =
        if is_v4 { Vec::new() } else { [&report[8..40], &[0, 58], &length.to_be_bytes()].concat() };
    let checksum = checksum(&[pseudo.as_slice(), &report[at..]].concat());
    report[at + 2..at + 4].copy_from_slice(&checksum);
    if is_v4 {
        let checksum = self::checksum(&report[..20]);
        report[10..12].copy_from_slice(&checksum);
    }
    report
}

/// Computes the checksum as in RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let pairs = bytes.chunks(2).map(|pair| [pair[0], *pair.get(1).unwrap_or(&0)]);
    let sum: u32 = pairs.map(|pair| u32::from(u16::from_be_bytes(pair))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()).to_be_bytes()
}

#[test]
fn a_report_lowers_the_mtu_of_its_destination_for_10_minutes() {
    let (mut paths, now) = (PathMtus::default(), Instant::now());
    assert_eq!(paths.on_sent(now, &long(1000, 1280), HEARD), None);
    paths.on_received(now, &too_big(&long(1000, 1280), 1000));
    assert_eq!(paths.on_sent(now, &long(1000, 1280), HEARD), Some(1000));
    assert_eq!(paths.on_sent(now, &long(3000, 1000), HEARD), None, "it fits");
    let mut elsewhere = long(1000, 1280);
    elsewhere[19] = 9;
    assert_eq!(paths.on_sent(now, &elsewhere, HEARD), None, "another destination");
    paths.on_received(now, &tcp(false, 1, 3960, ACK, 40));
    let late = now + LIFETIME - SECOND;
    assert_eq!(paths.on_sent(late, &long(3960, 1280), HEARD), Some(1000));
    assert_eq!(paths.on_sent(now + LIFETIME, &long(5200, 1280), HEARD), None);
}

#[test]
fn a_forged_report_matches_no_connection_and_goes_not_below_576() {
    let (mut paths, now) = (PathMtus::default(), Instant::now());
    paths.on_sent(now, &long(1000, 1280), HEARD);
    let mut other_port = long(1000, 1280);
    other_port[21] ^= 1;
    let mut other_host = long(1000, 1280);
    other_host[15] ^= 1;
    let mut damaged = too_big(&long(1000, 1280), 600);
    damaged[27] ^= 1;
    for forged in [
        too_big(&other_port, 600),
        too_big(&other_host, 600),
        too_big(&long(999, 1280), 600),
        too_big(&long(2240, 1280), 600),
        too_big(&long(1000, 1280), 1280),
        too_big(&long(1000, 1280), 1500),
        damaged,
    ] {
        paths.on_received(now, &forged);
        assert_eq!(paths.on_sent(now, &long(1000, 1280), HEARD), None);
    }
    for (mtu, expected) in [(1100, 1100), (1200, 1100), (68, 576), (1, 576)] {
        paths.on_received(now, &too_big(&long(1000, 1280), mtu));
        assert_eq!(paths.on_sent(now, &long(1000, 1280), HEARD), Some(expected));
    }
    // A connection that has ended, in either way.
    for end in [tcp(false, 1, 0, RST, 40), tcp(false, 1, 2240, ACK, 40)] {
        let mut paths = PathMtus::default();
        paths.on_sent(now, &long(1000, 1280), HEARD);
        paths.on_received(now, &end);
        paths.on_received(now, &too_big(&long(1000, 1280), 600));
        assert_eq!(paths.on_sent(now, &long(9000, 1280), HEARD), None);
    }
    let mut paths = PathMtus::default();
    paths.on_sent(now, &long(1000, 1280), HEARD);
    paths.on_sent(now, &tcp(true, 2240, 1, RST, 40), HEARD);
    paths.on_received(now, &too_big(&long(1000, 1280), 600));
    assert_eq!(paths.on_sent(now, &long(9000, 1280), HEARD), None);
}

#[test]
fn a_router_that_reports_no_mtu_takes_one_step() {
    let (mut paths, now) = (PathMtus::default(), Instant::now());
    paths.on_sent(now, &long(1000, 1280), HEARD);
    paths.on_received(now, &too_big(&long(1000, 1280), 0));
    assert_eq!(paths.on_sent(now, &long(1000, 1280), HEARD), Some(1000));
    paths.on_received(now, &too_big(&long(1000, 1000), 0));
    assert_eq!(paths.on_sent(now, &long(1000, 1280), HEARD), Some(576));
}

/// Sends a segment at the seconds at which TCP retransmits, and returns the MTU of each time.
fn losses(paths: &mut PathMtus, start: Instant, sequence: u32, length: usize) -> [Option<u16>; 7] {
    [0, 1, 3, 7, 15, 31, 63]
        .map(|second| paths.on_sent(start + second * SECOND, &long(sequence, length), HEARD))
}

#[test]
fn three_losses_lower_the_mtu_and_each_further_one_goes_a_step_down() {
    let mut paths = PathMtus::default();
    let expected = [None, None, None, Some(1000), Some(576), None, None];
    assert_eq!(losses(&mut paths, Instant::now(), 1000, 1280), expected);
    let mut paths = PathMtus::default();
    let expected = [None, None, None, Some(1280), Some(1000), Some(576), None];
    assert_eq!(losses(&mut paths, Instant::now(), 1000, 1420), expected);
    // The path may take no segment of the length that was lost.
    let mut paths = PathMtus::default();
    let expected = [None, None, None, Some(576), None, None, None];
    assert_eq!(losses(&mut paths, Instant::now(), 1000, 900), expected);
    // Short ones were lost too: the length is not the reason, for the next 10 minutes.
    let later = Instant::now() + 100 * SECOND;
    assert_eq!(losses(&mut paths, later, 1000, 900), [None; 7]);
}

#[test]
fn a_guess_is_tried_again_after_a_minute_and_kept_for_10_if_it_was_right() {
    let (mut paths, start) = (PathMtus::default(), Instant::now());
    losses(&mut paths, start, 1000, 1280)[..4].last().unwrap();
    let mut paths = PathMtus::default();
    for second in [0, 1, 3, 7] {
        paths.on_sent(start + second * SECOND, &long(1000, 1280), HEARD);
    }
    paths.on_received(start + 8 * SECOND, &tcp(false, 1, 2240, ACK, 40));
    let at = |second| start + second * SECOND;
    assert_eq!(paths.on_sent(at(60), &long(2240, 1280), HEARD), Some(1000));
    paths.on_received(at(60), &tcp(false, 1, 3480, ACK, 40));
    assert_eq!(paths.on_sent(at(67), &long(3480, 1280), HEARD), None);
    assert_eq!(paths.on_sent(at(68), &long(3480, 1280), HEARD), Some(1000), "one loss is enough");
    paths.on_received(at(68), &tcp(false, 1, 4720, ACK, 40));
    assert_eq!(paths.on_sent(at(667), &long(4720, 1280), HEARD), Some(1000));
    paths.on_received(at(667), &tcp(false, 1, 5960, ACK, 40));
    // The path is wide again.
    assert_eq!(paths.on_sent(at(668), &long(5960, 1280), HEARD), None);
    paths.on_received(at(668), &tcp(false, 1, 7200, ACK, 40));
    let unchanged = [None, None, None];
    assert_eq!(losses(&mut paths, at(700), 7200, 1280)[..3], unchanged, "it is unknown again");
}

#[test]
fn losses_while_the_hub_is_silent_fast_retransmissions_and_other_segments_do_not_count() {
    let (mut paths, start) = (PathMtus::default(), Instant::now());
    for second in 0..100 {
        let mtu = paths.on_sent(start + second * SECOND, &long(1000, 1280), Some(HUB_HEARD_WITHIN));
        assert_eq!(mtu, None);
    }
    for packet in 0..100 {
        let at = start + 100 * SECOND + packet * SECOND / 20;
        assert_eq!(paths.on_sent(at, &long(1000, 1280), HEARD), None);
        assert_eq!(paths.on_sent(at, &long(2240 + packet * 1240, 1280), HEARD), None);
    }
    // Each segment arrives at the second attempt.
    for round in 0..100 {
        let (at, sequence) = (start + (200 + 4 * round) * SECOND, 500_000 + round * 1240);
        paths.on_received(at, &tcp(false, 1, sequence, ACK, 40));
        assert_eq!(paths.on_sent(at, &long(sequence, 1280), HEARD), None);
        assert_eq!(paths.on_sent(at + SECOND, &long(sequence, 1280), HEARD), None);
    }
}

#[test]
fn paths_and_connections_are_bounded() {
    let (mut paths, now) = (PathMtus::default(), Instant::now());
    for number in 0..=u8::MAX {
        let mut packet = long(1000, 1280);
        packet[18] = number;
        paths.on_sent(now, &packet, HEARD);
        paths.on_received(now, &too_big(&packet, 1000));
    }
    assert_eq!((paths.paths.len(), paths.flows.len()), (MAX_PATHS, MAX_FLOWS));
}

proptest! {
    #[test]
    fn no_report_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..120), is_v4: bool) {
        if bytes.len() > 60 {
            if is_v4 {
                bytes[..10].copy_from_slice(&[0x45, 0, 0, 60, 0, 0, 0, 0, 64, 1]);
                bytes[20..22].copy_from_slice(&[3, 4]);
                bytes[28] = 0x45;
            } else {
                bytes[0] = 0x60;
                bytes[6] = 58;
                bytes[40..42].copy_from_slice(&[2, 0]);
            }
        }
        let mut paths = PathMtus::default();
        paths.on_sent(Instant::now(), &long(1000, 1280), HEARD);
        paths.on_received(Instant::now(), &bytes);
    }

    #[test]
    fn whatever_is_reported_no_mtu_is_below_the_floor(mtu: u16, is_again: bool) {
        let (mut paths, now) = (PathMtus::default(), Instant::now());
        for _ in 0..=u8::from(is_again) {
            paths.on_sent(now, &long(1000, 1280), HEARD);
            paths.on_received(now, &too_big(&long(1000, 1280), mtu));
        }
        let found = paths.on_sent(now, &long(1000, 1280), HEARD);
        prop_assert!(found.is_none_or(|found| (576..1280).contains(&found)));
    }
}
