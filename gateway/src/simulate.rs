//! A simulated M241 or M251, for trying the gateway out, for the demo and for the tests.
//!
//! It serves, after the M241 and M251 programming guides, chapter "Modbus TCP server":
//!
//! - unit id 255, the embedded server: %MW as holding registers with the memory map of
//!   `PlcModel::memory_areas`, %Q as coils, %I as discrete inputs; function codes 1, 2, 3, 6, 8,
//!   15, 16, 23 and 43/14, nothing else;
//! - unit id 1, a "Modbus TCP Slave Device": registers 0..=39 are %IW, written by clients, 40..=79
//!   are %QW, a copy of %MW0..=%MW39; function codes 3, 6, 16, 23;
//! - any other unit id: exception 11;
//! - the PLC_R block at %MW60000: vendor 16#101A, product, serial number, firmware, state, cause of
//!   the last stop, signature;
//! - 8 connections, a 9th evicts the oldest; answers leave at the end of a MAST cycle.
//!
//! With [`SimulatedProgram::PumpStation`] the values move like those of a machine; its variables
//! are listed in [`mod@process`]. A [`FaultInjector`] damages its answers as a broken PLC or
//! network would. It has its own framing and shares no protocol code with the gateway's client, so
//! that the two check each other.
//!
//! ```no_run
//! use gateway::simulate::{SimulatedPlc, SimulatorSettings, serve};
//! use provisioning::plc::PlcModel;
//!
//! # async fn example() -> std::io::Result<()> {
//! let settings = SimulatorSettings::new(PlcModel::M241).expect("an M241 can be simulated");
//! let plc = SimulatedPlc::new(settings);
//! let handle = plc.handle();
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let stop = tokio_util::sync::CancellationToken::new();
//! tokio::join!(serve(plc, listener, stop.clone()), async {
//!     let temperature = handle.registers(10, 2).await;
//!     stop.cancel();
//!     temperature
//! });
//! # Ok(())
//! # }
//! ```

mod command;
mod connection;
mod controller;
mod faults;
mod frame;
mod handle;
mod image;
mod pdu;
pub mod process;
mod server;
mod system;
mod variables;

use std::time::Duration;

use provisioning::plc::PlcModel;

pub use command::SimulatorCounts;
pub use faults::{Fault, FaultInjector};
pub use handle::{Handle, HandleError, SimulatedPlc};
pub use server::serve;
pub use system::RunState;
pub use variables::{VARIABLES, Variable};

/// Settings of a simulated PLC.
#[derive(Clone, Debug)]
pub struct SimulatorSettings {
    hardware: system::Hardware,
    /// What the program does. Default: [`SimulatedProgram::PumpStation`].
    pub program: SimulatedProgram,
    /// Whether the program runs at power-on. Default: [`RunState::Running`].
    pub state: RunState,
    /// Seed of the program: with the same seed, values are the same at the same age. Default: 0.
    pub seed: u64,
    /// Period of the MAST task: an answer leaves at the end of the cycle in which its request
    /// arrived. Whole milliseconds; zero answers at once. Default: 10 ms, as in a new project.
    pub mast: Duration,
    /// Serial number in PLC_R.
    pub serial_number: u32,
    /// Application signature in PLC_R; a download changes it.
    pub signature: [u32; 4],
    /// Injects faults into the answers. Default: none.
    pub faults: Option<FaultInjector>,
}

/// What the simulated PLC's program does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SimulatedProgram {
    /// The pump station of [`mod@process`].
    PumpStation,
    /// Does nothing: memory keeps what is written to it.
    Idle,
}

impl SimulatorSettings {
    /// Returns the settings of a new PLC; `None` for a model other than [`PlcModel::M241`] and
    /// [`PlcModel::M251`].
    #[must_use]
    pub fn new(model: PlcModel) -> Option<Self> {
        Some(Self {
            hardware: system::Hardware::of(model)?,
            program: SimulatedProgram::PumpStation,
            state: RunState::Running,
            seed: 0,
            mast: Duration::from_millis(10),
            serial_number: 80_201_001,
            signature: [0x5EED_0001, 0x5EED_0002, 0x5EED_0003, 0x5EED_0004],
            faults: None,
        })
    }
}
