//! A client of the metrics port cannot block the gateway: the next scrape is answered, and data is
//! still published.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use e2e::{EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, PlcConfig, Pymodbus};

/// The server closes a connection after 10 s.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(12);
/// The server closes a connection without a request after this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

struct World {
    gateway: Gateway,
    _peers: (Pymodbus, Mosquitto),
}

fn world() -> World {
    let (plc, broker) = (Pymodbus::start(), Mosquitto::start());
    let count = PlcConfig::new("p", "M241", plc.address()).tag("count", "%MW10", "UINT");
    let gateway = Gateway::start_ready(GatewayConfig::with_broker("g", broker.url()).plc(count));
    World { gateway, _peers: (plc, broker) }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, EVENT_TIMEOUT).expect("the server listens");
    stream.set_read_timeout(Some(CONNECTION_TIMEOUT)).expect("a time-out is allowed");
    stream.set_write_timeout(Some(CONNECTION_TIMEOUT)).expect("a time-out is allowed");
    stream
}

/// Sends a request and returns the first line of the response; empty when there is none.
fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(address);
    // The server may respond and close before the whole request is sent.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn silent_and_slow_clients_delay_no_scrape() {
    let world = world();
    let address = world.gateway.metrics_address();
    let slow: Vec<TcpStream> = (0..200)
        .map(|index| {
            let mut stream = connect(address);
            if index % 2 == 0 {
                stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").expect("the server listens");
            }
            stream
        })
        .collect();

    for _ in 0..5 {
        let asked = Instant::now();
        let answer = ask(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");

        assert!(answer.contains("200"), "{answer:?} after {:?}", asked.elapsed());
        // Less than the time-out of a request, which would free slots as well.
        assert!(asked.elapsed() < REQUEST_TIMEOUT, "{:?}", asked.elapsed());
    }
    drop(slow);
}

#[test]
fn a_page_on_the_internet_cannot_make_a_browser_read_the_status() {
    let world = world();
    let address = world.gateway.metrics_address();

    let rebound = ask(address, b"GET /status HTTP/1.1\r\nHost: evil.example.com\r\n\r\n");
    assert!(rebound.contains("421"), "{rebound}");
    let own = format!("GET /status HTTP/1.1\r\nHost: {address}\r\n\r\n");
    assert!(ask(address, own.as_bytes()).contains("200"));
}

#[test]
fn a_thousand_connections_that_close_at_once_take_no_memory() {
    let world = world();
    let address = world.gateway.metrics_address();
    let before = world.gateway.memory();

    for _ in 0..1000 {
        drop(connect(address));
    }

    assert_eq!(world.gateway.get("/healthz").status, 200);
    let grown = world.gateway.memory().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes");
}

#[test]
fn a_request_that_is_not_a_small_get_is_rejected_with_an_http_status() {
    let world = world();
    let address = world.gateway.metrics_address();

    let post = ask(address, b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert!(post.contains("405"), "{post}");
    let elsewhere = ask(address, b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(elsewhere.contains("404"), "{elsewhere}");
    let mut huge = b"GET /metrics HTTP/1.1\r\nX: ".to_vec();
    huge.resize(4 << 20, b'a');
    let huge = ask(address, &huge);
    assert!(huge.is_empty() || huge.contains("431") || huge.contains("400"), "{huge}");
    let garbage = ask(address, b"\x10\x0c\0\x04MQTT\x05\x02\0\x1e\0\0\0\0\0\0\0\0\0\0\r\n\r\n");
    assert!(garbage.is_empty() || garbage.contains("400"), "{garbage}");

    assert_eq!(world.gateway.get("/metrics").status, 200);
    assert!(world.gateway.peak_memory() < 64 << 20, "{}", world.gateway.peak_memory());
}
