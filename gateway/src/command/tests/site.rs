//! A command processor with one PLC in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::{
    EnumNames, JsonFormat, Number, Plc, Scaling, Tag, WritableValue, WriteRate, WriteRule,
};
use provisioning::plc::{DataType, PlcModel};
use serde_json::Value;

use crate::command::{CommandEffect, CommandProcessor, CommandTime, IncomingCommand};
use crate::model::{
    ImageContent, ImageReport, ImageState, OrderOutcome, OrderReport, OrderTask, PlcOrder,
    Registers, TagImage, UnixTime,
};
use crate::testing;

/// 2026-12-01T10:00:00Z.
const WALL_MICROS: i64 = 1_796_119_200_000_000;

/// The memory of a PLC.
#[derive(Debug, Default)]
pub(crate) struct SiteMemory {
    words: BTreeMap<u16, u16>,
    /// Orders that changed the memory, by their number.
    pub(crate) writes: usize,
    /// Refuses writes.
    pub(crate) exception: Option<u8>,
    /// Takes writes and does not answer them.
    pub(crate) is_silent: bool,
    /// Clears every word after a write, as a program does with a command bit.
    pub(crate) resets: bool,
}

impl SiteMemory {
    pub(crate) fn word(&self, word: u16) -> u16 {
        self.words.get(&word).copied().unwrap_or_default()
    }

    pub(crate) fn set(&mut self, word: u16, value: u16) {
        self.words.insert(word, value);
    }

    fn read(&self, image: &TagImage) -> Registers {
        let count = u16::try_from(image.count()).unwrap();
        Registers::Words((image.first..image.first + count).map(|word| self.word(word)).collect())
    }

    fn write(&mut self, image: &TagImage) {
        let ImageContent::Words(words) = &image.content else { panic!("no word") };
        for (address, word) in (image.first..).zip(words) {
            self.set(address, word.merged_into(self.word(address)));
        }
    }

    /// Carries out an order.
    pub(crate) fn execute(&mut self, order: &PlcOrder, at: UnixTime) -> OrderReport {
        let found: Vec<_> = order.expect.iter().map(|image| self.read(image)).collect();
        let is_same = order.expect.iter().zip(&found).all(|(image, found)| {
            let ImageContent::Words(words) = &image.content else { return false };
            let Registers::Words(found) = found else { return false };
            words.iter().zip(found).all(|(word, found)| word.merged_into(*found) == *found)
        });
        let (mut outcome, mut state) = (OrderOutcome::Done, ImageState::Written);
        if order.task == OrderTask::ReadBack {
            state = ImageState::NotSent;
        } else if !is_same {
            (outcome, state) = (OrderOutcome::ExpectationFailed, ImageState::NotSent);
        } else if let Some(code) = self.exception {
            (outcome, state) = (OrderOutcome::Refused(code), ImageState::Refused(code));
        } else {
            self.writes += 1;
            order.write.iter().for_each(|image| self.write(image));
            if self.resets {
                self.words.clear();
            }
            if self.is_silent {
                (outcome, state) = (OrderOutcome::Unknown, ImageState::Unknown);
            }
        }
        let image = |image: &TagImage| ImageReport { state, read: Some(self.read(image)) };
        OrderReport {
            number: order.number,
            plc: order.plc,
            outcome,
            found: found.into_iter().map(Some).collect(),
            images: order.write.iter().map(image).collect(),
            at,
        }
    }
}

/// A command processor, its PLC, and what it said.
pub(crate) struct CommandSite {
    pub(crate) command_processor: CommandProcessor,
    pub(crate) plc: SiteMemory,
    pub(crate) time: CommandTime,
    /// The ledger file.
    pub(crate) file: Vec<u8>,
    pub(crate) trail: Vec<Value>,
    /// Number of commands that were received.
    asked: u64,
    /// Makes the next commands look as if they had waited.
    pub(crate) may_be_old: bool,
    pub(crate) is_retained: bool,
    pub(crate) expires_in: Option<Duration>,
}

impl CommandSite {
    pub(crate) fn new() -> Self {
        let time = time();
        let mut plc = SiteMemory::default();
        plc.set(50, 0b1010_0101);
        Self {
            command_processor: CommandProcessor::new(&[plc_config()], "hash", &[], time),
            plc,
            time,
            file: Vec::new(),
            trail: Vec::new(),
            asked: 0,
            may_be_old: false,
            is_retained: false,
            expires_in: None,
        }
    }

    /// Restarts the gateway: nothing is left but the file.
    pub(crate) fn restart(&mut self) {
        self.command_processor =
            CommandProcessor::new(&[plc_config()], "hash", &self.file, self.time);
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.time.now += by;
        let micros = i64::try_from(by.as_micros()).unwrap();
        self.time.wall = UnixTime::from_micros(self.time.wall.as_micros() + micros);
    }

