//! The helpers of the tests: each third-party peer answers a simple request.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use e2e::{EVENT_TIMEOUT, Mosquitto, Process, Pymodbus, Retain};
use provisioning::plc::Table;

#[test]
fn a_published_message_reaches_the_subscriber() {
    let broker = Mosquitto::start();
    let subscriber = broker.subscribe("a/#");

    broker.publish("a/b", r#"{"x":1.50}"#, Retain::No);

    let message = subscriber.next(EVENT_TIMEOUT);
    assert_eq!(message.topic, "a/b");
    assert_eq!(message.payload, r#"{"x":1.50}"#);
    assert_eq!(message.json()["x"], 1.5);
    assert_eq!((message.qos, message.retained), (1, false));
}

#[test]
fn a_retained_message_is_marked_as_retained() {
    let broker = Mosquitto::start();
    broker.publish("kept", "old", Retain::Yes);

    let message = broker.subscribe("kept").next(EVENT_TIMEOUT);

    assert_eq!((message.payload.as_str(), message.retained), ("old", true));
}

#[test]
fn a_persistent_broker_keeps_messages_for_an_absent_consumer() {
    let mut broker = Mosquitto::builder().persistent().start();
    drop(broker.subscribe_persistent("node-red", "a"));
    broker.publish("a", "while away", Retain::No);
    broker.restart();
    broker.publish("a", "after a restart", Retain::No);
    broker.stop();
    broker.start_again();

    let subscriber = broker.subscribe_persistent("node-red", "a");

    assert_eq!(subscriber.next(EVENT_TIMEOUT).payload, "while away");
    assert_eq!(subscriber.next(EVENT_TIMEOUT).payload, "after a restart");
}

#[test]
fn a_broker_without_persistence_loses_its_messages() {
    let mut broker = Mosquitto::start();
    broker.publish("kept", "old", Retain::Yes);
    broker.kill();
    broker.start_again();

    assert_eq!(broker.subscribe("kept").try_next(Duration::from_millis(200)), None);
}

#[test]
fn accounts_and_acl_apply_to_all_clients_except_those_of_the_test() {
    let broker =
        Mosquitto::builder().user("gw", "secret").acl("user gw\ntopic write mine/#").start();
    let subscriber = broker.subscribe("#");
    let port = broker.port().to_string();
    let publish = |password: &str, topic: &str| {
        Command::new("mosquitto_pub")
            .args(["-p", &port, "-u", "gw", "-P", password, "-q", "1", "-t", topic, "-m", topic])
            .output()
            .expect("mosquitto_pub is installed")
    };

    assert!(!publish("wrong", "mine/a").status.success());
    publish("secret", "others/a");
    assert!(publish("secret", "mine/b").status.success());

    assert_eq!(subscriber.next(EVENT_TIMEOUT).topic, "mine/b");
    assert!(broker.log().contains("Denied PUBLISH"), "{}", broker.log().text());
}

#[test]
fn pymodbus_answers_a_raw_frame_and_counts_it() {
    let mut plc = Pymodbus::start();
    plc.set_registers(Table::HoldingRegister, 10, &[0x1234, 0xABCD]);
    let mut connection = TcpStream::connect(plc.address()).expect("the server listens");

    let answer = ask(&mut connection, &[3, 0, 10, 0, 2]);

    assert_eq!(answer, [3, 4, 0x12, 0x34, 0xAB, 0xCD]);
    assert_eq!(plc.request_counts(), [(3, 1)].into());
    assert_eq!(plc.connection_count(), 1);
}

#[test]
fn pymodbus_serves_all_four_tables_and_takes_writes() {
    let mut plc = Pymodbus::start();
    plc.set_bits(Table::Coil, 65_520, &[true, false, true]);
    plc.set_bits(Table::DiscreteInput, 3, &[true]);
    plc.set_registers(Table::InputRegister, 65_535, &[7]);
    let mut connection = TcpStream::connect(plc.address()).expect("the server listens");

    assert_eq!(ask(&mut connection, &[1, 0xFF, 0xF0, 0, 3]), [1, 1, 0b101]);
    assert_eq!(ask(&mut connection, &[2, 0, 3, 0, 1]), [2, 1, 1]);
    assert_eq!(ask(&mut connection, &[4, 0xFF, 0xFF, 0, 1]), [4, 2, 0, 7]);
    assert_eq!(ask(&mut connection, &[6, 0, 5, 0, 9]), [6, 0, 5, 0, 9]);
    assert_eq!(plc.registers(Table::HoldingRegister, 5, 2), [9, 0]);
    assert_eq!(plc.bits(Table::Coil, 65_520, 3), [true, false, true]);
}

#[test]
fn pymodbus_refuses_what_it_is_told_to_refuse() {
    let mut plc = Pymodbus::start();
    plc.refuse(Table::HoldingRegister, 20..=29, 2);
    let mut connection = TcpStream::connect(plc.address()).expect("the server listens");

    assert_eq!(ask(&mut connection, &[3, 0, 15, 0, 5]).first(), Some(&3));
    assert_eq!(ask(&mut connection, &[3, 0, 15, 0, 6]), [0x83, 2]);
    plc.clear_refusals();
    assert_eq!(ask(&mut connection, &[3, 0, 15, 0, 6]).first(), Some(&3));
}

#[test]
fn pymodbus_closes_its_port_and_comes_back_with_its_values() {
    let mut plc = Pymodbus::start();
    plc.set_registers(Table::HoldingRegister, 0, &[5]);
    let mut old = TcpStream::connect(plc.address()).expect("the server listens");
    ask(&mut old, &[3, 0, 0, 0, 1]);

    plc.close();
    let end = old.read(&mut [0]);
    assert!(matches!(end, Ok(0) | Err(_)), "still open: {end:?}");
    assert!(TcpStream::connect(plc.address()).is_err());

    plc.open();
    let mut new = TcpStream::connect(plc.address()).expect("it listens again");
    assert_eq!(ask(&mut new, &[3, 0, 0, 0, 1]), [3, 2, 0, 5]);
}

#[test]
fn dropping_a_process_kills_it() {
    let process = Process::start(Command::new("sleep").arg("1000"));
    let proc = format!("/proc/{}", process.id());
    assert!(std::fs::exists(&proc).expect("/proc can be read"));

    drop(process);

    assert!(!std::fs::exists(&proc).expect("/proc can be read"));
}

/// One Modbus TCP round trip (MODBUS Messaging on TCP/IP V1.0b, 3.1.3): the PDU without header.
fn ask(connection: &mut TcpStream, pdu: &[u8]) -> Vec<u8> {
    let length = u16::try_from(pdu.len() + 1).expect("a PDU is short").to_be_bytes();
    let header = [0, 1, 0, 0, length[0], length[1], 255];
    connection.write_all(&[&header, pdu].concat()).expect("the connection is open");
    let mut header = [0; 7];
    connection.read_exact(&mut header).expect("the server answers");
    let mut pdu = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]])) - 1];
    connection.read_exact(&mut pdu).expect("the server answers in full");
    pdu
}
