mod bundles;
mod commands;
mod events;
mod unreliable_brokers;
mod wrong_clock;

use provisioning::config::{MqttVersion, Qos};

use super::*;
use crate::app::certificates::CertificateEnds;
use crate::clock;
use crate::metrics::TagPosition;
use crate::model::{Cycle, ReadResult, Registers, ReplyTo, ReplyToError, TagLocation, UnixTime};
use crate::testing;

const GRACE: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn records_left_without_storage_are_counted_as_dropped_at_the_stop() {
    let metrics = metrics();
    let TestPump { pump, plcs, from_plcs, broker: _broker, from_broker, outgoing: _outgoing } =
        TestPump::new(&testing::config(1), &metrics);

    plcs.send(cycle(false)).await.unwrap();
    drop(plcs);
    pump.run(from_plcs, from_broker, GRACE).await;

    assert_eq!((metrics.queue.produced.get(), metrics.queue.stored.get()), (2, 0));
    assert!(
        metrics.render().unwrap().contains("edge_samples_dropped_total{reason=\"shutdown\"} 2")
    );
}

#[tokio::test(start_paused = true)]
async fn records_are_delivered_during_the_drain_before_the_offline_status() {
    let metrics = metrics();
    let TestPump { pump, plcs, from_plcs, broker, from_broker, mut outgoing } =
        TestPump::new(&testing::config(1), &metrics);
    let answering = async move {
        broker.send(connected(1)).await.unwrap();
        let mut last = Vec::new();
        while let Some(OutgoingMessage { ticket, payload, .. }) = next_message(&mut outgoing).await
        {
            if let Some(ticket) = ticket {
                broker.send(mqtt::MqttEvent::Acknowledged { ticket }).await.unwrap();
            }
            last = payload;
        }
        last
    };

    plcs.send(cycle(false)).await.unwrap();
    drop(plcs);
    let ((), last) = tokio::join!(pump.run(from_plcs, from_broker, GRACE), answering);

    assert_eq!(metrics.queue.delivered.get(), 2);
    assert_eq!(last, crate::app::OFFLINE_PAYLOAD.as_bytes());
}

#[test]
fn a_reply_never_goes_to_a_topic_of_the_configuration() {
    let mut config = testing::config(2);
    config.plcs[1].publish.topic = "topic1".to_owned();
    let reply_to =
        |config: &Config, topic: &str| ReplyTo::new(&own_topics(config), topic.to_owned(), None);
    assert!(reply_to(&config, "M262").is_ok());
    config.mqtt.will = Some(provisioning::config::Will {
        topic: "M262".to_owned(),
        payload: "Disconnected".to_owned(),
        qos: Qos::AtLeastOnce,
        retain: false,
    });
    for own in ["topic1", "M262", &config.plcs[0].publish.topic] {
        assert_eq!(reply_to(&config, own), Err(ReplyToError::OwnTopic), "{own}");
    }
}

/// Returns topic, payload and `retain` of each message of a session without values.
async fn messages_with_will(will: Option<provisioning::config::Will>) -> Vec<(String, bool)> {
    let mut config = testing::config(1);
    config.mqtt.will = will;
    let TestPump { pump, plcs, from_plcs, broker, from_broker, mut outgoing } =
        TestPump::new(&config, &metrics());
    let answering = async move {
        broker.send(connected(1)).await.unwrap();
        let mut messages = Vec::new();
        let mut plcs = Some(plcs);
        while let Some(message) = next_message(&mut outgoing).await {
            assert_eq!(&*message.topic, "edge/amsterdam-01/status");
            if let Some(ticket) = message.ticket {
                broker.send(mqtt::MqttEvent::Acknowledged { ticket }).await.unwrap();
                // The end of the PLC tasks begins the stop.
                plcs = None;
            }
            messages.push((String::from_utf8(message.payload).unwrap(), message.retain));
        }
        assert!(plcs.is_none());
        messages
    };
    tokio::join!(pump.run(from_plcs, from_broker, GRACE), answering).1
}

