//! The certificate of a gateway is replaced on disk under traffic: it connects with the new one by
//! itself, and no message is lost.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::panic,
    reason = "test code may stop on the spot, and certificates end on a date"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use e2e::{
    Capture, CertificateAuthority, EVENT_TIMEOUT, Gateway, GatewayConfig, LocalHub, Message,
    Mosquitto, Port, Simulator, Subscriber, TempDir, temp_dir,
};
use tunnel::PrivateKey;

/// Includes the interval at which the files are looked at.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(60);
const DAY: u64 = 86_400;

/// The files of both ends.
struct Pki {
    dir: TempDir,
    authority: CertificateAuthority,
}

impl Pki {
    fn new() -> Self {
        let (dir, authority) = (temp_dir(), CertificateAuthority::new());
        dir.write("ca.pem", &authority.pem());
        Self { dir, authority }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a broker that requires a certificate on a second port, and takes its common name for
    /// the user.
    fn broker(&self, host: &str, version: &str, port: &Port) -> Mosquitto {
        let (certificate, key) = self.authority.sign(host);
        let certificate = self.dir.write("broker.pem", &certificate);
        let key = self.dir.write("broker.key", &key);
        Mosquitto::builder()
            .persistent()
            .line(&format!("listener {} 127.0.0.1", port.number()))
            .line(&format!("tls_version {version}"))
            .line(&format!("certfile {}", certificate.display()))
            .line(&format!("keyfile {}", key.display()))
            .line(&format!("cafile {}", self.path("ca.pem").display()))
            .line("require_certificate true")
            .line("use_identity_as_username true")
            .start()
    }

    /// Puts a certificate of the gateway that ends within the last of these days in place of the one
    /// before.
    fn replace_client(&self, name: &str, days: u64) {
        let end = SystemTime::now() + Duration::from_secs(days * DAY - DAY / 2);
        let (certificate, key) = self.authority.sign_until(name, end);
        for (file, content) in [("own.key", key), ("own.pem", certificate)] {
            let new = self.dir.write("new", &content);
            fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).expect("it is own");
            fs::rename(new, self.path(file)).expect("one directory");
        }
    }

    fn config(&self, url: &str, plc: &Simulator) -> GatewayConfig {
        let path = |name: &str| self.path(name).display().to_string();
        GatewayConfig::with_broker("g", url)
            .set("mqtt.ca_file", path("ca.pem"))
            .set("mqtt.cert_file", path("own.pem"))
            .set("mqtt.key_file", path("own.key"))
            .plcs(plc.plc_sections(2, Duration::from_millis(100)))
    }
}

/// Renews the certificate of a gateway with this configuration, and checks what arrives.
fn renews(pki: &Pki, broker: &Mosquitto, config: &GatewayConfig, url: &str) {
    let consumer = broker.subscribe_persistent("consumer", "edge/#");
    let mut gateway = Gateway::start(config);
    gateway.wait_until_ready(EVENT_TIMEOUT);
    let is_data = |topic: &str| topic.starts_with("edge/g/data/");
    let mut received = Vec::new();
    receive(&consumer, &mut received, |message| is_data(&message.topic));
    let connected = |name: &str| format!("u'{name}'");
    broker.log().wait_for_line(&connected("old"), EVENT_TIMEOUT).expect("it is connected");
    let is_event = |message: &Message| message.topic == "edge/g/event";
    let is_told = |message: &Message| is_event(message) && message.json()["event"] == "certificate";
    // It may come before the first data.
    let event = received.iter().find(|message| is_told(message)).cloned();
    let event = event.unwrap_or_else(|| receive(&consumer, &mut received, is_told));
    assert_eq!(event.json()["file"], pki.path("own.pem").display().to_string());
    assert_eq!(event.json()["days"], 1);

    pki.replace_client("new", 900);

    broker.log().wait_for_line(&connected("new"), RENEWAL_TIMEOUT).expect("it connects again");
    for file in [pki.path("own.pem").display().to_string(), url.to_owned()] {
        let series = format!("edge_certificate_not_after_timestamp_seconds{{file=\"{file}\"}}");
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("later");
        let soon = since.as_secs_f64() + 30.0 * 86_400.0;
        gateway.wait_for_metric(&series, EVENT_TIMEOUT, |end| end > soon);
    }
    received.extend(consumer.drain(Duration::ZERO));
    receive(&consumer, &mut received, |message| is_data(&message.topic));
    gateway.terminate(EVENT_TIMEOUT);
    received.extend(consumer.drain(Duration::from_secs(1)));
    let log = broker.log().text();
    assert_eq!(log.matches(&connected("new")).count(), 1, "one new connection: {log}");
    let capture = Capture::of(&received);
    capture.assert_complete();
    let (is_complete, report) = capture.audit();
    assert!(is_complete, "{report}");
}

/// Receives messages up to one of this kind, and returns that one.
fn receive(
    consumer: &Subscriber,
    received: &mut Vec<Message>,
    is_it: impl Fn(&Message) -> bool,
) -> Message {
    let end = Instant::now() + EVENT_TIMEOUT;
    while let Some(message) = consumer.try_next(end.saturating_duration_since(Instant::now())) {
        received.push(message.clone());
        if is_it(&message) {
            return message;
        }
    }
    panic!("none in time: {received:?}")
}

#[test]
fn beside_the_tunnel_with_tls_1_2() {
    let (pki, plc, port) = (Pki::new(), Simulator::start(), Port::reserve());
    pki.replace_client("old", 2);
    let broker = pki.broker("localhost", "tlsv1.2", &port);
    let url = format!("mqtts://localhost:{}", port.number());
    renews(&pki, &broker, &pki.config(&url, &plc), &url);
}

#[test]
fn through_the_tunnel_with_tls_1_3() {
    let (pki, plc, port) = (Pki::new(), Simulator::start(), Port::reserve());
    pki.replace_client("old", 2);
    let broker = pki.broker(LocalHub::ADDRESS, "tlsv1.3", &port);
    let key = PrivateKey::generate();
    let hub = LocalHub::start(key.public_key(), None, port.address());
    let key_file = pki.dir.write("tunnel.key", key.expose().as_str());
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).expect("it is own");
    let url = format!("mqtts://{}:1883", LocalHub::ADDRESS);
    let config = pki
        .config(&url, &plc)
        .set("tunnel.private_key_file", key_file.display().to_string())
        .set("tunnel.address", format!("{}/32", LocalHub::SITE_ADDRESS))
        .hub("hub-a", hub.address(), hub.public_key(), LocalHub::ADDRESS);
    renews(&pki, &broker, &config, &url);
}
