//! Links that drop long packets, and links that are only bad.

use std::time::{Duration, Instant};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State as TcpState;
use tunnel::{Now, TunnelState};
use virtual_time::NetworkConditions;

use crate::streams::Streams;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A client that sends 5 kB every 10 s, as MQTT would, and reconnects if nothing is acknowledged
/// for 45 s.
struct Client {
    streams: Streams,
    ours: SocketHandle,
    theirs: Vec<SocketHandle>,
    sent: Instant,
    last_ack: Instant,
    /// Messages that were acknowledged.
    answered: u64,
}

impl Client {
    fn new(seed: u64, conditions: NetworkConditions) -> Self {
        let mut streams = Streams::new(seed, conditions);
        let ours = streams.connect();
        let now = Instant::now();
        Self { streams, ours, theirs: Vec::new(), sent: now, last_ack: now, answered: 0 }
    }

    fn state(&self) -> TunnelState {
        self.streams.site.tunnel.state(Now::read())
    }

    /// Runs until `is_done`, at most for `limit`; returns whether it was.
    fn run(&mut self, limit: Duration, mut is_done: impl FnMut(&mut Self) -> bool) -> bool {
        let start = Instant::now();
        while start.elapsed() < limit {
            if is_done(self) {
                return true;
            }
            self.streams.step();
            self.send_and_receive(Instant::now());
            self.serve_broker();
        }
        false
    }

    fn send_and_receive(&mut self, now: Instant) {
        let socket = self.streams.site.socket(self.ours);
        let mut buffer = [0; 64];
        while socket.can_recv() {
            self.answered += socket.recv_slice(&mut buffer).expect("it can") as u64;
            self.last_ack = now;
        }
        if socket.may_send() && now >= self.sent + 10 * SECOND {
            self.sent = now;
            socket.send_slice(&[7; 5000]).expect("it may");
        }
        if socket.state() == TcpState::Closed || now >= self.last_ack + 45 * SECOND {
            socket.abort();
            self.streams.step();
            self.streams.site.remove(self.ours);
            self.ours = self.streams.connect();
            self.last_ack = now;
        }
    }

    /// Runs the broker, which acknowledges each message with one byte.
    fn serve_broker(&mut self) {
        if self.streams.is_broker_down {
            return;
        }
        let Self { streams, theirs, .. } = self;
        theirs.extend(streams.hub.accept(&mut streams.listener));
        let mut buffer = vec![0; 5000];
        theirs.retain(|theirs| {
            let socket = streams.hub.socket(*theirs);
            while socket.recv_queue() >= buffer.len() && socket.may_send() {
                socket.recv_slice(&mut buffer).expect("it can");
                socket.send_slice(&[1]).expect("it may");
            }
            if socket.state() == TcpState::CloseWait {
                socket.close();
            }
            let is_over = socket.state() == TcpState::Closed;
            if is_over {
                streams.hub.remove(*theirs);
            }
            !is_over
        });
    }

    fn assert_never_reported(&mut self, time: Duration, what: &str) {
        let is_mistaken = self.run(time, |client| client.state() == TunnelState::MtuTooLarge);
        assert!(!is_mistaken, "{what}");
    }
}

#[test]
fn a_link_that_drops_long_packets_is_reported_within_10_minutes_and_so_is_its_end() {
    let mut client = Client::new(100, NetworkConditions::default());
    client.assert_never_reported(HOUR, "a good link");
    let answered = client.answered;
    assert!(answered > 300, "{answered}");
    // Shorter than the least path MTU to which the stack lowers its segments.
    client.streams.world.network.max_datagram_len = 500;
    assert!(client.run(10 * MINUTE, |client| client.state() == TunnelState::MtuTooLarge));
    assert!(client.answered < answered + 2);
    let sentence = client.streams.site.tunnel.report(Now::read()).diagnosis.to_string();
    assert!(sentence.contains("let UDP packets of 1360 bytes"), "{sentence}");
    // The state stays while handshakes succeed.
    assert!(!client.run(HOUR, |client| client.state() == TunnelState::Up));
    client.streams.world.network.max_datagram_len = usize::MAX;
    assert!(client.run(3 * MINUTE, |client| client.state() == TunnelState::Up));
}

#[test]
fn loss_and_delay_are_not_mistaken_for_a_black_hole() {
    for (seed, loss) in [(110, 0.1), (111, 0.3), (112, 0.5), (113, 0.7), (114, 0.9)] {
        let conditions = NetworkConditions { loss, ..NetworkConditions::default() };
        Client::new(seed, conditions).assert_never_reported(HOUR, "loss");
    }
    let slow = NetworkConditions {
        delay: Duration::from_millis(1500),
        jitter: Duration::from_millis(1500),
        loss: 0.3,
        ..NetworkConditions::default()
    };
    Client::new(115, slow).assert_never_reported(HOUR, "a lossy satellite link");
}

#[test]
fn outages_restarts_and_a_dead_broker_are_not_mistaken_for_a_black_hole() {
    let mut client = Client::new(116, NetworkConditions::default());
    let hub = client.streams.world.hubs[0].address.ip();
    for round in 1..40 {
        client.assert_never_reported(MINUTE, "the link is up");
        client.streams.world.network.unreachable_hosts.insert(hub);
        client.assert_never_reported(SECOND * round, "the link is down");
        client.streams.world.network.unreachable_hosts.clear();
    }
    for _ in 0..5 {
        client.streams.is_broker_down = true;
        client.assert_never_reported(10 * MINUTE, "no host behind the hub");
        client.streams.is_broker_down = false;
        client.assert_never_reported(2 * MINUTE, "a host behind the hub again");
    }
    for _ in 0..15 {
        client.theirs.clear();
        client.streams.restart_hub();
        client.assert_never_reported(MINUTE, "the hub has restarted");
    }
    assert!(client.answered > 300, "{}", client.answered);
}