/// A client has one will. With a will elsewhere, a retained status would stay at "online".
#[tokio::test(start_paused = true)]
async fn only_a_status_that_the_will_replaces_is_retained() {
    let will = |topic: &str, retain| provisioning::config::Will {
        topic: topic.to_owned(),
        payload: "Disconnected".to_owned(),
        qos: Qos::AtLeastOnce,
        retain,
    };
    for replacing in [None, Some(will("edge/amsterdam-01/status", true))] {
        let messages = messages_with_will(replacing).await;
        assert!(messages.iter().all(|(payload, retain)| *retain && !payload.is_empty()));
        assert_eq!(messages.len(), 2, "online and offline");
    }
    for other in [will("topic1", true), will("edge/amsterdam-01/status", false)] {
        let messages = messages_with_will(Some(other)).await;
        let (cleared, rest) = messages.split_first().unwrap();
        assert_eq!(*cleared, (String::new(), true), "what an earlier run left");
        assert!(rest.len() == 2 && rest.iter().all(|(_, retain)| !retain), "{rest:?}");
    }
}

/// The values carry the quality `stopped`, and an event and the status report the stop.
#[tokio::test(start_paused = true)]
async fn a_stopped_program_shows_in_values_event_and_status() {
    let metrics = metrics();
    let TestPump { pump, plcs, from_plcs, broker, from_broker, mut outgoing } =
        TestPump::new(&testing::config(1), &metrics);
    let status = pump.status();
    let answering = async move {
        broker.send(connected(1)).await.unwrap();
        let mut messages = Vec::new();
        while let Some(message) = next_message(&mut outgoing).await {
            let OutgoingMessage { ticket, topic, payload, .. } = message;
            if let Some(ticket) = ticket {
                broker.send(mqtt::MqttEvent::Acknowledged { ticket }).await.unwrap();
            }
            let payload: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            messages.push((topic, payload));
        }
        messages
    };

    let (was, is) = (plc::ProgramState::Running, plc::ProgramState::Stopped);
    let cause = Some(plc::StopCause::User);
    let program = Some(plc::ProgramStatus { state: is, last_stop: cause, signature: None });
    let state = plc::PlcState::Connected { identity: None, program };
    plcs.send(plc::PlcEvent::State { plc: 0, state }).await.unwrap();
    let change = plc::PlcChange::State { was, is, cause };
    plcs.send(plc::PlcEvent::Changed { plc: 0, change }).await.unwrap();
    plcs.send(cycle(true)).await.unwrap();
    drop(plcs);
    let ((), messages) = tokio::join!(pump.run(from_plcs, from_broker, GRACE), answering);

    let on = |end: &str| &messages.iter().find(|(topic, _)| topic.ends_with(end)).unwrap().1;
    assert_eq!(on("/data/plc0")["temperature"], 7);
    assert_eq!(on("/data/plc0")["gateway"]["quality"]["temperature"], "stopped");
    assert_eq!((&on("/event")["event"], &on("/event")["is"]), (&"state".into(), &"stopped".into()));
    let sentence = status.borrow().plcs[0].sentence.clone();
    assert_eq!(
        sentence,
        "The PLC answers, but its program was stopped by a user; its values are frozen."
    );
}

