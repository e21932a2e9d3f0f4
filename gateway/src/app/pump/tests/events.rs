//! Events on their way through the pump, with channels in place of broker and PLC, and a copy of
//! `state_dir` in place of a process that is killed at that moment.

use std::fs;
use std::path::{Path, PathBuf};

use provisioning::config::EventTrigger;
use provisioning::plc::{DataType, IecType, Location, Table};
use serde_json::{Value as Json, json};

use super::*;
use crate::model::{
    ImageReport, ImageState, NotSentReason, OrderOutcome, OrderReport, OrderTask, PlcOrder,
    ProgramSignature, ReadFailure,
};

/// A copy of [`QUEUE_DIR`].
const KEPT_QUEUE: &str = "kept";

/// A pump with one PLC whose first tag is a counter with `acknowledge`.
struct EventRun {
    plcs: mpsc::Sender<plc::PlcEvent>,
    orders: mpsc::Receiver<PlcOrder>,
    broker: mpsc::Sender<mqtt::MqttEvent>,
    requests: mpsc::Receiver<MqttRequest>,
    tasks: JoinSet<()>,
    metrics: Metrics,
    dir: PathBuf,
    /// When the next cycle is read.
    at: i64,
}

impl Drop for EventRun {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn new_dir() -> PathBuf {
    let name = format!("edge-gateway-event-run-{}-{:08x}", std::process::id(), fastrand::u32(..));
    std::env::temp_dir().join(name)
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_dir(&path, &copy);
        } else if path.extension().is_none_or(|extension| extension != "new") {
            fs::copy(path, copy).unwrap();
        }
    }
}

fn event_config(dir: &Path, tag_type: IecType) -> Config {
    let mut config = testing::config(1);
    config.gateway.state_dir = dir.to_owned();
    let plc = &mut config.plcs[0];
    let place = Location { table: Table::HoldingRegister, first: 90, count: 1, byte: 0, bit: None };
    plc.publish.on = Some(EventTrigger { tag: 0, acknowledge: Some(place) });
    let tag = &mut std::sync::Arc::make_mut(&mut plc.tags)[0];
    tag.data_type = DataType::from(tag_type);
    if tag_type == IecType::Bool {
        tag.location.bit = Some(0);
    }
    config
}

impl EventRun {
    async fn start() -> Self {
        Self::start_in(new_dir(), IecType::Uint, 0).await
    }

    /// Starts the pump in a directory, in a session with the broker.
    async fn start_in(dir: PathBuf, tag_type: IecType, at: i64) -> Self {
        fs::create_dir_all(&dir).unwrap();
        let config = event_config(&dir, tag_type);
        let (plcs, from_plcs) = mpsc::channel(16);
        let (broker, from_broker) = mpsc::channel(2 * mqtt::MAX_INFLIGHT);
        let (outbox, requests) = mpsc::channel(mqtt::MAX_INFLIGHT);
        let (order_sender, orders) = mpsc::channel(16);
        let inputs = CommandInputs { orders: vec![order_sender], local: mpsc::channel(1).1 };
        let metrics = Metrics::new(&config, "hash").unwrap();
        let storage = DirStorage::open(&dir.join(QUEUE_DIR));
        let ends = (storage.map_or_else(QueueStorage::Unusable, QueueStorage::Open), outbox);
        let pump = Pump::new(&config, "hash", &metrics, health_inputs(), ends, inputs);
        let mut tasks = JoinSet::new();
        tasks.spawn(pump.run(from_plcs, from_broker, GRACE));
        broker.send(connected(1)).await.unwrap();
        Self { plcs, orders, broker, requests, tasks, metrics, dir, at }
    }

    /// Returns the next run, as if this one was killed now: it goes on with a copy.
    async fn killed_copy(&self, tag_type: IecType) -> Self {
        let dir = new_dir();
        copy_dir(&self.dir, &dir);
        Self::start_in(dir, tag_type, self.at).await
    }

    /// Keeps the queue as it is now.
    fn keep_queue(&self) {
        copy_dir(&self.dir.join(QUEUE_DIR), &self.dir.join(KEPT_QUEUE));
    }

    /// Returns the next run, as if the power was cut now: the queue is as it was kept, because what
    /// was written since then is not on disk.
    async fn copy_after_power_cut(&self, tag_type: IecType) -> Self {
        let dir = new_dir();
        copy_dir(&self.dir, &dir);
        fs::remove_dir_all(dir.join(QUEUE_DIR)).unwrap();
        fs::rename(dir.join(KEPT_QUEUE), dir.join(QUEUE_DIR)).unwrap();
        Self::start_in(dir, tag_type, self.at).await
    }

