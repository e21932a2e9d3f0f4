//! pymodbus as the PLC, controlled over its standard input and output.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command};
use std::time::Duration;

use provisioning::plc::Table;
use serde_json::{Value, json};

use crate::{Port, Process, resources};

/// A Modbus TCP server that answers for every unit id. All 65,536 addresses of all four tables
/// begin at zero. It keeps its port; dropping it ends it.
#[derive(Debug)]
pub struct Pymodbus {
    process: Process,
    requests: ChildStdin,
    replies: BufReader<ChildStdout>,
    port: Port,
}

impl Pymodbus {
    /// Starts it and waits until it accepts connections.
    #[must_use]
    pub fn start() -> Self {
        let port = Port::reserve();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/pymodbus_server.py");
        let mut process =
            Process::start(Command::new(python()).arg(script).arg(port.number().to_string()));
        let (requests, replies) = (process.stdin(), BufReader::new(process.stdout()));
        let mut server = Self { process, requests, replies, port };
        server.open();
        server
    }

    /// Returns the address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Writes registers.
    pub fn set_registers(&mut self, table: Table, first: u16, values: &[u16]) {
        assert!(!table.holds_bits(), "{table:?} holds bits");
        self.request(
            &json!({"op": "set", "code": read_function(table), "first": first, "values": values}),
        );
    }

    /// Writes bits.
    pub fn set_bits(&mut self, table: Table, first: u16, values: &[bool]) {
        assert!(table.holds_bits(), "{table:?} holds registers");
        self.request(
            &json!({"op": "set", "code": read_function(table), "first": first, "values": values}),
        );
    }

    /// Reads registers.
    pub fn registers(&mut self, table: Table, first: u16, count: u16) -> Vec<u16> {
        let reply = self.request(
            &json!({"op": "get", "code": read_function(table), "first": first, "count": count}),
        );
        serde_json::from_value(reply).expect("registers are 16-bit numbers")
    }

    /// Reads bits.
    pub fn bits(&mut self, table: Table, first: u16, count: u16) -> Vec<bool> {
        let reply = self.request(
            &json!({"op": "get", "code": read_function(table), "first": first, "count": count}),
        );
        serde_json::from_value(reply).expect("bits are booleans")
    }

    /// Answers every request that includes one of these registers with an exception.
    pub fn refuse(&mut self, table: Table, registers: RangeInclusive<u16>, exception: u8) {
        assert!(!table.holds_bits(), "only registers can be refused");
        let (first, last) = registers.into_inner();
        self.request(&json!({
            "op": "refuse", "code": read_function(table), "first": first, "last": last,
            "exception": exception,
        }));
    }

    /// Ends every [`Self::refuse`].
    pub fn clear_refusals(&mut self) {
        self.request(&json!({"op": "refuse_nothing"}));
    }

    /// Delays each answer.
    pub fn set_answer_delay(&mut self, delay: Duration) {
        self.request(&json!({"op": "answer_after", "seconds": delay.as_secs_f64()}));
    }

    /// Closes its port and every connection.
    pub fn close(&mut self) {
        self.request(&json!({"op": "close"}));
    }

    /// Opens its port again.
    pub fn open(&mut self) {
        self.request(&json!({"op": "open"}));
    }

    /// Returns the number of requests of each function code.
    pub fn request_counts(&mut self) -> BTreeMap<u8, u64> {
        let reply = self.request(&json!({"op": "function_codes"}));
        serde_json::from_value(reply).expect("function codes are bytes")
    }

    /// Returns the number of connections so far.
    pub fn connection_count(&mut self) -> u64 {
        self.request(&json!({"op": "connections"})).as_u64().expect("a count is a number")
    }

    fn request(&mut self, request: &Value) -> Value {
        let mut line = String::new();
        let asked = writeln!(self.requests, "{request}").and_then(|()| self.requests.flush());
        let answered = asked.and_then(|()| self.replies.read_line(&mut line));
        let reply: Value = serde_json::from_str(&line).unwrap_or_default();
        match reply.get("done") {
            Some(done) => done.clone(),
            None => {
                panic!("{request}: {answered:?} {line}\n{}", self.process.log().text())
            }
        }
    }
}

/// Returns the function code that reads a table.
const fn read_function(table: Table) -> u8 {
    match table {
        Table::Coil => 1,
        Table::DiscreteInput => 2,
        Table::HoldingRegister => 3,
        Table::InputRegister => 4,
    }
}

/// Returns the interpreter with pymodbus that `cargo xtask test` prepares, or else `python3`.
#[must_use]
pub fn python() -> PathBuf {
    if let Some(path) = test_settings::PYTHON.path() {
        return path;
    }
    let prepared = resources::target_dir().join("e2e-python/bin/python");
    if prepared.exists() { prepared } else { "python3".into() }
}
