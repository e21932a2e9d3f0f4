//! Drives a tunnel between a network device of the host and the way to the hub.

mod engine;
mod site;
#[cfg(test)]
mod tests;
mod upkeep;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::time::Instant;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{self, Sleep};
use tracing::{debug, warn};

use crate::core::DropReason;
use crate::device::{Device, MAX_FRAME_LEN, PacketCoalescer, VnetHeader, segment};
use crate::reporter::DropDeltas;
use crate::transport::{RecvBatch, SendBatch, Transport};

pub(crate) use engine::{Engine, Want};
pub use site::{DeviceDriver, DeviceError, DeviceTunnel, open_device_tunnel};

/// Frames from the host before the other direction has its turn. 64 made no difference in speed,
/// and 16 are 1 MiB at most.
const MAX_FRAMES_PER_WAKE: usize = 16;

/// Questions that wait for room while what the engine wants besides is still carried out. More of
/// them wait in the engine.
const QUESTIONS: usize = 16;

/// Why a tunnel cannot go on.
#[derive(Debug, Error)]
pub enum RunError {
    /// The network device is gone, or does not work.
    #[error("the network device of the tunnel does not work any more")]
    Device(#[source] io::Error),
    /// The socket does not work.
    #[error("the socket of the tunnel does not work any more")]
    Transport(#[source] io::Error),
}

/// Everything that one tunnel has.
struct DeviceLoop<'a, E: Engine, P, D> {
    engine: &'a mut E,
    path: &'a mut P,
    device: &'a mut D,
    inbox: RecvBatch,
    outbox: SendBatch,
    hostbound: PacketCoalescer,
    frame: Vec<u8>,
    /// Questions that nobody has had room for yet.
    waiting: VecDeque<E::Command>,
    malformed: u64,
    drop_deltas: DropDeltas,
}

/// Why the driver woke up.
enum DeviceWake<T> {
    Transport(io::Result<()>),
    Device(io::Result<()>),
    Timer,
    Room,
    Event(Option<T>),
}

/// Whether there may be more where that came from.
#[derive(Clone, Copy, PartialEq)]
enum Remaining {
    Nothing,
    Possible,
}

/// Drives `engine` until every sender of `events` is gone or nobody takes its `commands`; fails
/// when the device or the path does not work any more.
///
/// A question waits until there is room for it. Cancel safe in the sense that nothing
/// but packets on their way is lost.
async fn run<E: Engine, P: Transport, D: Device>(
    engine: &mut E,
    path: &mut P,
    device: &mut D,
    mut events: mpsc::Receiver<E::Event>,
    commands: &mpsc::Sender<E::Command>,
) -> Result<(), RunError> {
    let hostbound = PacketCoalescer::new(device.offload());
    let mut driver = DeviceLoop {
        engine,
        path,
        device,
        inbox: RecvBatch::new(),
        outbox: SendBatch::new(),
        hostbound,
        frame: vec![0; MAX_FRAME_LEN],
        waiting: VecDeque::new(),
        malformed: 0,
        drop_deltas: DropDeltas::default(),
    };
    let mut timer = Box::pin(time::sleep_until(time::Instant::now()));
    driver.run_timers();
    while let LoopControl::Wait = driver.execute_requests(commands) {
        driver.flush().await?;
        driver.set_timer(timer.as_mut());
        let left = match driver.wake(timer.as_mut(), &mut events, commands).await {
            DeviceWake::Transport(received) => {
                received.map_err(RunError::Transport)?;
                driver.receive_datagrams().await?
            }
            DeviceWake::Device(readable) => {
                readable.map_err(RunError::Device)?;
                driver.read_packets().await?
            }
            DeviceWake::Timer | DeviceWake::Room => Remaining::Nothing,
            DeviceWake::Event(None) => return Ok(()),
            DeviceWake::Event(Some(event)) => {
                driver.engine.handle_event(now(), event);
                Remaining::Nothing
            }
        };
        driver.run_timers();
        if left == Remaining::Possible {
            // Others share the thread: a PLC wants to be read on time.
            yield_now().await;
        }
    }
    Ok(())
}

/// Whether to go on.
enum LoopControl {
    Wait,
    Stop,
}

impl<E: Engine, P: Transport, D: Device> DeviceLoop<'_, E, P, D> {
    /// Carries out what the engine wants; questions that there is no room for have to wait.
    fn execute_requests(&mut self, commands: &mpsc::Sender<E::Command>) -> LoopControl {
        while self.waiting.len() < QUESTIONS {
            match self.engine.next_command() {
                Some(Want::Ask(command)) => self.waiting.push_back(command),
                Some(Want::Rebind) => {
                    if let Err(error) = self.path.rebind() {
                        warn!(%error, "cannot take another port");
                    }
                }
                None => break,
            }
        }
        while let Ok(room) = commands.try_reserve()
            && let Some(command) = self.waiting.pop_front()
        {
            room.send(command);
        }
        if commands.is_closed() { LoopControl::Stop } else { LoopControl::Wait }
    }

