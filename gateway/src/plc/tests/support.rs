//! A fake PLC whose answers are closures, under paused time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use provisioning::config::{
    Config, DatetimeFormat, HostPort, JsonFormat, Pacing, PayloadShape, Plc, Publish, Qos, Tag,
};
use provisioning::plan::ReadRequest;
use provisioning::plc::{IecType, PlcModel};
use tokio::sync::mpsc;
use tokio::time;

use crate::metrics::{Metrics, PlcMetrics};
use crate::plc::session::{
    ConnectError, Connector, PlcSession, RequestError, UnitAddress, WriteRequest,
};
use crate::plc::{PlcEvent, PlcIdentity, PollChannels, Registers};

/// What happened at the fake PLC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum WireEvent {
    Connect,
    Read(u16),
    Write(u16),
    Answered(u16),
    Closed,
}

pub(super) type ScriptedAnswer = (Duration, Result<Registers, RequestError>);
/// The time that a connect takes, and its outcome.
type ScriptedConnect = (Duration, Result<(), ConnectError>);
type ReadScript = Box<dyn FnMut(u8, &ReadRequest) -> ScriptedAnswer + Send>;
pub(super) type ScriptedWrite = (Duration, Result<(), RequestError>);
type WriteScript = Box<dyn FnMut(u8, &WriteRequest) -> ScriptedWrite + Send>;
type IdentificationScript =
    Box<dyn FnMut(u8) -> (Duration, Result<PlcIdentity, RequestError>) + Send>;

/// A PLC whose connects and answers are scripted by a test.
#[derive(Clone)]
pub(super) struct FakePlc {
    keeps_read_log: bool,
    log: Arc<Mutex<Vec<(time::Instant, WireEvent)>>>,
    connects: Arc<Mutex<VecDeque<ScriptedConnect>>>,
    answers: Arc<Mutex<ReadScript>>,
    writes: Arc<Mutex<WriteScript>>,
    identification: Arc<Mutex<IdentificationScript>>,
}

pub(super) struct FakeSession(FakePlc);

impl FakePlc {
    /// Creates a PLC that accepts every connection, and answers as scripted.
    pub(super) fn answering_with(
        mut answers: impl FnMut(&ReadRequest) -> ScriptedAnswer + Send + 'static,
    ) -> Self {
        Self::with_units(move |_, request| answers(request))
    }

    /// Creates units behind one connection that answer as scripted.
    pub(super) fn with_units(
        answers: impl FnMut(u8, &ReadRequest) -> ScriptedAnswer + Send + 'static,
    ) -> Self {
        Self {
            keeps_read_log: true,
            log: Arc::default(),
            connects: Arc::default(),
            answers: Arc::new(Mutex::new(Box::new(answers))),
            writes: Arc::new(Mutex::new(Box::new(|_, _| {
                (Duration::ZERO, Err(RequestError::Refused(1)))
            }))),
            identification: Arc::new(Mutex::new(Box::new(|_| {
                (Duration::ZERO, Err(RequestError::Refused(1)))
            }))),
        }
    }

    /// Keeps only connects in the log.
    pub(super) fn without_read_log(self) -> Self {
        Self { keeps_read_log: false, ..self }
    }

    /// Closes the connection in place of an answer when this returns true.
    pub(super) fn closing_when(self, mut closes: impl FnMut() -> bool + Send + 'static) -> Self {
        let answers = Arc::clone(&self.answers);
        let mut inner = std::mem::replace(
            &mut *answers.lock().unwrap(),
            Box::new(|_, request| echo_addresses(request)),
        );
        *answers.lock().unwrap() = Box::new(move |unit, request| {
            let closed = std::io::ErrorKind::ConnectionReset;
            if closes() {
                return (Duration::ZERO, Err(RequestError::Disconnected(closed.into())));
            }
            inner(unit, request)
        });
        self
    }

    /// Sets the answers to writes; without them they are refused.
    pub(super) fn writing_with(
        self,
        writes: impl FnMut(u8, &WriteRequest) -> ScriptedWrite + Send + 'static,
    ) -> Self {
        *self.writes.lock().unwrap() = Box::new(writes);
        self
    }

    /// Sets the answers to requests for the device identification; without them they are refused.
    pub(super) fn identifying_with(
        self,
        names: impl FnMut(u8) -> (Duration, Result<PlcIdentity, RequestError>) + Send + 'static,
    ) -> Self {
        *self.identification.lock().unwrap() = Box::new(names);
        self
    }

    /// Sets the outcomes of the next connects; later ones succeed at once.
    pub(super) fn connecting_with(
        self,
        connects: impl IntoIterator<Item = ScriptedConnect>,
    ) -> Self {
        self.connects.lock().unwrap().extend(connects);
        self
    }

