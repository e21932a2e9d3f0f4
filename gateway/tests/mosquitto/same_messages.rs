//! The mock broker and Mosquitto send the same messages: random histories of three clients, played
//! against both. The demo and the tests rely on the mock broker, so it must not have ideas of its
//! own about sessions, retained messages and access.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use gateway::mock_broker::{Access, AccessList, AccessRule, MockBroker};
use proptest::prelude::*;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::broker::Mosquitto;
use super::wire::{Level, Login, Packet, WireClient};

/// Histories in CI; `cargo xtask long histories` plays more.
const HISTORIES: u64 = 60;
const CLIENTS: usize = 3;
const TOPICS: [&str; 6] = ["a", "a/b", "a/b/c", "b", "b/c", "b/"];
const FILTERS: [&str; 9] = ["#", "a/#", "a/+", "+", "+/+", "+/b/#", "b/c", "b/+", "a/b/c"];
/// The access list, as both brokers get it: `u1` may not write below `a/b`, `u2` reads only `b`,
/// without `b/c`.
const RULES: [(&str, Access, &str); 7] = [
    ("u0", Access::ReadWrite, "#"),
    ("u1", Access::Read, "#"),
    ("u1", Access::Write, "+/a"),
    ("u1", Access::Write, "+/b/#"),
    ("u2", Access::Write, "#"),
    ("u2", Access::Read, "+/b/#"),
    ("u2", Access::Deny, "+/b/c"),
];

static HISTORY: AtomicU32 = AtomicU32::new(0);

/// What a client does. Those of a client that is not connected are left out.
#[derive(Clone, Debug)]
enum Step {
    Connect {
        client: usize,
        is_kept: bool,
        will: Option<(usize, bool)>,
    },
    Disconnect {
        client: usize,
    },
    /// Closes the connection, so that the broker publishes the will.
    Drop {
        client: usize,
    },
    Subscribe {
        client: usize,
        filter: usize,
    },
    Unsubscribe {
        client: usize,
        filter: usize,
    },
    Publish {
        client: usize,
        topic: usize,
        qos: u8,
        retain: bool,
        is_empty: bool,
    },
    /// From now on the client acknowledges nothing that it receives, until it connects again.
    HoldAcks {
        client: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (client, topic, filter) = (0..CLIENTS, 0..TOPICS.len(), 0..FILTERS.len());
    let will = prop::option::of((topic.clone(), any::<bool>()));
    prop_oneof![
        4 => (client.clone(), any::<bool>(), will)
            .prop_map(|(client, is_kept, will)| Step::Connect { client, is_kept, will }),
        1 => client.clone().prop_map(|client| Step::Disconnect { client }),
        2 => client.clone().prop_map(|client| Step::Drop { client }),
        4 => (client.clone(), filter.clone())
            .prop_map(|(client, filter)| Step::Subscribe { client, filter }),
        1 => (client.clone(), filter)
            .prop_map(|(client, filter)| Step::Unsubscribe { client, filter }),
        8 => (client.clone(), topic, 0..3_u8, any::<bool>(), prop::bool::weighted(0.1)).prop_map(
            |(client, topic, qos, retain, is_empty)| {
                Step::Publish { client, topic, qos, retain, is_empty }
            }
        ),
        1 => client.prop_map(|client| Step::HoldAcks { client }),
    ]
}

/// Returns protocol level and QoS of the subscriptions of each client. One QoS, because brokers
/// differ in which of two overlapping subscriptions decides (MQTT 5.0, 3.3.4).
fn clients() -> impl Strategy<Value = [(Level, u8); CLIENTS]> {
    let client = (prop_oneof![Just(Level::V4), Just(Level::V5)], 0..3_u8);
    prop::array::uniform3(client)
}

/// One broker and the clients at it.
struct World {
    port: u16,
    /// Before the client ids and the topics of this history.
    prefix: String,
    kinds: [(Level, u8); CLIENTS],
    clients: [Option<WireClient>; CLIENTS],
    packet_id: u16,
}

impl World {
    /// Plays a history and returns what every client saw in each step.
    fn play(port: u16, prefix: &str, kinds: [(Level, u8); CLIENTS], steps: &[Step]) -> String {
        let prefix = prefix.to_owned();
        let mut world = Self { port, prefix, kinds, clients: [None, None, None], packet_id: 0 };
        let mut seen = String::new();
        for (number, step) in steps.iter().enumerate() {
            let answer = world.apply(step, number);
            writeln!(seen, "{number} {step:?}: {answer}").expect("text takes text");
            // Brokers send retained messages in any order, and all others in that of publishing.
            world.write_messages(&mut seen, matches!(step, Step::Subscribe { .. }));
        }
        seen
    }

