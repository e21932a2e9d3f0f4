//! Promises 2 and 3 with misbehaving brokers: each fault is reported, none causes a storm of
//! connects, and no message is lost without a reason or sent forever.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fmt::Display;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use e2e::{
    EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, PlcConfig, Pymodbus, RECOVERY_TIMEOUT,
    STOP_TIMEOUT,
};
use provisioning::plc::Table;
use serde_json::Value;

fn counter(plc: &Pymodbus) -> PlcConfig {
    PlcConfig::new("p", "M241", plc.address())
        .scan(Duration::from_millis(50))
        .tag("count", "%MW10", "UINT")
}

fn config(broker: impl Display, plc: &Pymodbus) -> GatewayConfig {
    GatewayConfig::with_broker("g", broker).plc(counter(plc))
}

/// A PLC whose value does not change: the test controls every message.
fn plc() -> Pymodbus {
    let mut plc = Pymodbus::start();
    plc.set_registers(Table::HoldingRegister, 10, &[7]);
    plc
}

/// Up to eight reconnects, with random pauses of up to 1, 2, 4 and so on to 60 s before them.
const CONVICTION_TIMEOUT: Duration = Duration::from_secs(240);

/// The counter and 300 more tags in a scan class of their own: messages of about 6 kB.
fn bulk(plc: &Pymodbus) -> PlcConfig {
    (100..400).fold(counter(plc), |plc, word| {
        plc.tag(&format!("bulk{word}"), &format!("%MW{word}"), "INT").set_tag("scan", "1s")
    })
}

/// Listens, calls `act` with every connection, and reports each to the returned channel.
fn peer(act: impl Fn(&mut std::net::TcpStream) + Send + 'static) -> (SocketAddr, Receiver<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let (told, connections) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            if told.send(()).is_err() {
                return; // The test has ended.
            }
            act(&mut stream);
        }
    });
    (address, connections)
}

#[test]
fn a_message_that_the_broker_closes_the_connection_over_does_not_stop_the_others() {
    let (mut plc, broker) = (plc(), Mosquitto::builder().line("max_packet_size 1000").start());
    let (data, events) = (broker.subscribe("edge/g/data/p"), broker.subscribe("edge/g/event"));
    let config = GatewayConfig::with_broker("g", broker.url()).set("mqtt.version", "3.1.1");
    let gateway = Gateway::start_ready(config.plc(bulk(&plc)));

    let produced = "edge_samples_produced_total";
    gateway.wait_for_metric(produced, EVENT_TIMEOUT, |produced| produced >= 300.0);
    plc.set_registers(Table::HoldingRegister, 10, &[8]);

    data.wait_for("what fits", CONVICTION_TIMEOUT, |message| message.json()["count"] == 8);
    // Only a message that the broker accepts in between shows that it is not the broker that fails.
    let too_large = "edge_samples_dropped_total{reason=\"too_large\"}";
    gateway.wait_for_metric(too_large, CONVICTION_TIMEOUT, |dropped| dropped >= 300.0);
    let event = events.next(CONVICTION_TIMEOUT).json();
    assert_eq!((&event["event"], &event["reason"]), (&Value::from("gap"), &"too_large".into()));
    assert!(gateway.log().contains("closes the connection each time"));
}

#[test]
fn the_packet_limit_of_the_broker_is_respected() {
    let (plc, broker) = (plc(), Mosquitto::builder().line("max_packet_size 1000").start());
    let events = broker.subscribe("edge/g/event");
    let config = GatewayConfig::with_broker("g", broker.url()).plc(bulk(&plc));
    let gateway = Gateway::start_ready(config);

    let event = events.next(EVENT_TIMEOUT).json();

    assert_eq!((&event["event"], &event["reason"]), (&Value::from("gap"), &"too_large".into()));
    assert_eq!(gateway.metric("edge_mqtt_connected"), Some(1.0), "{}", gateway.log().text());
}

/// Mosquitto 2.0.11 ends a session that another client takes over without a word, so the gateway
/// can only say what to check.
#[test]
fn two_gateways_with_one_client_id_are_both_told_what_to_check() {
    let (plc, broker) = (plc(), Mosquitto::start());
    let start = || Gateway::start_ready(config(broker.url(), &plc));
    let gateways = [start(), start()];
    for gateway in &gateways {
        let line = gateway.log().wait_for_line("no other client uses", RECOVERY_TIMEOUT);
        assert!(line.expect("it is reported").contains("the client id g"));
    }
}

#[test]
fn a_web_server_at_the_address_of_the_broker_is_reported() {
    let (address, connections) = peer(|stream| {
        let mut request = [0; 64];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    });
    let plc = plc();
    let gateway = Gateway::start_ready(config(format!("mqtt://{address}"), &plc));

    connections.recv_timeout(EVENT_TIMEOUT).expect("the gateway connects");

    let line = gateway.log().wait_for_line("MQTT", EVENT_TIMEOUT).expect("the gateway reports it");
    assert!(line.contains(&address.to_string()), "{line}");
}

