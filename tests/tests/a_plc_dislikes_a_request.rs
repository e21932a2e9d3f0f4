//! Promise 5 on the wire: one register that a device does not have hides no other, with each of the
//! things that devices of public reports do with a request for it.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "test code may stop on the spot")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use e2e::{
    EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, PlcConfig, RECOVERY_TIMEOUT, eventually,
};
use serde_json::{Value, json};
use socket2::SockRef;

/// The first register that a device does not have.
const REGISTERS: u16 = 10;

/// What a device does with a request for a register that it does not have.
#[derive(Clone, Copy, Debug)]
enum Dislike {
    Exception(u8),
    /// Exception 2 in a frame whose length says that a byte more follows.
    LongException,
    Silence,
    Close,
    Reset,
    /// The right header, and a byte count that does not match the request.
    Garbage,
}

const DISLIKES: [Dislike; 8] = [
    Dislike::Exception(1),
    Dislike::Exception(4),
    Dislike::Exception(0),
    Dislike::LongException,
    Dislike::Silence,
    Dislike::Close,
    Dislike::Reset,
    Dislike::Garbage,
];

/// Starts a device that calls `answer` with each request: its header without the length, and its
/// PDU. It ends the connection when there is no answer.
fn device<A>(answer: A) -> SocketAddr
where
    A: Fn(&TcpStream, [u8; 4], &[u8]) -> Option<Vec<u8>> + Clone + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            thread::spawn(move || {
                let mut header = [0; 7];
                while stream.read_exact(&mut header).is_ok() {
                    let mut pdu = vec![0; usize::from(header[5]) - 1];
                    let id = [header[0], header[1], 0, 0];
                    let Ok(()) = stream.read_exact(&mut pdu) else { return };
                    let Some(bytes) = answer(&stream, id, &pdu) else { return };
                    let _ = stream.write_all(&bytes);
                }
            });
        }
    });
    address
}

/// Returns a frame of unit 1 (MODBUS Messaging on TCP/IP, 3.1.3).
fn frame(id: [u8; 4], pdu: &[u8]) -> Vec<u8> {
    let length = u8::try_from(pdu.len() + 1).expect("it is short");
    [&id[..], &[0, length, 1], pdu].concat()
}

/// Returns the answer of a device whose registers hold their own addresses; `None` if it has not
/// all of them.
fn registers(pdu: &[u8]) -> Option<Vec<u8>> {
    let &[3, first_high, first_low, 0, count] = pdu else { return Some(vec![pdu[0] | 0x80, 1]) };
    let first = u16::from_be_bytes([first_high, first_low]);
    let asked = first..first + u16::from(count);
    if asked.end > REGISTERS {
        return None;
    }
    Some([vec![3, 2 * count], asked.flat_map(u16::to_be_bytes).collect()].concat())
}

fn disliking(dislike: Dislike) -> SocketAddr {
    device(move |stream, id, pdu| match (registers(pdu), dislike) {
        (Some(answer), _) => Some(frame(id, &answer)),
        (None, Dislike::Exception(code)) => Some(frame(id, &[0x83, code])),
        (None, Dislike::LongException) => Some([&id[..], &[0, 4, 1, 0x83, 2]].concat()),
        (None, Dislike::Silence) => Some(Vec::new()),
        (None, Dislike::Garbage) => Some(frame(id, &[3, 1, 0])),
        (None, Dislike::Close) => None,
        (None, Dislike::Reset) => {
            SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("it is a TCP socket");
            None
        }
    })
}

/// Returns a PLC with tags `t0` to `t4` and one that the device does not have, `far`.
fn plc(name: &str, address: SocketAddr, max_gap: i64) -> PlcConfig {
    let plc = PlcConfig::new(name, "generic", address)
        .scan(Duration::from_millis(500))
        .set("timeout", "200ms")
        .set("max_gap", max_gap)
        .tag("far", "holding:12", "UINT");
    (0..5).fold(plc, |plc, at| plc.tag(&format!("t{at}"), &format!("holding:{at}"), "UINT"))
}

fn status(gateway: &Gateway) -> Value {
    serde_json::from_str(&gateway.get("/status").body).expect("the status is JSON")
}

#[test]
fn the_other_registers_are_read_and_the_one_that_the_device_lacks_is_named() {
    let broker = Mosquitto::start();
    let messages = broker.subscribe("edge/g/data/#");
    // One request for all tags, and one of its own for `far`.
    let gaps = [("joined", 32), ("apart", 0)];
    let plcs = DISLIKES.iter().enumerate().flat_map(|(index, dislike)| {
        gaps.map(|(name, gap)| plc(&format!("{name}{index}"), disliking(*dislike), gap))
    });
    let config = GatewayConfig::with_broker("g", broker.url()).set("publish.heartbeat", "1s");
    let gateway = Gateway::start_ready(config.plcs(plcs));

    let is_found = |plc: &Value| {
        let named = plc["refusal"].as_str().is_some_and(|refusal| refusal.contains("far"));
        named && plc["tags"]["good"] == 5
    };
    let mut seen = Value::Null;
    let all = || {
        seen = status(&gateway)["plcs"].take();
        seen.as_array().expect("a list").iter().all(is_found).then_some(())
    };
    eventually("each device is read but for one tag", RECOVERY_TIMEOUT, all);
    let good = messages.wait_for("values", EVENT_TIMEOUT, |message| message.json()["t4"] == 4);
    assert_eq!(good.json()["far"], Value::Null);
    assert_eq!(status_code(&gateway), Some(1), "all is not well");
}

/// Returns the exit code of `edge-gateway status`.
fn status_code(gateway: &Gateway) -> Option<i32> {
    let mut command = Command::new(Gateway::program());
    command.arg("status").arg(gateway.config_path());
    command.env("EDGE_GATEWAY__STATE_DIR", gateway.state_dir());
    command.output().expect("the program starts").status.code()
}

#[test]
fn a_device_that_is_busy_now_and_then_is_asked_again_within_the_cycle() {
    let turn = Arc::new(AtomicU32::new(0));
    let address = device(move |_, id, pdu| {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        let is_busy = pdu[0] == 3 && turn % 3 == 2;
        let pdu = if is_busy { vec![0x83, 6] } else { registers(pdu).unwrap_or_default() };
        Some(frame(id, &pdu))
    });
    let broker = Mosquitto::start();
    let messages = broker.subscribe("edge/g/data/p");
    let plc = PlcConfig::new("p", "generic", address).scan(Duration::from_millis(500)).tag(
        "t4",
        "holding:4",
        "UINT",
    );
    let config = GatewayConfig::with_broker("g", broker.url()).set("publish.heartbeat", "500ms");
    let gateway = Gateway::start_ready(config.plc(plc));

    for _ in 0..6 {
        let message = messages.next(EVENT_TIMEOUT).json();
        assert_eq!((&message["t4"], &message["gateway"]["quality"]), (&json!(4), &Value::Null));
    }
    assert!(gateway.metric("edge_plc_requests_total{outcome=\"busy\",plc=\"p\"}") > Some(0.0));
}
