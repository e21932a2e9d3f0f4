//! Promise 7 with misbehaving Modbus servers: one connection, no storm of connects, a correct
//! diagnosis, and never a wrong value.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "test code may stop on the spot")]

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use e2e::{
    EVENT_TIMEOUT, Gateway, GatewayConfig, Message, Mosquitto, PlcConfig, Pymodbus,
    RECOVERY_TIMEOUT, Subscriber, eventually,
};
use provisioning::plc::Table;
use serde_json::{Value, json};

/// Connects per minute that the gateway allows itself.
const CONNECTS_PER_MINUTE: u32 = 6;

fn config(broker: &Mosquitto, address: impl Display) -> GatewayConfig {
    let plc = PlcConfig::new("p", "generic", address)
        .scan(Duration::from_millis(20))
        .set("timeout", "200ms")
        .tag("value", "holding:10", "UINT");
    GatewayConfig::with_broker("g", broker.url()).set("publish.heartbeat", "1s").plc(plc)
}

/// Starts a Modbus server that calls `act` with every connection and counts them.
fn server(act: impl Fn(TcpStream) + Send + Sync + 'static) -> (SocketAddr, Arc<AtomicU32>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let connections = Arc::new(AtomicU32::new(0));
    let (count, act) = (Arc::clone(&connections), Arc::new(act));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            count.fetch_add(1, Ordering::Relaxed);
            let act = Arc::clone(&act);
            thread::spawn(move || act(stream));
        }
    });
    (address, connections)
}

/// Reads the next request; `None` when the gateway has closed the connection.
fn request(stream: &mut TcpStream) -> Option<[u8; 12]> {
    let mut request = [0; 12];
    stream.read_exact(&mut request).ok().map(|()| request)
}

/// Returns the answer to a request for one register.
fn answer(request: &[u8; 12], unit: u8, value: u16) -> [u8; 11] {
    let [high, low] = value.to_be_bytes();
    [request[0], request[1], 0, 0, 0, 5, unit, 3, 2, high, low]
}

fn is_unreachable(message: &Message) -> bool {
    message.json()["gateway"]["quality"] == json!({"value": "unreachable"})
}

/// Waits for two heartbeats, which takes two seconds, and checks that they have no value.
fn no_value_comes(messages: &Subscriber) {
    for _ in 0..2 {
        let message = messages.next(EVENT_TIMEOUT);
        assert_eq!(message.json()["value"], Value::Null, "{message:?}");
    }
}

#[test]
fn a_server_that_times_out_is_disconnected_and_its_late_answer_is_ignored() {
    let (mut plc, broker) = (Pymodbus::start(), Mosquitto::start());
    plc.set_registers(Table::HoldingRegister, 10, &[7]);
    let messages = broker.subscribe("edge/g/data/p");
    let gateway = Gateway::start_ready(config(&broker, plc.address()));
    messages.wait_for("a value", EVENT_TIMEOUT, |message| message.json()["value"] == 7);

    plc.set_answer_delay(Duration::from_secs(5));
    messages.wait_for("bad quality", EVENT_TIMEOUT, is_unreachable);
    plc.set_registers(Table::HoldingRegister, 10, &[8]);
    no_value_comes(&messages);
    let status = gateway.get("/status").body;
    assert!(status.contains("answer") && status.contains("within 200ms"), "{status}");
    plc.set_answer_delay(Duration::ZERO);

    let back = messages
        .wait_for("a value", RECOVERY_TIMEOUT, |message| !message.json()["value"].is_null());
    assert_eq!(back.json()["value"], 8, "a late answer was taken for a new one");
    assert!(plc.connection_count() <= u64::from(CONNECTS_PER_MINUTE), "no storm");
}

#[test]
fn a_server_that_closes_after_each_answer_gets_no_storm_of_connects() {
    let (address, connections) = server(|mut stream| {
        if let Some(request) = request(&mut stream) {
            let _ = stream.write_all(&answer(&request, request[6], 7));
        }
    });
    let broker = Mosquitto::start();
    let messages = broker.subscribe("edge/g/data/p");
    let gateway = Gateway::start_ready(config(&broker, address));

    messages.wait_for("a value", EVENT_TIMEOUT, |message| message.json()["value"] == 7);
    let status = eventually("the status says so", EVENT_TIMEOUT, || {
        let status = gateway.get("/status").body;
        status.contains("server_closes").then_some(status)
    });
    let cycles = "edge_samples_produced_total";
    let before = gateway.metric(cycles).expect("is there");
    gateway.wait_for_metric(cycles, EVENT_TIMEOUT, |now| now > before);

    // It is read on, only not as often.
    assert!(!status.contains("unreachable"), "{status}");
    assert!(connections.load(Ordering::Relaxed) <= CONNECTS_PER_MINUTE);
}

#[test]
fn a_server_that_never_answers_is_reported() {
    let (address, connections) = server(|mut stream| while request(&mut stream).is_some() {});
    let broker = Mosquitto::start();
    let messages = broker.subscribe("edge/g/data/p");
    let gateway = Gateway::start_ready(config(&broker, address));

    messages.wait_for("bad quality", EVENT_TIMEOUT, is_unreachable);
    no_value_comes(&messages);

    let status = gateway.get("/status").body;
    assert!(status.contains("does not answer within"), "{status}");
    assert!(connections.load(Ordering::Relaxed) <= CONNECTS_PER_MINUTE);
}

#[test]
fn a_broker_at_the_address_of_the_plc_is_reported() {
    let broker = Mosquitto::start();
    let messages = broker.subscribe("edge/g/data/p");
    let gateway = Gateway::start_ready(config(&broker, format!("127.0.0.1:{}", broker.port())));

    messages.wait_for("bad quality", EVENT_TIMEOUT, is_unreachable);

    let status = gateway.get("/status").body;
    assert!(status.contains("Modbus"), "the diagnosis does not name Modbus: {status}");
}

#[test]
fn a_flood_of_unsolicited_bytes_becomes_no_value_and_fills_no_memory() {
    let (address, connections) = server(|mut stream| {
        let junk = [0; 64 * 1024];
        while stream.write_all(&junk).is_ok() {}
    });
    let broker = Mosquitto::start();
    let messages = broker.subscribe("edge/g/data/p");
    let gateway = Gateway::start_ready(config(&broker, address));
    messages.wait_for("bad quality", EVENT_TIMEOUT, is_unreachable);

    no_value_comes(&messages);

    assert!(gateway.peak_memory() < 64 << 20, "{}", gateway.peak_memory());
    assert!(connections.load(Ordering::Relaxed) <= CONNECTS_PER_MINUTE);
}

#[test]
fn an_answer_from_another_unit_is_not_a_value() {
    let (address, connections) = server(|mut stream| {
        while let Some(request) = request(&mut stream) {
            let _ = stream.write_all(&answer(&request, request[6].wrapping_add(1), 4711));
        }
    });
    let broker = Mosquitto::start();
    let messages = broker.subscribe("edge/g/data/p");
    let gateway = Gateway::start_ready(config(&broker, address));

    messages.wait_for("bad quality", EVENT_TIMEOUT, is_unreachable);
    no_value_comes(&messages);

    assert!(gateway.metric("edge_plc_requests_total{outcome=\"garbled\",plc=\"p\"}") > Some(0.0));
    assert!(connections.load(Ordering::Relaxed) <= CONNECTS_PER_MINUTE);
}
