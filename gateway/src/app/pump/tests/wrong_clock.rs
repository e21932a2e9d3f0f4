//! Records that were read by a wrong clock, and sent after it was set.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;
use crate::clock::ClockAssessment;
use crate::model::ClockPeriod;
use crate::queue::storage::DirStorage;

const RIGHT: i64 = 1_800_000_000_000_000;

/// The broker connects after the clock was set, and before another record is read.
#[tokio::test(start_paused = true)]
async fn stored_records_are_corrected_as_soon_as_the_clock_is_set() {
    let (clock, inputs) = clock(assessed(0, TrustLevel::Unset));
    let (plcs, broker, outgoing, pump) = started(inputs, no_storage());
    let setting = async move {
        plcs.send(cycle_by(0)).await.unwrap();
        // The pump must have taken the record before the clock is set.
        tokio::time::sleep(2 * TICK_INTERVAL).await;
        clock.send_replace(assessed(RIGHT, TrustLevel::Floor));
        tokio::time::sleep(2 * TICK_INTERVAL).await;
        answer(plcs, broker, outgoing).await
    };

    let (messages, ()) = tokio::join!(setting, pump);

    assert_corrected(&messages, 1);
}

/// The record is read before the clock is set and arrives after that.
#[tokio::test(start_paused = true)]
async fn a_record_on_the_way_while_the_clock_is_set_keeps_its_clock() {
    let (clock, inputs) = clock(assessed(0, TrustLevel::Unset));
    let (plcs, broker, outgoing, pump) = started(inputs, no_storage());
    let setting = async move {
        plcs.send(cycle_by(0)).await.unwrap();
        clock.send_replace(assessed(RIGHT, TrustLevel::Synchronised));
        tokio::time::sleep(2 * TICK_INTERVAL).await;
        for booted_at in [RIGHT, 0, RIGHT] {
            plcs.send(cycle_by(booted_at)).await.unwrap();
        }
        answer(plcs, broker, outgoing).await
    };

    let (messages, ()) = tokio::join!(setting, pump);

    assert_eq!(messages.len(), 4);
    assert_corrected(&messages, 2);
}

