//! Promise 8 at the hub: a scan from outside, from a site and from the office finds what the files
//! of `edge-provision hub` open, and nothing else.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use e2e::{EVENT_TIMEOUT, Namespace, Office, WireguardInterface, eventually};
use tunnel::PrivateKey;

/// Ports with a listener on every machine of the test: ssh, the servers of bundles, brokers and
/// their cluster, metrics, Prometheus, Grafana, Node-RED, and some in between.
const PORTS: [u16; 15] =
    [21, 22, 23, 80, 443, 502, 1880, 1883, 3000, 4222, 6222, 8080, 8883, 9090, 9464];
/// A dropped packet has no answer.
const SILENCE: Duration = Duration::from_secs(1);
const HUB: &str = Office::HUB;

/// A machine with listeners and a WireGuard interface.
struct Machine {
    namespace: Namespace,
    _wireguard: WireguardInterface,
    _listeners: Vec<TcpListener>,
}

impl Machine {
    fn new(namespace: Namespace, wireguard: WireguardInterface) -> Self {
        let listeners = namespace.enter(|| {
            let listen = |port| TcpListener::bind(("0.0.0.0", port)).expect("nothing listens yet");
            PORTS.into_iter().map(listen).collect()
        });
        Self { namespace, _wireguard: wireguard, _listeners: listeners }
    }

    /// Connects a machine to the hub by a cable of its own and starts it there. It tries to use the
    /// tunnel for everything in the network, as a hostile one would.
    fn join(hub: &Namespace, number: u8, key: &str, hub_key: &str, address: &str) -> Self {
        let namespace = Namespace::new();
        let (near, far) = (format!("192.0.2.{}", 4 * number + 1), 4 * number + 2);
        let device = format!("cable{number}");
        let ends = (format!("{near}/30"), format!("192.0.2.{far}/30"));
        hub.connect((&device, &ends.0), &namespace, ("cable", &ends.1));
        let settings = format!(
            "[Interface]\nPrivateKey = {key}\n[Peer]\nPublicKey = {hub_key}\n\
             Endpoint = {near}:51820\nAllowedIPs = 10.77.0.0/16\n"
        );
        let address = format!("{address}/16");
        let wireguard = WireguardInterface::start(&namespace, "edge", &settings, &address);
        Self::new(namespace, wireguard)
    }

    /// Returns the ports of a machine to which this one can connect.
    fn open_ports(&self, address: &str) -> Vec<u16> {
        let address: IpAddr = address.parse().expect("an address");
        self.namespace.enter(|| {
            // Threads inherit the namespace.
            let connect = |port| {
                let target = SocketAddr::from((address, port));
                thread::spawn(move || TcpStream::connect_timeout(&target, SILENCE).is_ok())
            };
            let tried: Vec<_> = PORTS.iter().map(|port| (*port, connect(*port))).collect();
            let is_open = |tried: thread::JoinHandle<bool>| tried.join().expect("no panic");
            tried.into_iter().filter_map(|(port, tried)| is_open(tried).then_some(port)).collect()
        })
    }

    /// Waits until this machine reaches a port of the hub, which completes the handshake.
    fn wait_for_tunnel(&self, port: u16) {
        let target: SocketAddr = format!("{HUB}:{port}").parse().expect("an address");
        self.namespace.enter(|| {
            eventually("the hub answers", EVENT_TIMEOUT, || {
                TcpStream::connect_timeout(&target, EVENT_TIMEOUT).ok()
            });
        });
    }

    /// Returns whether a datagram reaches a socket of the hub.
    fn reaches_by_udp(&self, socket: &UdpSocket, target: &str) -> bool {
        self.namespace.enter(|| {
            let own = UdpSocket::bind("0.0.0.0:0").expect("a free port");
            own.send_to(b"time?", target).expect("it is sent");
        });
        socket.set_read_timeout(Some(SILENCE)).expect("a time-out");
        socket.recv_from(&mut [0; 16]).is_ok()
    }
}

