use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const V5_CONNACK: &[u8] = &[0x20, 3, 0, 0, 0];

#[test]
fn a_disconnect_without_property_length_is_understood() {
    let reasons = scanned(&[V5_CONNACK, &[0xE0, 0x01, 0x8E]]);
    assert_eq!(reasons.disconnect().map(|said| said.code), Some(0x8E));
}

#[test]
fn reason_string_and_server_reference_are_kept_cut_and_on_one_line() {
    let mut body = vec![0x9D, 0, 0x1C, 0, 3];
    body.extend(b"b:1");
    body.extend([0x1F, 0, 7]);
    body.extend(b"go\naway");
    body[1] = u8::try_from(body.len() - 2).unwrap();
    let disconnect = [&[0xE0, u8::try_from(body.len()).unwrap()][..], &body].concat();

    let reasons = scanned(&[V5_CONNACK, &disconnect]);

    let said = reasons.disconnect().unwrap();
    assert_eq!(said.server.as_ref().unwrap().as_str(), "b:1");
    assert_eq!(said.text.as_ref().unwrap().as_str(), "go?away");
}

#[test]
fn an_answer_in_the_format_of_3_1_1_ends_a_session_of_5() {
    for code in [0, 1, 5] {
        let reasons = scanned(&[&[0x20, 0x02, 0x00, code]]);
        assert_eq!(reasons.violation(), Some(Violation::AnswersV3 { code }));
        assert_eq!(reasons.connack().map(|said| said.code), Some(code));
    }
    let (mut guard, reasons) = InboundGuard::new((), MqttVersion::V311, false);
    assert_eq!(guard.inspect(&[0x20, 2, 0, 0]), 4);
    assert_eq!(reasons.violation(), None);
}

#[test]
fn limits_of_zero_are_violations() {
    let receive_maximum = [0x20, 6, 0, 0, 3, 0x21, 0, 0];
    assert_eq!(scanned(&[&receive_maximum]).violation(), Some(Violation::ReceiveMaximumZero));
    let packet_size = [0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 0];
    assert_eq!(scanned(&[&packet_size]).violation(), Some(Violation::MaximumPacketSizeZero));
    let one = [0x20, 11, 0, 0, 8, 0x21, 0, 1, 0x27, 0, 0, 1, 0];
    assert_eq!(scanned(&[&one]).violation(), None);
}

#[test]
fn a_flood_of_ping_responses_is_a_violation_and_those_of_a_long_session_are_none() {
    let flood = [0xD0, 0].repeat(17);
    let reasons = scanned(&[V5_CONNACK, &flood]);
    assert_eq!(reasons.violation(), Some(Violation::UnsolicitedPingResponses));
    let (mut guard, reasons) = InboundGuard::new((), MqttVersion::V5, false);
    guard.inspect(V5_CONNACK);
    (0..1000).for_each(|_| assert_eq!(guard.inspect(&[0xD0, 0]), 2));
    assert_eq!(reasons.violation(), None);
}

#[test]
fn what_is_no_broker_is_recognised_by_its_first_bytes() {
    for (bytes, expected) in [
        (&b"HTTP/1.0 403 Forbidden\r\n"[..], Some(PeerProtocol::Http)),
        (&[0x15, 3, 3, 0, 2, 2, 40], Some(PeerProtocol::Tls)),
        (b"SSH-2.0-OpenSSH\r\n", Some(PeerProtocol::Other)),
        (&[0x30, 3, 0, 1, b't'], Some(PeerProtocol::Other)),
        (b"HTT", None),
    ] {
        let expected = expected.map(Violation::NotMqtt);
        assert_eq!(scanned(&[bytes]).violation(), expected);
        let single: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(scanned(&single).violation(), expected);
    }
}

#[test]
fn a_message_without_a_subscription_is_a_violation() {
    let message = [0x30, 4, 0, 1, b't', 0];
    assert_eq!(scanned(&[V5_CONNACK, &message]).violation(), Some(Violation::UnsolicitedMessage));
    for version in [MqttVersion::V311, MqttVersion::V5] {
        let (mut guard, reasons) = InboundGuard::new((), version, true);
        let connack: &[u8] = if version == MqttVersion::V5 { V5_CONNACK } else { &[0x20, 2, 0, 0] };
        assert_eq!(guard.inspect(connack) + guard.inspect(&message), connack.len() + message.len());
        assert_eq!(reasons.violation(), None);
    }
}

