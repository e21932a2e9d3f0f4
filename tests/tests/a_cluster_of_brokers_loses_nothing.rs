//! Promise 2 with third-party brokers: a node of a cluster dies, a broker is killed, and a
//! persistent consumer receives everything.

use std::time::Duration;

use e2e::{
    Capture, EVENT_TIMEOUT, Gateway, GatewayConfig, NatsCluster, RabbitMq, SampleCounts, Simulator,
    Subscriber, eventually,
};

/// A cluster that has lost a node does not answer for up to 20 s, and the gateway's reconnect
/// pauses grow to a minute.
const SLOW_TIMEOUT: Duration = Duration::from_secs(100);
const DATA: &str = "edge/g/data/#";
/// Together 160 messages a second, so that some are in flight at any moment.
const PLCS: usize = 8;
const SCAN: Duration = Duration::from_millis(50);
/// A few seconds of traffic, in messages.
const SOME_MESSAGES: usize = 300;

fn start_gateway(brokers: &[String], plc: &Simulator) -> Gateway {
    start_gateway_with("auto", brokers, plc)
}

fn start_gateway_with(version: &str, brokers: &[String], plc: &Simulator) -> Gateway {
    let config = GatewayConfig::new("g").brokers(brokers).set("mqtt.version", version);
    let gateway = Gateway::start_ready(config.plcs(plc.plc_sections(PLCS, SCAN)));
    gateway.wait_for_metric("edge_mqtt_connected", SLOW_TIMEOUT, |up| up > 0.0);
    // Both say that they do not support MQTT 5, or are told.
    gateway.wait_for_metric("edge_mqtt_version", EVENT_TIMEOUT, |version| {
        (2.5..3.5).contains(&version)
    });
    gateway
}

/// Stops the PLC, receives the rest and compares the gateway's counters with the messages.
fn finish(plc: Simulator, gateway: &Gateway, consumer: &Subscriber, mut capture: Capture) {
    drop(plc);
    let figures = capture.add_rest(gateway, SLOW_TIMEOUT, |quiet| consumer.try_next(quiet));
    assert_eq!(
        figures,
        SampleCounts { produced: figures.delivered, stored: 0, dropped: 0, ..figures }
    );
    capture.assert_complete();
}

#[test]
fn a_node_dies_under_the_gateway_and_a_consumer_at_another_gets_everything() {
    let (plc, mut cluster) = (Simulator::start(), NatsCluster::start());
    let consumer = cluster.subscribe_persistent(2, "consumer", DATA);
    let gateway = start_gateway(&cluster.brokers(), &plc);
    let mut capture = Capture::default();
    capture.add_distinct(SOME_MESSAGES, SLOW_TIMEOUT, |left| consumer.try_next(left));
    let holder = cluster.session_node("g");
    assert_ne!(holder, 2, "a broker of the top of the list, not the consumer's");

    cluster.kill(holder);
    gateway.wait_for_metric("edge_mqtt_connected", EVENT_TIMEOUT, |up| up < 1.0);
    gateway.wait_for_metric("edge_mqtt_connected", SLOW_TIMEOUT, |up| up > 0.0);

    capture.add_distinct(SOME_MESSAGES, SLOW_TIMEOUT, |left| consumer.try_next(left));
    assert_ne!(cluster.session_node("g"), holder);
    finish(plc, &gateway, &consumer, capture);
}

#[test]
fn a_consumer_whose_node_dies_while_it_is_away_gets_everything_at_another() {
    let (plc, mut cluster) = (Simulator::start(), NatsCluster::start());
    let consumer = cluster.subscribe_persistent(0, "consumer", DATA);
    let gateway = start_gateway(&cluster.brokers(), &plc);
    let mut capture = Capture::default();
    capture.add_distinct(SOME_MESSAGES, SLOW_TIMEOUT, |left| consumer.try_next(left));
    for message in consumer.stop() {
        capture.add(&message);
    }
    cluster.kill(cluster.session_node("g"));
    let before = SampleCounts::of(&gateway).delivered;
    eventually("the gateway delivers again", SLOW_TIMEOUT, || {
        (SampleCounts::of(&gateway).delivered > before + 300).then_some(())
    });

    let consumer = cluster.subscribe_persistent(1, "consumer", DATA);

    capture.add_distinct(SOME_MESSAGES, SLOW_TIMEOUT, |left| consumer.try_next(left));
    finish(plc, &gateway, &consumer, capture);
}

#[test]
fn rabbitmq_is_killed_and_started_again_and_a_consumer_gets_everything() {
    let (plc, mut broker) = (Simulator::start(), RabbitMq::start());
    // RabbitMQ 3.10 closes the connection at a CONNECT of version 5, without a word.
    let automatic = GatewayConfig::with_broker("auto", broker.url());
    let automatic = Gateway::start_ready(automatic.plcs(plc.plc_sections(1, SCAN)));
    let line = automatic.log().wait_for_line("closes the connection at once", EVENT_TIMEOUT);
    assert!(line.expect("it is reported").contains("version = \"3.1.1\""));
    drop(automatic);
    let consumer = broker.subscribe_persistent("consumer", DATA);
    let gateway = start_gateway_with("3.1.1", &[broker.url()], &plc);
    let mut capture = Capture::default();
    capture.add_distinct(SOME_MESSAGES, SLOW_TIMEOUT, |left| consumer.try_next(left));

    broker.kill();
    gateway.wait_for_metric("edge_mqtt_connected", EVENT_TIMEOUT, |up| up < 1.0);
    broker.start_again();
    gateway.wait_for_metric("edge_mqtt_connected", SLOW_TIMEOUT, |up| up > 0.0);

    capture.add_distinct(SOME_MESSAGES, SLOW_TIMEOUT, |left| consumer.try_next(left));
    finish(plc, &gateway, &consumer, capture);
}