    fn apply(&mut self, step: &Step, number: usize) -> String {
        match *step {
            Step::Connect { client, is_kept, will } => {
                // Left first, so that the broker does not have to take over its session.
                self.leave(client, false);
                let will = will.map(|(topic, retain)| (self.topic(topic), retain));
                let login = Login {
                    id: format!("{}-c{client}", self.prefix),
                    user: format!("u{client}"),
                    is_kept,
                    will,
                };
                let (connected, is_present) =
                    WireClient::connect(self.port, self.kinds[client].0, &login);
                self.clients[client] = Some(connected);
                format!("present {is_present}")
            }
            Step::Disconnect { client } => self.leave(client, true),
            Step::Drop { client } => self.leave(client, false),
            Step::Subscribe { client, filter } => {
                let (filter, qos) = (self.filter(filter), self.kinds[client].1);
                let id = self.next_packet_id();
                self.on(client, |client| {
                    client.send(&Packet::subscribe(client.level, id, &filter, qos));
                    format!("{:?}", client.wait_for(0x90).last())
                })
            }
            Step::Unsubscribe { client, filter } => {
                let (filter, id) = (self.filter(filter), self.next_packet_id());
                self.on(client, |client| {
                    client.send(&Packet::unsubscribe(client.level, id, &filter));
                    client.wait_for(0xB0);
                    String::new()
                })
            }
            Step::Publish { client, topic, qos, retain, is_empty } => {
                let payload = if is_empty { String::new() } else { format!("m{number}") };
                let (topic, id) = (self.topic(topic), self.next_packet_id());
                self.on(client, |client| client.publish(id, &topic, &payload, qos, retain))
            }
            Step::HoldAcks { client } => self.on(client, |client| {
                client.holds_acks = true;
                String::new()
            }),
        }
    }

    fn on(&mut self, client: usize, act: impl FnOnce(&mut WireClient) -> String) -> String {
        self.clients[client].as_mut().map_or_else(String::new, act)
    }

    fn leave(&mut self, client: usize, is_clean: bool) -> String {
        if let Some(client) = self.clients[client].take() {
            client.leave(is_clean);
        }
        String::new()
    }

    /// Collects what each client received, until nothing more comes.
    fn write_messages(&mut self, seen: &mut String, is_sorted: bool) {
        for (number, client) in self.clients.iter_mut().enumerate() {
            let Some(client) = client else { continue };
            let mut messages: Vec<String> = client.settle();
            if is_sorted {
                messages.sort();
            }
            for message in messages {
                let message = message.replace(&format!("{}/", self.prefix), "");
                writeln!(seen, "  {number} gets {message}").expect("text takes text");
            }
        }
    }

    fn topic(&self, topic: usize) -> String {
        format!("{}/{}", self.prefix, TOPICS[topic])
    }

    fn filter(&self, filter: usize) -> String {
        format!("{}/{}", self.prefix, FILTERS[filter])
    }

