//! A command on its way through the pump, with channels in place of broker and PLC.

use std::fs;
use std::path::PathBuf;

use provisioning::config::{Plc, Qos, WriteRule};
use serde_json::{Value, json};

use super::*;
use crate::model::{
    ImageReport, ImageState, OrderOutcome, OrderReport, PlcOrder, ProgramSignature,
};
use crate::mqtt::{DeliveryTag, IncomingMessage};

/// A pump with one PLC, and the other ends of its channels.
struct PumpRun {
    plcs: mpsc::Sender<plc::PlcEvent>,
    orders: mpsc::Receiver<PlcOrder>,
    broker: mpsc::Sender<mqtt::MqttEvent>,
    requests: mpsc::Receiver<MqttRequest>,
    /// The task of the pump.
    tasks: JoinSet<()>,
    /// Whether the broker acknowledges a status, which is published on change.
    acknowledges_status: bool,
    /// `state_dir`, removed at the end.
    dir: PathBuf,
}

impl Drop for PumpRun {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl PumpRun {
    /// Starts the pump with a writable tag `temperature`, in a session with the broker.
    async fn start() -> Self {
        Self::start_in(temporary_dir()).await
    }

    async fn start_in(dir: PathBuf) -> Self {
        let config = writable_config(dir.clone());
        Self::start_with(config, dir).await
    }

    async fn start_with(config: Config, dir: PathBuf) -> Self {
        let (plcs, from_plcs) = mpsc::channel(4);
        let (broker, from_broker) = mpsc::channel(2 * mqtt::MAX_INFLIGHT);
        let (outbox, requests) = mpsc::channel(mqtt::MAX_INFLIGHT);
        let (order_sender, orders) = mpsc::channel(16);
        let inputs = CommandInputs { orders: vec![order_sender], local: mpsc::channel(1).1 };
        let metrics = Metrics::new(&config, "hash").unwrap();
        let ends = (no_storage(), outbox);
        let pump = Pump::new(&config, "hash", &metrics, health_inputs(), ends, inputs);
        let mut tasks = JoinSet::new();
        tasks.spawn(pump.run(from_plcs, from_broker, GRACE));
        broker.send(connected(1)).await.unwrap();
        Self { plcs, orders, broker, requests, tasks, acknowledges_status: true, dir }
    }

    async fn publish(&self, payload: &str, delivery: u16) {
        let message = command(payload, delivery);
        self.broker.send(mqtt::MqttEvent::Received(message)).await.unwrap();
    }

    /// Carries out the next order.
    async fn obey(&mut self) -> PlcOrder {
        let order = self.orders.recv().await.unwrap();
        let image = |image: &crate::model::TagImage| ImageReport {
            state: ImageState::Written,
            read: Some(image.to_registers()),
        };
        let report = OrderReport {
            number: order.number,
            plc: order.plc,
            outcome: OrderOutcome::Done,
            found: Vec::new(),
            images: order.write.iter().map(image).collect(),
            at: UnixTime::from_micros(0),
        };
        self.plcs.send(plc::PlcEvent::Written(Box::new(report))).await.unwrap();
        order
    }

