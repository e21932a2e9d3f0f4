//! A persistent consumer that was away receives everything that was published meanwhile.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::time::Duration;

use e2e::{
    Capture, Gateway, GatewayConfig, Mosquitto, NodeRed, SampleCounts, Simulator, Subscriber,
};

const SLOW_TIMEOUT: Duration = Duration::from_secs(60);
/// Messages for which [`SLOW_TIMEOUT`] is meant: three times what Mosquitto stores by default.
const USUAL_MESSAGES: u32 = 3000;
/// Together 400 messages a second.
const PLCS: usize = 8;
const SCAN: Duration = Duration::from_millis(20);

/// Returns the number of messages that the broker stores for the consumer.
fn messages() -> u32 {
    u32::try_from(test_settings::MESSAGES.number()).expect("at most four billion messages")
}

/// Returns the time-out for that many messages.
fn timeout() -> Duration {
    SLOW_TIMEOUT * (messages() / USUAL_MESSAGES).max(1)
}

/// Publishes until the broker has stored enough messages, then ends the PLCs.
fn store_messages(broker: &Mosquitto) -> Gateway {
    let plc = Simulator::start();
    let config = GatewayConfig::with_broker("g", broker.url());
    let gateway = Gateway::start_ready(config.plcs(plc.plc_sections(PLCS, SCAN)));
    gateway.wait_for_metric("edge_samples_delivered_total", timeout(), |count| {
        count > messages().into()
    });
    gateway
}

fn gets_everything(gateway: &Gateway, consumer: &Subscriber) {
    let mut capture = Capture::default();
    let next = |quiet| {
        let message = consumer.try_next(quiet)?;
        assert_eq!(message.qos, 1);
        Some(message)
    };
    let figures = capture.add_rest(gateway, timeout(), next);
    assert_eq!(
        figures,
        SampleCounts { produced: figures.delivered, stored: 0, dropped: 0, ..figures }
    );
    assert_eq!(capture.duplicates(), 0, "nothing failed, so nothing came twice");
    capture.assert_complete();
}

#[test]
fn a_consumer_that_was_away_gets_the_messages_published_meanwhile() {
    let broker = Mosquitto::start();
    let consumer = broker.subscribe_persistent("consumer", "edge/g/data/#");
    assert_eq!(consumer.stop(), []);
    let gateway = store_messages(&broker);

    let consumer = broker.subscribe_persistent("consumer", "edge/g/data/#");

    gets_everything(&gateway, &consumer);
}

#[test]
fn node_red_that_was_away_gets_the_messages_published_meanwhile() {
    let (broker, node_red) = (Mosquitto::start(), NodeRed::new());
    let consumer = node_red.start(&broker);
    let subscribed = format!("Sending SUBACK to {}", NodeRed::CLIENT_ID);
    let subscribed = broker.log().wait_for_line(&subscribed, SLOW_TIMEOUT);
    assert!(subscribed.is_some(), "{}", consumer.log().text());
    assert_eq!(consumer.stop(), []);
    let gateway = store_messages(&broker);

    let consumer = node_red.start(&broker);

    gets_everything(&gateway, &consumer);
}
