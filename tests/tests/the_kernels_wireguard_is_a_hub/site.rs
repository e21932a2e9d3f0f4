//! A site in its barest form: boringtun and smoltcp on one UDP socket, driven by the test's own
//! thread. It stands here until the product's tunnel takes its place.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use e2e::KernelHub;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant as StackTime;
use smoltcp::wire::{HardwareAddress, IpCidr};
use tunnel::PrivateKey;

/// How long the loop waits for a datagram before it looks at its timers.
const TURN: Duration = Duration::from_millis(5);
const MTU: usize = 1280;
const BUFFER: usize = 32 << 10;

/// A site that has not yet spoken.
pub(crate) struct Site {
    socket: UdpSocket,
    tunnel: Tunn,
    stack: Interface,
    wire: Wire,
    start: Instant,
    port: u16,
}

/// Packets between the stack and the tunnel.
#[derive(Default)]
struct Wire {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

impl Site {
    pub(crate) fn new(key: &PrivateKey, hub: &KernelHub) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has a free port");
        socket.connect(hub.endpoint()).expect("UDP connects at once");
        socket.set_read_timeout(Some(TURN)).expect("it is not zero");
        let secret = StaticSecret::from(bytes(&key.expose()));
        let public = PublicKey::from(bytes(hub.public_key()));
        let tunnel = Tunn::new(secret, public, None, None, 1, None);
        let (mut wire, start) = (Wire::default(), Instant::now());
        let config = Config::new(HardwareAddress::Ip);
        let mut stack = Interface::new(config, &mut wire, StackTime::ZERO);
        stack.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(KernelHub::SITE.into(), 16)).expect("one fits");
        });
        Self { socket, tunnel, stack, wire, start, port: 49_152 }
    }

    /// Connects to a port of the hub, sends, and gives the first so many bytes of the answer.
    pub(crate) fn exchange(
        &mut self,
        port: u16,
        request: &[u8],
        answer: usize,
        deadline: Duration,
    ) -> Option<Vec<u8>> {
        let end = Instant::now() + deadline;
        let mut sockets = SocketSet::new(Vec::new());
        let buffer = || SocketBuffer::new(vec![0; BUFFER]);
        let handle = sockets.add(Socket::new(buffer(), buffer()));
        self.port += 1;
        let socket = sockets.get_mut::<Socket<'_>>(handle);
        socket
            .connect(self.stack.context(), (KernelHub::ADDRESS, port), self.port)
            .expect("a new socket connects");
        let (mut unsent, mut received) = (request, Vec::new());
        while received.len() < answer {
            if Instant::now() > end {
                return None;
            }
            self.turn(&mut sockets);
            unsent = pump(&mut sockets, handle, unsent, &mut received);
        }
        Some(received)
    }

    /// Everything once: stack, tunnel, socket, timers.
    fn turn(&mut self, sockets: &mut SocketSet<'_>) {
        let elapsed = i64::try_from(self.start.elapsed().as_micros()).expect("a test is short");
        self.stack.poll(StackTime::from_micros(elapsed), &mut self.wire, sockets);
        let mut buffer = [0; 2048];
        while let Some(packet) = self.wire.outgoing.pop_front() {
            let sealed = self.tunnel.encapsulate(&packet, &mut buffer);
            deliver(sealed, &self.socket, &mut self.wire);
        }
        let mut datagram = [0; 2048];
        let mut opened = self.socket.recv(&mut datagram).map(|size| &datagram[..size]);
        // What waits for the session is asked for with an empty datagram.
        while let Ok(datagram) = opened {
            let result = self.tunnel.decapsulate(None, datagram, &mut buffer);
            let has_more = matches!(result, TunnResult::WriteToNetwork(_));
            deliver(result, &self.socket, &mut self.wire);
            if !has_more {
                break;
            }
            opened = Ok(&[]);
        }
        let timers = self.tunnel.update_timers(&mut buffer);
        deliver(timers, &self.socket, &mut self.wire);
    }
}

fn pump<'a>(
    sockets: &mut SocketSet<'_>,
    handle: SocketHandle,
    unsent: &'a [u8],
    received: &mut Vec<u8>,
) -> &'a [u8] {
    let socket = sockets.get_mut::<Socket<'_>>(handle);
    let mut rest = unsent;
    if socket.can_send() {
        let taken = socket.send_slice(rest).expect("it can send");
        rest = &rest[taken..];
    }
    if socket.can_recv() {
        let read = socket.recv(|bytes| (bytes.len(), bytes.to_vec())).expect("it can receive");
        received.extend(read);
    }
    rest
}

fn deliver(result: TunnResult<'_>, socket: &UdpSocket, wire: &mut Wire) {
    match result {
        TunnResult::WriteToNetwork(datagram) => {
            socket.send(datagram).expect("loopback takes datagrams");
        }
        TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
            wire.incoming.push_back(packet.to_vec());
        }
        TunnResult::Done | TunnResult::Err(_) => {}
    }
}

fn bytes(key: &str) -> [u8; 32] {
    let bytes = STANDARD.decode(key.trim()).expect("a key is base64");
    bytes.try_into().expect("a key has 32 bytes")
}

struct Received(Vec<u8>);
struct Sent<'a>(&'a mut VecDeque<Vec<u8>>);

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: StackTime) -> Option<(Received, Sent<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((Received(packet), Sent(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: StackTime) -> Option<Sent<'_>> {
        Some(Sent(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, size: usize, write: F) -> R {
        let mut packet = vec![0; size];
        let written = write(&mut packet);
        self.0.push_back(packet);
        written
    }
}