#[tokio::test(start_paused = true)]
async fn the_page_of_tag_values_is_written_family_by_family_in_short_pieces() {
    const PLCS: u16 = 200;
    let config = testing::config(PLCS.into());
    let metrics = Metrics::new(&config, "hash").unwrap();
    let TestPump { mut pump, plcs, from_plcs, broker: _broker, from_broker, outgoing: _outgoing } =
        TestPump::new(&config, &metrics);
    let page = pump.tag_page();
    let reading = async move {
        // The last PLC has not been read yet.
        for plc in 0..PLCS - 1 {
            plcs.send(cycle_of(plc, plc)).await.unwrap();
        }
        tokio::time::sleep(TICK_INTERVAL).await;
        let (mut text, mut pieces, mut next) = (String::new(), 0, Some(TagPosition::START));
        while let Some(position) = next {
            let piece = page.piece(position).await.unwrap();
            assert!(piece.text.len() < 64 * 1024 && piece.text.ends_with('\n'));
            text.push_str(&piece.text);
            (next, pieces) = (piece.next, pieces + 1);
        }
        drop(plcs);
        (text, pieces)
    };
    let ((text, pieces), ()) = tokio::join!(reading, pump.run(from_plcs, from_broker, GRACE));

    assert!(pieces > 1);
    let tags = config.plcs[0].tags.len();
    let lines = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!(lines("edge_tag_value{"), tags * usize::from(PLCS - 1));
    assert_eq!(lines("edge_tag_good{"), tags * usize::from(PLCS));
    assert_eq!(lines("edge_tag_timestamp_seconds{"), tags * usize::from(PLCS - 1));
    let families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert_eq!(
        families,
        ["edge_tag_value gauge", "edge_tag_good gauge", "edge_tag_timestamp_seconds gauge"]
    );
    let name = &config.plcs[3].name;
    assert!(text.contains(&format!("edge_tag_value{{plc=\"{name}\",tag=")), "{text}");
}

/// The broker drops a message, and the next session lasts a tenth of the time between two ticks.
#[tokio::test(start_paused = true)]
async fn a_loss_is_announced_in_a_session_of_any_length() {
    let metrics = metrics();
    let TestPump { pump, plcs, from_plcs, broker, from_broker, mut outgoing } =
        TestPump::new(&testing::config(1), &metrics);
    let answering = async move {
        broker.send(connected(1)).await.unwrap();
        plcs.send(cycle(false)).await.unwrap();
        loop {
            let OutgoingMessage { ticket, topic, .. } = next_message(&mut outgoing).await.unwrap();
            if topic.contains("/data/") {
                let (code, reason) = (mqtt::PACKET_TOO_LARGE, String::new());
                broker
                    .send(mqtt::MqttEvent::Refused { ticket, topic, code, reason })
                    .await
                    .unwrap();
                break;
            }
        }
        broker.send(disconnected(DisconnectReason::Unavailable)).await.unwrap();
        broker.send(connected(2)).await.unwrap();
        let end = tokio::time::Instant::now() + TICK_INTERVAL / 10;
        let mut topics = Vec::new();
        while let Ok(Some(message)) =
            tokio::time::timeout_at(end, next_message(&mut outgoing)).await
        {
            topics.push(message.topic);
        }
        topics
    };
    let (_, topics) = tokio::join!(pump.run(from_plcs, from_broker, GRACE), answering);
    assert!(topics.iter().any(|topic| topic.ends_with("/event")), "{topics:?}");
}

/// The broker said why it ended the session before the present one.
#[tokio::test(start_paused = true)]
async fn a_second_client_with_the_same_id_is_named_while_the_gateway_is_connected() {
    let TestPump { pump, plcs, from_plcs, broker, from_broker, outgoing: _outgoing } =
        TestPump::new(&testing::config(1), &metrics());
    let status = pump.status();
    let code = || status.borrow().broker.refusal_detail.as_ref().map(|detail| detail.code.clone());
    let events = async {
        broker.send(connected(1)).await.unwrap();
        broker.send(disconnected(DisconnectReason::TakenOver)).await.unwrap();
        broker.send(connected(2)).await.unwrap();
        tokio::time::sleep(TICK_INTERVAL).await;
        assert_eq!(code().as_deref(), Some("client_id_shared"));
        drop((plcs, broker));
    };
    tokio::join!(pump.run(from_plcs, from_broker, GRACE), events);
}

fn disconnected(reason: DisconnectReason) -> mqtt::MqttEvent {
    let detail = crate::model::Detail { code: String::new(), arguments: serde_json::Map::new() };
    let sentence = crate::model::Sentence { text: String::new(), detail };
    mqtt::MqttEvent::Disconnected { reason, sentence, retry_in: Duration::ZERO }
}

