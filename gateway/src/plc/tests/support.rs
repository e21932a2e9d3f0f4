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
use crate::plc::Naming;
use crate::plc::Registers;
use crate::plc::session::{Connect, ConnectError, RequestError, Session, Station};

/// What the fake PLC did, in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Seen {
    Connect,
    Read(u16),
    Answered(u16),
    Closed,
}

pub(super) type Answer = (Duration, Result<Registers, RequestError>);
/// After how long, with what outcome.
type Connected = (Duration, Result<(), ConnectError>);
type Answers = Box<dyn FnMut(u8, &ReadRequest) -> Answer + Send>;
type Names = Box<dyn FnMut(u8) -> (Duration, Result<Naming, RequestError>) + Send>;

/// A PLC whose connects and answers a test decides.
#[derive(Clone)]
pub(super) struct FakePlc {
    keeps_log: bool,
    log: Arc<Mutex<Vec<(time::Instant, Seen)>>>,
    connects: Arc<Mutex<VecDeque<Connected>>>,
    answers: Arc<Mutex<Answers>>,
    names: Arc<Mutex<Names>>,
}

pub(super) struct FakeSession(FakePlc);

impl FakePlc {
    /// A PLC that takes every connection and answers as told after as long as told.
    pub(super) fn answering(
        mut answers: impl FnMut(&ReadRequest) -> Answer + Send + 'static,
    ) -> Self {
        Self::of_units(move |_, request| answers(request))
    }

    /// Units behind one connection, each of which answers as told.
    pub(super) fn of_units(
        answers: impl FnMut(u8, &ReadRequest) -> Answer + Send + 'static,
    ) -> Self {
        Self {
            keeps_log: true,
            log: Arc::default(),
            connects: Arc::default(),
            answers: Arc::new(Mutex::new(Box::new(answers))),
            names: Arc::new(Mutex::new(Box::new(|_| {
                (Duration::ZERO, Err(RequestError::Refused(1)))
            }))),
        }
    }

    /// Keeps of its log only the connects.
    pub(super) fn forgetful(self) -> Self {
        Self { keeps_log: false, ..self }
    }

    /// Hangs up in place of an answer whenever this says so.
    pub(super) fn interrupted(self, mut hangs_up: impl FnMut() -> bool + Send + 'static) -> Self {
        let answers = Arc::clone(&self.answers);
        let mut inner =
            std::mem::replace(&mut *answers.lock().unwrap(), Box::new(|_, request| right(request)));
        *answers.lock().unwrap() = Box::new(move |unit, request| {
            let hung_up = std::io::ErrorKind::ConnectionReset;
            if hangs_up() {
                return (Duration::ZERO, Err(RequestError::Disconnected(hung_up.into())));
            }
            inner(unit, request)
        });
        self
    }

    /// What it answers when it is asked for its name; else that it does not know the function.
    pub(super) fn naming(
        self,
        names: impl FnMut(u8) -> (Duration, Result<Naming, RequestError>) + Send + 'static,
    ) -> Self {
        *self.names.lock().unwrap() = Box::new(names);
        self
    }

    /// What becomes of the next connects; later ones succeed at once.
    pub(super) fn connecting(self, connects: impl IntoIterator<Item = Connected>) -> Self {
        self.connects.lock().unwrap().extend(connects);
        self
    }

    pub(super) fn log(&self) -> Vec<(time::Instant, Seen)> {
        self.log.lock().unwrap().clone()
    }

    /// The log, which begins anew.
    pub(super) fn take_log(&self) -> Vec<(time::Instant, Seen)> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    /// The log without times.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.log().into_iter().map(|(_, seen)| seen).collect()
    }

    fn note(&self, seen: Seen) {
        if !self.keeps_log && seen != Seen::Connect {
            return;
        }
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
    async fn read(
        &mut self,
        station: Station,
        request: &ReadRequest,
    ) -> Result<Registers, RequestError> {
        let Self(plc) = self;
        plc.note(Seen::Read(request.first));
        let (took, answer) = plc.answers.lock().unwrap()(station.unit, request);
        time::sleep(took).await;
        plc.note(Seen::Answered(request.first));
        answer
    }

    async fn name(&mut self, station: Station) -> Result<Naming, RequestError> {
        let (took, answer) = self.0.names.lock().unwrap()(station.unit);
        time::sleep(took).await;
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
    let metrics = Metrics::new(&config(vec![plc.clone()]), "0").unwrap();
    let of_plc = metrics.plcs[0].clone();
    (metrics, of_plc)
}

pub(super) fn config(plcs: Vec<Plc>) -> Config {
    Config { plcs, ..crate::testing::config(0) }
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