#[test]
fn packets_that_a_broker_does_not_send_are_violations() {
    for (packet, expected) in [
        (vec![0x10, 0], Violation::UnexpectedPacket { kind: 1 }),
        (vec![0xF0, 0], Violation::UnexpectedPacket { kind: 15 }),
        (vec![0x20, 3, 0, 0, 0], Violation::SecondConnack),
        (vec![0x40, 0xFF, 0xFF, 0x3F], Violation::PacketTooLong { kind: 4, bytes: 1_048_575 }),
        (vec![0x40, 0xFF, 0xFF, 0xFF, 0xFF, 1], Violation::MalformedLength),
    ] {
        let reasons = scanned(&[V5_CONNACK, &packet]);
        assert_eq!(reasons.violation(), Some(expected), "{packet:?}");
    }
}

#[test]
fn more_properties_than_memory_allows_are_a_violation() {
    let (mut guard, reasons) = InboundGuard::new((), MqttVersion::V5, true);
    guard.inspect(V5_CONNACK);
    // 1 MB of user properties, each 5 bytes: rumqttc would keep 10 MB of them, twice.
    guard.inspect(&[0x30, 0xC4, 0x84, 0x3D, 0, 1, b't', 0xC0, 0x84, 0x3D]);
    assert_eq!(reasons.violation(), Some(Violation::PropertiesTooLong { bytes: 1_000_000 }));
}

proptest! {
    #[test]
    fn a_payload_is_never_taken_for_a_disconnect(
        payload in vec(prop_oneof![Just(0xE0), Just(0x01), any::<u8>()], 1..400),
        cut in 1_usize..40,
    ) {
        let bytes = [V5_CONNACK, &message(0x30, &[], &payload)].concat();
        let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
        let (mut guard, reasons) = InboundGuard::new((), MqttVersion::V5, true);
        for piece in &pieces {
            prop_assert_eq!(guard.inspect(piece), piece.len());
        }
        prop_assert!(reasons.disconnect().is_none());
        guard.inspect(&[0xE0, 0x01]);
        guard.inspect(&[0x8E]);
        prop_assert_eq!(reasons.disconnect().map(|said| said.code), Some(0x8E));
    }

    /// Whatever stands before and behind the alias, and however the stream is cut: the packet is
    /// never complete for rumqttc.
    #[test]
    fn a_topic_alias_never_passes(
        qos in 0_u8..3,
        before in vec(any::<u8>(), 0..300),
        alias in 1_u16..,
        behind in vec(any::<u8>(), 0..50),
        cut in 1_usize..40,
    ) {
        let length = u16::try_from(before.len()).unwrap().to_be_bytes();
        let properties =
            [&[0x09][..], &length, &before, &[0x23], &alias.to_be_bytes()].concat();
        let packet = message(0x30 | qos << 1, &properties, &behind);
        let bytes = [V5_CONNACK, &packet].concat();
        let (mut guard, reasons) = InboundGuard::new((), MqttVersion::V5, true);
        let mut passed = 0;
        for piece in bytes.chunks(cut) {
            if reasons.violation().is_none() {
                passed += guard.inspect(piece);
            }
        }
        prop_assert_eq!(reasons.violation(), Some(Violation::TopicAlias));
        prop_assert!(passed < bytes.len());
    }

    #[test]
    fn any_bytes_are_judged_in_the_same_way_however_they_are_cut(
        bytes in vec(prop_oneof![Just(0x20), Just(0x30), Just(2), Just(0), any::<u8>()], 0..200),
        cut in 1_usize..20,
        subscribes: bool,
    ) {
        let judged = |pieces: Vec<&[u8]>| {
            let (mut guard, reasons) = InboundGuard::new((), MqttVersion::V5, subscribes);
            for piece in pieces {
                if reasons.violation().is_none() {
                    guard.inspect(piece);
                }
            }
            (reasons.violation(), reasons.connack().cloned(), reasons.disconnect().cloned())
        };
        prop_assert_eq!(judged(vec![&bytes]), judged(bytes.chunks(cut).collect()));
    }
}

/// Returns a PUBLISH of version 5 on the topic `t`.
fn message(header: u8, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let packet_id: &[u8] = if header & 0b0110 == 0 { &[] } else { &[0, 7] };
    let length = encoded_length(properties.len());
    let body = [&[0, 1, b't'], packet_id, &length, properties, payload].concat();
    [&[header][..], &encoded_length(body.len()), &body].concat()
}

fn encoded_length(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7F).unwrap() | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).unwrap());
    bytes
}

fn scanned(pieces: &[&[u8]]) -> BrokerReasons {
    let (mut guard, reasons) = InboundGuard::new((), MqttVersion::V5, false);
    for piece in pieces {
        if reasons.violation().is_none() {
            guard.inspect(piece);
        }
    }
    reasons
}