    /// Reports a cycle with this value, or one that failed.
    async fn cycle(&mut self, value: Result<u16, ReadFailure>) {
        self.at += 1_000_000;
        let plc::PlcEvent::Cycle(mut cycle) = cycle_of(0, 0) else { panic!("no cycle") };
        cycle.results[0].at = UnixTime::from_micros(self.at);
        cycle.results[0].outcome = value.map(|value| Registers::Words(vec![value]));
        self.plcs.send(plc::PlcEvent::Cycle(cycle)).await.unwrap();
    }

    /// Reports that the PLC has the program with this signature.
    async fn program(&self, signature: [u32; 4]) {
        let state = plc::ProgramState::Running;
        let signature = Some(ProgramSignature(signature));
        let program = Some(plc::ProgramStatus { state, last_stop: None, signature });
        let state = plc::PlcState::Connected { identity: None, program };
        self.plcs.send(plc::PlcEvent::State { plc: 0, state }).await.unwrap();
    }

    async fn report(&self, order: &PlcOrder, outcome: OrderOutcome) {
        let image = |image: &crate::model::TagImage| ImageReport {
            state: ImageState::Written,
            read: Some(image.to_registers()),
        };
        let report = OrderReport {
            number: order.number,
            plc: order.plc,
            outcome,
            found: Vec::new(),
            images: order.write.iter().map(image).collect(),
            at: UnixTime::from_micros(self.at),
        };
        self.plcs.send(plc::PlcEvent::Written(Box::new(report))).await.unwrap();
    }

    /// Carries out the next order, which reads all tags.
    async fn read_all(&mut self, value: Result<u16, ReadFailure>) {
        let order = self.orders.recv().await.unwrap();
        assert_eq!(order.task, OrderTask::ReadAll);
        self.cycle(value).await;
        self.report(&order, OrderOutcome::Done).await;
    }

    /// Lets an event happen, and returns the ticket of its message, which is on disk.
    async fn event(&mut self, value: u16) -> u64 {
        self.cycle(Ok(value)).await;
        self.read_all(Ok(value)).await;
        let ticket = self.message(value).await;
        settle_down().await;
        ticket
    }

    /// Returns the ticket of the next message with values, which has this one.
    async fn message(&mut self, value: u16) -> u64 {
        let (ticket, payload) = self.next_message("/data/plc0").await;
        let expected = [json!(value), json!(value != 0)];
        assert!(expected.contains(&payload["temperature"]), "{payload}");
        ticket
    }

    /// Returns the next message on this topic. Others are acknowledged.
    async fn next_message(&mut self, topic: &str) -> (u64, Json) {
        loop {
            let MqttRequest::Publish(message) = self.requests.recv().await.unwrap() else {
                continue;
            };
            if message.topic.ends_with(topic) {
                let payload = serde_json::from_slice(&message.payload).unwrap();
                return (message.ticket.unwrap(), payload);
            }
            if let Some(ticket) = message.ticket {
                self.acknowledge(ticket).await;
            }
        }
    }

    async fn acknowledge(&self, ticket: u64) {
        self.broker.send(mqtt::MqttEvent::Acknowledged { ticket }).await.unwrap();
    }

    /// Returns the word of the next order, and the order.
    async fn word(&mut self) -> (u16, PlcOrder) {
        let order = self.orders.recv().await.unwrap();
        assert_eq!(order.task, OrderTask::Write);
        let Registers::Words(words) = order.write[0].to_registers() else { panic!("no word") };
        (words[0], order)
    }

    /// Carries out the orders until nothing happens, and returns the words.
    async fn words(&mut self) -> Vec<u16> {
        let mut words = Vec::new();
        while let Ok((word, order)) =
            tokio::time::timeout(Duration::from_secs(20), self.word()).await
        {
            self.report(&order, OrderOutcome::Done).await;
            words.push(word);
        }
        words
    }

    fn delivered(&self) -> u64 {
        self.metrics.queue.delivered.get()
    }

