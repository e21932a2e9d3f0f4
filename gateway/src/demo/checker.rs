//! Compares the published values with the memory of the simulated PLCs.

use std::fmt;

use provisioning::plc::{ByteOrder, IecType, Location, Table};
use serde_json::Value as Json;

use super::ArrivedMessage;
use crate::audit::Auditor;
use crate::codec;
use crate::model::Value;
use crate::simulate::Handle;

/// `%MW10`, which changes all the time: a published value may be one scan old.
const TEMPERATURE_WORD: u16 = 10;
/// Largest change of the temperature within a scan, in °C.
const TEMPERATURE_TOLERANCE: f64 = 3.0;
/// `%MW20`, which only the demo writes: the published value must be exact.
const SETPOINT_WORD: u16 = 20;
/// The setpoint that the demo writes after a PLC's first message.
const NEW_SETPOINT: f32 = 42.5;

/// Checks the messages of every PLC.
#[derive(Debug)]
pub(super) struct DemoChecker {
    plcs: Vec<PlcCheck>,
    auditor: Auditor,
    result: DemoResult,
}

#[derive(Debug)]
struct PlcCheck {
    name: String,
    handle: Handle,
    messages: u64,
    has_new_setpoint: bool,
}

/// The result of the checks.
#[derive(Debug, Default)]
pub struct DemoResult {
    messages: u64,
    values: u64,
    problems: Vec<String>,
}

impl DemoChecker {
    pub(super) fn new(plcs: Vec<(String, Handle)>) -> Self {
        let suspect =
            |(name, handle)| PlcCheck { name, handle, messages: 0, has_new_setpoint: false };
        Self {
            plcs: plcs.into_iter().map(suspect).collect(),
            auditor: Auditor::default(),
            result: DemoResult::default(),
        }
    }

    /// Checks one message.
    pub(super) async fn on_message(&mut self, arrival: &ArrivedMessage) {
        self.auditor.on_message(&arrival.topic, arrival.payload.to_string().as_bytes());
        let Some((_, name)) = arrival.topic.split_once("/data/") else { return };
        let Some(plc) = self.plcs.iter_mut().find(|plc| plc.name == name) else { return };
        self.result.messages += 1;
        if let Some(quality) = arrival.payload.pointer("/gateway/quality") {
            self.result.problems.push(format!("{name}: bad quality {quality}"));
        }
        if let Err(problem) = plc.on_message(tags(&arrival.payload), &mut self.result.values).await
        {
            self.result.problems.push(format!("{name}: {problem}"));
        }
    }

    /// Returns the result after the last message.
    pub(super) fn finish(mut self) -> DemoResult {
        for plc in self.plcs.iter().filter(|plc| !plc.has_new_setpoint) {
            let problem = match plc.messages {
                0 => "no message arrived".to_owned(),
                _ => format!("the setpoint {NEW_SETPOINT} did not arrive"),
            };
            self.result.problems.push(format!("{}: {problem}", plc.name));
        }
        let missing = self.auditor.unaccounted();
        if missing > 0 {
            self.result.problems.push(format!("{missing} messages are missing"));
        }
        self.result
    }
}

impl PlcCheck {
    async fn on_message(&mut self, tags: &Json, values: &mut u64) -> Result<(), String> {
        self.messages += 1;
        let number = |name: &str| tags.get(name).and_then(Json::as_f64);
        let temperature = number("temperature").ok_or("no temperature")?;
        let setpoint = number("setpoint").ok_or("no setpoint")?;
        *values += 2;
        let actual = self.read_real(TEMPERATURE_WORD).await?;
        if (temperature - actual).abs() > TEMPERATURE_TOLERANCE {
            return Err(format!("the temperature is {actual}, but {temperature} arrived"));
        }
        if self.messages == 1 {
            let words = encode_real(NEW_SETPOINT).ok_or("a REAL takes two registers")?;
            self.handle.set_registers(SETPOINT_WORD, &words).await.map_err(|e| e.to_string())?;
        }
        // 42.5 has the same digits as a REAL and as a JSON number.
        self.has_new_setpoint |= setpoint.to_bits() == f64::from(NEW_SETPOINT).to_bits();
        Ok(())
    }

    async fn read_real(&self, word: u16) -> Result<f64, String> {
        let words = self.handle.registers(word, 2).await.map_err(|error| error.to_string())?;
        match codec::decode(&location(word), IecType::Real, ByteOrder::Cdab, &words) {
            Some(Value::Real(value)) => Ok(f64::from(value)),
            _ => Err(format!("%MW{word} holds no number")),
        }
    }
}

/// Returns the object with the tags: in the `nested` form it is under the device.
fn tags(payload: &Json) -> &Json {
    payload.get("M251").unwrap_or(payload)
}

const fn location(word: u16) -> Location {
    Location { table: Table::HoldingRegister, first: word, count: 2, byte: 0, bit: None }
}

fn encode_real(value: f32) -> Option<[u16; 2]> {
    let mut words = [0; 2];
    let value = Value::Real(value);
    codec::encode(&location(0), IecType::Real, ByteOrder::Cdab, &value, &mut words).ok()?;
    Some(words)
}

impl DemoResult {
    /// Returns whether messages arrived and all their values were correct.
    #[must_use]
    pub const fn is_correct(&self) -> bool {
        self.messages > 0 && self.problems.is_empty()
    }
}

impl fmt::Display for DemoResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} messages arrived, {} values compared with the PLCs: ",
            self.messages, self.values
        )?;
        if self.is_correct() {
            return f.write_str("all correct, and nothing is missing");
        }
        f.write_str("there are problems:")?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}
