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
    /// Connections that it serves at once; one more and the oldest has to go.
    pub const MOST_CONNECTIONS: usize = 8;

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
    /// every scan: every message is one sample.
    #[must_use]
    pub fn sections(&self, count: usize, scan: Duration) -> String {
        assert!(count <= Self::MOST_CONNECTIONS, "each has its own connection");
        let mut text = String::new();
        for plc in 0..count {
            write!(
                text,
                "[[plc]]\nname = \"p{plc}\"\nmodel = \"M241\"\naddress = \"{}\"\nscan = \"{}ms\"\n\
                 [[plc.tag]]\nname = \"life\"\nat = \"%MW0\"\ntype = \"WORD\"\n",
                self.address,
                scan.as_millis()
            )
            .expect("a string takes text");
        }
        text
    }
}