#[test]
fn as_root_a_scan_of_a_hub_finds_what_its_users_need() {
    let office = Office::new("192.0.2.1:51820");
    let sites = ["site-a", "site-b"];
    for site in sites {
        office.run(&["add", site, "--template", "pump", "--with-key"]);
    }
    let anna = PrivateKey::generate();
    office.change("fleet.toml", |text| {
        let key = anna.public_key();
        let office = "[[office]]\nname = \"anna\"\naddress = \"10.77.255.2\"\n";
        text.replacen("\n[broker]", &format!("\n{office}public_key = \"{key}\"\n\n[broker]"), 1)
    });
    let hub = Namespace::new();
    let interface = office.start_hub(&hub);
    let hub = Machine::new(hub, interface);

    let hub_key = value(&office.read("fleet.toml"), "public_key");
    let [a, b] = sites.map(|site| {
        let key = office.read(&format!("secrets/sites/{site}/tunnel.key"));
        (key.trim().to_owned(), value(&office.read(&format!("sites/{site}.toml")), "address"))
    });
    let join = |number, key: &str, address: &str| {
        Machine::join(&hub.namespace, number, key, &hub_key, address)
    };
    let (site_a, site_b) = (join(1, &a.0, &a.1), join(2, &b.0, &b.1));
    let anna = join(3, &anna.expose(), "10.77.255.2");
    let stranger = join(4, &PrivateKey::generate().expose(), "10.77.9.9");
    site_a.wait_for_tunnel(1883);
    site_b.wait_for_tunnel(1883);
    anna.wait_for_tunnel(22);

    // A site reaches the broker and the bundles, no other address of the hub, and no other site.
    assert_eq!(site_a.open_ports(HUB), [80, 1883]);
    assert_eq!(site_a.open_ports(&b.1), [0; 0]);
    assert_eq!(site_a.open_ports("10.77.255.2"), [0; 0]);
    // The office reaches the hub, and of a site the metrics only.
    assert_eq!(anna.open_ports(HUB), PORTS);
    assert_eq!(anna.open_ports(&a.1), [9464]);
    // From outside there is ssh, and nothing at the address inside the tunnel.
    stranger.namespace.ip(&["link", "del", "edge"]);
    assert_eq!(stranger.open_ports("192.0.2.17"), [22]);
    stranger.namespace.ip(&["route", "add", "10.77.0.0/16", "via", "192.0.2.17"]);
    assert_eq!(stranger.open_ports(HUB), [0; 0]);
    assert_eq!(stranger.open_ports(&a.1), [0; 0]);

    // Time, for sites only.
    let clock = hub.namespace.enter(|| UdpSocket::bind("0.0.0.0:123").expect("nothing listens"));
    assert!(site_a.reaches_by_udp(&clock, "10.77.0.1:123"));
    assert!(!stranger.reaches_by_udp(&clock, "192.0.2.17:123"));
    let other = hub.namespace.enter(|| UdpSocket::bind("0.0.0.0:161").expect("nothing listens"));
    assert!(!site_a.reaches_by_udp(&other, "10.77.0.1:161"));
}

#[test]
fn as_root_the_hubs_of_a_cluster_reach_each_other_and_no_site_does() {
    let office = Office::new("192.0.2.5:51820");
    office.change("fleet.toml", |text| {
        text.replace("software = \"mosquitto\"", "software = \"nats\"     ")
    });
    office.run(&["add", "hub-b", "--hub", "--endpoint", "192.0.2.6:51820"]);
    office.run(&["add", "site-a", "--template", "pump", "--with-key"]);
    let hub = Namespace::new();
    let interface = office.start_hub(&hub);
    let hub = Machine::new(hub, interface);
    let hub_key = value(&office.read("fleet.toml"), "public_key");
    let join = |number, key: &str, address: &str| {
        let key = office.read(key);
        Machine::join(&hub.namespace, number, key.trim(), &hub_key, address)
    };
    let hub_b = join(1, "secrets/hubs/hub-b/tunnel.key", "10.77.0.2");
    let address = value(&office.read("sites/site-a.toml"), "address");
    let site = join(2, "secrets/sites/site-a/tunnel.key", &address);
    hub_b.wait_for_tunnel(1883);
    site.wait_for_tunnel(1883);

    assert_eq!(hub_b.open_ports(HUB), [80, 1883, 6222]);
    assert_eq!(site.open_ports(HUB), [80, 1883]);
}

/// Returns the value of the first line `key = "value"`.
fn value(text: &str, key: &str) -> String {
    let mut lines = text.lines().map(str::trim_start);
    let line = lines.find(|line| line.starts_with(key)).expect("the key is there");
    line.split('"').nth(1).expect("a text").to_owned()
}