/// A pump, and the other ends of its channels.
struct TestPump {
    pump: Pump,
    plcs: mpsc::Sender<plc::PlcEvent>,
    from_plcs: mpsc::Receiver<plc::PlcEvent>,
    broker: mpsc::Sender<mqtt::MqttEvent>,
    from_broker: mpsc::Receiver<mqtt::MqttEvent>,
    outgoing: mpsc::Receiver<MqttRequest>,
}

impl TestPump {
    /// Without storage: the queue is lost with the process.
    fn new(config: &Config, metrics: &Metrics) -> Self {
        Self::with(config, metrics, health_inputs(), no_storage())
    }

    fn with(
        config: &Config,
        metrics: &Metrics,
        inputs: HealthInputs,
        storage: QueueStorage,
    ) -> Self {
        let (plcs, from_plcs) = mpsc::channel(64);
        let (broker, from_broker) = mpsc::channel(2 * mqtt::MAX_INFLIGHT);
        let (outbox, outgoing) = mpsc::channel(mqtt::MAX_INFLIGHT);
        let ends = (storage, outbox);
        let pump = Pump::new(config, "hash", metrics, inputs, ends, command_inputs());
        Self { pump, plcs, from_plcs, broker, from_broker, outgoing }
    }
}

/// Returns the event of a session of version 5.
fn connected(session: u32) -> mqtt::MqttEvent {
    mqtt::MqttEvent::Connected {
        session,
        broker: "b:1883".to_owned(),
        version: MqttVersion::V5,
        session_present: false,
        max_payload: None,
    }
}

/// Returns the next message that the pump publishes.
async fn next_message(requests: &mut mpsc::Receiver<MqttRequest>) -> Option<OutgoingMessage> {
    loop {
        if let MqttRequest::Publish(message) = requests.recv().await? {
            return Some(message);
        }
    }
}

/// Without storage the queue is lost with the process.
fn no_storage() -> QueueStorage {
    let source = std::io::ErrorKind::PermissionDenied.into();
    QueueStorage::Unusable(DirStorageError::Unusable { dir: "nowhere".into(), source })
}

fn metrics() -> Metrics {
    Metrics::new(&testing::config(1), "hash").unwrap()
}

/// Returns a cycle of the only scan class of the only PLC: one register.
fn cycle(is_stopped: bool) -> plc::PlcEvent {
    let plc::PlcEvent::Cycle(cycle) = cycle_of(0, 7) else { panic!("no cycle") };
    plc::PlcEvent::Cycle(Cycle { is_stopped, ..cycle })
}

/// Returns a cycle in which a PLC answers this value in its only register.
fn cycle_of(index: u16, value: u16) -> plc::PlcEvent {
    let read = ReadResult { at: UnixTime::default(), outcome: Ok(Registers::Words(vec![value])) };
    let plc = &testing::config(usize::from(index) + 1).plcs[usize::from(index)];
    let requests = provisioning::plan::plan(plc).classes[0].requests.clone();
    plc::PlcEvent::Cycle(Cycle {
        plc: index,
        class: 0,
        at: UnixTime::default(),
        booted_at: UnixTime::default(),
        took: Duration::from_millis(5),
        is_stopped: false,
        requests: requests.into(),
        locations: vec![Ok(TagLocation { result: 0, offset: 0 }); plc.tags.len()].into(),
        results: vec![read],
    })
}

/// Returns inputs by which no command arrives.
fn command_inputs() -> CommandInputs {
    CommandInputs { orders: Vec::new(), local: mpsc::channel(1).1 }
}

fn health_inputs() -> HealthInputs {
    let judgement = clock::assess(std::path::Path::new("/nowhere"));
    HealthInputs {
        tunnel: None,
        clock: watch::Sender::new(judgement).subscribe(),
        certificates: watch::Sender::new(CertificateEnds::new()).subscribe(),
    }
}
