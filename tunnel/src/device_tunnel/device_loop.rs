//! Moves packets between an interface of the host and the transport to the other end.

use std::net::SocketAddr;
use std::pin::Pin;

use tokio::sync::mpsc;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{self, Sleep};
use tracing::{debug, warn};

use super::RunError;
use super::own_datagrams::OwnDatagrams;
#[cfg(test)]
use crate::core::TunnelReport;
use crate::core::{DropReason, HubLookup, Tunnel, TunnelEvent, TunnelRequest};
use crate::device::{Device, MAX_FRAME_LEN, PacketCoalescer, VnetHeader, segment};
use crate::reporter::{DropDeltas, Reporter, host_network_event, resolve};
use crate::time::{ClockCache, now};
use crate::transport::{RecvBatch, SendBatch, Transport};

/// Frames that are read before the other direction is served. 64 were not faster, and 16 are at
/// most 1 MiB.
const MAX_FRAMES_PER_WAKE: usize = 16;

/// A tunnel, its transport and its device, which one task owns.
#[derive(Debug)]
pub(super) struct DeviceLoop<T, D> {
    tunnel: Tunnel,
    reporter: Reporter,
    clock: ClockCache,
    transport: T,
    device: D,
    own_datagrams: OwnDatagrams,
    lookups: JoinSet<(usize, Vec<SocketAddr>)>,
    received: RecvBatch,
    outgoing: SendBatch,
    to_host: PacketCoalescer,
    frame: Vec<u8>,
    malformed_frames: u64,
    drop_deltas: DropDeltas,
}

/// Why the loop woke up.
enum DeviceWake {
    Datagrams,
    Packets,
    Timer,
    Event(TunnelEvent),
    /// No handle is left.
    Abandoned,
}

/// Whether more can be read at once.
#[derive(Clone, Copy, PartialEq)]
enum Remaining {
    Nothing,
    Possible,
}

impl<T: Transport, D: Device> DeviceLoop<T, D> {
    pub(super) fn new(
        tunnel: Tunnel,
        clock: ClockCache,
        transport: T,
        device: D,
        reporter: Reporter,
    ) -> Self {
        let mut own_datagrams = OwnDatagrams::default();
        own_datagrams.on_port(transport.local_port());
        Self {
            tunnel,
            reporter,
            clock,
            transport,
            to_host: PacketCoalescer::new(device.offload()),
            device,
            own_datagrams,
            lookups: JoinSet::new(),
            received: RecvBatch::new(),
            outgoing: SendBatch::new(),
            frame: vec![0; MAX_FRAME_LEN],
            malformed_frames: 0,
            drop_deltas: DropDeltas::default(),
        }
    }

    /// Runs until every sender of `events` is dropped; fails with the device or the transport.
    ///
    /// Dropping the future loses nothing but packets in flight.
    pub(super) async fn run(
        &mut self,
        events: &mut mpsc::Receiver<TunnelEvent>,
    ) -> Result<(), RunError> {
        let mut timer = Box::pin(time::sleep_until(time::Instant::now()));
        let host_network = host_network_event(&self.tunnel);
        self.tunnel.handle_event(self.clock.now(), host_network);
        self.run_timers();
        loop {
            self.serve_requests();
            self.flush().await?;
            self.set_timer(timer.as_mut());
            let remaining = match self.wake(timer.as_mut(), events).await? {
                DeviceWake::Datagrams => self.handle_datagrams().await?,
                DeviceWake::Packets => self.handle_packets().await?,
                DeviceWake::Timer => Remaining::Nothing,
                DeviceWake::Event(event) => {
                    let now = self.clock.now();
                    if matches!(event, TunnelEvent::Resolved { .. }) {
                        self.tunnel.handle_event(now, host_network_event(&self.tunnel));
                    }
                    self.tunnel.handle_event(now, event);
                    Remaining::Nothing
                }
                DeviceWake::Abandoned => return Ok(()),
            };
            // Also while packets keep coming: the timer branch of `wake` may not be chosen for
            // long.
            self.run_timers();
            if remaining == Remaining::Possible {
                // The thread is shared: PLCs must be polled on time.
                yield_now().await;
            }
        }
    }

    /// Executes what the tunnel requests. This comes before [`Self::flush`]: an initiation that
    /// follows a rebind must leave from the new port.
    fn serve_requests(&mut self) {
        while let Some(request) = self.tunnel.next_request() {
            match request {
                TunnelRequest::Rebind => {
                    if let Err(error) = self.transport.rebind() {
                        warn!(%error, "cannot open another port");
                    }
                    self.own_datagrams.on_port(self.transport.local_port());
                }
                TunnelRequest::Resolve(HubLookup { hub, endpoint }) => {
                    self.lookups.spawn(async move { (hub, resolve(endpoint).await) });
                }
            }
        }
    }

    /// Sets the timer to the next deadline. Without a deadline it stays in the past, and
    /// [`Self::wake`] does not poll it.
    fn set_timer(&self, timer: Pin<&mut Sleep>) {
        if let Some(deadline) = self.tunnel.poll_timeout() {
            let deadline = time::Instant::from_std(deadline);
            if deadline != timer.deadline() {
                timer.reset(deadline);
            }
        }
    }

