//! `edge-gateway simulate` as a PLC whose values always change.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::{Gateway, PlcConfig, Process};

/// A simulated M241 with its pump station. Dropping it ends it.
#[derive(Debug)]
pub struct Simulator {
    _process: Process,
    address: SocketAddr,
}

impl Simulator {
    /// Starts it and waits until it accepts connections.
    #[must_use]
    pub fn start() -> Self {
        // It answers at once: a MAST task of 10 ms would take half of a short scan.
        let arguments = ["simulate", "--listen", "127.0.0.1:0", "--mast", "0"];
        let mut process = Process::start(Command::new(Gateway::program()).args(arguments));
        let mut line = String::new();
        BufReader::new(process.stdout())
            .read_line(&mut line)
            .expect("the simulator prints its address");
        let listens =
            line.split_whitespace().find_map(|word| word.trim_end_matches(',').parse().ok());
        let Some(address) = listens else { panic!("{line}\n{}", process.log().text()) };
        Self { _process: process, address }
    }

    /// Returns the address of its Modbus server.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns `count` PLCs with one tag each, which all read this simulator over one connection.
    /// The tag changes in every scan, so every message is one sample. The limits that protect a
    /// real PLC are lifted.
    #[must_use]
    pub fn plc_sections(&self, count: usize, scan: Duration) -> Vec<PlcConfig> {
        let plc = |number| {
            PlcConfig::new(&format!("p{number}"), "M241", self.address)
                .scan(scan)
                .set("max_share", 100)
                .set("max_requests", 1000)
                .tag("life", "%MW0", "WORD")
        };
        (0..count).map(plc).collect()
    }
}
