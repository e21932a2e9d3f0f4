//! Commands of connections and handles to the PLC's task.

use std::fmt;
use std::io;

use tokio::io::DuplexStream;
use tokio::sync::oneshot;

use super::controller::Controller;
use super::faults::{AnswerStep, FaultInjector};

/// A command to the PLC's task.
pub(super) enum SimulatorCommand {
    /// Answers the requests of a client.
    Exchange(RequestBatch, oneshot::Sender<RequestBatch>),
    /// Lets a handle read or change the PLC.
    WithController(Box<dyn FnOnce(&mut Controller) + Send>),
    /// Closes the port and every connection.
    SwitchOff(oneshot::Sender<io::Result<()>>),
    /// Opens the port again.
    SwitchOn(oneshot::Sender<io::Result<()>>),
    /// Serves this stream as a client's connection.
    Connect(DuplexStream),
    /// Injects faults from now on, or no more.
    InjectFaults(Option<Box<FaultInjector>>, oneshot::Sender<()>),
    /// Returns the counts.
    GetCounts(oneshot::Sender<SimulatorCounts>),
}

/// Requests on their way to the PLC, and the same batch with its answers on the way back. The
/// buffers are reused.
#[derive(Debug)]
pub(super) struct RequestBatch {
    /// Number of the connection.
    pub(super) client: u64,
    /// Whole frames, at least one.
    pub(super) requests: Vec<u8>,
    /// The answers, one per frame and in the same order.
    pub(super) answers: Vec<u8>,
    /// What to do after the answers are written; empty without fault injection.
    pub(super) steps: Vec<AnswerStep>,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SimulatorCounts {
    /// Connections accepted.
    pub connects: u64,
    /// Connections closed in favour of a new one.
    pub evicted: u64,
    /// Connections rejected because all others had requests in progress.
    pub refused: u64,
    /// Connections open now.
    pub open: usize,
    /// Requests answered, exceptions included.
    pub requests: u64,
    /// Answers among these with a fault of the present [`FaultInjector`].
    pub faulty: u64,
    /// Connections whose requests wait for the end of the MAST cycle now.
    pub waiting: usize,
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
