//! A faithful M241 or M251: a PLC to try things on, and the peer of the demo and of the tests.
//!
//! What it serves, after the M241 and M251 programming guides, chapter "Modbus TCP server":
//!
//! - unit id 255, the embedded server: %MW as holding registers with the memory map of
//!   [`Model::windows`], %Q as coils, %I as discrete inputs; function codes 1, 2, 3, 6, 8, 15, 16,
//!   23 and 43/14, nothing else;
//! - unit id 1, a "Modbus TCP Slave Device": registers 0..=39 are %IW, written by clients, 40..=79
//!   are %QW, a copy of %MW0..=%MW39; function codes 3, 6, 16, 23;
//! - any other unit id: exception 11;
//! - the PLC_R block at %MW60000: vendor 16#101A, product, serial number, firmware, state, cause of
//!   the last stop, signature;
//! - 8 connections, the oldest makes room for a 9th; answers leave at the end of a MAST cycle.
//!
//! With [`Program::PumpStation`] the values move like a machine's; its variables are listed in
//! [`mod@process`]. With a [`Mischief`] it breaks its answers in every way that a broken PLC or
//! network can. It has its own framing and shares no protocol code with our client, so the two
//! can check each other.
//!
//! ```no_run
//! use gateway::simulate::{Settings, SimulatedPlc, serve};
//! use provisioning::plc::Model;
//!
//! # async fn example() -> std::io::Result<()> {
//! let plc = SimulatedPlc::new(Settings::new(Model::M241).expect("an M241 can be simulated"));
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

mod connection;
mod controller;
mod faults;
mod frame;
mod handle;
mod identification;
mod image;
mod pdu;
pub mod process;
mod server;
mod system;
mod variables;

use std::time::Duration;

use provisioning::plc::PlcModel;

pub use controller::RunState;
pub use faults::{Fault, FaultInjector};
pub use handle::{Handle, HandleError, SimulatedPlc, SimulatorCounts};
pub use server::serve;
pub use variables::{VARIABLES, Variable};

/// What kind of PLC is simulated and what runs on it.
#[derive(Clone, Debug)]
pub struct SimulatorSettings {
    hardware: system::Hardware,
    /// What the program does. Default: [`Program::PumpStation`].
    pub program: SimulatedProgram,
    /// Whether the program runs at power-on. Default: [`State::Running`].
    pub state: RunState,
    /// Two PLCs with the same seed show the same values at the same age. Default: 0.
    pub seed: u64,
    /// Period of the MAST task: an answer leaves at the end of the cycle in which its request
    /// arrived. Whole milliseconds; zero answers at once. Default: 10 ms, as in a new project.
    pub mast: Duration,
    /// Serial number in PLC_R.
    pub serial_number: u32,
    /// Application signature in PLC_R; a download changes it.
    pub signature: [u32; 4],
    /// What spoils its answers. Default: nothing.
    pub faults: Option<FaultInjector>,
}

/// What the simulated PLC's program does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SimulatedProgram {
    /// The pump station of [`mod@process`].
    PumpStation,
    /// Nothing: memory keeps what is written to it.
    Idle,
}

impl SimulatorSettings {
    /// A PLC as it leaves the box; `None` for a model whose manual has not been followed: all but
    /// [`Model::M241`] and [`Model::M251`].
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
