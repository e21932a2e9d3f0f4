//! Whatever a peer sends, for as long as it likes: the gateway's resident memory stays below 64 MB,
//! and it answers afterwards. SECURITY.md lists who can make what grow; each test is a row of it.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "test code may stop on the spot")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use e2e::{EVENT_TIMEOUT, Gateway, GatewayConfig, PlcConfig, Port, Process};
use test_settings::ATTACK_SECONDS;
use tunnel::PrivateKey;

const MAX_MEMORY: u64 = 64 << 20;
/// An attack ends after this many bytes at the latest.
const MAX_SENT: u64 = 2 << 30;
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// Longest wait for a peer that takes nothing.
const STALL_TIMEOUT: Duration = Duration::from_millis(500);

/// When an attack ends.
#[derive(Clone, Copy)]
struct Attack {
    end: Instant,
}

impl Attack {
    fn begin() -> Self {
        Self { end: Instant::now() + Duration::from_secs(ATTACK_SECONDS.number()) }
    }

    fn is_over(self, sent: u64) -> bool {
        Instant::now() >= self.end || sent >= MAX_SENT
    }

    /// Writes the same bytes until the peer closes the connection or the attack is over.
    fn flood(self, mut stream: impl Write, bytes: &[u8]) {
        let mut sent = 0;
        while !self.is_over(sent) && stream.write_all(bytes).is_ok() {
            sent += bytes.len() as u64;
        }
    }
}

/// Samples the memory until the attack is over, then asks for a sign of life.
fn assert_bounded(gateway: &Gateway, attack: Attack) {
    let mut peak = 0;
    while Instant::now() < attack.end {
        peak = peak.max(gateway.memory());
        assert!(peak < MAX_MEMORY, "{peak} bytes; the log:\n{}", gateway.log().text());
        thread::sleep(SAMPLE_INTERVAL);
    }
    assert_alive(gateway.metrics_address());
    assert!(gateway.peak_memory() < MAX_MEMORY, "{} bytes", gateway.peak_memory());
}

fn assert_alive(metrics: SocketAddr) {
    e2e::eventually("it answers", EVENT_TIMEOUT, || {
        let answer = e2e::http_get(metrics, "/healthz");
        answer.is_ok_and(|answer| answer.status == 200).then_some(())
    });
}

/// Listens on loopback and gives every connection to `act`, on a thread of its own.
fn peer(act: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            stream.set_write_timeout(Some(STALL_TIMEOUT)).expect("a time-out is allowed");
            let act = act.clone();
            thread::spawn(move || act(stream));
        }
    });
    address
}

fn start(broker: SocketAddr, plc: SocketAddr) -> Gateway {
    let plc = PlcConfig::new("p", "generic", plc).scan(Duration::from_millis(100)).tag(
        "count",
        "holding:10",
        "UINT",
    );
    Gateway::start_ready(GatewayConfig::with_broker("g", format!("mqtt://{broker}")).plc(plc))
}

/// Returns an address where nothing listens.
fn nothing() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 9).into()
}

/// A broker that accepts the session, then floods it.
fn hostile_broker(packets: Vec<u8>) {
    let attack = Attack::begin();
    let broker = accepting_broker(move |stream| attack.flood(stream, &packets));
    assert_bounded(&start(broker, nothing()), attack);
}

/// Starts a broker that accepts each session and then acts.
fn accepting_broker(act: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    peer(move |mut stream| {
        let mut connect = [0; 1024];
        let is_connect = stream.read(&mut connect).is_ok_and(|length| length > 0);
        // CONNACK of MQTT 5.0, without properties.
        if is_connect && stream.write_all(&[0x20, 3, 0, 0, 0]).is_ok() {
            act(stream);
        }
    })
}

/// Returns a PUBLISH of quality 0 (MQTT 5.0, 3.3).
fn publish(topic: &[u8], properties: &[u8], payload: usize) -> Vec<u8> {
    let prefixed = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).expect("it is short");
        [&length.to_be_bytes(), bytes].concat()
    };
    let properties_length = u8::try_from(properties.len()).expect("they are short");
    let mut body = [&prefixed(topic), &[properties_length][..], properties].concat();
    body.resize(body.len() + payload, b'x');
    let mut packet = vec![0x30];
    let mut rest = body.len();
    while rest > 0 || packet.len() == 1 {
        let low = u8::try_from(rest % 128).expect("less than 128");
        rest /= 128;
        packet.push(if rest > 0 { low | 128 } else { low });
    }
    [packet, body].concat()
}

