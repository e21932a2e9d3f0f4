use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use boringtun::noise::{Tunn, TunnResult};
use ipnet::IpNet;
use tokio::sync::oneshot;

use super::*;
use crate::device::{Link, Offload, Tun, bind_to_device};
use crate::key::PrivateKey;
use crate::path::{LocalPort, MAX_DATAGRAM, UdpPath};
use crate::testing::{Namespace, ip};

const PATIENCE: Duration = Duration::from_secs(20);
const BYTES: usize = 2 * 1024 * 1024;

/// What each test watches from outside.
#[derive(Default)]
struct Seen {
    refusals: u64,
    lost: u64,
    timeouts: u64,
    events: Vec<u8>,
}

/// The simplest tunnel there is: datagrams are packets.
struct Plain {
    to: SocketAddr,
    seen: Seen,
    due: Option<Instant>,
    commands: Vec<Want<u8>>,
}

impl Plain {
    fn new(to: SocketAddr) -> Self {
        Self { to, seen: Seen::default(), due: None, commands: Vec::new() }
    }
}

impl Engine for Plain {
    type Event = u8;
    type Command = u8;

    fn handle_datagram(
        &mut self,
        _: Instant,
        _: SocketAddr,
        datagram: &[u8],
        _: &mut Outbox,
        hostbound: &mut Hostbound,
    ) {
        hostbound.push(datagram);
    }

    fn handle_refusal(&mut self, _: Instant, _: SocketAddr) {
        self.seen.refusals += 1;
    }

    fn handle_packet(&mut self, _: Instant, packet: &[u8], outbox: &mut Outbox) {
        outbox.push(self.to, packet);
    }