    /// Hands a command to the command processor.
    pub(crate) fn receive(&mut self, payload: &str) {
        self.receive_bytes(payload.as_bytes());
    }

    pub(crate) fn receive_bytes(&mut self, payload: &[u8]) {
        let incoming = IncomingCommand {
            plc: 0,
            payload,
            requester: self.asked,
            by: None,
            is_retained: self.is_retained,
            may_be_old: self.may_be_old,
            expires_in: self.expires_in,
        };
        self.asked += 1;
        // The temperature was read; nothing is known of the other tags.
        let present = |tag| (tag == 0).then(|| Value::from(18.25));
        self.command_processor.on_command(incoming, &present, self.time);
    }

    pub(crate) fn effects(&mut self) -> Vec<CommandEffect> {
        std::iter::from_fn(|| self.command_processor.poll_effect()).collect()
    }

    /// Does what the command processor asks for until it asks for nothing more. Returns the
    /// replies.
    pub(crate) fn run(&mut self) -> Vec<Value> {
        let mut replies = Vec::new();
        loop {
            let effects = self.effects();
            let batch = self.command_processor.take_batch(self.time.now);
            if effects.is_empty() && batch.is_none() {
                return replies;
            }
            for effect in effects {
                match effect {
                    CommandEffect::Order(order) => {
                        let report = self.plc.execute(&order, self.time.wall);
                        self.command_processor.on_report(&report, self.time);
                    }
                    CommandEffect::Reply { reply, .. } => replies.push(Value::Object(reply.body)),
                    CommandEffect::Audit { body } => self.trail.push(Value::Object(body)),
                    CommandEffect::AckDelivery { .. } => {}
                }
            }
            if let Some(batch) = batch {
                if batch.replaces_file {
                    self.file.clear();
                }
                self.file.extend(batch.bytes);
                self.command_processor.on_batch_stored(self.time);
            }
        }
    }

    /// Sends a command and returns the replies.
    pub(crate) fn send(&mut self, payload: &str) -> Vec<Value> {
        self.receive(payload);
        self.run()
    }
}

/// Returns a time by a clock that is set.
pub(crate) fn time() -> CommandTime {
    let wall = UnixTime::from_micros(WALL_MICROS);
    CommandTime { now: Instant::now(), wall, is_clock_set: true }
}

/// Returns the one reply.
pub(crate) fn reply(replies: &[Value]) -> &Value {
    match replies {
        [reply] => reply,
        _ => panic!("{replies:?}"),
    }
}

/// Returns an M241 with tags of every kind.
pub(crate) fn plc_config() -> Plc {
    let bounds = |min, max| WriteRule { min: Some(min), max: Some(max), ..WriteRule::default() };
    let minute = Duration::from_secs(60);
    let rate = Some(WriteRate { count: 3, period: minute });
    let values = ["stop", "run"].map(|name| WritableValue::Text(name.to_owned())).to_vec();
    let any = WriteRule::default;
    let mut tags = vec![
        tag("temperature", "%MW10", "REAL", None),
        tag("setpoint", "%MW20", "REAL", Some(bounds(Number::Whole(0), Number::Real(90.5)))),
        tag("speed", "%MW24", "INT", Some(any())),
        tag("mode", "%MW25", "INT", Some(WriteRule { values, ..any() })),
        tag("recipe", "%MW30", "STRING(21)", Some(any())),
        tag("lamp", "%MX100.3", "BOOL", Some(WriteRule { whole_word: true, ..any() })),
        tag("lamps", "%MW50", "WORD", Some(any())),
        tag("total", "%MW52", "DINT", Some(any())),
        tag(
            "limits",
            "%MW60",
            "ARRAY[0..2] OF INT",
            Some(bounds(Number::Whole(0), Number::Whole(9))),
        ),
        tag("pulse", "%MW70", "UINT", Some(WriteRule { rate, ..any() })),
    ];
    tags[2].scaling = Some(Scaling { scale: 0.1, offset: 0.0 });
    tags[2].decimals = Some(1);
    let names = [(0, "stop"), (1, "run"), (2, "fault")];
    let names = names.map(|(number, name)| (number, name.to_owned())).into();
    tags[3].json_format = JsonFormat::Named(EnumNames::new(names).unwrap());
    let plc = testing::plc("pump6", &[]);
    Plc { tags: Arc::new(tags), ..plc }
}

fn tag(name: &str, at: &str, iec: &str, write: Option<WriteRule>) -> Tag {
    let data_type: DataType = iec.parse().unwrap();
    let like = testing::plc("pump6", &["any"]).tags[0].clone();
    let location = PlcModel::M241.locate(at, data_type).unwrap();
    let write = write.map(Box::new);
    Tag { name: name.to_owned(), at: at.into(), location, data_type, write, ..like }
}
