//! A broker that acknowledges a message if it is asked often enough gets it, and no message is
//! given up that was not proven bad. In virtual time, with scripted events in place of a broker.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use tokio::time::timeout_at;

use super::*;
use crate::model::{Detail, Sentence};
use crate::mqtt::MqttEvent;

/// Every broker here accepts everything long before.
const PATIENCE: Duration = Duration::from_hours(12);
/// Pause between two sessions.
const RECONNECT: Duration = Duration::from_secs(2);
const PLCS: u16 = 3;
const READINGS: u16 = 30;

/// How a broker treats messages.
#[derive(Clone, Copy, Debug)]
enum Behaviour {
    /// Closes the connection over the message after this many.
    ClosesAfter(u64),
    /// Closes each of the first sessions, over any message or after a while.
    ClosesSessions(u64, Duration),
    /// Accepts in every second session only.
    Alternates,
    /// Defers each message the first times that it is asked.
    Defers(u32),
    /// Accepts this many messages a second, and defers the others.
    Limits(usize),
    /// Ends the first sessions over any message, with a word that concerns none.
    EndsSessions(u64, DisconnectReason),
    /// Closes the connection over messages that are this much longer than the first one of a PLC.
    LimitsLength(usize),
    /// Closes the connection over messages on the topic of this PLC, this many times.
    ForbidsTopic(u16, u32),
}

/// What a broker does with a message.
enum Reaction {
    Accept,
    Defer,
    End(DisconnectReason),
}

struct FakeBroker {
    behaviour: Behaviour,
    session: u64,
    /// Messages of this session so far.
    messages: u64,
    asked: BTreeMap<u64, u32>,
    recent: Vec<tokio::time::Instant>,
    forbidden: u32,
    /// Length of the first message of a PLC.
    first_len: usize,
}

impl FakeBroker {
    fn new(behaviour: Behaviour) -> Self {
        let (asked, recent) = (BTreeMap::new(), Vec::new());
        Self { behaviour, session: 0, messages: 0, asked, recent, forbidden: 0, first_len: 0 }
    }

    fn answer(&mut self, message: &OutgoingMessage) -> Reaction {
        self.messages += 1;
        let asked = self.asked.entry(message.ticket.unwrap_or(0)).or_default();
        *asked += 1;
        let accepts = match self.behaviour {
            Behaviour::ClosesAfter(accepted) => self.messages <= accepted,
            Behaviour::ClosesSessions(sessions, _) => self.session > sessions,
            Behaviour::Alternates => self.session.is_multiple_of(2),
            Behaviour::EndsSessions(sessions, reason) if self.session <= sessions => {
                return Reaction::End(reason);
            }
            Behaviour::EndsSessions(..) => true,
            Behaviour::Defers(times) if *asked <= times => return Reaction::Defer,
            Behaviour::Defers(_) => true,
            Behaviour::Limits(most) => {
                let now = tokio::time::Instant::now();
                self.recent.retain(|at| now - *at < Duration::from_secs(1));
                if self.recent.len() >= most {
                    return Reaction::Defer;
                }
                self.recent.push(now);
                true
            }
            Behaviour::LimitsLength(more) => {
                if self.first_len == 0 && message.topic.contains("/data/") {
                    self.first_len = message.payload.len();
                }
                message.payload.len() < self.first_len + more
            }
            Behaviour::ForbidsTopic(plc, times) => {
                let is_forbidden = message.topic.ends_with(&format!("/plc{plc}"));
                self.forbidden += u32::from(is_forbidden);
                !is_forbidden || self.forbidden > times
            }
        };
        if accepts { Reaction::Accept } else { Reaction::End(DisconnectReason::Closed) }
    }

    /// Returns how long the session lasts at most.
    fn lifetime(&self) -> Duration {
        if let Behaviour::ClosesSessions(sessions, lifetime) = self.behaviour
            && self.session <= sessions
        {
            return lifetime;
        }
        PATIENCE
    }

    /// Runs sessions until the pump closes the outbox.
    async fn run(
        mut self,
        events: mpsc::Sender<MqttEvent>,
        mut outgoing: mpsc::Receiver<MqttRequest>,
    ) {
        loop {
            self.session += 1;
            self.messages = 0;
            let connected = connected(u32::try_from(self.session).unwrap());
            if events.send(connected).await.is_err() {
                return;
            }
            let Some(reason) = self.run_session(&events, &mut outgoing).await else { return };
            let detail = Detail { code: "closed".to_owned(), arguments: serde_json::Map::new() };
            let sentence = Sentence { text: "closed".to_owned(), detail };
            let _ = events
                .send(MqttEvent::Disconnected { reason, sentence, retry_in: RECONNECT })
                .await;
            tokio::time::sleep(RECONNECT).await;
        }
    }

    /// Runs one session. Returns why it ended, or `None` when the outbox is closed.
    async fn run_session(
        &mut self,
        events: &mpsc::Sender<MqttEvent>,
        outgoing: &mut mpsc::Receiver<MqttRequest>,
    ) -> Option<DisconnectReason> {
        let end = tokio::time::Instant::now() + self.lifetime();
        loop {
            let Ok(message) = timeout_at(end, next_message(outgoing)).await else {
                return Some(DisconnectReason::Closed);
            };
            let message = message?;
            if u64::from(message.session) != self.session {
                continue;
            }
            let (ticket, topic) = (message.ticket, Arc::clone(&message.topic));
            let event = match (self.answer(&message), ticket) {
                (Reaction::End(reason), _) => return Some(reason),
                (Reaction::Accept, None) => continue,
                (Reaction::Accept, Some(ticket)) => MqttEvent::Acknowledged { ticket },
                (Reaction::Defer, ticket) => {
                    MqttEvent::Deferred { ticket, topic, reason: "quota exceeded".to_owned() }
                }
            };
            events.send(event).await.ok()?;
        }
    }
}

