//! A PLC made of closures, under paused time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use provisioning::config::{
    Config, Datetime, Form, HostPort, Pacing, Plc, Publish, Qos, Shape, Tag,
};
use provisioning::plan::ReadRequest;
use provisioning::plc::{IecType, Model};
use tokio::time;

use crate::metrics::{Metrics, PlcMetrics};
use crate::plc::Registers;
use crate::plc::session::{Connect, ConnectError, RequestError, Session};

/// What the fake PLC did, in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Seen {
    Connect,
    Read(u16),
    Answered(u16),
    Closed,
}

type Answer = (Duration, Result<Registers, RequestError>);
/// After how long, with what outcome.
type Connected = (Duration, Result<(), ConnectError>);
type Answers = Box<dyn FnMut(&ReadRequest) -> Answer + Send>;

/// A PLC whose connects and answers a test decides.
#[derive(Clone)]
pub(super) struct FakePlc {
    log: Arc<Mutex<Vec<(time::Instant, Seen)>>>,
    connects: Arc<Mutex<VecDeque<Connected>>>,
    answers: Arc<Mutex<Answers>>,
}

pub(super) struct FakeSession(FakePlc);

impl FakePlc {
    /// A PLC that takes every connection and answers as told after as long as told.
    pub(super) fn answering(answers: impl FnMut(&ReadRequest) -> Answer + Send + 'static) -> Self {
        Self {
            log: Arc::default(),
            connects: Arc::default(),
            answers: Arc::new(Mutex::new(Box::new(answers))),
        }
    }

    /// What becomes of the next connects; later ones succeed at once.
    pub(super) fn connecting(self, connects: impl IntoIterator<Item = Connected>) -> Self {
        self.connects.lock().unwrap().extend(connects);
        self
    }

    pub(super) fn log(&self) -> Vec<(time::Instant, Seen)> {
        self.log.lock().unwrap().clone()
    }

    /// The log without times.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.log().into_iter().map(|(_, seen)| seen).collect()
    }

    fn note(&self, seen: Seen) {
        self.log.lock().unwrap().push((time::Instant::now(), seen));
    }
}

impl Connect for FakePlc {
    type Session = FakeSession;

    async fn connect(&mut self) -> Result<FakeSession, ConnectError> {
        self.note(Seen::Connect);
        let scripted = self.connects.lock().unwrap().pop_front();
        let (took, outcome) = scripted.unwrap_or((Duration::ZERO, Ok(())));
        time::sleep(took).await;
        outcome.map(|()| FakeSession(self.clone()))
    }
}

impl Session for FakeSession {
    async fn read(&mut self, request: &ReadRequest) -> Result<Registers, RequestError> {
        let Self(plc) = self;
        plc.note(Seen::Read(request.first));
        let (took, answer) = plc.answers.lock().unwrap()(request);
        time::sleep(took).await;
        plc.note(Seen::Answered(request.first));
        answer
    }

    async fn close(self) {
        self.0.note(Seen::Closed);
    }
}

/// An answer of the right length at once: every register holds its own address.
pub(super) fn right(request: &ReadRequest) -> Answer {
    let words = (request.first..).take(request.count.into()).collect();
    (Duration::ZERO, Ok(Registers::Words(words)))
}

/// A PLC with an INT at each address, read every so many milliseconds.
pub(in crate::plc) fn plc(model: &str, tags: &[(&str, u64)]) -> Plc {
    let model: Model = model.parse().unwrap();
    let tag = |&(at, scan): &(&str, u64)| Tag {
        name: at.to_owned(),
        at: at.to_owned(),
        location: model.locate(at, IecType::Int).unwrap(),
        iec: IecType::Int.into(),
        order: model.default_order(),
        unit: None,
        scaling: None,
        decimals: None,
        form: Form::Plain,
        deadband: None,
        scan: Duration::from_millis(scan),
        group: None,
    };
    Plc {
        name: "pump6".into(),
        model,
        machine: "pump6".into(),
        device: model.to_string(),
        address: HostPort { host: "192.168.1.10".into(), port: 502 },
        unit_id: 255,
        timeout: Duration::from_secs(1),
        max_words: 120,
        max_gap: model.default_max_gap(),
        pacing: Pacing::default(),
        publish: publish(),
        tags: Arc::new(tags.iter().map(tag).collect()),
    }
}

pub(in crate::plc) fn metrics(plc: &Plc) -> (Metrics, PlcMetrics) {
    let metrics = Metrics::new(&config(plc.clone()), "0").unwrap();
    let of_plc = metrics.plcs[0].clone();
    (metrics, of_plc)
}

fn config(plc: Plc) -> Config {
    Config { plcs: vec![plc], ..crate::testing::config(0) }
}

fn publish() -> Publish {
    Publish {
        topic: "edge/site/data/pump6".into(),
        shape: Shape::Flat,
        qos: Qos::AtLeastOnce,
        retain: false,
        datetime: Datetime::Rfc3339,
        heartbeat: Duration::from_secs(60),
        stamp: true,
        extra: serde_json::Map::new(),
    }
}
