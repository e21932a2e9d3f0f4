//! A box without a battery-backed clock starts in 1970, in a machine whose clock the test can set.
//! Samples are marked; when the clock is set, the times of samples still in the queue are
//! corrected.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use e2e::{Gateway, GatewayConfig, Guest, LocalHub, Mosquitto, Simulator, eventually};
use tunnel::PrivateKey;

/// An emulated machine is slow, and slower while a compiler runs.
const GUEST_TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn in_a_guest_samples_before_the_clock_was_set_are_marked_and_corrected() {
    let (mut broker, plc) = (Mosquitto::builder().persistent().start(), Simulator::start());
    // The broker keeps what the gateway sends before the consumer has connected again.
    let consumer = broker.subscribe_persistent("consumer", "edge/+/data/#");
    let config = GatewayConfig::with_broker("site", broker.url())
        .set("gateway.state_dir", "/state")
        .set("publish.datetime", "unix_ms")
        .plcs(plc.plc_sections(1, Duration::from_millis(500)));
    let since = unix_ms();
    let guest = Guest::builder()
        .network()
        .program(Gateway::program())
        .file("/gateway.toml", config.for_guest())
        .setup("date -s @3600\nmkdir /state\nedge-gateway run /gateway.toml &")
        .boot();

    let early = consumer.next(GUEST_TIMEOUT).json();
    assert_eq!(early["gateway"]["quality"]["life"], "unsynced", "{early}");
    assert!(early["life"].is_u64(), "the value is there: {early}");
    assert!(early["datetime"].as_u64() < Some(86_400_000), "{early}");

    broker.stop();
    let drained = consumer.drain(Duration::from_millis(500)).len();
    // The one after the last that was received may have reached the broker too.
    let last_sent = u64::try_from(drained).expect("a few") + 1;
    let asks = |page: &str, answer: &str| {
        let line = format!("wget -q -O - http://127.0.0.1:9464/{page} | grep -q '{answer}'");
        eventually(answer, GUEST_TIMEOUT, || (guest.try_run(&line).code == 0).then_some(()));
    };
    asks("metrics", "^edge_samples_stored [2-9]");
    guest.run(&format!("date -s @{}", unix_ms() / 1000));
    asks("status", "\"clock\":{\"state\":\"floor\"");
    broker.start_again();

    let (mut is_corrected, mut is_synced) = (false, false);
    // New messages overtake the backlog.
    while !(is_corrected && is_synced) {
        let message = consumer.next(GUEST_TIMEOUT).json();
        let stamp = &message["gateway"];
        let is_unsynced = stamp.get("quality").is_some();
        if is_unsynced && stamp["seq"].as_u64() <= Some(last_sent) {
            continue;
        }
        assert!(!is_unsynced, "{message}");
        let at = message["datetime"].as_u64().expect("milliseconds");
        // The clock was set to a whole second.
        assert!((since - 1000..=unix_ms() + 1000).contains(&at), "{message}");
        is_synced |= stamp.get("history").is_none() && stamp.get("corrected").is_none();
        is_corrected |= stamp["corrected"] == true;
    }
}

#[test]
fn in_a_guest_a_tunnel_that_starts_in_1970_reports_it_and_connects_when_the_clock_is_set() {
    let (broker, plc) = (Mosquitto::start(), Simulator::start());
    let consumer = broker.subscribe("edge/+/data/#");
    let key = PrivateKey::generate();
    let behind = broker.url().trim_start_matches("mqtt://").parse().expect("an address");
    let hub = LocalHub::start(key.public_key(), None, behind);
    // The hub has accepted a handshake with a later time.
    hub.connect_once(&key);
    let address = LocalHub::ADDRESS;
    let config = GatewayConfig::with_broker("site", format!("mqtt://{address}:1883"))
        .set("gateway.state_dir", "/state")
        .set("metrics.listen", vec!["0.0.0.0:9464"])
        .set("tunnel.private_key_file", "/tunnel.key")
        .set("tunnel.address", format!("{}/32", LocalHub::SITE_ADDRESS))
        .hub("hub-a", hub.address(), hub.public_key(), address)
        .plcs(plc.plc_sections(1, Duration::from_millis(500)));
    let guest = Guest::builder()
        .network()
        .program(Gateway::program())
        .file("/gateway.toml", config.for_guest())
        .file("/tunnel.key", key.expose().as_bytes())
        .setup("chmod 600 /tunnel.key\ndate -s @3600\nmkdir /state")
        .setup("edge-gateway run /gateway.toml &")
        .boot();
    let says = |answer: &str| {
        let line = format!("wget -q -O - http://127.0.0.1:9464/status | grep -q '{answer}'");
        eventually(answer, GUEST_TIMEOUT, || (guest.try_run(&line).code == 0).then_some(()));
    };

    says("\"state\":\"clock_behind\",\"sentence\":\"Nothing comes back from hub-a");
    says("the clock of this device is in the past");
    assert_eq!(consumer.try_next(Duration::ZERO), None);
    guest.run(&format!("date -s @{}", unix_ms() / 1000));

    consumer.next(GUEST_TIMEOUT);
    says("\"state\":\"up\",\"sentence\":\"The tunnel to hub-a is up.");
}

#[expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "the test sets the clock of the guest"
)]
fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(now.as_millis()).expect("it fits for long")
}