    /// Waits until these words are saved as owed.
    async fn wait_for_owed(&self, words: &Json) {
        while self.saved()["owed"] != *words {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Returns what is saved of the event.
    fn saved(&self) -> Json {
        let text = fs::read_to_string(self.dir.join("events")).unwrap();
        serde_json::from_str::<Json>(&text).unwrap()["plc0"].clone()
    }
}

/// Waits until everything is on disk, in virtual time.
async fn settle_down() {
    tokio::time::sleep(Duration::from_secs(15)).await;
}

/// At each step between the acknowledgement of the broker and its record in the queue.
#[tokio::test(start_paused = true)]
async fn a_kill_at_any_step_costs_no_acknowledgement_and_repeats_none() {
    let mut run = EventRun::start().await;
    run.cycle(Ok(5)).await;
    let ticket = run.event(6).await;
    run.keep_queue();
    // Before the state is saved: the message is sent again.
    let mut again = run.killed_copy(IecType::Uint).await;
    let resent = again.message(6).await;
    again.acknowledge(resent).await;
    assert_eq!(again.words().await, [6]);
    // The state is saved, and the queue does not know yet: the word is owed, and that is all.
    run.acknowledge(ticket).await;
    let (word, order) = run.word().await;
    assert_eq!(word, 6);
    run.wait_for_owed(&json!([6])).await;
    let mut again = run.copy_after_power_cut(IecType::Uint).await;
    let resent = again.message(6).await;
    again.acknowledge(resent).await;
    assert_eq!(again.words().await, [6], "and not once more for the message");
    // The PLC has it, and the queue does not know yet.
    run.report(&order, OrderOutcome::Done).await;
    run.wait_for_owed(&json!([])).await;
    let mut again = run.copy_after_power_cut(IecType::Uint).await;
    let resent = again.message(6).await;
    again.acknowledge(resent).await;
    assert!(again.words().await.is_empty());
    // Everything is recorded.
    settle_down().await;
    let mut again = run.killed_copy(IecType::Uint).await;
    assert!(again.words().await.is_empty());
    let next = again.event(7).await;
    again.acknowledge(next).await;
    assert_eq!(again.words().await, [7]);
}

#[tokio::test(start_paused = true)]
async fn a_later_event_is_acknowledged_after_the_restart_when_the_earlier_one_is() {
    let mut run = EventRun::start().await;
    run.cycle(Ok(5)).await;
    let _sixth = run.event(6).await;
    let seventh = run.event(7).await;
    run.acknowledge(seventh).await;
    settle_down().await;
    assert_eq!(run.delivered(), 2, "the message of event 7, with two tags");
    assert_eq!(run.saved()["waiting"][1]["acknowledged"], true);
    let mut again = run.killed_copy(IecType::Uint).await;
    let resent = again.message(6).await;
    again.acknowledge(resent).await;
    assert_eq!(again.words().await, [6, 7]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_message_of_an_earlier_run_delays_only_until_the_others_are_sent() {
    let mut run = EventRun::start().await;
    run.cycle(Ok(5)).await;
    run.event(6).await;
    settle_down().await;
    // The queue is lost, and the state is not.
    fs::remove_dir_all(run.dir.join(QUEUE_DIR)).unwrap();
    let mut again = run.killed_copy(IecType::Uint).await;
    let mut tickets = Vec::new();
    for value in [7, 8] {
        tickets.push(again.event(value).await);
    }
    // Event 8 is not acknowledged, so that the queue is not empty.
    again.acknowledge(tickets[0]).await;
    assert_eq!(again.words().await, [7]);
}

#[tokio::test(start_paused = true)]
async fn messages_in_a_storage_that_is_attached_late_are_not_taken_for_lost() {
    let mut run = EventRun::start().await;
    run.cycle(Ok(5)).await;
    let _sixth = run.event(6).await;
    let seventh = run.event(7).await;
    run.acknowledge(seventh).await;
    settle_down().await;
    let dir = new_dir();
    copy_dir(&run.dir, &dir);
    let (queue, kept) = (dir.join(QUEUE_DIR), dir.join(KEPT_QUEUE));
    fs::rename(&queue, &kept).unwrap();
    fs::write(&queue, "no directory").unwrap();
    let mut again = EventRun::start_in(dir, IecType::Uint, run.at).await;
    assert!(again.words().await.is_empty());
    fs::remove_file(&queue).unwrap();
    fs::rename(&kept, &queue).unwrap();
    let resent = again.message(6).await;
    again.acknowledge(resent).await;
    assert_eq!(again.words().await, [6, 7]);
}

#[tokio::test(start_paused = true)]
async fn a_bool_is_acknowledged_by_the_next_run() {
    let mut run = EventRun::start_in(new_dir(), IecType::Bool, 0).await;
    run.cycle(Ok(0)).await;
    assert_eq!(run.words().await, [0]);
    run.event(1).await;
    let mut again = run.killed_copy(IecType::Bool).await;
    again.cycle(Ok(1)).await;
    let resent = again.message(1).await;
    again.acknowledge(resent).await;
    assert_eq!(again.words().await, [1]);
    again.cycle(Ok(0)).await;
    assert_eq!(again.words().await, [0]);
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_read_fails_is_published_by_the_next_one() {
    let mut run = EventRun::start().await;
    run.cycle(Ok(5)).await;
    run.cycle(Ok(6)).await;
    run.read_all(Err(ReadFailure::Unreachable)).await;
    run.cycle(Ok(6)).await;
    let order = run.orders.recv().await.unwrap();
    let reason = NotSentReason::Expired;
    run.report(&order, OrderOutcome::NotSent(reason)).await;
    run.cycle(Ok(6)).await;
    run.read_all(Ok(6)).await;
    let (_, payload) = run.next_message("/data/plc0").await;
    let seen = (&payload["temperature"], &payload["gateway"]["seq"]);
    assert_eq!(seen, (&json!(6), &json!(0)), "nothing else was published");
}

#[tokio::test(start_paused = true)]
async fn the_outcome_of_each_word_is_counted_and_only_a_refusal_is_a_failure() {
    let mut run = EventRun::start().await;
    run.cycle(Ok(5)).await;
    let outcomes = [
        (6, OrderOutcome::Done, "done"),
        (7, OrderOutcome::Unknown, "done"),
        (8, OrderOutcome::Refused(2), "failed"),
    ];
    for (value, outcome, state) in outcomes {
        let ticket = run.event(value).await;
        run.acknowledge(ticket).await;
        let (word, order) = run.word().await;
        assert_eq!(word, value);
        run.report(&order, outcome).await;
        let (ticket, event) = run.next_message("/event").await;
        run.acknowledge(ticket).await;
        assert_eq!((&event["state"], &event["write"]), (&json!(state), &json!({"%MW90": value})));
    }
    let text = run.metrics.render().unwrap();
    for line in ["outcome=\"done\",plc=\"plc0\"} 2", "outcome=\"failed\",plc=\"plc0\"} 1"] {
        assert!(text.contains(&format!("edge_writes_total{{{line}")), "{text}");
    }
}

/// The stop saves the state before the queue forgets the message.
#[tokio::test(start_paused = true)]
async fn an_acknowledgement_during_the_stop_is_written_by_the_next_run() {
    let mut run = EventRun::start().await;
    run.cycle(Ok(5)).await;
    let ticket = run.event(6).await;
    run.plcs = mpsc::channel(1).0;
    run.acknowledge(ticket).await;
    while run.requests.recv().await.is_some() {}
    run.tasks.join_next().await.unwrap().unwrap();
    assert_eq!(run.delivered(), 2);
    let mut again = run.killed_copy(IecType::Uint).await;
    assert_eq!(again.words().await, [6]);
}

/// In another program the word may be part of anything.
#[tokio::test(start_paused = true)]
async fn a_word_is_written_only_to_the_program_that_was_seen_first() {
    let mut run = EventRun::start().await;
    run.program([1; 4]).await;
    run.cycle(Ok(5)).await;
    let ticket = run.event(6).await;
    run.program([2; 4]).await;
    run.acknowledge(ticket).await;
    let (_, order) = run.word().await;
    let accepted = Some(ProgramSignature([1; 4]));
    assert_eq!(order.program, accepted);
    let reason = NotSentReason::ProgramChanged;
    run.report(&order, OrderOutcome::NotSent(reason)).await;
    let (word, again) = run.word().await;
    assert_eq!((word, again.program), (6, accepted));
    settle_down().await;
    let mut next = run.killed_copy(IecType::Uint).await;
    next.program([2; 4]).await;
    let (word, order) = next.word().await;
    assert_eq!((word, order.program), (6, accepted));
}

#[tokio::test(start_paused = true)]
async fn what_was_saved_of_another_tag_means_nothing() {
    let mut run = EventRun::start().await;
    run.cycle(Ok(5)).await;
    let ticket = run.event(6).await;
    run.acknowledge(ticket).await;
    settle_down().await;
    assert_eq!(run.saved()["owed"], json!([6]));
    let path = run.dir.join("events");
    let saved = fs::read_to_string(&path).unwrap();
    fs::write(&path, saved.replace("\"temperature\"", "\"pressure\"")).unwrap();
    let mut next = run.killed_copy(IecType::Uint).await;
    next.cycle(Ok(9)).await;
    assert!(next.words().await.is_empty(), "neither a word nor an event");
}