    fn next_packet_id(&mut self) -> u16 {
        self.packet_id += 1;
        self.packet_id
    }
}

/// Starts a mock broker on a thread of its own, which ends when the token is dropped.
fn start_mock_broker(stop: CancellationToken) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let port = listener.local_addr().expect("a bound listener has an address").port();
    listener.set_nonblocking(true).expect("a socket");
    let rules = RULES.iter().map(|(user, access, filter)| AccessRule {
        user: Some((*user).to_owned()),
        access: *access,
        filter: (*filter).to_owned(),
    });
    let (events, mut ignored) = mpsc::channel(64);
    let broker = MockBroker::new(Vec::new(), AccessList(rules.collect()), events);
    let serving = async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("it is non-blocking");
        tokio::select! {
            () = broker.serve(listener, stop) => {}
            () = async { while ignored.recv().await.is_some() {} } => {}
        }
    };
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    std::thread::spawn(move || runtime.block_on(serving));
    port
}

fn acl_file() -> String {
    let mut text = String::new();
    for (user, access, filter) in RULES {
        let access = match access {
            Access::Read => "read",
            Access::Write => "write",
            Access::ReadWrite => "readwrite",
            Access::Deny => "deny",
        };
        writeln!(text, "user {user}\ntopic {access} {filter}").expect("text takes text");
    }
    text
}

/// Both brokers, which play the same histories.
struct Brokers {
    mosquitto: Mosquitto,
    mock: u16,
    _stop: DropGuard,
}

impl Brokers {
    fn start() -> Self {
        let mosquitto = Mosquitto::start_with_acl("max_inflight_messages 20", &acl_file());
        let stop = CancellationToken::new();
        let mock = start_mock_broker(stop.clone());
        Self { mosquitto, mock, _stop: stop.drop_guard() }
    }

    /// Plays a history, and returns what is seen at the mock broker and at Mosquitto.
    fn play(&self, kinds: [(Level, u8); CLIENTS], steps: &[Step]) -> (String, String) {
        let prefix = format!("h{}", HISTORY.fetch_add(1, Ordering::Relaxed));
        let expected = World::play(self.mosquitto.port, &prefix, kinds, steps);
        (World::play(self.mock, &prefix, kinds, steps), expected)
    }
}

/// Few random histories have this: MQTT 5 brings a copy for each subscription, 3.1.1 one message.
#[test]
fn overlapping_subscriptions_bring_the_copies_that_mosquitto_sends() {
    let brokers = Brokers::start();
    let publish =
        |client, qos, retain| Step::Publish { client, topic: 0, qos, retain, is_empty: false };
    for (level, copies) in [(Level::V4, 1), (Level::V5, 3)] {
        for qos in 0..3 {
            let mut steps = vec![
                Step::Connect { client: 1, is_kept: false, will: None },
                Step::Connect { client: 0, is_kept: true, will: None },
            ];
            steps.extend([0, 1, 3].map(|filter| Step::Subscribe { client: 0, filter }));
            steps.push(publish(1, qos, false));
            steps.push(Step::Drop { client: 0 });
            steps.extend([publish(1, qos, false), publish(1, qos, true)]);
            steps.push(Step::Connect { client: 0, is_kept: true, will: None });
            steps.push(Step::Unsubscribe { client: 0, filter: 1 });
            steps.push(publish(1, qos, false));

            let (found, expected) = brokers.play([(level, qos); CLIENTS], &steps);

            assert_eq!(found, expected, "left: the mock broker, right: Mosquitto; {level:?}");
            let first = found.matches("m5").count();
            assert_eq!(first, copies, "{found}");
        }
    }
}

#[test]
fn the_mock_broker_sends_the_messages_that_mosquitto_sends() {
    let brokers = Brokers::start();
    let cases = test_settings::MUTATIONS.number_or(HISTORIES);
    let config = ProptestConfig {
        cases: u32::try_from(cases).expect("a small number"),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    };
    proptest!(config, |(kinds in clients(), steps in prop::collection::vec(step(), 1..40))| {
        let (found, expected) = brokers.play(kinds, &steps);
        prop_assert_eq!(found, expected, "left: the mock broker, right: Mosquitto; {:?}", kinds);
    });
}