    /// Returns the next acknowledgement to the broker, or the next message that is no status.
    async fn next(&mut self) -> Result<DeliveryTag, (String, Value)> {
        loop {
            let message = match self.requests.recv().await.unwrap() {
                MqttRequest::Acknowledge(delivery) => return Ok(delivery),
                MqttRequest::Publish(message) => message,
            };
            let is_status = message.topic.ends_with("/status");
            if let Some(ticket) = message.ticket.filter(|_| !is_status || self.acknowledges_status)
            {
                self.broker.send(mqtt::MqttEvent::Acknowledged { ticket }).await.unwrap();
            }
            if !is_status {
                let payload = serde_json::from_slice(&message.payload).unwrap();
                return Err((message.topic.to_string(), payload));
            }
        }
    }
}

fn temporary_dir() -> PathBuf {
    let name = format!("edge-gateway-commands-{}-{:08x}", std::process::id(), fastrand::u32(..));
    std::env::temp_dir().join(name)
}

/// Returns a configuration with a writable tag `temperature` and this `state_dir`.
fn writable_config(dir: PathBuf) -> Config {
    let mut config = testing::config(1);
    config.gateway.state_dir = dir;
    let Plc { tags, .. } = &mut config.plcs[0];
    std::sync::Arc::make_mut(tags)[0].write = Some(Box::new(WriteRule::default()));
    config
}

fn command(payload: &str, delivery: u16) -> IncomingMessage {
    IncomingMessage {
        topic: "edge/amsterdam-01/set/plc0".to_owned(),
        payload: payload.as_bytes().to_vec(),
        delivery: Some(DeliveryTag::unknown(delivery)),
        ..IncomingMessage::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_is_acknowledged_when_it_is_recorded_and_replied_when_it_is_over() {
    let mut world = PumpRun::start().await;
    world.publish(r#"{"id":"a","write":{"temperature":7}}"#, 1).await;
    // Not before the record is on disk.
    let order = world.orders.recv().await.unwrap();
    let ledger = fs::read_to_string(world.dir.join("commands/ledger")).unwrap();
    assert!(ledger.contains("\"temperature\":7"), "{ledger}");
    assert_eq!(world.next().await, Ok(DeliveryTag::unknown(1)));
    let (topic, intent) = world.next().await.unwrap_err();
    assert_eq!((topic.as_str(), &intent["step"]), ("edge/amsterdam-01/event", &json!("intent")));
    let report = OrderReport {
        number: order.number,
        plc: 0,
        outcome: OrderOutcome::Refused(3),
        found: Vec::new(),
        images: Vec::new(),
        at: UnixTime::from_micros(0),
    };
    world.plcs.send(plc::PlcEvent::Written(Box::new(report))).await.unwrap();
    let (topic, outcome) = world.next().await.unwrap_err();
    assert_eq!((topic.as_str(), &outcome["state"]), ("edge/amsterdam-01/event", &json!("failed")));
    let (topic, reply) = world.next().await.unwrap_err();
    assert_eq!(topic, "edge/amsterdam-01/reply/plc0");
    assert_eq!((&reply["exception"], &reply["gateway"]["seq"]), (&json!(3), &json!(0)));
}

#[tokio::test(start_paused = true)]
async fn a_refused_command_is_acknowledged_and_leaves_no_event() {
    let mut world = PumpRun::start().await;
    for (number, payload) in ["{", r#"{"pressure":1}"#, r#"{"nothing":1}"#].into_iter().enumerate()
    {
        let delivery = u16::try_from(number).unwrap();
        world.publish(payload, delivery).await;
        assert_eq!(world.next().await, Ok(DeliveryTag::unknown(delivery)));
        let (topic, reply) = world.next().await.unwrap_err();
        assert_eq!(
            (topic.as_str(), &reply["state"]),
            ("edge/amsterdam-01/reply/plc0", &json!("rejected"))
        );
    }
    assert!(world.orders.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn without_a_place_for_the_record_nothing_is_written() {
    let mut world = PumpRun::start_in("/dev/null/state".into()).await;
    world.publish(r#"{"temperature":7}"#, 1).await;
    assert_eq!(world.next().await, Ok(DeliveryTag::unknown(1)));
    let (_, reply) = world.next().await.unwrap_err();
    assert_eq!(reply["state"], "failed");
    assert!(reply["reason"].as_str().unwrap().contains("record"), "{reply}");
    assert!(world.orders.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn the_result_of_a_command_outlives_the_process() {
    let mut world = PumpRun::start().await;
    let command = r#"{"id":"a","write":{"temperature":7}}"#;
    world.publish(command, 1).await;
    world.obey().await;
    let mut replies = Vec::new();
    while replies.is_empty() {
        replies.extend(world.next().await.err().filter(|(topic, _)| topic.contains("/reply/")));
    }
    // The pump ends with its PLC task, and has stored the outcome.
    let dir = std::mem::take(&mut world.dir);
    let PumpRun { plcs, requests, tasks, .. } = &mut world;
    *plcs = mpsc::channel(1).0;
    while requests.recv().await.is_some() {}
    tasks.join_next().await.unwrap().unwrap();
    let mut again = PumpRun::start_in(dir).await;
    again.publish(command, 2).await;
    assert_eq!(again.next().await, Ok(DeliveryTag::unknown(2)));
    let (_, reply) = again.next().await.unwrap_err();
    let body = |reply: &Value| (reply["state"].clone(), reply["tags"].clone());
    assert_eq!(body(&reply), body(&replies[0].1));
    assert_eq!(reply["state"], "done");
    assert!(again.orders.try_recv().is_err());
}

/// The path to the broker was dead for 12 s before the session ended. A message with QoS 0 that was
/// written meanwhile is no sign of the broker, and the acknowledgement of one with QoS 1 is.
#[tokio::test(start_paused = true)]
async fn a_command_that_waited_while_the_path_was_dead_is_old() {
    for (qos, is_old) in [(Qos::AtMostOnce, true), (Qos::AtLeastOnce, false)] {
        let dir = temporary_dir();
        let mut config = writable_config(dir.clone());
        config.plcs[0].publish.qos = qos;
        let mut world = PumpRun::start_with(config, dir).await;
        // It would be a sign of the broker, too.
        world.acknowledges_status = false;
        world.publish("{", 1).await;
        assert_eq!(world.next().await, Ok(DeliveryTag::unknown(1)));
        assert_eq!(world.next().await.unwrap_err().1["state"], "rejected");
        tokio::time::sleep(Duration::from_secs(6)).await;
        world.plcs.send(cycle(false)).await.unwrap();
        assert!(world.next().await.unwrap_err().0.contains("/data/"));
        tokio::time::sleep(Duration::from_secs(6)).await;

        world.broker.send(disconnected(DisconnectReason::Unavailable)).await.unwrap();
        let mut kept = connected(2);
        let mqtt::MqttEvent::Connected { session_present, .. } = &mut kept else { panic!() };
        *session_present = true;
        world.broker.send(kept).await.unwrap();
        world.publish(r#"{"temperature":7}"#, 2).await;

        assert_eq!(world.next().await, Ok(DeliveryTag::unknown(2)));
        let (_, message) = world.next().await.unwrap_err();
        let reason = message["reason"].as_str().unwrap_or_default();
        assert_eq!(reason.contains("may be old"), is_old, "{qos:?}: {message}");
        assert_eq!(message["step"] == "intent", !is_old, "{qos:?}: {message}");
    }
}

/// The directory of the ledger could not be used at the start, and can be a while later.
#[tokio::test(start_paused = true)]
async fn a_command_that_arrives_while_the_ledger_is_opened_gets_its_reply() {
    let dir = temporary_dir();
    fs::write(&dir, "no directory").unwrap();
    let metrics = metrics();
    let TestPump { mut pump, mut outgoing, .. } =
        TestPump::new(&writable_config(dir.clone()), &metrics);
    let running = |signature| {
        let (state, signature) = (plc::ProgramState::Running, Some(signature));
        let program = Some(plc::ProgramStatus { state, last_stop: None, signature });
        plc::PlcState::Connected { identity: None, program }
    };
    pump.commands.on_plc_state(0, &running(ProgramSignature([1, 2, 3, 4])));
    pump.advance_commands();
    fs::remove_file(&dir).unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    pump.commands.on_tick();
    assert!(pump.commands.is_recording(), "a job opens the file");

    let mut is_acknowledged = |pump: &mut Pump, delivery| {
        pump.on_message(&command(r#"{"temperature":7}"#, delivery));
        pump.advance_commands();
        let tag = DeliveryTag::unknown(delivery);
        matches!(outgoing.try_recv(), Ok(MqttRequest::Acknowledge(acked)) if acked == tag)
    };
    let has_count = |line: &str| metrics.render().unwrap().contains(line);
    assert!(is_acknowledged(&mut pump, 1));
    assert!(has_count("edge_writes_total{outcome=\"failed\",plc=\"plc0\"} 1"));
    let opened = pump.commands.next_event().await.unwrap();
    pump.on_command_event(opened);
    // The program that was seen before is the accepted one.
    pump.commands.on_plc_state(0, &running(ProgramSignature([5, 6, 7, 8])));
    assert!(is_acknowledged(&mut pump, 2));
    assert!(has_count("edge_writes_total{outcome=\"rejected\",plc=\"plc0\"} 1"));
    fs::remove_dir_all(&dir).unwrap();
}

/// Nothing is acknowledged: the line of the gateway is slower than what it refuses.
#[tokio::test(start_paused = true)]
async fn a_flood_of_refused_commands_evicts_no_values() {
    let metrics = metrics();
    let TestPump { mut pump, outgoing: _outgoing, .. } =
        TestPump::new(&writable_config("/dev/null/state".into()), &metrics);
    for value in 0..100 {
        pump.on_plc_event(cycle_of(0, value));
    }

    for number in 0..10_000 {
        // One is malformed, one cannot be recorded.
        for payload in ["{", r#"{"temperature":7}"#] {
            pump.on_message(&command(payload, number));
            pump.advance_commands();
        }
    }

    assert_eq!(metrics.queue.dropped(), 0);
    let text = metrics.render().unwrap();
    for outcome in ["rejected", "failed"] {
        let line = format!("edge_writes_total{{outcome=\"{outcome}\",plc=\"plc0\"}} 10000\n");
        assert!(text.contains(&line), "{text}");
    }
}
