//! Promise 8: nothing listens on the machine's side, and no secret is in a log, a metric, a status
//! or a process argument.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "test code may stop on the spot")]

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

use e2e::{Gateway, LocalHub, Mosquitto, Port, Pymodbus, TempDir, key_encodings, temp_dir};
use tunnel::{PresharedKey, PrivateKey};

const SOON: Duration = Duration::from_secs(10);
const SECRET: &str = "sesame-4711-open";

fn config(mqtt: &str, plc: &Pymodbus) -> String {
    format!(
        "[gateway]\nid = \"g\"\n[mqtt]\n{mqtt}\n\
         [[plc]]\nname = \"p\"\nmodel = \"M241\"\naddress = \"{}\"\nscan = \"50ms\"\n\
         [[plc.tag]]\nname = \"count\"\nat = \"%MW10\"\ntype = \"UINT\"\n",
        plc.address()
    )
}

/// The program's own commands over this configuration, output and errors together.
fn said(arguments: &[&str], gateway: &Gateway) -> String {
    let output = Command::new(Gateway::program())
        .args(arguments)
        .arg(gateway.config_path())
        .env("RUST_LOG", "trace")
        .output()
        .expect("the program is there");
    format!("{output:?}")
}

/// A file that only its owner can read; gives its path.
fn secret(dir: &TempDir, name: &str, text: &str) -> String {
    let path = dir.write(name, text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    path.display().to_string()
}

/// Looks for secrets everywhere that a gateway with this configuration tells something.
fn nothing_is_told(config: &str, secrets: &[String]) {
    let mut gateway = Gateway::start_with(config, &[("RUST_LOG", "trace")]);
    gateway.wait_until_ready(SOON);
    gateway.wait_for_metric("edge_samples_delivered_total", SOON, |delivered| delivered > 0.0);
    let log = gateway.log().text();
    assert!(log.contains("TRACE"), "trace is on, or this tests nothing: {log}");

    let process = format!("/proc/{}", gateway.id());
    let outputs = [
        ("log", log),
        ("metrics", gateway.get("/metrics").body),
        ("status", gateway.get("/status").body),
        ("arguments", fs::read_to_string(format!("{process}/cmdline")).expect("it runs")),
        ("environment", fs::read_to_string(format!("{process}/environ")).expect("it runs")),
        ("print-config", said(&["print-config", "--with-source"], &gateway)),
        ("plan", said(&["plan"], &gateway)),
        ("check", said(&["check"], &gateway)),
    ];

    for (place, text) in outputs {
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} in the {place}: {text}");
        }
    }
}

fn a_password_stays_secret(version: &str) {
    let (plc, dir) = (Pymodbus::start(), temp_dir());
    let broker = Mosquitto::builder().user("g", SECRET).start();
    let password = secret(&dir, "password", SECRET);
    let mqtt = format!(
        "brokers = [\"{}\"]\nversion = \"{version}\"\nusername = \"g\"\npassword_file = \"{}\"",
        broker.url(),
        password
    );
    let secrets = [SECRET.to_owned(), format!("{:?}", SECRET.as_bytes())];
    nothing_is_told(&config(&mqtt, &plc), &secrets);
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
    // A preshared key is 32 bytes of chance, as a private one is.
    let preshared = PrivateKey::generate().expose();
    let shared: PresharedKey = preshared.parse().expect("a key");
    let behind = broker.url().trim_start_matches("mqtt://").parse().expect("an address");
    let hub = LocalHub::start(key.public_key(), Some(shared), behind);
    let tunnel = format!(
        "[tunnel]\nprivate_key_file = \"{}\"\naddress = \"{}/32\"\n\
         [[tunnel.hub]]\nname = \"hub-a\"\nendpoint = \"{}\"\npublic_key = \"{}\"\n\
         preshared_key_file = \"{}\"\nallowed_ips = [\"{address}/32\"]\n",
        secret(&dir, "tunnel.key", &key.expose()),
        LocalHub::SITE_ADDRESS,
        hub.address(),
        hub.public_key(),
        secret(&dir, "preshared.key", &preshared),
        address = LocalHub::ADDRESS,
    );
    let mqtt = format!("brokers = [\"mqtt://{}:1883\"]", LocalHub::ADDRESS);
    let secrets = [key_encodings(&key.expose()), key_encodings(&preshared)].concat();
    nothing_is_told(&(config(&mqtt, &plc) + &tunnel), &secrets);
}

#[test]
fn nothing_listens_but_what_is_configured() {
    let (plc, broker) = (Pymodbus::start(), Mosquitto::start());
    let mqtt = format!("brokers = [\"{}\"]", broker.url());
    let (first, second) = (Port::reserve(), Port::reserve());
    let addresses = [first.address(), second.address()];
    let listen = format!("[metrics]\nlisten = [\"{}\", \"{}\"]\n", addresses[0], addresses[1]);
    let messages = broker.subscribe("edge/g/data/#");
    let gateway = Gateway::start_with(&(config(&mqtt, &plc) + &listen), &[]);
    messages.next(SOON);

    assert_eq!(listening(gateway.id()), BTreeSet::from(addresses));
}

#[test]
fn without_metrics_nothing_listens_but_the_owners_socket() {
    let (plc, broker) = (Pymodbus::start(), Mosquitto::start());
    let messages = broker.subscribe("edge/g/data/#");
    let mqtt = format!("brokers = [\"{}\"]", broker.url());
    let gateway = Gateway::start_with(&(config(&mqtt, &plc) + "[metrics]\nlisten = []\n"), &[]);
    messages.next(SOON);

    assert_eq!(listening(gateway.id()), BTreeSet::new());
    let socket = gateway.state_dir().join("status.sock");
    let metadata = fs::metadata(&socket).expect("the status socket is there");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
}

/// TCP addresses on which a process listens, from the kernel's own tables (proc(5)).
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
