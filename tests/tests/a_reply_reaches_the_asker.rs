//! Promise 6: the reply to a command reaches its sender, on a response topic of MQTT 5 too, and
//! never one of the gateway's own topics.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::process::Command;
use std::time::Duration;

use e2e::{EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, PlcConfig, Retain, Subscriber};
use serde_json::Value;

const REPLIES: &str = "edge/g/reply/#";

/// Starts a gateway with one writable tag of a PLC that cannot be reached, and waits until it takes
/// commands. Refusals need no PLC.
fn start(broker: &Mosquitto) -> (Gateway, Subscriber) {
    let replies = broker.subscribe(REPLIES);
    let plc = PlcConfig::new("p", "M241", "127.0.0.1:1")
        .scan(Duration::from_secs(1))
        .tag("setpoint", "%MW20", "REAL")
        .set_tag("write.max", 90.0);
    let config = GatewayConfig::with_broker("g", broker.url());
    let gateway = Gateway::start_ready(config.plc(plc));
    gateway.wait_for_metric("edge_mqtt_connected", EVENT_TIMEOUT, |up| up > 0.0);
    (gateway, replies)
}

/// Sends a command with a response topic and returns the first answer there, if one comes.
fn request(broker: &Mosquitto, response_topic: &str, seconds: u64) -> Option<Value> {
    let answer = Command::new("mosquitto_rr")
        .args(["-V", "mqttv5", "-h", "127.0.0.1", "-p", &broker.port().to_string(), "-q", "1"])
        .args(["-t", "edge/g/set/p", "-e", response_topic, "-m", r#"{"no_such_tag":1}"#])
        .args(["-W", &seconds.to_string()])
        .output()
        .expect("the Debian package mosquitto-clients is installed");
    serde_json::from_slice(&answer.stdout).ok()
}

#[test]
fn a_refused_command_is_answered_on_its_response_topic_and_on_the_reply_topic() {
    let broker = Mosquitto::start();
    let (gateway, replies) = start(&broker);

    let copy = request(&broker, "panel/7/replies", 20).expect("a reply in time");

    assert_eq!(copy["state"], "rejected", "{copy}");
    assert!(copy["reason"].as_str().is_some_and(|reason| reason.contains("no_such_tag")), "{copy}");
    assert!(copy.get("gateway").is_none(), "a copy has no seq: {copy}");
    let reply = replies.next(EVENT_TIMEOUT).json();
    assert_eq!((&reply["state"], &reply["reason"]), (&copy["state"], &copy["reason"]));
    assert!(reply["gateway"]["seq"].is_number(), "{reply}");
    gateway.wait_for_metric(
        "edge_mqtt_replies_total{outcome=\"delivered\"}",
        EVENT_TIMEOUT,
        |count| count > 0.0,
    );
}

#[test]
fn no_reply_goes_to_a_topic_of_the_gateway_and_the_sender_learns_why() {
    let broker = Mosquitto::start();
    let (gateway, replies) = start(&broker);
    for own in ["edge/g/data/p", "edge/g/event", "edge/g/status"] {
        let own_topic = broker.subscribe(own);

        // mosquitto_rr takes what the gateway publishes there anyway for the reply.
        request(&broker, own, 1);

        let reply = replies.next(EVENT_TIMEOUT).json();
        let why = reply["response_topic"].as_str().unwrap_or_default();
        assert!(why.contains("one of this gateway"), "{reply}");
        while let Some(message) = own_topic.try_next(Duration::from_millis(100)) {
            assert!(message.json().get("reason").is_none(), "{own}: {}", message.json());
        }
    }
    assert_eq!(gateway.metric("edge_mqtt_replies_total{outcome=\"delivered\"}"), Some(0.0));
}

/// A message that the broker had retained may be of last year.
#[test]
fn a_retained_command_is_refused() {
    let broker = Mosquitto::start();
    broker.publish("edge/g/set/p", r#"{"setpoint":1}"#, Retain::Yes);

    let (_gateway, replies) = start(&broker);

    let reply = replies.next(EVENT_TIMEOUT).json();
    assert_eq!(reply["state"], "rejected", "{reply}");
    assert!(reply["reason"].as_str().is_some_and(|why| why.contains("retain")), "{reply}");
}
