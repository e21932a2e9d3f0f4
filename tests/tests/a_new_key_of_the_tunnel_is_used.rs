//! A file with a key of the tunnel is read again while the tunnel is not up, without a person on
//! site.

use std::time::Duration;

use e2e::{
    EVENT_TIMEOUT, Gateway, GatewayConfig, LocalHub, Mosquitto, PlcConfig, Pymodbus,
    RECOVERY_TIMEOUT, temp_dir,
};
use tunnel::{PresharedKey, PrivateKey};

const PRESHARED: [&str; 2] = [
    "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=",
    "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=",
];

#[test]
fn keys_that_the_hub_knows_are_used_when_their_files_change_and_unusable_ones_are_reported() {
    let (plc, broker, dir) = (Pymodbus::start(), Mosquitto::start(), temp_dir());
    let data = broker.subscribe("edge/g/data/p");
    let key = PrivateKey::generate();
    let preshared: PresharedKey = PRESHARED[0].parse().expect("a key");
    let behind = broker.url().trim_start_matches("mqtt://").parse().expect("an address");
    let hub = LocalHub::start(key.public_key(), Some(preshared), behind);
    let other_key = PrivateKey::generate();
    let own_file = dir.write_private("tunnel.key", &other_key.expose());
    let preshared_file = dir.write_private("preshared", PRESHARED[1]);
    let address = LocalHub::ADDRESS;
    let section = PlcConfig::new("p", "M241", plc.address())
        .scan(Duration::from_millis(200))
        .tag("count", "%MW10", "UINT");
    let config = GatewayConfig::with_broker("g", format!("mqtt://{address}:1883"))
        .plc(section)
        .set("tunnel.private_key_file", own_file)
        .set("tunnel.address", format!("{}/32", LocalHub::SITE_ADDRESS))
        .hub("hub-a", hub.address(), hub.public_key(), address)
        .set_hub("preshared_key_file", preshared_file);
    let mut gateway = Gateway::start(config);
    let process = gateway.id();
    let log = gateway.log();
    log.wait_for_line("Nothing comes back", RECOVERY_TIMEOUT).expect("the hub knows another key");

    // A file that is half written ends nothing: the PLC is read on.
    dir.write_private("tunnel.key", "sesame");
    log.wait_for_line("the configuration cannot be used", RECOVERY_TIMEOUT).expect("it is told");
    let polled = "edge_plc_requests_total{outcome=\"ok\",plc=\"p\"}";
    let before = gateway.metric(polled).expect("it is there");
    gateway.wait_for_metric(polled, EVENT_TIMEOUT, |now| now > before + 3.0);

    dir.write_private("preshared", PRESHARED[0]);
    dir.write_private("tunnel.key", &key.expose());

    data.next(RECOVERY_TIMEOUT);
    assert_eq!(gateway.id(), process);
    gateway.wait_until_ready(EVENT_TIMEOUT);
}