#[tokio::test(start_paused = true)]
async fn records_of_an_earlier_process_are_corrected_when_the_clock_is_set() {
    for end in [FirstRunEnd::Stopped, FirstRunEnd::Killed] {
        let dir = temporary_dir();
        let (_clock, inputs) = clock(assessed(0, TrustLevel::Unset));
        run_without_broker(inputs, &dir, end).await;

        // The clock is set while no gateway runs, or while the next one does.
        for set_at in [SetAt::BeforeTheStart, SetAt::Running] {
            let copy = temporary_dir();
            copy_files(&dir, &copy);
            let first = match set_at {
                SetAt::BeforeTheStart => assessed(RIGHT, TrustLevel::Floor),
                SetAt::Running => assessed(0, TrustLevel::Unset),
            };
            let (clock, inputs) = clock(first);
            let (plcs, broker, outgoing, pump) = started(inputs, open(&copy));
            let setting = async move {
                tokio::time::sleep(2 * TICK_INTERVAL).await;
                clock.send_replace(assessed(RIGHT, TrustLevel::Floor));
                tokio::time::sleep(2 * TICK_INTERVAL).await;
                answer(plcs, broker, outgoing).await
            };

            let (messages, ()) = tokio::join!(setting, pump);

            assert_corrected(&messages, 1);
            std::fs::remove_dir_all(&copy).unwrap();
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

/// How the first gateway ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum FirstRunEnd {
    Stopped,
    Killed,
}

/// When the clock is set.
#[derive(Clone, Copy, Debug)]
enum SetAt {
    BeforeTheStart,
    Running,
}

/// Runs a gateway that reads one record and has no broker.
async fn run_without_broker(inputs: HealthInputs, dir: &Path, end: FirstRunEnd) {
    let (plcs, _broker, _outgoing, pump) = started(inputs, open(dir));
    let reading = async move {
        plcs.send(cycle_by(0)).await.unwrap();
        tokio::time::sleep(3 * TICK_INTERVAL).await;
        plcs
    };
    match end {
        FirstRunEnd::Stopped => drop(tokio::join!(async { drop(reading.await) }, pump)),
        FirstRunEnd::Killed => tokio::select! {
            () = pump => panic!("it has not been stopped"),
            _plcs = reading => {}
        },
    }
}

fn assert_corrected(messages: &[Value], count: usize) {
    let (corrected, others): (Vec<_>, Vec<_>) =
        messages.iter().partition(|message| message["gateway"]["corrected"] == true);
    assert_eq!(corrected.len(), count, "{messages:?}");
    for message in corrected.into_iter().chain(others) {
        assert_eq!(message["gateway"].get("quality"), None, "{message}");
        // `RIGHT` is in the year 2027.
        assert!(message["datetime"].as_str().unwrap().starts_with("2027-01-15"), "{message}");
    }
}

fn clock(assessment: ClockAssessment) -> (watch::Sender<ClockAssessment>, HealthInputs) {
    let (sender, clock) = watch::channel(assessment);
    (
        sender,
        HealthInputs {
            tunnel: None,
            clock,
            certificates: watch::Sender::new(CertificateEnds::new()).subscribe(),
        },
    )
}

fn assessed(booted_at: i64, trust: TrustLevel) -> ClockAssessment {
    ClockAssessment {
        period: ClockPeriod { booted_at: UnixTime::from_micros(booted_at), trust },
        floor: UnixTime::from_micros(RIGHT - 1),
        ceiling: UnixTime::from_micros(RIGHT + 3_600_000_000),
    }
}

/// Returns a cycle one second after the boot, by a clock that says when that was.
fn cycle_by(booted_at: i64) -> plc::PlcEvent {
    let plc::PlcEvent::Cycle(mut cycle) = cycle(false) else { panic!("it is a cycle") };
    // A value that does not change is not published.
    let value = Ok(Registers::Words(vec![fastrand::u16(..)]));
    cycle.at = UnixTime::from_micros(booted_at + 1_000_000);
    cycle.results = vec![ReadResult { at: cycle.at, outcome: value }];
    cycle.booted_at = UnixTime::from_micros(booted_at);
    plc::PlcEvent::Cycle(cycle)
}

type Plcs = mpsc::Sender<plc::PlcEvent>;
type BrokerEvents = mpsc::Sender<mqtt::MqttEvent>;
type SentToBroker = mpsc::Receiver<MqttRequest>;

fn started(
    inputs: HealthInputs,
    storage: QueueStorage,
) -> (Plcs, BrokerEvents, SentToBroker, impl Future<Output = ()>) {
    let TestPump { pump, plcs, from_plcs, broker, from_broker, outgoing } =
        TestPump::with(&testing::config(1), &metrics(), inputs, storage);
    (plcs, broker, outgoing, pump.run(from_plcs, from_broker, GRACE))
}

/// Connects, stops the gateway, acknowledges every message, and returns the records among them.
async fn answer(plcs: Plcs, broker: BrokerEvents, mut outgoing: SentToBroker) -> Vec<Value> {
    broker.send(connected(1)).await.unwrap();
    let mut messages = Vec::new();
    let mut plcs = Some(plcs);
    while let Some(message) = next_message(&mut outgoing).await {
        let OutgoingMessage { ticket, topic, payload, .. } = message;
        // A gateway that is stopped before it has a broker does not wait for one.
        plcs.take();
        if let Some(ticket) = ticket {
            broker.send(mqtt::MqttEvent::Acknowledged { ticket }).await.unwrap();
        }
        if topic.contains("/data/") {
            messages.push(serde_json::from_slice(&payload).unwrap());
        }
    }
    messages
}

fn open(dir: &Path) -> QueueStorage {
    QueueStorage::Open(DirStorage::open(dir).unwrap())
}

fn temporary_dir() -> PathBuf {
    let name = format!("edge-gateway-pump-{}-{:08x}", std::process::id(), fastrand::u32(..));
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir(&dir).unwrap();
    dir
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
