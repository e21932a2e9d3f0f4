//! Promise 3: SIGKILL at any moment, with a broker that restarts from time to time: every sample is
//! delivered, stored, or within the announced window.

use std::thread;
use std::time::Duration;

use e2e::{Capture, Gateway, GatewayConfig, Message, Mosquitto, Simulator};

const SLOW_TIMEOUT: Duration = Duration::from_secs(60);
/// Kills with each of the other durabilities.
const FEW_KILLS: u64 = 25;
/// The broker is restarted with every one of these kills.
const RESTART_EVERY: u64 = 25;

#[test]
fn balanced_survives_kills() {
    let kills = test_settings::KILLS.number();
    every_number_is_accounted_for("balanced", kills, Duration::from_millis(500));
}

#[test]
fn strict_survives_kills() {
    every_number_is_accounted_for("strict", FEW_KILLS, Duration::from_millis(500));
}

/// It runs longer between kills, since `low-wear` writes after four seconds.
#[test]
fn low_wear_survives_kills() {
    every_number_is_accounted_for("low-wear", FEW_KILLS, Duration::from_millis(1500));
}

fn every_number_is_accounted_for(durability: &str, kills: u64, longest: Duration) {
    let plc = Simulator::start();
    let mut broker = Mosquitto::builder().persistent().start();
    let consumer = broker.subscribe_persistent("consumer", "edge/g/#");
    let mut random = fastrand::Rng::with_seed(7);
    // Fast enough that messages are always in flight.
    let config = GatewayConfig::with_broker("g", broker.url())
        .set("queue.durability", durability)
        .plcs(plc.plc_sections(4, Duration::from_millis(50)));
    let mut gateway = Gateway::start(config);
    let mut messages = Vec::new();
    for kill in 0..kills {
        // A random moment is the point of this test, the start included: there is no event to wait
        // for.
        thread::sleep(longest.mul_f64(random.f64()));
        if kill % RESTART_EVERY == RESTART_EVERY - 1 {
            broker.stop();
            thread::sleep(Duration::from_millis(random.u64(..400)));
            gateway.kill();
            gateway.start_again();
            broker.start_again();
        } else {
            gateway.kill();
            gateway.start_again();
        }
        messages.extend(consumer.drain(Duration::ZERO));
    }
    gateway.wait_until_ready(SLOW_TIMEOUT);
    gateway.wait_for_metric("edge_mqtt_connected", SLOW_TIMEOUT, |up| up > 0.0);
    let (status, log) = gateway.terminate(SLOW_TIMEOUT);
    assert!(status.success(), "{}", log.text());
    messages.extend(consumer.drain(Duration::from_secs(3)));

    let is_unclean =
        |message: &&Message| message.json().get("event").is_some_and(|it| it == "unclean_start");
    let events = messages.iter().filter(is_unclean);
    assert!(events.count() as u64 > kills / 10, "too few starts were unclean");
    let (is_clean, report) = Capture::of(&messages).audit();
    assert!(is_clean, "{report}");
}