#[test]
fn a_broker_that_sends_large_messages() {
    hostile_broker(publish(b"t", &[], 1 << 20));
}

#[test]
fn a_broker_that_sends_nothing_but_ping_responses() {
    hostile_broker([0xd0, 0].repeat(32 * 1024));
}

#[test]
fn a_broker_that_announces_the_longest_packet() {
    hostile_broker([&[0x30, 0xff, 0xff, 0xff, 0x7f][..], &[0; 64 * 1024]].concat());
}

/// The gateway allows no alias (MQTT 5.0, 3.3.2.3.4); a client that keeps them keeps up to 4 GiB.
#[test]
fn a_broker_that_gives_each_long_topic_an_alias() {
    let attack = Attack::begin();
    let broker = accepting_broker(move |mut stream| {
        let mut sent = 0;
        for alias in 1..=u16::MAX {
            let [high, low] = alias.to_be_bytes();
            // Property 35, topic alias.
            let packet = publish(&[b't'; 65_000], &[0x23, high, low], 1);
            sent += packet.len() as u64;
            if attack.is_over(sent) || stream.write_all(&packet).is_err() {
                return;
            }
        }
    });
    assert_bounded(&start(broker, nothing()), attack);
}

#[test]
fn a_plc_that_never_stops_sending() {
    let attack = Attack::begin();
    let plc = peer(move |stream| attack.flood(stream, &[0xff; 64 * 1024]));
    assert_bounded(&start(nothing(), plc), attack);
}

#[test]
fn a_plc_that_answers_with_the_longest_frames() {
    let attack = Attack::begin();
    let frame = [&[0, 1, 0, 0, 0xff, 0xff, 1, 3, 0xff][..], &[0; 65_533]].concat();
    let plc = peer(move |stream| attack.flood(stream, &frame));
    assert_bounded(&start(nothing(), plc), attack);
}

/// Sends what a client of the pages may send, from several connections at a time.
fn hostile_clients<S>(
    attack: Attack,
    connect: impl Fn() -> std::io::Result<S> + Clone + Send + 'static,
) where
    S: Write + Send + 'static,
{
    let header = [b"GET /metrics HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; 1 << 20]].concat();
    let pipelined = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    for bytes in [header, pipelined, b"GET /status HTTP/1.1\r\n".to_vec()] {
        let connect = connect.clone();
        thread::spawn(move || {
            let mut held = Vec::new();
            while !attack.is_over(0) {
                let Ok(mut stream) = connect() else {
                    held.clear();
                    continue;
                };
                let _ = stream.write_all(&bytes);
                // Nothing is read, and the connections stay open.
                held.push(stream);
                held.truncate(100);
            }
        });
    }
}

#[test]
fn clients_of_the_pages_that_read_nothing() {
    let gateway = start(nothing(), nothing());
    let (attack, address) = (Attack::begin(), gateway.metrics_address());
    hostile_clients(attack, move || {
        let stream = TcpStream::connect_timeout(&address, STALL_TIMEOUT)?;
        stream.set_write_timeout(Some(STALL_TIMEOUT))?;
        Ok(stream)
    });
    assert_bounded(&gateway, attack);
}

#[test]
fn clients_of_the_status_socket_that_read_nothing() {
    let gateway = start(nothing(), nothing());
    let (attack, path) = (Attack::begin(), gateway.state_dir().join("status.sock"));
    hostile_clients(attack, move || connect_unix(&path));
    assert_bounded(&gateway, attack);
}

fn connect_unix(path: &Path) -> std::io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_write_timeout(Some(STALL_TIMEOUT))?;
    Ok(stream)
}

