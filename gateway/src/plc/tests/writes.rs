//! Values of tags that are written to a simulated PLC: the whole memory is compared, before and
//! after.

use std::sync::Arc;

use jiff::tz::TimeZone;
use provisioning::config::{JsonFormat, Tag};
use provisioning::plan::plan;
use provisioning::plc::{DataType, PlcModel};
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::faults::InMemoryConnector;
use super::*;
use crate::codec;
use crate::codec::json::FormattedValue;
use crate::model::{ImageState, OrderOutcome, OrderTask};
use crate::simulate::{
    Fault, FaultInjector, Handle, SimulatedPlc, SimulatedProgram, SimulatorSettings, serve,
};

/// Address, type, value, and the registers that change, with their values.
type Case = (&'static str, &'static str, Json, u16, &'static [u16]);

/// In this memory every register is 16#5A5A.
const FILLER: u16 = 0x5A5A;

#[tokio::test(start_paused = true)]
async fn a_value_of_each_type_arrives_and_nothing_else_changes() {
    let cases: [Case; 26] = [
        ("%MX20.3", "BOOL", json!(false), 10, &[0x5A52]),
        ("%MW10.14", "BOOL", json!(false), 10, &[0x1A5A]),
        ("%MB21", "BOOL", json!(true), 10, &[0x015A]),
        ("%MB20", "SINT", json!(-2), 10, &[0x5AFE]),
        ("%MB21", "USINT", json!(200), 10, &[0xC85A]),
        ("%MB20", "BYTE", json!(17), 10, &[0x5A11]),
        ("%MW10", "INT", json!(-2), 10, &[0xFFFE]),
        ("%MW10", "UINT", json!(0x1234), 10, &[0x1234]),
        ("%MW10", "WORD", json!(0xFFFF), 10, &[0xFFFF]),
        ("%MD5", "DINT", json!(305_419_896), 10, &[0x5678, 0x1234]),
        ("%MD5", "UDINT", json!(1), 10, &[1, 0]),
        ("%MD5", "DWORD", json!(0xDEAD_BEEF_u32), 10, &[0xBEEF, 0xDEAD]),
        ("%MW12", "LINT", json!(-1), 12, &[0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF]),
        ("%MW12", "ULINT", json!(u64::MAX), 12, &[0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF]),
        ("%MW12", "LWORD", json!(0x0123_4567_89AB_CDEF_u64), 12, &[0xCDEF, 0x89AB, 0x4567, 0x0123]),
        ("%MW20", "REAL", json!(1.5), 20, &[0x0000, 0x3FC0]),
        ("%MW12", "LREAL", json!(123.456), 12, &[0xBE77, 0x1A9F, 0xDD2F, 0x405E]),
        ("%MW10", "TIME", json!(3_723_004), 10, &[0xCEFC, 0x0038]),
        ("%MW12", "LTIME", json!(1), 12, &[1, 0, 0, 0]),
        ("%MW10", "DATE", json!("2024-02-29"), 10, &[0xC900, 0x65DF]),
        ("%MW10", "TOD", json!("12:34:56.789"), 10, &[0x2C95, 0x02B3]),
        ("%MW10", "DT", json!("2024-02-29T12:34:56Z"), 10, &[0x79F0, 0x65E0]),
        ("%MW10", "STRING(5)", json!("ABC"), 10, &[0x4241, 0x0043, 0x0000]),
        ("%MW10", "STRING(4)", json!("Zü"), 10, &[0xFC5A, 0x0000, 0x5A00]),
        ("%MW10", "WSTRING(3)", json!("A€B"), 10, &[0x0041, 0x20AC, 0x0042, 0x0000]),
        ("%MB21", "ARRAY[0..2] OF BYTE", json!([1, 2, 3]), 10, &[0x015A, 0x0302]),
    ];
    let site = WrittenPlc::new().await;
    for (at, data, json, first, expected) in cases {
        let mut memory = site.fill().await;
        let (report, tag) = site.write(at, data, &json).await;
        assert_eq!(report.outcome, OrderOutcome::Done, "{at} {data}");
        for (place, word) in memory[usize::from(first)..].iter_mut().zip(expected) {
            *place = *word;
        }
        assert!(site.memory().await == memory, "{at} {data}: other registers changed");
        let read = report.images[0].read.as_ref().expect("it is read back");
        let value = codec::decode_tag(&tag, read, 0).expect("it is valid");
        let form = &tag.json_format;
        let told = serde_json::to_value(FormattedValue { value: &value, form }).unwrap();
        assert_eq!(told, json, "{at} {data}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_only_register_is_refused_with_exception_2_and_keeps_its_value() {
    let site = WrittenPlc::new().await;
    let memory = site.fill().await;
    for at in ["%MW60012", "%MW60200", "%MW61999"] {
        let (report, _) = site.write(at, "INT", &json!(1)).await;
        assert_eq!(report.outcome, OrderOutcome::Refused(2), "{at}");
        assert_eq!(report.images[0].state, ImageState::Refused(2));
        assert!(report.images[0].read.is_some(), "{at}");
    }
    assert!(site.memory().await == memory);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_or_wrong_leaves_one_write_and_the_truth() {
    for fault in Fault::ALL {
        let site = WrittenPlc::new().await;
        let mut memory = site.fill().await;
        let faults = FaultInjector::on_writes([Some(fault)], 7);
        site.handle.set_faults(Some(faults)).await.unwrap();
        let before = site.handle.counts().await.unwrap().requests;
        let (report, _) = site.write("%MW20", "REAL", &json!(1.5)).await;
        assert_eq!(site.handle.counts().await.unwrap().faulty, 1, "{fault:?}: one write was sent");
        assert!(site.handle.counts().await.unwrap().requests > before);
        (memory[20], memory[21]) = (0, 0x3FC0);
        assert!(site.memory().await == memory, "{fault:?}");
        // The fault is in the answer alone, so that what is read back is always what was written.
        let read = Some(Registers::Words(vec![0, 0x3FC0]));
        let image = &report.images[0];
        match report.outcome {
            OrderOutcome::Done => assert_eq!(image.state, ImageState::Written, "{fault:?}"),
            OrderOutcome::Unknown => assert_eq!(image.state, ImageState::Unknown, "{fault:?}"),
            OrderOutcome::Refused(code) => {
                assert!(matches!(fault, Fault::Exception | Fault::MalformedException), "{fault:?}");
                assert_eq!(image.state, ImageState::Refused(code));
            }
            OrderOutcome::ExpectationFailed
            | OrderOutcome::NotSent(_)
            | OrderOutcome::Partial(_) => {
                panic!("{fault:?}: {report:?}")
            }
        }
        assert_eq!(image.read, read, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_out_at_any_request_of_an_order_leaves_at_most_one_write() {
    // Compare, read the word, write, read back.
    for step in 0..4 {
        for fault in [Fault::Silent, Fault::Reset, Fault::WrongId] {
            let site = WrittenPlc::new().await;
            let memory = site.fill().await;
            let faults = (0..step).map(|_| None).chain([Some(fault)]);
            site.handle.set_faults(Some(FaultInjector::script(faults, 7))).await.unwrap();
            let bit = site.image("%MX40.0", "BOOL", &json!(true));
            let expected = site.image("%MW50", "WORD", &json!(FILLER));
            let order = PlcOrder { expect: vec![expected], ..order(vec![bit]) };
            let report = site.send(order).await;
            let mut written = memory.clone();
            written[20] |= 1;
            let after = site.memory().await;
            match report.outcome {
                OrderOutcome::Done => assert!(after == written, "{step} {fault:?}"),
                OrderOutcome::NotSent(_) => {
                    assert!(after == memory && step < 2, "{step} {fault:?}");
                }
                OrderOutcome::Unknown => {
                    assert!(after == written && step == 2, "{step} {fault:?}");
                    assert_eq!(report.images[0].read, Some(Registers::Words(vec![written[20]])));
                }
                OrderOutcome::ExpectationFailed
                | OrderOutcome::Refused(_)
                | OrderOutcome::Partial(_) => {
                    panic!("{step} {fault:?}: {report:?}")
                }
            }
        }
    }
}

/// A simulated M241 whose program does nothing, and its poll task.
struct WrittenPlc {
    handle: Handle,
    orders: mpsc::Sender<PlcOrder>,
    events: tokio::sync::Mutex<mpsc::Receiver<PlcEvent>>,
    _tasks: JoinSet<()>,
}

impl WrittenPlc {
    async fn new() -> Self {
        let mut settings = SimulatorSettings::new(PlcModel::M241).unwrap();
        settings.program = SimulatedProgram::Idle;
        settings.mast = Duration::ZERO;
        let simulated = SimulatedPlc::new(settings);
        let handle = simulated.handle();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(simulated, listener, CancellationToken::new()));
        let config = plc("M241", &[("%MW5000", 3_600_000)]);
        let (events_in, mut events) = mpsc::channel(16);
        let (orders, orders_out) = mpsc::channel(1);
        let (_, metrics) = support::metrics(&config);
        let memory = InMemoryConnector::new(&handle, &config);
        let spec = PlcSpec { plc: 0, plan: plan(&config), config, metrics };
        let endpoint = Endpoint { plcs: vec![spec], phase: 0.0 };
        let channels = PollChannels { orders: orders_out, events: events_in };
        let random = fastrand::Rng::with_seed(7);
        let poller = Poller::new(endpoint, memory, channels, random, CancellationToken::new());
        tasks.spawn(poller.run());
        while !matches!(events.recv().await, Some(PlcEvent::Cycle(_))) {}
        Self { handle, orders, events: tokio::sync::Mutex::new(events), _tasks: tasks }
    }

    /// Fills what clients may write, and returns the whole memory.
    async fn fill(&self) -> Vec<u16> {
        self.handle.set_registers(0, &[FILLER; 60_000]).await.unwrap();
        self.handle.set_registers(62_000, &[FILLER; 2_000]).await.unwrap();
        self.memory().await
    }

    async fn memory(&self) -> Vec<u16> {
        self.handle.registers(0, 64_000).await.unwrap()
    }

    fn tag(&self, at: &str, data: &str) -> Tag {
        let mut config = plc("M241", &[("%MW0", 1000)]);
        let tag = &mut Arc::make_mut(&mut config.tags)[0];
        tag.data_type = data.parse::<DataType>().unwrap();
        tag.location = PlcModel::M241.locate(at, tag.data_type).unwrap();
        tag.json_format = JsonFormat::for_type(tag.data_type.element, &TimeZone::UTC);
        tag.clone()
    }

    fn image(&self, at: &str, data: &str, json: &Json) -> crate::model::TagImage {
        let image = codec::encode_tag(0, &self.tag(at, data), json).unwrap();
        // The poll task knows other tags: the image is compared as it is.
        crate::model::TagImage { tag: None, ..image }
    }

    async fn write(&self, at: &str, data: &str, json: &Json) -> (OrderReport, Tag) {
        let report = self.send(order(vec![self.image(at, data, json)])).await;
        (report, self.tag(at, data))
    }

    async fn send(&self, order: PlcOrder) -> OrderReport {
        self.orders.send(order).await.unwrap();
        let mut events = self.events.lock().await;
        loop {
            if let PlcEvent::Written(report) = events.recv().await.expect("the task runs") {
                return *report;
            }
        }
    }
}

fn order(write: Vec<crate::model::TagImage>) -> PlcOrder {
    let (expect, task) = (Vec::new(), OrderTask::Write);
    PlcOrder { number: 1, plc: 0, expect, write, task, program: None, not_after: None }
}
