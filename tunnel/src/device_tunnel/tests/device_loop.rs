//! The loop without a host: device and transport in memory, paused time.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time;

use crate::core::{
    ClockBounds, DropReason, Now, PathError, PathErrorCause, Tunnel, TunnelEvent, TunnelReport,
    TunnelState,
};
use crate::device::{Device, Offload, VNET_HEADER_LEN};
use crate::device_tunnel::device_loop::DeviceLoop;
use crate::reporter::Reporter;
use crate::testing::site_and_hub;
use crate::time::ClockCache;
use crate::transport::{RecvBatch, SendBatch, Transport};

/// A device in memory: returns its frames and discards those written to it.
#[derive(Default)]
struct MemoryDevice {
    frames: VecDeque<Vec<u8>>,
    /// Number of frames that were read.
    reads: Arc<AtomicUsize>,
}

impl Device for MemoryDevice {
    async fn readable(&mut self) -> io::Result<()> {
        if self.frames.is_empty() { std::future::pending().await } else { Ok(()) }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(frame) = self.frames.pop_front() else { return Ok(None) };
        buffer[..frame.len()].copy_from_slice(&frame);
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(Some(frame.len()))
    }

    fn write(&mut self, _: &[io::IoSlice<'_>]) -> io::Result<()> {
        Ok(())
    }

    fn offload(&self) -> Offload {
        Offload::Nothing
    }
}

/// A transport without a peer; it reports each call.
struct SilentTransport {
    calls: mpsc::Sender<&'static str>,
    /// Reported once as a host on which nothing listens.
    refused: Option<SocketAddr>,
    unsent: u64,
}

impl Transport for SilentTransport {
    async fn receive(&mut self, received: &mut RecvBatch) -> io::Result<()> {
        match self.refused.take() {
            Some(to) => received.push_path_error(PathError {
                to,
                cause: PathErrorCause::PortUnreachable,
                reporter: Some(to.ip()),
            }),
            None => std::future::pending().await,
        }
        Ok(())
    }

    async fn send(&mut self, outgoing: &mut SendBatch) -> io::Result<()> {
        outgoing.clear();
        self.calls.try_send("send").map_err(io::Error::other)
    }

    fn send_error(&self) -> Option<PathError> {
        None
    }

    fn unsent(&self) -> u64 {
        self.unsent
    }

    fn local_port(&self) -> Option<u16> {
        None
    }

    fn rebind(&mut self) -> io::Result<()> {
        self.calls.try_send("rebind").map_err(io::Error::other)
    }
}

/// Returns `instant` with a wall clock that is paused along with it.
fn paused_wall(instant: Instant) -> Now {
    static START: OnceLock<Now> = OnceLock::new();
    let start = START.get_or_init(|| Now::at(instant));
    Now { instant, wall: start.wall + instant.saturating_duration_since(start.instant) }
}

fn site() -> Tunnel {
    Tunnel::site(site_and_hub().0, ClockBounds::default(), paused_wall(crate::time::now()), 1)
}

fn device_loop<T: Transport>(
    site: Tunnel,
    clock: ClockCache,
    transport: T,
    device: MemoryDevice,
) -> (DeviceLoop<T, MemoryDevice>, watch::Receiver<TunnelReport>) {
    let (reporter, reports) = Reporter::new(&site, paused_wall(crate::time::now()));
    (DeviceLoop::new(site, clock, transport, device, reporter), reports)
}

fn transport() -> (SilentTransport, mpsc::Receiver<&'static str>) {
    let (calls, seen) = mpsc::channel(1024);
    (SilentTransport { calls, refused: None, unsent: 0 }, seen)
}

#[tokio::test(start_paused = true)]
async fn a_new_port_is_opened_before_the_initiation_that_follows_is_sent() {
    let (transport, mut calls) = transport();
    let clock = ClockCache::new(paused_wall);
    let (mut device_loop, _reports) =
        device_loop(site(), clock, transport, MemoryDevice::default());
    let (events, mut queue) = mpsc::channel(1);
    let others = async {
        assert_eq!(calls.recv().await, Some("send"));
        events.send(TunnelEvent::NetworkChanged).await.unwrap();
        assert_eq!(calls.recv().await, Some("rebind"));
        assert_eq!(calls.recv().await, Some("send"));
        drop(events);
    };
    let (ended, ()) = tokio::join!(device_loop.run(&mut queue), others);
    assert!(ended.is_ok());
}

#[tokio::test(start_paused = true)]
async fn initiations_are_sent_on_time_and_nothing_is_sent_in_between() {
    let (transport, mut calls) = transport();
    let clock = ClockCache::new(paused_wall);
    let (mut device_loop, _reports) =
        device_loop(site(), clock, transport, MemoryDevice::default());
    let (_events, mut queue) = mpsc::channel(1);
    let hour = Duration::from_secs(3600);
    let ended = time::timeout(hour, device_loop.run(&mut queue)).await;
    assert!(ended.is_err(), "{ended:?}");
    let mut sent = 0;
    while let Ok(call) = calls.try_recv() {
        sent += usize::from(call == "send");
    }
    // Pauses of 5 s that grow to 30 s, of which half is random.
    assert!((150..=175).contains(&sent), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn a_flood_from_the_host_does_not_starve_the_rest() {
    let mut packet = vec![0; VNET_HEADER_LEN];
    packet.extend([0x45, 0, 0, 100, 0, 0, 0, 0, 64, 17, 0, 0, 10, 77, 0, 12, 10, 77, 0, 1]);
    packet.resize(VNET_HEADER_LEN + 100, 7);
    let frames = std::iter::repeat_n(packet, 10_000).chain([vec![9; 50], vec![0; 3]]);
    let device = MemoryDevice { frames: frames.collect(), ..MemoryDevice::default() };
    let reads = Arc::clone(&device.reads);
    let (mut transport, mut calls) = transport();
    transport.refused = Some("192.0.2.1:51820".parse().unwrap());
    transport.unsent = 3;
    let clock = ClockCache::new(paused_wall);
    let (mut device_loop, mut reports) = device_loop(site(), clock, transport, device);
    let (events, mut queue) = mpsc::channel(1);
    let others = async {
        // At most 16 frames in a row are read, and the order of the directions is random.
        let is_in_time = |what| {
            let reads = reads.load(Ordering::Relaxed);
            assert!(reads < 2_000, "{what} after {reads} frames");
        };
        assert_eq!(calls.recv().await, Some("send"));
        is_in_time("the first initiation");
        reports.wait_for(|report| report.state == TunnelState::Refused).await.unwrap();
        is_in_time("a refusal");
        events.send(TunnelEvent::NetworkChanged).await.unwrap();
        assert_eq!(calls.recv().await, Some("rebind"));
        is_in_time("an event");
        let is_all_dropped = |report: &TunnelReport| {
            let dropped = |reason| report.counters.dropped(reason);
            dropped(DropReason::QueueFull) + dropped(DropReason::Waited) == 10_000
        };
        let counters = reports.wait_for(is_all_dropped).await.unwrap().counters;
        assert_eq!(counters.dropped(DropReason::Malformed), 2);
        assert_eq!(counters.dropped(DropReason::Unsent), 3);
        drop(events);
    };
    let (ended, ()) = tokio::join!(device_loop.run(&mut queue), others);
    assert!(ended.is_ok());
}
