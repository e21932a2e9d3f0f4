//! What the document promises: the subscribing server can connect and receive the data when it is
//! able.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::time::Duration;

use e2e::{Capture, Gateway, Mosquitto, NodeRed, SampleCounts, Simulator, Subscriber};

const LONG: Duration = Duration::from_secs(60);
/// Messages that pile up: three times what Mosquitto keeps by default. `E2E_PILE` makes it more.
const PILE: f64 = 3000.0;
/// Together 400 messages a second.
const PLCS: usize = 8;
const SCAN: Duration = Duration::from_millis(20);

fn pile() -> f64 {
    std::env::var("E2E_PILE").map_or(PILE, |pile| pile.parse().expect("a number"))
}

/// As long as it takes for a pile of the usual height.
fn long() -> Duration {
    LONG.mul_f64((pile() / PILE).max(1.0))
}

/// Lets messages pile up at the broker, then the PLCs go silent.
fn pile_up(broker: &Mosquitto) -> Gateway {
    let plc = Simulator::start();
    let gateway = Gateway::start_ready(&format!(
        "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"{}\"]\n{}",
        broker.url(),
        plc.plc_sections(PLCS, SCAN)
    ));
    gateway.wait_for_metric("edge_samples_delivered_total", long(), |count| count > pile());
    gateway
}

fn gets_everything(gateway: &Gateway, consumer: &Subscriber) {
    let mut capture = Capture::default();
    let next = |quiet| {
        let message = consumer.try_next(quiet)?;
        assert_eq!(message.qos, 1);
        Some(message)
    };
    let figures = capture.add_rest(gateway, long(), next);
    assert_eq!(
        figures,
        SampleCounts { produced: figures.delivered, stored: 0, dropped: 0, ..figures }
    );
    assert_eq!(capture.duplicates(), 0, "nothing failed, so nothing came twice");
    capture.assert_complete();
}

#[test]
fn a_consumer_that_was_away_gets_what_was_published_meanwhile() {
    let broker = Mosquitto::start();
    let consumer = broker.subscribe_persistent("consumer", "edge/g/data/#");
    assert_eq!(consumer.stop(), []);
    let gateway = pile_up(&broker);

    let consumer = broker.subscribe_persistent("consumer", "edge/g/data/#");

    gets_everything(&gateway, &consumer);
}

#[test]
fn node_red_that_was_away_gets_what_was_published_meanwhile() {
    let (broker, node_red) = (Mosquitto::start(), NodeRed::new());
    let consumer = node_red.start(&broker);
    let subscribed = format!("Sending SUBACK to {}", NodeRed::CLIENT_ID);
    let subscribed = broker.log().wait_for_line(&subscribed, LONG);
    assert!(subscribed.is_some(), "{}", consumer.log().text());
    assert_eq!(consumer.stop(), []);
    let gateway = pile_up(&broker);

    let consumer = node_red.start(&broker);

    gets_everything(&gateway, &consumer);
}
