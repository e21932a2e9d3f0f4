//! TLS to the broker with the trusted authorities of the system.

use std::time::Duration;

use e2e::{
    CertificateAuthority, EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, Simulator, temp_dir,
};

#[test]
fn an_authority_of_the_system_is_trusted_and_another_is_not() {
    let (dir, plc, authority) = (temp_dir(), Simulator::start(), CertificateAuthority::new());
    let (certificate, key) = authority.sign("localhost");
    let certificate = dir.write("broker.pem", &certificate);
    let key = dir.write("broker.key", &key);
    let port = e2e::Port::reserve();
    let broker = Mosquitto::builder()
        .line(&format!("listener {} 127.0.0.1", port.number()))
        .line(&format!("certfile {}", certificate.display()))
        .line(&format!("keyfile {}", key.display()))
        .start();
    let consumer = broker.subscribe("edge/#");
    let url = format!("mqtts://localhost:{}", port.number());
    let plcs = plc.plc_sections(1, Duration::from_millis(100));
    let config = GatewayConfig::with_broker("g", url).plcs(plcs);
    // Overrides the trust store of the system (rustls-native-certs, openssl(1)).
    let roots = |name: &str, authority: &CertificateAuthority| {
        let file = dir.write(name, &authority.pem()).display().to_string();
        let mut gateway = Gateway::start_with(&config, &[("SSL_CERT_FILE", &file)]);
        gateway.wait_until_ready(EVENT_TIMEOUT);
        gateway
    };

    let stranger = roots("other.pem", &CertificateAuthority::new());
    stranger.wait_for_metric("edge_plc_up{plc=\"p0\"}", EVENT_TIMEOUT, |up| up > 0.0);
    let words = "was not issued by an authority that this gateway knows";
    e2e::eventually(words, EVENT_TIMEOUT, || {
        stranger.get("/status").body.contains(words).then_some(())
    });
    drop(stranger);
    assert!(consumer.drain(Duration::ZERO).is_empty());

    let _gateway = roots("ca.pem", &authority);
    consumer.wait_for("data", EVENT_TIMEOUT, |message| message.topic.starts_with("edge/g/data/"));
}