    fn handle_timeout(&mut self, _: Instant, outbox: &mut Outbox) {
        self.seen.timeouts += 1;
        self.due = None;
        if !self.commands.is_empty() {
            outbox.push(self.to, b"from the new port");
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    fn handle_event(&mut self, now: Instant, event: u8) {
        self.seen.events.push(event);
        self.due = Some(now);
        self.commands.push(Want::Rebind);
        self.commands.push(Want::Ask(event));
    }

    fn next_command(&mut self) -> Option<Want<u8>> {
        (!self.commands.is_empty()).then(|| self.commands.remove(0))
    }

    fn handle_lost(&mut self, _: Lost, count: u64) {
        self.seen.lost += count;
    }
}

/// WireGuard without a policy.
struct Wire {
    tunn: Tunn,
    to: SocketAddr,
    due: Instant,
}

impl Wire {
    fn new(key: &PrivateKey, peer: &PrivateKey, to: SocketAddr) -> Self {
        let peer = boringtun::x25519::PublicKey::from(&peer.secret());
        Self { tunn: Tunn::new(key.secret(), peer, None, None, 1, None), to, due: Instant::now() }
    }
}

impl Engine for Wire {
    type Event = u8;
    type Command = u8;

    fn handle_datagram(
        &mut self,
        _: Instant,
        from: SocketAddr,
        datagram: &[u8],
        outbox: &mut Outbox,
        hostbound: &mut Hostbound,
    ) {
        let place = hostbound.reserve(MAX_DATAGRAM);
        match self.tunn.decapsulate(Some(from.ip()), datagram, place) {
            TunnResult::WriteToTunnelV4(packet, _) => {
                let length = packet.len();
                hostbound.commit(length);
            }
            TunnResult::WriteToTunnelV6(packet, _) => {
                let length = packet.len();
                hostbound.commit(length);
            }
            TunnResult::WriteToNetwork(answer) => {
                outbox.push(self.to, answer);
                loop {
                    let place = outbox.reserve(self.to, MAX_DATAGRAM);
                    let TunnResult::WriteToNetwork(more) = self.tunn.decapsulate(None, &[], place)
                    else {
                        break;
                    };
                    let length = more.len();
                    outbox.commit(length);
                }
            }
            TunnResult::Done | TunnResult::Err(_) => {}
        }
    }

    fn handle_refusal(&mut self, _: Instant, _: SocketAddr) {}

    fn handle_packet(&mut self, _: Instant, packet: &[u8], outbox: &mut Outbox) {
        let place = outbox.reserve(self.to, (packet.len() + 32).max(148));
        if let TunnResult::WriteToNetwork(datagram) = self.tunn.encapsulate(packet, place) {
            let length = datagram.len();
            outbox.commit(length);
        }
    }

    fn handle_timeout(&mut self, now: Instant, outbox: &mut Outbox) {
        self.due = now + Duration::from_millis(250);
        let place = outbox.reserve(self.to, 148);
        if let TunnResult::WriteToNetwork(datagram) = self.tunn.update_timers(place) {
            let length = datagram.len();
            outbox.commit(length);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Some(self.due)
    }

    fn handle_event(&mut self, _: Instant, _: u8) {}

    fn next_command(&mut self) -> Option<Want<u8>> {
        None
    }

    fn handle_lost(&mut self, _: Lost, _: u64) {}
}

/// One end of a tunnel, with a device and a socket in a namespace of its own.
struct End {
    namespace: Namespace,
    path: UdpPath,
    tun: Tun,
}

/// Two namespaces and a cable between them; the thread is in the second then.
fn ends(offload: [Offload; 2]) -> [End; 2] {
    let first = Namespace::enter();
    ip(&["link", "add", "cable", "type", "veth", "peer", "name", "other"]);
    let a = end(first, 1, offload[0], "cable");
    let second = Namespace::enter();
    a.namespace.enter_again();
    ip(&["link", "set", "other", "netns", &second.path()]);
    second.enter_again();
    let b = end(second, 2, offload[1], "other");
    [a, b]
}

fn end(namespace: Namespace, number: u8, offload: Offload, cable: &str) -> End {
    ip(&["addr", "add", &format!("192.0.2.{number}/24"), "dev", cable]);
    ip(&["addr", "add", &format!("fd02::{number}/64"), "dev", cable, "nodad"]);
    ip(&["link", "set", cable, "up"]);
    let tun = Tun::create("edge0".parse().unwrap(), offload).unwrap();
    let addresses: [IpNet; 2] = [
        format!("10.77.0.{number}/24").parse().unwrap(),
        format!("fd77::{number}/64").parse().unwrap(),
    ];
    Link::new(tun.index()).unwrap().set_up(&addresses, 1420).unwrap();
    let path = UdpPath::bind(LocalPort::Fixed(51820)).unwrap();
    End { namespace, path, tun }
}

/// Where an end is reached from the other.
fn at(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 51820))
}

/// Runs a tunnel between two namespaces until `traffic`, which may enter both, is done.
fn with_tunnel<E: Engine<Event = u8, Command = u8>>(
    mut engines: [E; 2],
    offload: [Offload; 2],
    traffic: impl FnOnce(&Namespace, &Namespace) + Send,
) -> [E; 2] {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _context = runtime.enter();
    let [mut a, mut b] = ends(offload);
    let [one, two] = &mut engines;
    let (here, there) = (&a.namespace, &b.namespace);
    thread::scope(|scope| {
        let (done, is_done) = oneshot::channel();
        scope.spawn(move || {
            traffic(here, there);
            let _ = done.send(());
        });
        let (_events_a, receiver_a) = mpsc::channel(1);
        let (_events_b, receiver_b) = mpsc::channel(1);
        let (commands, _asked) = mpsc::channel(1);
        runtime.block_on(async {
            tokio::select! {
                end = run(one, &mut a.path, &mut a.tun, receiver_a, &commands) => panic!("{end:?}"),
                end = run(two, &mut b.path, &mut b.tun, receiver_b, &commands) => panic!("{end:?}"),
                end = is_done => end.expect("the traffic is as it should be"),
            }
        });
    });
    engines
}

/// Sends [`BYTES`] from one namespace to the other and checks each.
fn stream(from: &Namespace, to: &Namespace, ip: &str) {
    let pattern: Vec<u8> = (0..BYTES).map(|at| (at % 251).to_le_bytes()[0]).collect();
    to.enter_again();
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    from.enter_again();
    let mut client = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            client.write_all(&pattern).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut received = Vec::with_capacity(BYTES);
        server.read_to_end(&mut received).unwrap();
        assert!(received == pattern, "{} bytes are not the ones that were sent", received.len());
    });
}

