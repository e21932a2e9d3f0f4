//! The mock broker's packets against rumqttc's reader, and its reader against rumqttc's packets.

use bytes::BytesMut;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

use super::codec::{CodecError, Reply, Request, read, write};
use super::*;

const BOTH: [MqttVersion; 2] = [MqttVersion::V311, MqttVersion::V5];

#[test]
fn every_reply_is_one_complete_packet_for_a_client() {
    let limits = ConnackProperties {
        receive_max: Some(8),
        max_packet: Some(4096),
        keep_alive: Some(7),
        max_qos: Some(1),
        retain_available: Some(0),
    };
    let message = PublishedMessage {
        topic: "a/b".into(),
        payload: Bytes::from_static(b"payload"),
        retain: true,
        ..PublishedMessage::default()
    };
    let confirmed = PublishedMessage {
        qos: Qos::ExactlyOnce,
        properties: MessageProperties {
            expiry_seconds: Some(70_000),
            response_topic: Some("r/1".into()),
            correlation_data: Some(Bytes::from_static(b"\0\x01")),
        },
        ..message.clone()
    };
    let replies = [
        Reply::ConnAck { code: 0, session_present: true, limits },
        Reply::ConnAck { code: 0x87, session_present: false, limits: ConnackProperties::default() },
        Reply::PubAck { packet_id: 300, code: 0 },
        Reply::PubRec { packet_id: 300, code: 0 },
        Reply::PubComp(300),
        Reply::SubAck { packet_id: 300, codes: vec![1, 0x80] },
        Reply::SubAck { packet_id: 300, codes: vec![1; 300] },
        Reply::UnsubAck { packet_id: 300, codes: vec![0, 0x11] },
        Reply::PingResp,
        Reply::PubRel(300),
        Reply::Publish { packet_id: 0, dup: false, message },
        Reply::Publish { packet_id: 300, dup: true, message: confirmed },
    ];
    for reply in replies {
        for version in BOTH {
            let mut bytes = BytesMut::new();
            write(version, reply.clone(), &mut bytes).unwrap();
            match version {
                MqttVersion::V311 => drop(v4::Packet::read(&mut bytes, 4096).unwrap()),
                MqttVersion::V5 => drop(v5::Packet::read(&mut bytes, Some(4096)).unwrap()),
            }
            assert!(bytes.is_empty(), "{version:?} {reply:?}");
        }
    }
}

#[test]
fn connack_properties_are_read_as_written() {
    let limits = ConnackProperties {
        receive_max: Some(8),
        max_packet: Some(70_000),
        keep_alive: Some(7),
        max_qos: Some(1),
        retain_available: Some(0),
    };
    let mut bytes = BytesMut::new();
    let reply = Reply::ConnAck { code: 0, session_present: true, limits };
    write(MqttVersion::V5, reply, &mut bytes).unwrap();
    let v5::Packet::ConnAck(answer) = v5::Packet::read(&mut bytes, None).unwrap() else {
        panic!("no CONNACK")
    };
    let properties = answer.properties.unwrap();
    assert!(answer.session_present);
    assert_eq!(
        (properties.receive_max, properties.max_packet_size, properties.server_keep_alive),
        (Some(8), Some(70_000), Some(7))
    );
    assert_eq!((properties.max_qos, properties.retain_available), (Some(1), Some(0)));
}

#[test]
fn a_connect_is_read_in_its_version_once_it_is_complete() {
    for (version, whole) in [(MqttVersion::V311, connect_v4()), (MqttVersion::V5, connect_v5())] {
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            assert!(read(None, &mut part).unwrap().is_none(), "{version:?} {cut}");
        }
        let mut bytes = BytesMut::from(whole.as_slice());
        let Some(Request::Connect(connect)) = read(None, &mut bytes).unwrap() else {
            panic!("no CONNECT")
        };
        assert_eq!((connect.version, connect.client_id.len(), bytes.len()), (version, 200, 0));
    }
}

#[test]
fn another_protocol_is_rejected() {
    let mut bytes = BytesMut::from(&b"\x10\x0c\x00\x06MQIsdp\x03\x02\x00\x00"[..]);
    assert!(matches!(read(None, &mut bytes), Err(CodecError::Level(_) | CodecError::V4(_))));
    let mut bytes = BytesMut::from(&b"\x10\x0c\x00\x04MQTT\x09\x02\x00\x00\x00\x00"[..]);
    assert!(matches!(read(None, &mut bytes), Err(CodecError::Level(9))));
}

#[test]
fn a_disconnect_without_a_reason_is_understood() {
    for version in BOTH {
        let mut bytes = BytesMut::from(&[0xE0, 0][..]);
        assert!(matches!(
            read(Some(version), &mut bytes),
            Ok(Some(Request::Disconnect { with_will: false }))
        ));
    }
}

fn connect_v4() -> Vec<u8> {
    let mut bytes = BytesMut::new();
    v4::Connect::new("x".repeat(200)).write(&mut bytes).unwrap();
    bytes.to_vec()
}

fn connect_v5() -> Vec<u8> {
    let connect = v5::Connect {
        keep_alive: 30,
        client_id: "x".repeat(200),
        clean_start: true,
        properties: None,
    };
    let mut bytes = BytesMut::new();
    connect.write(&None, &None, &mut bytes).unwrap();
    bytes.to_vec()
}
