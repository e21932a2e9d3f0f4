//! Promise 3: after an outage everything arrives: with `order = "strict"` in the order of reading,
//! by default new messages first and the backlog marked as history.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "test code may stop on the spot")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use e2e::{Capture, Gateway, GatewayConfig, Message, Mosquitto, Port, RECOVERY_TIMEOUT, Simulator};
use serde_json::Value;

/// Together 200 messages a second.
const PLCS: usize = 4;
const SCAN: Duration = Duration::from_millis(20);
/// Size of the backlog, in messages: more than the gateway treats as new, which is 5 seconds of
/// them.
const BACKLOG: f64 = 1_800.0;

/// Returns the messages of a gateway that connects late to its broker, until the backlog is sent.
fn after_an_outage(configure: impl Fn(GatewayConfig) -> GatewayConfig) -> Vec<Message> {
    let (plc, broker, way) = (Simulator::start(), Mosquitto::start(), Port::reserve());
    let consumer = broker.subscribe("edge/g/data/#");
    let url = format!("mqtt://{}", way.address());
    let config = GatewayConfig::with_broker("g", url).plcs(plc.plc_sections(PLCS, SCAN));
    let mut gateway = Gateway::start_ready(configure(config));
    gateway.wait_for_metric("edge_samples_stored", RECOVERY_TIMEOUT, |count| count > BACKLOG);
    open(way.address(), broker.port());
    gateway.wait_for_metric("edge_samples_stored", RECOVERY_TIMEOUT, |count| count < 50.0);
    let (status, log) = gateway.terminate(RECOVERY_TIMEOUT);
    assert!(status.success(), "{}", log.text());
    let messages = consumer.drain(Duration::from_secs(1));
    let mut capture = Capture::default();
    messages.iter().for_each(|message| capture.add(message));
    capture.assert_complete();
    messages
}

/// Forwards connections from `from` to a port of this machine.
fn open(from: SocketAddr, to: u16) {
    let listener = TcpListener::bind(from).expect("the port is reserved for this");
    thread::spawn(move || {
        for there in listener.incoming().map_while(Result::ok) {
            let back = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).expect("the broker runs");
            for (from, to) in [(&there, &back), (&back, &there)] {
                let (mut from, mut to) = (copy(from), copy(to));
                thread::spawn(move || {
                    // An error ends the connection like a close.
                    drop(std::io::copy(&mut from, &mut to));
                    drop(to.shutdown(Shutdown::Write));
                });
            }
        }
    });
}

fn copy(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a handle can be copied")
}

fn seq(message: &Message) -> u64 {
    message.json()["gateway"]["seq"].as_u64().expect("it is stamped")
}

fn is_history(message: &Message) -> bool {
    message.json()["gateway"]["history"] == Value::Bool(true)
}

#[test]
fn with_the_strict_order_every_topic_arrives_in_the_order_of_reading() {
    let messages = after_an_outage(|config| config.set("queue.order", "strict"));
    let mut next: BTreeMap<&str, u64> = BTreeMap::new();
    for message in &messages {
        let next = next.entry(&message.topic).or_default();
        assert_eq!(seq(message), *next, "{message:?}");
        *next += 1;
    }
    assert!(messages.iter().filter(|message| is_history(message)).count() > 500);
}

#[test]
fn by_default_new_messages_overtake_the_backlog_which_is_marked() {
    let messages = after_an_outage(|config| config);
    let old = messages.iter().filter(|message| is_history(message));
    let newest_old = old.clone().map(seq).max().expect("there is a backlog");
    let last_old = messages.iter().rposition(is_history).expect("there is a backlog");
    let overtaking = |message: &&Message| !is_history(message) && seq(message) > newest_old;
    let overtaken = messages[..last_old].iter().filter(overtaking).count();
    assert!(old.count() > 500, "too few messages are marked");
    assert!(overtaken > 500, "only {overtaken} new messages came before the last old one");
}