fn plain() -> [Plain; 2] {
    [Plain::new(at(2)), Plain::new(at(1))]
}

fn wires() -> [Wire; 2] {
    let (a, b) = (PrivateKey::generate(), PrivateKey::generate());
    [Wire::new(&a, &b, at(2)), Wire::new(&b, &a, at(1))]
}

#[test]
fn as_root_streams_go_both_ways_whatever_the_devices_join() {
    let all = [Offload::TcpAndUdp, Offload::Tcp, Offload::Nothing];
    for offload in
        all.map(|one| [one, Offload::TcpAndUdp]).into_iter().chain([[Offload::Nothing; 2]])
    {
        let engines = with_tunnel(plain(), offload, |a, b| {
            for (ip_a, ip_b) in [("10.77.0.1", "10.77.0.2"), ("fd77::1", "fd77::2")] {
                stream(a, b, ip_b);
                stream(b, a, ip_a);
            }
        });
        assert!(engines.iter().all(|engine| engine.seen.lost == 0), "{offload:?}");
    }
}

#[test]
fn as_root_streams_go_both_ways_through_wireguard() {
    with_tunnel(wires(), [Offload::TcpAndUdp; 2], |a, b| {
        stream(a, b, "10.77.0.2");
        stream(b, a, "10.77.0.1");
        thread::scope(|scope| {
            scope.spawn(|| stream(a, b, "fd77::2"));
            scope.spawn(|| stream(b, a, "10.77.0.1"));
        });
    });
}

#[test]
fn as_root_an_outer_way_with_a_small_mtu_carries_streams() {
    with_tunnel(wires(), [Offload::TcpAndUdp; 2], |a, b| {
        for (namespace, cable) in [(a, "cable"), (b, "other")] {
            namespace.enter_again();
            ip(&["link", "set", cable, "mtu", "1300"]);
        }
        stream(a, b, "10.77.0.2");
        stream(b, a, "10.77.0.1");
    });
}

