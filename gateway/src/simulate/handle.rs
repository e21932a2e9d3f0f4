//! What a test or the demo can do to a simulated PLC: a hand on its wires and switches.

use std::fmt;
use std::io;

use thiserror::Error;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};

use super::SimulatorSettings;
use super::connection::RequestBatch;
use super::controller::{Controller, RunState};
use super::faults::FaultInjector;

/// Mail that may wait for the PLC's task. Every sender waits for its answer, so this is also about
/// how many of them are served without waiting: 8 connections and a few handles.
const COMMAND_CAPACITY: usize = 16;
/// Bytes on their way through a connection without a port, in each direction.
const DUPLEX_CAPACITY: usize = 4096;

/// A PLC that has not been switched on; [`super::serve`] does that.
#[derive(Debug)]
pub struct SimulatedPlc {
    pub(super) settings: SimulatorSettings,
    pub(super) commands: mpsc::Receiver<SimulatorCommand>,
    pub(super) sender: mpsc::Sender<SimulatorCommand>,
}

/// Reaches into a simulated PLC. Cheap to clone.
///
/// What is asked before [`super::serve`] runs waits for it.
#[derive(Clone, Debug)]
pub struct Handle {
    plc: mpsc::Sender<SimulatorCommand>,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SimulatorCounts {
    /// Connections accepted.
    pub connects: u64,
    /// Connections closed to make room for a new one.
    pub evicted: u64,
    /// Connections refused because all others were being served.
    pub refused: u64,
    /// Connections open now.
    pub open: usize,
    /// Requests answered, exceptions included.
    pub requests: u64,
    /// Answers of these that the present [`Mischief`] has spoiled.
    pub faulty: u64,
    /// Connections whose requests wait for the end of the MAST cycle now.
    pub waiting: usize,
}

/// Why a [`Handle`] could not do it.
#[derive(Debug, Error)]
pub enum HandleError {
    /// [`super::serve`] has returned.
    #[error("the simulated PLC is switched off")]
    ServerStopped,
    /// The PLC has no such register or bit.
    #[error("the simulated PLC has no such address")]
    NoSuchAddress,
    /// The port could not be opened again.
    #[error("the simulated PLC cannot listen on its port")]
    Port(#[source] io::Error),
}

/// What the PLC's task is asked to do.
pub(super) enum SimulatorCommand {
    /// Answer these requests of a client.
    Exchange(RequestBatch, oneshot::Sender<RequestBatch>),
    /// Let a handle look at the PLC, or change something.
    WithController(Box<dyn FnOnce(&mut Controller) + Send>),
    /// Close the port and every connection.
    SwitchOff(oneshot::Sender<io::Result<()>>),
    /// Open the port again.
    SwitchOn(oneshot::Sender<io::Result<()>>),
    /// Take this stream for a client's connection.
    Connect(DuplexStream),
    /// Spoil answers from now on, or let them be.
    InjectFaults(Option<Box<FaultInjector>>, oneshot::Sender<()>),
    /// Tell what has happened.
    GetCounts(oneshot::Sender<SimulatorCounts>),
}

impl SimulatedPlc {
    /// Builds it.
    #[must_use]
    pub fn new(settings: SimulatorSettings) -> Self {
        let (sender, mailbox) = mpsc::channel(COMMAND_CAPACITY);
        Self { settings, commands: mailbox, sender }
    }

    /// A hand on it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { plc: self.sender.clone() }
    }
}

/// Each method fails with [`HandleError::Gone`] once [`super::serve`] has returned, and with
/// [`HandleError::NoSuchAddress`] when an address lies outside the PLC's memory.
impl Handle {
    /// Reads holding registers, %MW`first` on.
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

    /// Writes holding registers as the PLC's own program would: read-only ones too.
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

    /// Stops or starts the program. While stopped the values stand still and are still served.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn set_state(&self, state: RunState) -> Result<(), HandleError> {
        self.with_controller(move |plc| plc.set_state(state)).await
    }

    /// Makes it another PLC of the same kind, as when a broken one was replaced.
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

    /// Switches the Modbus server off: the port closes, and every connection with it. The program
    /// runs on. Returns when it has happened.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn switch_off(&self) -> Result<(), HandleError> {
        self.request(SimulatorCommand::SwitchOff).await?.map_err(HandleError::Port)
    }

    /// Switches the Modbus server on again, at the port where it was. Returns when it listens.
    ///
    /// # Errors
    /// See [`Handle`]; [`HandleError::Port`] if somebody else took the port.
    pub async fn switch_on(&self) -> Result<(), HandleError> {
        self.request(SimulatorCommand::SwitchOn).await?.map_err(HandleError::Port)
    }

    /// Connects to the Modbus server without a port and a network: for tests under paused time. The
    /// stream ends at once while the server is switched off.
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

    /// Spoils answers from now on, or gives right ones again with `None`. What is already on its way
    /// is not called back.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn set_faults(&self, mischief: Option<FaultInjector>) -> Result<(), HandleError> {
        self.request(|reply| SimulatorCommand::InjectFaults(mischief.map(Box::new), reply)).await
    }

    /// Tells what has happened so far.
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
                let _ = reply.send(act(plc)); // The asker may have stopped waiting.
            }))
        })
        .await
    }

    async fn request<T>(
        &self,
        mail: impl FnOnce(oneshot::Sender<T>) -> SimulatorCommand,
    ) -> Result<T, HandleError> {
        let (reply, answer) = oneshot::channel();
        self.plc.send(mail(reply)).await.map_err(|_| HandleError::ServerStopped)?;
        answer.await.map_err(|_| HandleError::ServerStopped)
    }
}

impl fmt::Debug for SimulatorCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exchange(..) => "Exchange",
            Self::WithController(_) => "Touch",
            Self::SwitchOff(_) => "SwitchOff",
            Self::SwitchOn(_) => "SwitchOn",
            Self::Connect(_) => "Connect",
            Self::InjectFaults(..) => "Spoil",
            Self::GetCounts(_) => "Count",
        })
    }
}
