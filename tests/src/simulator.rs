//! `edge-gateway simulate` as a PLC that never stands still.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::{Gateway, Process};

/// A simulated M241 with its pump station. Dropping it ends it.
#[derive(Debug)]
pub struct Simulator {
    _process: Process,
    address: SocketAddr,
}

impl Simulator {
    /// Starts it and waits until it takes connections.
    #[must_use]
    pub fn start() -> Self {
        // Answers at once: a task of 10 ms would use up half of a short scan.
        let arguments = ["simulate", "--listen", "127.0.0.1:0", "--mast", "0"];
        let mut process = Process::start(Command::new(Gateway::program()).args(arguments));
        let mut line = String::new();
        BufReader::new(process.stdout()).read_line(&mut line).expect("it says where it listens");
        let listens =
            line.split_whitespace().find_map(|word| word.trim_end_matches(',').parse().ok());
        let Some(address) = listens else { panic!("{line}\n{}", process.log().text()) };
        Self { _process: process, address }
    }

    /// Sections of gateway.toml that read it as `count` PLCs with one tag each, which has news in
    /// every scan: every message is one sample. They share one connection, which is not spared: a
    /// real PLC would not like as much.
    #[must_use]
    pub fn plc_sections(&self, count: usize, scan: Duration) -> String {
        let mut text = String::new();
        for plc in 0..count {
            write!(
                text,
                "[[plc]]\nname = \"p{plc}\"\nmodel = \"M241\"\naddress = \"{}\"\nscan = \"{}ms\"\n\
                 max_share = 100\nmax_requests = 1000\n[[plc.tag]]\nname = \"life\"\nat = \"%MW0\"\ntype = \"WORD\"\n",
                self.address,
                scan.as_millis()
            )
            .expect("a string takes text");
        }
        text
    }
}
