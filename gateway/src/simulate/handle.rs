//! Control of a simulated PLC by a test or the demo.

use std::io;

use thiserror::Error;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};

use super::SimulatorSettings;
use super::command::{SimulatorCommand, SimulatorCounts};
use super::controller::Controller;
use super::faults::FaultInjector;
use super::system::RunState;

/// Commands that may wait for the PLC's task. Every sender waits for its answer, so this serves 8
/// connections and a few handles without blocking.
const COMMAND_CAPACITY: usize = 16;
/// Buffer of a connection without a port, in bytes for each direction.
const DUPLEX_CAPACITY: usize = 4096;

/// A simulated PLC that [`super::serve`] has not started yet.
#[derive(Debug)]
pub struct SimulatedPlc {
    pub(super) settings: SimulatorSettings,
    pub(super) commands: mpsc::Receiver<SimulatorCommand>,
    pub(super) sender: mpsc::Sender<SimulatorCommand>,
}

/// Reads and changes a simulated PLC. Cheap to clone.
///
/// A call before [`super::serve`] runs waits for it.
#[derive(Clone, Debug)]
pub struct Handle {
    plc: mpsc::Sender<SimulatorCommand>,
}

/// Why a call of [`Handle`] failed.
#[derive(Debug, Error)]
pub enum HandleError {
    /// [`super::serve`] has returned.
    #[error("the simulated PLC is stopped")]
    ServerStopped,
    /// The PLC has no such register or bit.
    #[error("the simulated PLC has no such address")]
    NoSuchAddress,
    /// The port could not be opened again.
    #[error("the simulated PLC cannot listen on its port")]
    Port(#[source] io::Error),
}

impl SimulatedPlc {
    /// Creates a PLC that is not started.
    #[must_use]
    pub fn new(settings: SimulatorSettings) -> Self {
        let (sender, mailbox) = mpsc::channel(COMMAND_CAPACITY);
        Self { settings, commands: mailbox, sender }
    }

    /// Returns a handle to it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { plc: self.sender.clone() }
    }
}

/// Each method fails with [`HandleError::ServerStopped`] once [`super::serve`] has returned, and
/// with [`HandleError::NoSuchAddress`] when an address lies outside the PLC's memory.
impl Handle {
    /// Reads holding registers from %MW`first` on.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn registers(&self, first: u16, count: u16) -> Result<Vec<u16>, HandleError> {
        let read = move |plc: &mut Controller| {
            (0..count)
                .map(|n| plc.image.words.word(first.checked_add(n)?))
                .collect::<Option<Vec<_>>>()
        };
        self.with_controller(read).await?.ok_or(HandleError::NoSuchAddress)
    }

    /// Writes holding registers as the PLC's own program would, read-only ones included.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn set_registers(&self, first: u16, values: &[u16]) -> Result<(), HandleError> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let stored = self.with_controller(move |plc| plc.image.words.store(first, &bytes)).await?;
        stored.then_some(()).ok_or(HandleError::NoSuchAddress)
    }

    /// Reads one output: `output` 9 is %Q1.1.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn output(&self, output: u16) -> Result<bool, HandleError> {
        self.with_controller(move |plc| plc.image.outputs.bit(output)).await
    }

    /// Sets one output.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn set_output(&self, output: u16, on: bool) -> Result<(), HandleError> {
        let set = self.with_controller(move |plc| plc.image.outputs.set(output, on)).await?;
        set.then_some(()).ok_or(HandleError::NoSuchAddress)
    }

    /// Reads one input: `input` 9 is %I1.1.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn input(&self, input: u16) -> Result<bool, HandleError> {
        self.with_controller(move |plc| plc.image.inputs.bit(input)).await
    }

    /// Sets one input, as a wire to the terminal would.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn set_input(&self, input: u16, on: bool) -> Result<(), HandleError> {
        let set = self.with_controller(move |plc| plc.image.inputs.set(input, on)).await?;
        set.then_some(()).ok_or(HandleError::NoSuchAddress)
    }

    /// Stops or starts the program. A stopped program keeps its values, which are still served.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn set_state(&self, state: RunState) -> Result<(), HandleError> {
        self.with_controller(move |plc| plc.set_state(state)).await
    }

    /// Turns it into another PLC of the same model, as when a broken one is replaced.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn set_serial_number(&self, serial_number: u32) -> Result<(), HandleError> {
        self.with_controller(move |plc| plc.set_serial_number(serial_number)).await
    }

    /// Writes registers of the slave device, unit id 1.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn set_slave_registers(&self, first: u16, values: &[u16]) -> Result<(), HandleError> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let stored =
            self.with_controller(move |plc| plc.set_slave_registers(first, &bytes)).await?;
        stored.then_some(()).ok_or(HandleError::NoSuchAddress)
    }

    /// Changes the application signature, as a download does.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn set_signature(&self, signature: [u32; 4]) -> Result<(), HandleError> {
        self.with_controller(move |plc| plc.set_signature(signature)).await
    }

    /// Switches the Modbus server off: closes the port and every connection. The program keeps
    /// running. Returns when this is done.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn switch_off(&self) -> Result<(), HandleError> {
        self.request(SimulatorCommand::SwitchOff).await?.map_err(HandleError::Port)
    }

    /// Switches the Modbus server on again, on the same port. Returns when it listens.
    ///
    /// # Errors
    /// See [`Handle`]; [`HandleError::Port`] if the port is in use meanwhile.
    pub async fn switch_on(&self) -> Result<(), HandleError> {
        self.request(SimulatorCommand::SwitchOn).await?.map_err(HandleError::Port)
    }

    /// Connects to the Modbus server without a port, for tests under paused time. The stream ends
    /// at once while the server is switched off.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn connect(&self) -> Result<DuplexStream, HandleError> {
        let (client, server) = tokio::io::duplex(DUPLEX_CAPACITY);
        self.plc
            .send(SimulatorCommand::Connect(server))
            .await
            .map_err(|_| HandleError::ServerStopped)?;
        Ok(client)
    }

    /// Injects faults from now on, or none with `None`. Answers that are under way keep their
    /// faults.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn set_faults(&self, faults: Option<FaultInjector>) -> Result<(), HandleError> {
        self.request(|reply| SimulatorCommand::InjectFaults(faults.map(Box::new), reply)).await
    }

    /// Returns what happened so far.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn counts(&self) -> Result<SimulatorCounts, HandleError> {
        self.request(SimulatorCommand::GetCounts).await
    }

    async fn with_controller<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Controller) -> T + Send + 'static,
    ) -> Result<T, HandleError> {
        self.request(|reply| {
            SimulatorCommand::WithController(Box::new(move |plc| {
                let _ = reply.send(act(plc)); // The caller may have stopped waiting.
            }))
        })
        .await
    }

    async fn request<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> SimulatorCommand,
    ) -> Result<T, HandleError> {
        let (reply, answer) = oneshot::channel();
        self.plc.send(command(reply)).await.map_err(|_| HandleError::ServerStopped)?;
        answer.await.map_err(|_| HandleError::ServerStopped)
    }
}