/// The hub of this test is a bare socket: it learns the port of the gateway from its first
/// handshake, then sends forged messages of every type.
#[test]
fn garbage_at_the_port_of_the_tunnel() {
    let hub = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    hub.set_read_timeout(Some(EVENT_TIMEOUT)).expect("a time-out is allowed");
    let endpoint = hub.local_addr().expect("a bound socket has an address");
    let dir = e2e::temp_dir();
    let key = dir.write_private("tunnel.key", &PrivateKey::generate().expose());
    let config = GatewayConfig::with_broker("g", "mqtt://10.9.0.2:1883")
        .set("tunnel.private_key_file", key)
        .set("tunnel.address", "10.9.0.1/32")
        .hub("hub", endpoint, PrivateKey::generate().public_key(), "10.9.0.2")
        .plc(PlcConfig::new("p", "generic", nothing()).tag("count", "holding:10", "UINT"));
    let gateway = Gateway::start_ready(config);
    let (_, site) = hub.recv_from(&mut [0; 2_048]).expect("the gateway begins a handshake");

    let attack = Attack::begin();
    thread::spawn(move || {
        let mut sent = 0;
        while !attack.is_over(sent) {
            // Initiation, response, cookie reply, data (WireGuard, 5.4), and what is none of them.
            for (kind, length) in [(1, 148), (2, 92), (3, 64), (4, 1_400), (0, 1), (255, 1_472)] {
                let mut datagram = vec![0xa5; length];
                datagram[0] = kind;
                if let Some(reserved) = datagram.get_mut(1..4) {
                    reserved.fill(0);
                }
                // The kernel may refuse one while its buffers are full.
                let _ = hub.send_to(&datagram, site);
                sent += datagram.len() as u64;
            }
        }
    });
    assert_bounded(&gateway, attack);
}

/// An address of this machine where no DNS server listens.
const DNS: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 53, 53, 53), 53);

/// Gives a program another DNS server.
const WITH_RESOLVER: &str = "mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";

/// Answers each query over UDP with "truncated", and over TCP with 4,000 addresses, as many as a
/// message can have (RFC 1035, 4.2.2).
fn hostile_dns() {
    let udp = UdpSocket::bind(DNS).expect("the test runs as root");
    let tcp = TcpListener::bind(DNS).expect("the test runs as root");
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, client)) = udp.recv_from(&mut query) {
            query[2..4].copy_from_slice(&[0x83, 0x80]);
            let _ = udp.send_to(&query[..length], client);
        }
    });
    thread::spawn(move || {
        for mut stream in tcp.incoming().map_while(Result::ok) {
            let mut length = [0; 2];
            while stream.read_exact(&mut length).is_ok() {
                let mut query = vec![0; u16::from_be_bytes(length).into()];
                let Ok(()) = stream.read_exact(&mut query) else { break };
                let message = many_addresses(&query);
                let length = u16::try_from(message.len()).expect("it fits").to_be_bytes();
                let _ = stream.write_all(&[&length[..], &message].concat());
            }
        }
    });
}

/// Returns the answer to a query for a name of one label and "test", without additional records.
fn many_addresses(query: &[u8]) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|byte| *byte == 0).expect("a name ends") + 5;
    let is_v4 = query[end - 3] == 1;
    let data: &[u8] = if is_v4 { &[127, 0, 0, 1] } else { &Ipv6Addr::LOCALHOST.octets() };
    let length = u8::try_from(data.len()).expect("it is short");
    let record = [&[0xc0, 12], &query[end - 4..end], &[0, 0, 0, 0, 0, length], data].concat();
    let count = (usize::from(u16::MAX) - end) / record.len();
    let header = [&query[..2], &[0x81, 0x80, 0, 1]].concat();
    let counts = [&u16::try_from(count).expect("it fits").to_be_bytes()[..], &[0; 4]].concat();
    [header, counts, query[12..end].to_vec(), record.repeat(count)].concat()
}

#[test]
fn as_root_a_dns_server_that_answers_with_thousands_of_addresses() {
    hostile_dns();
    let (dir, metrics, attack) = (e2e::temp_dir(), Port::reserve(), Attack::begin());
    let resolver = dir.write("resolv.conf", &format!("nameserver {}\n", DNS.0));
    let config = GatewayConfig::with_broker("g", "mqtt://hub.test:9")
        .set("gateway.state_dir", dir.path().display().to_string())
        .set("metrics.listen", vec![metrics.address().to_string()])
        .plc(PlcConfig::new("p", "generic", "plc.test:9").tag("count", "holding:10", "UINT"));
    let file = dir.write("gateway.toml", &config.to_string());
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", WITH_RESOLVER, "sh"]);
    let gateway =
        Process::start(command.arg(resolver).arg(Gateway::program()).arg("run").arg(file));

    gateway.wait_for_line("no broker listens on port 9", EVENT_TIMEOUT);
    while Instant::now() < attack.end {
        thread::sleep(SAMPLE_INTERVAL);
    }
    assert_alive(metrics.address());
    assert!(gateway.peak_memory() < MAX_MEMORY, "{} bytes", gateway.peak_memory());
}
