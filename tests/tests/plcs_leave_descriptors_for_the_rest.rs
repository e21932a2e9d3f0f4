//! With fewer descriptors than PLCs the broker, the queue and the pages still get theirs, and a PLC
//! that has to wait says why.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use e2e::{EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, PlcConfig, RECOVERY_TIMEOUT};

const PLCS: u8 = 100;
const OPEN_FILES: u32 = 64;

/// Starts a Modbus server that holds zeros and accepts any number of connections. Returns its port.
fn modbus_server() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("there is a free port");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || answer(stream));
        }
    });
    port
}

/// Answers requests for holding registers (Modbus Application Protocol V1.1b3, 6.3).
fn answer(mut stream: TcpStream) {
    let mut request = [0; 12];
    while stream.read_exact(&mut request).is_ok() {
        let bytes = 2 * request[11];
        let mut answer = [&request[..4], &[0, bytes + 3], &request[6..8], &[bytes]].concat();
        answer.resize(answer.len() + usize::from(bytes), 0);
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

fn config(broker: &Mosquitto) -> GatewayConfig {
    let port = modbus_server();
    let plcs = (1..=PLCS).map(|number| {
        PlcConfig::new(&format!("p{number}"), "generic", format!("127.0.0.{number}:{port}"))
            .scan(Duration::from_millis(200))
            .tag("count", "holding:10", "UINT")
    });
    GatewayConfig::with_broker("g", broker.url()).plcs(plcs)
}

#[test]
fn more_plcs_than_descriptors_starve_neither_the_broker_nor_the_pages() {
    let mut broker = Mosquitto::start();
    let mut gateway =
        Gateway::start_with_limit(&format!("--nofile={OPEN_FILES}:{OPEN_FILES}"), config(&broker));
    gateway.wait_until_ready(EVENT_TIMEOUT);
    gateway.wait_for_metric("edge_mqtt_connected", EVENT_TIMEOUT, |up| up > 0.0);

    let status = e2e::eventually("a PLC waits", RECOVERY_TIMEOUT, || {
        let status = gateway.get("/status").body;
        status.contains("out_of_descriptors").then_some(status)
    });
    assert!(status.contains("LimitNOFILE"), "{status}");
    // The broker gets its descriptors again, although PLCs wait for some.
    broker.kill();
    gateway.wait_for_metric("edge_mqtt_connected", EVENT_TIMEOUT, |up| up < 1.0);
    broker.start_again();
    gateway.wait_for_metric("edge_mqtt_connected", RECOVERY_TIMEOUT, |up| up > 0.0);
    assert!(!gateway.log().contains("Too many open files"), "{}", gateway.log().text());
    assert!(gateway.log().contains("set LimitNOFILE"), "{}", gateway.log().text());
}

#[test]
fn check_notes_a_limit_that_is_too_low() {
    let dir = e2e::temp_dir();
    let file = dir.write("gateway.toml", &config(&Mosquitto::start()).to_string());
    let check = |limit: &str| {
        let mut command = Command::new("prlimit");
        command.arg(limit).arg(Gateway::program()).arg("check").arg(&file);
        let output = command.output().expect("prlimit is installed");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let noted = check("--nofile=64:64");
    assert!(noted.contains("100 PLC connections") && noted.contains("132 or more"), "{noted}");
    let noted = check("--nofile=64:132");
    assert!(!noted.contains("PLC connections"), "{noted}");
}