/// Runs a pump against a broker until every sample is delivered or dropped. Returns the samples
/// produced, delivered and dropped.
async fn deliver(behaviour: Behaviour, order: QueueOrder) -> (u64, u64, u64) {
    let mut config: Config = testing::config(usize::from(PLCS));
    config.queue.order = order;
    let metrics = Metrics::new(&config, "hash").unwrap();
    let TestPump { pump, plcs, from_plcs, broker, from_broker, outgoing } =
        TestPump::new(&config, &metrics);
    let queue = metrics.queue.clone();
    let producing = async move {
        for reading in 1..=READINGS {
            for plc in 0..PLCS {
                // Every fifth message is longer.
                let value = reading.saturating_mul(if reading % 5 == 0 { 997 } else { 1 });
                plcs.send(cycle_of(plc, value)).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let end = tokio::time::Instant::now() + PATIENCE;
        while queue.delivered.get() + queue.dropped() < queue.produced.get()
            && tokio::time::Instant::now() < end
        {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let running = pump.run(from_plcs, from_broker, GRACE);
    tokio::join!(running, FakeBroker::new(behaviour).run(broker, outgoing), producing);
    (metrics.queue.produced.get(), metrics.queue.delivered.get(), metrics.queue.dropped())
}

fn run(behaviour: Behaviour, order: QueueOrder) -> (u64, u64, u64) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(deliver(behaviour, order))
}

fn any_behaviour() -> impl Strategy<Value = Behaviour> {
    let reasons = prop_oneof![
        Just(DisconnectReason::Unavailable),
        Just(DisconnectReason::TakenOver),
        Just(DisconnectReason::Silent),
        Just(DisconnectReason::Protocol),
        Just(DisconnectReason::Renewed),
    ];
    prop_oneof![
        (1_u64..5).prop_map(Behaviour::ClosesAfter),
        (0_u64..30, 0_u64..3).prop_map(|(sessions, seconds)| {
            Behaviour::ClosesSessions(sessions, Duration::from_secs(seconds))
        }),
        Just(Behaviour::Alternates),
        (0_u32..8).prop_map(Behaviour::Defers),
        (1_usize..40).prop_map(Behaviour::Limits),
        (0_u64..20, reasons)
            .prop_map(|(sessions, reason)| Behaviour::EndsSessions(sessions, reason)),
        (0..PLCS, 0_u32..12).prop_map(|(plc, times)| Behaviour::ForbidsTopic(plc, times)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_broker_that_accepts_a_message_in_the_end_gets_it(
        behaviour in any_behaviour(),
        is_strict: bool,
    ) {
        let order = if is_strict { QueueOrder::Strict } else { QueueOrder::LiveFirst };
        let (produced, delivered, dropped) = run(behaviour, order);
        prop_assert!(produced > 100);
        prop_assert_eq!((delivered, dropped), (produced, 0));
    }
}

/// The messages of the last PLC are too long, and so is the status: nothing shows what the broker
/// accepts but the other messages, which go on.
#[test]
fn messages_that_are_too_long_are_given_up_and_all_others_are_delivered() {
    for order in [QueueOrder::LiveFirst, QueueOrder::Strict] {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().unwrap();
        let (produced, delivered, dropped) = runtime.block_on(deliver_short_ones(order));
        assert_eq!((delivered + dropped, dropped), (produced, 2 * LONG_READINGS), "{order:?}");
    }
}

/// Readings whose messages are too long; each has two samples.
const LONG_READINGS: u64 = 4;

async fn deliver_short_ones(order: QueueOrder) -> (u64, u64, u64) {
    let mut config: Config = testing::config(usize::from(PLCS));
    config.queue.order = order;
    config.plcs[2].machine = "x".repeat(200);
    let metrics = Metrics::new(&config, "hash").unwrap();
    let TestPump { pump, plcs, from_plcs, broker, from_broker, outgoing } =
        TestPump::new(&config, &metrics);
    let queue = metrics.queue.clone();
    let producing = async move {
        let end = tokio::time::Instant::now() + PATIENCE;
        let mut reading = 0;
        while queue.dropped() < 2 * LONG_READINGS && tokio::time::Instant::now() < end {
            reading += 1;
            plcs.send(cycle_of(0, reading)).await.unwrap();
            if u64::from(reading) <= LONG_READINGS {
                plcs.send(cycle_of(2, reading)).await.unwrap();
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        while queue.delivered.get() + queue.dropped() < queue.produced.get()
            && tokio::time::Instant::now() < end
        {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let running = pump.run(from_plcs, from_broker, GRACE);
    let broker = FakeBroker::new(Behaviour::LimitsLength(100)).run(broker, outgoing);
    tokio::join!(running, broker, producing);
    (metrics.queue.produced.get(), metrics.queue.delivered.get(), metrics.queue.dropped())
}
