//! Third-party Modbus TCP servers, whose memory is set once at the start.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Port, Process, TempDir, resources, temp_dir};

/// Memory of a server. Registers that are not set are 0, bits are off.
#[derive(Clone, Debug, Default)]
pub struct PlcMemory(String);

/// A server that answers for every unit id. Dropping it ends it.
#[derive(Debug)]
pub struct ThirdPartyPlc {
    _process: Process,
    port: Port,
    /// Directory of the compiled program.
    _dir: Option<TempDir>,
}

impl PlcMemory {
    /// Sets values of a table (`coil`, `discrete`, `input` or `holding`), starting at an address.
    pub fn set(&mut self, table: &str, first: u16, values: &[u16]) {
        for (address, value) in (first..).zip(values) {
            writeln!(self.0, "{table} {address} {value}").expect("a String accepts text");
        }
    }
}

impl ThirdPartyPlc {
    /// Compiles and starts a server on libmodbus.
    #[must_use]
    pub fn libmodbus(memory: &PlcMemory) -> Self {
        let dir = temp_dir();
        let program = dir.path().join("libmodbus_server");
        let compiled = Command::new("cc")
            .args(["-Wall", "-Wextra", "-Werror", "-I/usr/include/modbus", "-o"])
            .args([&program, &peers().join("libmodbus_server.c")])
            .arg("-lmodbus")
            .status()
            .expect("Rust needs cc too");
        assert!(compiled.success(), "if libmodbus-dev is missing, `cargo xtask test` installs it");
        Self::start(&mut Command::new(program), memory, Some(dir))
    }

    /// Starts a server on modbus-serial under Node.js.
    #[must_use]
    pub fn modbus_serial(memory: &PlcMemory) -> Self {
        let home = node_home();
        let script = home.join("modbus_serial_server.js");
        assert!(script.is_file(), "`cargo xtask test` installs modbus-serial");
        Self::start(Command::new("node").arg(script), memory, None)
    }

    /// Returns the address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    fn start(command: &mut Command, memory: &PlcMemory, dir: Option<TempDir>) -> Self {
        let port = Port::reserve();
        let mut process = Process::start(command.arg(port.number().to_string()));
        process.stdin().write_all(memory.0.as_bytes()).expect("it reads its memory");
        let mut line = String::new();
        let read = BufReader::new(process.stdout()).read_line(&mut line);
        assert_eq!(line, "ready\n", "{read:?}\n{}", process.log().text());
        Self { _process: process, port, _dir: dir }
    }
}

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// Returns the directory with modbus-serial, which `cargo xtask test` installs.
fn node_home() -> PathBuf {
    test_settings::NODE.path().unwrap_or_else(|| resources::target_dir().join("e2e-node"))
}
