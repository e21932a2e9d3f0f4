//! TLS to the broker with the authorities that the system knows.

use std::time::Duration;

use e2e::{CertificateAuthority, Gateway, Mosquitto, Simulator, temp_dir};

const SOON: Duration = Duration::from_secs(20);

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
    let config = format!(
        "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"mqtts://localhost:{}\"]\n{}",
        port.number(),
        plc.plc_sections(1, Duration::from_millis(100)),
    );
    // Where the system keeps them (rustls-native-certs, openssl(1)).
    let roots = |name: &str, authority: &CertificateAuthority| {
        let file = dir.write(name, &authority.pem()).display().to_string();
        let mut gateway = Gateway::start_with(&config, &[("SSL_CERT_FILE", &file)]);
        gateway.wait_until_ready(SOON);
        gateway
    };

    let stranger = roots("other.pem", &CertificateAuthority::new());
    stranger.wait_for_metric("edge_plc_up{plc=\"p0\"}", SOON, |up| up > 0.0);
    let words = "was not issued by an authority that this gateway knows";
    e2e::eventually(words, SOON, || stranger.get("/status").body.contains(words).then_some(()));
    drop(stranger);
    assert!(consumer.drain(Duration::ZERO).is_empty());

    let _gateway = roots("ca.pem", &authority);
    consumer.wait_for("data", SOON, |message| message.topic.starts_with("edge/g/data/"));
}