    async fn wake(
        &mut self,
        timer: Pin<&mut Sleep>,
        events: &mut mpsc::Receiver<TunnelEvent>,
    ) -> Result<DeviceWake, RunError> {
        let has_deadline = self.tunnel.poll_timeout().is_some();
        // `select!` polls in random order, so that no direction starves another.
        tokio::select! {
            received = self.transport.receive(&mut self.received) => {
                received.map(|()| DeviceWake::Datagrams).map_err(RunError::Transport)
            }
            readable = self.device.readable() => {
                readable.map(|()| DeviceWake::Packets).map_err(RunError::Device)
            }
            () = timer, if has_deadline => Ok(DeviceWake::Timer),
            Some(Ok((hub, addresses))) = self.lookups.join_next() => {
                Ok(DeviceWake::Event(TunnelEvent::Resolved { hub, addresses }))
            }
            event = events.recv() => Ok(event.map_or(DeviceWake::Abandoned, DeviceWake::Event)),
        }
    }

    async fn handle_datagrams(&mut self) -> Result<Remaining, RunError> {
        let now = self.clock.now();
        for error in self.received.path_errors() {
            self.tunnel.handle_event(now, TunnelEvent::PathError(*error));
        }
        if self.received.has_network_changed() {
            self.tunnel.handle_event(now, TunnelEvent::NetworkChanged);
        }
        let remaining =
            if self.received.has_room() { Remaining::Nothing } else { Remaining::Possible };
        for datagram in self.received.datagrams() {
            let (outgoing, to_host) = (&mut self.outgoing, &mut self.to_host);
            self.tunnel.handle_datagram(now, datagram, outgoing, to_host);
            if to_host.is_full() {
                to_host.write_to(&mut self.device).map_err(RunError::Device)?;
            }
            if outgoing.is_full() {
                send_all(&mut self.transport, &mut self.own_datagrams, outgoing).await?;
            }
        }
        self.received.clear();
        Ok(remaining)
    }

    async fn handle_packets(&mut self) -> Result<Remaining, RunError> {
        for _ in 0..MAX_FRAMES_PER_WAKE {
            let read = self.device.read(&mut self.frame).map_err(RunError::Device)?;
            let Some(length) = read else { return Ok(Remaining::Nothing) };
            let now = self.clock.at(now());
            let frame = self.frame.get_mut(..length).unwrap_or_default();
            let mut looped = 0;
            let handled = VnetHeader::parse(frame).and_then(|(header, packet)| {
                segment(header, packet, |packet| {
                    if self.own_datagrams.contain(packet) {
                        looped += 1;
                    } else {
                        self.tunnel.handle_packet(now, packet, &mut self.outgoing);
                    }
                })
            });
            if handled.is_err() {
                debug!(length, "malformed frame from the host");
                self.malformed_frames += 1;
            }
            if looped > 0 {
                self.tunnel.add_dropped(DropReason::Looped, looped);
                self.tunnel.handle_event(now, TunnelEvent::DatagramLooped);
            }
            if self.outgoing.is_full() {
                self.send().await?;
            }
        }
        Ok(Remaining::Possible)
    }

    /// Lets the tunnel do what is due, however busy both directions are.
    fn run_timers(&mut self) {
        let now = self.clock.now();
        if self.tunnel.poll_timeout().is_some_and(|deadline| deadline <= now.instant) {
            self.tunnel.handle_timeout(now, &mut self.outgoing);
        }
        let no_room = self.received.dropped() + self.outgoing.dropped() + self.to_host.dropped();
        let totals = [
            (DropReason::Malformed, self.malformed_frames),
            (DropReason::NoRoom, no_room),
            (DropReason::Unsent, self.transport.unsent()),
        ];
        for (reason, total) in totals {
            if let Some(more) = self.drop_deltas.since_last(reason, total) {
                self.tunnel.add_dropped(reason, more);
            }
        }
        if let Some(error) = self.transport.send_error() {
            self.tunnel.handle_event(now, TunnelEvent::PathError(error));
        }
        self.reporter.publish_if_due(&self.tunnel, now);
    }

    async fn flush(&mut self) -> Result<(), RunError> {
        if !self.to_host.is_empty() {
            self.to_host.write_to(&mut self.device).map_err(RunError::Device)?;
        }
        if !self.outgoing.is_empty() {
            self.send().await?;
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), RunError> {
        send_all(&mut self.transport, &mut self.own_datagrams, &mut self.outgoing).await
    }

    /// Returns the tunnel's state and counters now.
    #[cfg(test)]
    pub(super) fn report(&mut self) -> TunnelReport {
        self.tunnel.report(self.clock.now())
    }
}

/// Sends everything in `outgoing`, and records where to.
async fn send_all<T: Transport>(
    transport: &mut T,
    own_datagrams: &mut OwnDatagrams,
    outgoing: &mut SendBatch,
) -> Result<(), RunError> {
    for segments in outgoing.segments() {
        own_datagrams.on_sent(segments.to);
    }
    transport.send(outgoing).await.map_err(RunError::Transport)
}