#[test]
fn as_root_a_socket_that_is_bound_to_the_device_uses_no_other() {
    with_tunnel(plain(), [Offload::TcpAndUdp; 2], |a, b| {
        let edge0 = "edge0".parse().unwrap();
        b.enter_again();
        let listener = TcpListener::bind("10.77.0.2:0").unwrap();
        bind_to_device(&listener, edge0).unwrap();
        let address = listener.local_addr().unwrap();
        a.enter_again();
        TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        // The same address by way of the cable.
        ip(&["route", "add", "10.77.0.2/32", "via", "192.0.2.2", "src", "192.0.2.1"]);
        let refused = TcpStream::connect_timeout(&address, PATIENCE).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[tokio::test]
async fn as_root_a_device_that_somebody_removes_ends_the_tunnel() {
    let namespace = Namespace::enter();
    ip(&["link", "add", "cable", "type", "veth", "peer", "name", "other"]);
    let mut end = end(namespace, 1, Offload::TcpAndUdp, "cable");
    let (_events, receiver) = mpsc::channel(1);
    let (commands, _asked) = mpsc::channel(1);
    let mut engine = Plain::new(at(2));
    let mut ended =
        std::pin::pin!(run(&mut engine, &mut end.path, &mut end.tun, receiver, &commands));
    assert!(time::timeout(Duration::from_millis(1), &mut ended).await.is_err());
    ip(&["link", "del", "edge0"]);
    let ended = time::timeout(PATIENCE, ended).await.expect("it ends");
    assert!(matches!(ended, Err(RunError::Device(_))), "{ended:?}");
}

/// A device in memory: gives what is in it, takes everything.
#[derive(Default)]
struct Memory {
    frames: VecDeque<Vec<u8>>,
    written: usize,
}

impl Device for Memory {
    async fn readable(&mut self) -> io::Result<()> {
        if self.frames.is_empty() { std::future::pending().await } else { Ok(()) }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(frame) = self.frames.pop_front() else { return Ok(None) };
        buffer[..frame.len()].copy_from_slice(&frame);
        Ok(Some(frame.len()))
    }

    fn write(&mut self, _: &[io::IoSlice<'_>]) -> io::Result<()> {
        self.written += 1;
        Ok(())
    }

    fn offload(&self) -> Offload {
        Offload::Nothing
    }
}

/// A path in memory: what is sent comes back.
#[derive(Default)]
struct Echo {
    datagrams: Vec<Vec<u8>>,
    did: Vec<&'static str>,
}

impl Path for Echo {
    async fn receive(&mut self, inbox: &mut Inbox) -> io::Result<()> {
        if self.datagrams.is_empty() {
            std::future::pending::<()>().await;
        }
        for datagram in self.datagrams.drain(..) {
            inbox.push(at(2), &datagram);
        }
        inbox.refuse(at(3));
        Ok(())
    }

    async fn send(&mut self, outbox: &mut Outbox) -> io::Result<()> {
        self.did.push("send");
        self.datagrams.extend(outbox.datagrams().map(|(_, datagram)| datagram.to_vec()));
        outbox.clear();
        Ok(())
    }

    fn rebind(&mut self) -> io::Result<()> {
        self.did.push("rebind");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_engine_wants_is_carried_out_in_order_when_there_is_room() {
    let mut engine = Plain::new(at(2));
    let (mut path, mut device) = (Echo::default(), Memory::default());
    let (events, receiver) = mpsc::channel(3);
    let (commands, mut asked) = mpsc::channel(1);
    for event in [1, 2, 3] {
        events.try_send(event).unwrap();
    }
    let ended = run(&mut engine, &mut path, &mut device, receiver, &commands);
    let listener = async {
        for expected in [1, 2, 3] {
            assert_eq!(asked.recv().await, Some(expected));
        }
        drop(events);
    };
    let (ended, ()) = tokio::join!(ended, listener);
    assert!(ended.is_ok());
    assert_eq!(path.did, ["rebind", "send"].repeat(3));
    assert_eq!(engine.seen.events, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn what_is_due_is_done_on_time_and_once() {
    let mut engine = Plain::new(at(2));
    let start = now();
    engine.due = Some(start + Duration::from_secs(3600));
    let (_events, receiver) = mpsc::channel(1);
    let (commands, _asked) = mpsc::channel(1);
    let (mut path, mut device) = (Echo::default(), Memory::default());
    let day = Duration::from_secs(86_400);
    let ended = time::timeout(day, run(&mut engine, &mut path, &mut device, receiver, &commands));
    assert!(ended.await.is_err(), "it goes on");
    assert_eq!(engine.seen.timeouts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_the_host_does_not_starve_the_rest() {
    let mut engine = Plain::new(at(2));
    engine.due = Some(now());
    let packet = [[0; 10].as_slice(), &[0x45; 100]].concat();
    let frames = std::iter::repeat_n(packet, 10_000).chain([vec![9; 50], vec![0; 3]]);
    let mut device = Memory { frames: frames.collect(), written: 0 };
    let mut path = Echo::default();
    let (events, receiver) = mpsc::channel(1);
    let (commands, mut asked) = mpsc::channel(1);
    let others = async {
        events.send(7).await.unwrap();
        assert_eq!(asked.recv().await, Some(7));
        time::sleep(Duration::from_secs(1)).await;
        drop(events);
    };
    let (ended, ()) =
        tokio::join!(run(&mut engine, &mut path, &mut device, receiver, &commands), others);
    assert!(ended.is_ok());
    assert_eq!(device.written, 10_001);
    assert_eq!(engine.seen.lost, 2);
    assert!(engine.seen.timeouts > 0);
    assert!(engine.seen.refusals > 0);
}