    pub(super) fn log(&self) -> Vec<(time::Instant, WireEvent)> {
        self.log.lock().unwrap().clone()
    }

    /// Returns the log, and clears it.
    pub(super) fn take_log(&self) -> Vec<(time::Instant, WireEvent)> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    /// Returns the log without times.
    pub(super) fn wire_events(&self) -> Vec<WireEvent> {
        self.log().into_iter().map(|(_, seen)| seen).collect()
    }

    fn record(&self, seen: WireEvent) {
        if !self.keeps_read_log && seen != WireEvent::Connect {
            return;
        }
        self.log.lock().unwrap().push((time::Instant::now(), seen));
    }
}

impl Connector for FakePlc {
    type Session = FakeSession;

    async fn connect(&mut self) -> Result<FakeSession, ConnectError> {
        self.record(WireEvent::Connect);
        let scripted = self.connects.lock().unwrap().pop_front();
        let (took, outcome) = scripted.unwrap_or((Duration::ZERO, Ok(())));
        time::sleep(took).await;
        outcome.map(|()| FakeSession(self.clone()))
    }
}

impl PlcSession for FakeSession {
    async fn read(
        &mut self,
        address: UnitAddress,
        request: &ReadRequest,
    ) -> Result<Registers, RequestError> {
        let Self(plc) = self;
        plc.record(WireEvent::Read(request.first));
        let (took, answer) = plc.answers.lock().unwrap()(address.unit, request);
        time::sleep(took).await;
        plc.record(WireEvent::Answered(request.first));
        answer
    }

    async fn write(
        &mut self,
        address: UnitAddress,
        request: &WriteRequest,
    ) -> Result<(), RequestError> {
        let Self(plc) = self;
        let (_, first, _) = request.range();
        plc.record(WireEvent::Write(first));
        let (took, answer) = plc.writes.lock().unwrap()(address.unit, request);
        time::sleep(took).await;
        plc.record(WireEvent::Answered(first));
        answer
    }

    async fn read_device_identification(
        &mut self,
        address: UnitAddress,
    ) -> Result<PlcIdentity, RequestError> {
        let (took, answer) = self.0.identification.lock().unwrap()(address.unit);
        time::sleep(took).await;
        answer
    }

    async fn close(self) {
        self.0.record(WireEvent::Closed);
    }
}

/// Returns the channels of a poll task that never gets an order.
pub(super) fn without_orders(events: mpsc::Sender<PlcEvent>) -> PollChannels {
    PollChannels { orders: mpsc::channel(1).1, events }
}

/// Answers at once; every register holds its own address.
pub(super) fn echo_addresses(request: &ReadRequest) -> ScriptedAnswer {
    let words = (request.first..).take(request.count.into()).collect();
    (Duration::ZERO, Ok(Registers::Words(words)))
}

/// Returns a PLC with an INT at each address, or a BOOL if it is a coil, read with a period in
/// milliseconds.
pub(in crate::plc) fn plc(model: &str, tags: &[(&str, u64)]) -> Plc {
    let model: PlcModel = model.parse().unwrap();
    let iec_type = |at: &str| if at.starts_with("coil:") { IecType::Bool } else { IecType::Int };
    let tag = |&(at, scan): &(&str, u64)| Tag {
        name: at.to_owned(),
        at: at.into(),
        location: model.locate(at, iec_type(at)).unwrap(),
        data_type: iec_type(at).into(),
        byte_order: model.default_byte_order(),
        unit: None,
        scaling: None,
        decimals: None,
        json_format: JsonFormat::Plain,
        deadband: None,
        validity: None,
        scan: Duration::from_millis(scan),
        metric: false,
        group: None,
        write: None,
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
        accept_program: None,
        publish: publish(),
        tags: Arc::new(tags.iter().map(tag).collect()),
    }
}

pub(in crate::plc) fn metrics(plc: &Plc) -> (Metrics, PlcMetrics) {
    let metrics = Metrics::new(&config(vec![plc.clone()]), "0").unwrap();
    let of_plc = metrics.plcs[0].clone();
    (metrics, of_plc)
}

pub(in crate::plc) fn config(plcs: Vec<Plc>) -> Config {
    Config { plcs, ..crate::testing::config(0) }
}

fn publish() -> Publish {
    Publish {
        topic: "edge/site/data/pump6".into(),
        shape: PayloadShape::Flat,
        qos: Qos::AtLeastOnce,
        retain: false,
        datetime: DatetimeFormat::Rfc3339,
        heartbeat: Duration::from_secs(60),
        stamp: true,
        extra: serde_json::Map::new(),
        on: None,
    }
}