    /// Sets the timer to what is due next. Without anything it stays in the past, and is not asked.
    fn set_timer(&self, timer: Pin<&mut Sleep>) {
        if let Some(due) = self.engine.poll_timeout() {
            let due = time::Instant::from_std(due);
            if due != timer.deadline() {
                timer.reset(due);
            }
        }
    }

    async fn wake(
        &mut self,
        timer: Pin<&mut Sleep>,
        events: &mut mpsc::Receiver<E::Event>,
        commands: &mpsc::Sender<E::Command>,
    ) -> DeviceWake<E::Event> {
        let is_due = self.engine.poll_timeout().is_some();
        // The order is by chance, so that no direction starves another.
        tokio::select! {
            received = self.path.receive(&mut self.inbox) => DeviceWake::Transport(received),
            readable = self.device.readable() => DeviceWake::Device(readable),
            () = timer, if is_due => DeviceWake::Timer,
            _ = commands.reserve(), if !self.waiting.is_empty() => DeviceWake::Room,
            event = events.recv() => DeviceWake::Event(event),
        }
    }

    async fn receive_datagrams(&mut self) -> Result<Remaining, RunError> {
        let now = now();
        for &to in self.inbox.refused() {
            self.engine.handle_refusal(now, to);
        }
        if self.inbox.has_network_changed() {
            self.engine.handle_move(now);
        }
        let left = if self.inbox.has_room() { Remaining::Nothing } else { Remaining::Possible };
        for (from, datagram) in self.inbox.datagrams() {
            let (outbox, hostbound) = (&mut self.outbox, &mut self.hostbound);
            self.engine.handle_datagram(now, from, datagram, outbox, hostbound);
            if hostbound.is_full() {
                hostbound.write_to(self.device).map_err(RunError::Device)?;
            }
            if outbox.is_full() {
                self.path.send(outbox).await.map_err(RunError::Transport)?;
            }
        }
        self.inbox.clear();
        Ok(left)
    }

    async fn read_packets(&mut self) -> Result<Remaining, RunError> {
        for _ in 0..MAX_FRAMES_PER_WAKE {
            let read = self.device.read(&mut self.frame).map_err(RunError::Device)?;
            let Some(length) = read else { return Ok(Remaining::Nothing) };
            let now = now();
            let frame = self.frame.get_mut(..length).unwrap_or_default();
            let taken = VnetHeader::parse(frame).and_then(|(frame, packet)| {
                segment(frame, packet, |packet| {
                    self.engine.handle_packet(now, packet, &mut self.outbox);
                })
            });
            if taken.is_err() {
                debug!(length, "a frame of the host contradicts itself");
                self.malformed += 1;
            }
            if self.outbox.is_full() {
                self.path.send(&mut self.outbox).await.map_err(RunError::Transport)?;
            }
        }
        Ok(Remaining::Possible)
    }

    /// Lets the engine do what is due, however busy the directions are.
    fn run_timers(&mut self) {
        let now = now();
        if self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.engine.handle_timeout(now, &mut self.outbox);
        }
        let no_room = self.inbox.dropped() + self.outbox.dropped() + self.hostbound.dropped();
        let sums = [
            (DropReason::Malformed, self.malformed),
            (DropReason::NoRoom, no_room),
            (DropReason::Unsent, self.path.unsent()),
        ];
        for (reason, sum) in sums {
            if let Some(more) = self.drop_deltas.since_last(reason, sum) {
                self.engine.handle_lost(reason, more);
            }
        }
        self.engine.tell(now);
    }

    async fn flush(&mut self) -> Result<(), RunError> {
        if !self.hostbound.is_empty() {
            self.hostbound.write_to(self.device).map_err(RunError::Device)?;
        }
        if !self.outbox.is_empty() {
            self.path.send(&mut self.outbox).await.map_err(RunError::Transport)?;
        }
        Ok(())
    }
}

/// The runtime's idea of now, which stands still in tests that want it to.
fn now() -> Instant {
    time::Instant::now().into_std()
}