#[test]
fn a_plc_at_the_address_of_the_broker_is_reported() {
    let plc = plc();
    let gateway = Gateway::start_ready(config(format!("mqtt://{}", plc.address()), &plc));

    let line =
        gateway.log().wait_for_line("MQTT", RECOVERY_TIMEOUT).expect("the gateway reports it");

    assert!(line.contains(&plc.address().to_string()), "{line}");
}

#[test]
fn a_silent_broker_does_not_delay_the_stop() {
    let (hold, held) = mpsc::channel();
    let (address, connections) = peer(move |stream| {
        let _ = hold.send(stream.try_clone());
    });
    let plc = plc();
    let mut gateway = Gateway::start_ready(config(format!("mqtt://{address}"), &plc));
    connections.recv_timeout(EVENT_TIMEOUT).expect("the gateway connects");
    gateway.wait_for_metric("edge_samples_stored", EVENT_TIMEOUT, |stored| stored > 0.0);

    let (status, log) = gateway.terminate(STOP_TIMEOUT);

    assert!(status.success(), "{}", log.text());
    assert!(log.contains("kept for the next start"), "{}", log.text());
    drop(held);
}

#[test]
fn a_name_that_does_not_resolve_hides_no_other_broker() {
    let (plc, broker) = (plc(), Mosquitto::start());
    let messages = broker.subscribe("edge/g/data/#");
    let two = ["mqtt://no-such-broker.invalid:1883".to_owned(), broker.url()];
    let config = GatewayConfig::new("g").brokers(two).plc(counter(&plc));
    let gateway = Gateway::start_ready(config);

    messages.wait_for("a value", RECOVERY_TIMEOUT, |message| message.json()["count"] == 7);

    let line = gateway.log().wait_for_line("no-such-broker.invalid", EVENT_TIMEOUT);
    assert!(line.is_some(), "{}", gateway.log().text());
}

#[test]
fn a_broker_that_stops_for_a_while_loses_nothing() {
    let (mut plc, broker) = (plc(), Mosquitto::start());
    let messages = broker.subscribe("edge/g/data/#");
    let gateway = Gateway::start_ready(config(broker.url(), &plc));
    messages.wait_for("a value", EVENT_TIMEOUT, |message| message.json()["count"] == 7);

    broker.signal("STOP");
    gateway.feed(&mut plc, 10, 100..120);
    broker.signal("CONT");

    for value in 100..120 {
        let payload = messages.next(EVENT_TIMEOUT).json();
        assert_eq!(payload["count"], value, "each once and in order");
    }
}

#[test]
fn a_broker_killed_in_the_middle_of_qos_2_costs_no_value() {
    let (mut plc, mut broker) = (plc(), Mosquitto::builder().persistent().start());
    let config = config(broker.url(), &plc).set("publish.qos", 2);
    let gateway = Gateway::start_ready(config);
    gateway.wait_for_metric("edge_mqtt_connected", EVENT_TIMEOUT, |up| up > 0.0);
    // Messages sent now are not acknowledged when the broker dies.
    broker.signal("STOP");
    gateway.feed(&mut plc, 10, 100..110);
    broker.kill();
    gateway.feed(&mut plc, 10, 110..120);

    broker.start_again();
    let consumer = broker.subscribe("edge/g/data/#");
    gateway.wait_for_metric("edge_samples_stored", RECOVERY_TIMEOUT, |stored| stored < 1.0);

    let text = gateway.get("/metrics").body;
    assert_eq!(gateway.metric("edge_samples_dropped_total{reason=\"full\"}"), Some(0.0), "{text}");
    gateway.feed(&mut plc, 10, [200]);
    consumer.wait_for("what came last", EVENT_TIMEOUT, |message| message.json()["count"] == 200);
}

/// A broker that sends topics with aliases, of which the gateway allows none: 65,000 bytes each, up
/// to 4 GB in all. It also refuses with reason strings that would forge lines of the log.
#[test]
fn a_flood_of_topic_aliases_takes_no_memory_and_forges_no_line() {
    let (address, connections) = peer(|stream| {
        let mut connect = [0; 512];
        let _ = stream.read(&mut connect);
        let _ = stream.write_all(&[0x20, 3, 0, 0, 0]);
        let topic = [b't'; 65_000];
        for alias in 1..=u16::MAX {
            // Topic, 3 bytes of properties with the alias, no payload: 65,006 bytes.
            let header = [0x30, 0xEE, 0xFB, 0x03, 0xFD, 0xE8];
            let [high, low] = alias.to_be_bytes();
            let sent = stream
                .write_all(&header)
                .and_then(|()| stream.write_all(&topic))
                .and_then(|()| stream.write_all(&[3, 0x23, high, low]));
            if sent.is_err() {
                return;
            }
        }
    });
    let plc = plc();
    let gateway = Gateway::start_ready(config(format!("mqtt://{address}"), &plc));

    for _ in 0..3 {
        connections.recv_timeout(RECOVERY_TIMEOUT).expect("the gateway connects again");
    }

    let line = gateway.log().wait_for_line("there is no subscription", EVENT_TIMEOUT);
    assert!(line.is_some(), "{}", gateway.log().text());
    let memory = gateway.peak_memory();
    assert!(memory < 64 << 20, "{memory} bytes");
}
