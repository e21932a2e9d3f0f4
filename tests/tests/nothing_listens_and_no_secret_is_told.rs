//! Promise 8: nothing listens on the machine's side, and no secret is in a log, a metric, a status
//! or a process argument.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "test code may stop on the spot")]

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

use e2e::{
    EVENT_TIMEOUT, Gateway, GatewayConfig, LocalHub, Mosquitto, PlcConfig, Port, Pymodbus,
    key_encodings, temp_dir,
};
use tunnel::{PresharedKey, PrivateKey};

const SECRET: &str = "sesame-4711-open";

fn config(broker: impl Display, plc: &Pymodbus) -> GatewayConfig {
    let plc = PlcConfig::new("p", "M241", plc.address())
        .scan(Duration::from_millis(50))
        .tag("count", "%MW10", "UINT");
    GatewayConfig::with_broker("g", broker).plc(plc)
}

/// Runs a command of the program on this configuration; returns both outputs.
fn output_of(arguments: &[&str], gateway: &Gateway) -> String {
    let output = Command::new(Gateway::program())
        .args(arguments)
        .arg(gateway.config_path())
        .env("RUST_LOG", "trace")
        .output()
        .expect("the program is built");
    format!("{output:?}")
}

/// Searches every output of a gateway with this configuration for secrets.
fn nothing_is_told(config: &GatewayConfig, secrets: &[String]) {
    let mut gateway = Gateway::start_with(config, &[("RUST_LOG", "trace")]);
    gateway.wait_until_ready(EVENT_TIMEOUT);
    gateway.wait_for_metric("edge_samples_delivered_total", EVENT_TIMEOUT, |delivered| {
        delivered > 0.0
    });
    let process = format!("/proc/{}", gateway.id());
    let mut outputs = vec![
        ("metrics", gateway.get("/metrics").body),
        ("status", gateway.get("/status").body),
        ("arguments", fs::read_to_string(format!("{process}/cmdline")).expect("it runs")),
        // Only root can read that of a process that leaves no core dump.
        ("environment", fs::read_to_string(format!("{process}/environ")).unwrap_or_default()),
        ("print-config", output_of(&["print-config", "--with-source"], &gateway)),
        ("plan", output_of(&["plan"], &gateway)),
        ("check", output_of(&["check"], &gateway)),
    ];
    // Then the log is complete.
    let (_, log) = gateway.terminate(EVENT_TIMEOUT);
    assert!(log.contains("TRACE"), "the log has no trace lines: {}", log.text());
    outputs.push(("log", log.text()));

    for (place, text) in outputs {
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} in the {place}: {text}");
        }
    }
}

fn a_password_stays_secret(version: &str) {
    let (plc, dir) = (Pymodbus::start(), temp_dir());
    let broker = Mosquitto::builder().user("g", SECRET).start();
    let config = config(broker.url(), &plc)
        .set("mqtt.version", version)
        .set("mqtt.username", "g")
        .set("mqtt.password_file", dir.write_private("password", SECRET));
    let secrets = [SECRET.to_owned(), format!("{:?}", SECRET.as_bytes())];
    nothing_is_told(&config, &secrets);
}

#[test]
fn a_password_stays_secret_with_version_5() {
    a_password_stays_secret("5");
}

#[test]
fn a_password_stays_secret_with_version_3_1_1() {
    a_password_stays_secret("3.1.1");
}

#[test]
fn the_keys_of_the_tunnel_stay_secret() {
    let (plc, dir, broker) = (Pymodbus::start(), temp_dir(), Mosquitto::start());
    let key = PrivateKey::generate();
    // A preshared key is 32 random bytes, like a private key.
    let preshared = PrivateKey::generate().expose();
    let shared: PresharedKey = preshared.parse().expect("a key");
    let behind = broker.url().trim_start_matches("mqtt://").parse().expect("an address");
    let hub = LocalHub::start(key.public_key(), Some(shared), behind);
    let config = config(format!("mqtt://{}:1883", LocalHub::ADDRESS), &plc)
        .set("tunnel.private_key_file", dir.write_private("tunnel.key", &key.expose()))
        .set("tunnel.address", format!("{}/32", LocalHub::SITE_ADDRESS))
        .hub("hub-a", hub.address(), hub.public_key(), LocalHub::ADDRESS)
        .set_hub("preshared_key_file", dir.write_private("preshared.key", &preshared));
    let secrets = [key_encodings(&key.expose()), key_encodings(&preshared)].concat();
    nothing_is_told(&config, &secrets);
}

#[test]
fn only_the_configured_addresses_listen() {
    let (plc, broker) = (Pymodbus::start(), Mosquitto::start());
    let (first, second) = (Port::reserve(), Port::reserve());
    let addresses = [first.address(), second.address()];
    let listen = addresses.map(|address| address.to_string()).to_vec();
    let messages = broker.subscribe("edge/g/data/#");
    let config = config(broker.url(), &plc).set("metrics.listen", listen);
    let gateway = Gateway::start_with(config, &[]);
    messages.next(EVENT_TIMEOUT);

    assert_eq!(listening(gateway.id()), BTreeSet::from(addresses));
}

#[test]
fn without_metrics_only_the_status_socket_listens() {
    let (plc, broker) = (Pymodbus::start(), Mosquitto::start());
    let messages = broker.subscribe("edge/g/data/#");
    let config = config(broker.url(), &plc).set("metrics.listen", Vec::<String>::new());
    let gateway = Gateway::start_with(config, &[]);
    messages.next(EVENT_TIMEOUT);

    assert_eq!(listening(gateway.id()), BTreeSet::new());
    let socket = gateway.state_dir().join("status.sock");
    let metadata = fs::metadata(&socket).expect("the status socket is there");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_the_gateway_creates_is_for_its_own_user_only() {
    let (plc, broker) = (Pymodbus::start(), Mosquitto::start());
    let messages = broker.subscribe("edge/g/data/#");
    let gateway = Gateway::start_with(config(broker.url(), &plc), &[]);
    messages.next(EVENT_TIMEOUT);

    let mut directories = vec![gateway.state_dir()];
    let mut seen = 0;
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("it is readable") {
            let path = entry.expect("it is readable").path();
            let metadata = fs::symlink_metadata(&path).expect("it is there");
            let mode = metadata.permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
            seen += 1;
            if metadata.is_dir() {
                directories.push(path);
            }
        }
    }
    assert!(seen >= 3, "{seen} files");
}

/// Returns the TCP addresses that a process listens on (proc(5), /proc/PID/net/tcp).
fn listening(process: u32) -> BTreeSet<SocketAddr> {
    const LISTEN: &str = "0A";
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).expect("it runs");
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let own: BTreeSet<String> =
        targets.map(|target| target.to_string_lossy().into_owned()).collect();
    let mut found = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        // A machine without IPv6 has no table of it.
        let text = fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields[3] == LISTEN && own.contains(&format!("socket:[{}]", fields[9])) {
                found.insert(address(fields[1]));
            }
        }
    }
    found
}

/// `0100007F:1F90` is 127.0.0.1:8080; anything longer is IPv6, which no test configures.
fn address(text: &str) -> SocketAddr {
    let (host, port) = text.split_once(':').expect("host:port");
    let host = u32::from_str_radix(host, 16).expect("an IPv4 address in hexadecimal");
    let port = u16::from_str_radix(port, 16).expect("a port in hexadecimal");
    SocketAddr::from((host.to_ne_bytes(), port))
}
