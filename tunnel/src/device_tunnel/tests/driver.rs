//! The driver without a host: in memory, in time that stands still.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time;

use super::engines::Plain;
use super::{at, now, run};
use crate::device::{Device, Offload};
use crate::transport::{RecvBatch, SendBatch, Transport};

/// A device in memory: gives what is in it, takes everything.
#[derive(Default)]
struct Memory {
    frames: VecDeque<Vec<u8>>,
    written: usize,
}

impl Device for Memory {
    async fn readable(&mut self) -> io::Result<()> {
        if self.frames.is_empty() { std::future::pending().await } else { Ok(()) }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(frame) = self.frames.pop_front() else { return Ok(None) };
        buffer[..frame.len()].copy_from_slice(&frame);
        Ok(Some(frame.len()))
    }

    fn write(&mut self, _: &[io::IoSlice<'_>]) -> io::Result<()> {
        self.written += 1;
        Ok(())
    }

    fn offload(&self) -> Offload {
        Offload::Nothing
    }
}

/// A path in memory: what is sent comes back.
#[derive(Default)]
struct Echo {
    datagrams: Vec<Vec<u8>>,
    did: Vec<&'static str>,
    unsent: u64,
}

impl Transport for Echo {
    async fn receive(&mut self, inbox: &mut RecvBatch) -> io::Result<()> {
        if self.datagrams.is_empty() {
            std::future::pending::<()>().await;
        }
        for datagram in self.datagrams.drain(..) {
            inbox.push(at(2), &datagram);
        }
        inbox.push_refused(at(3));
        inbox.note_network_change();
        Ok(())
    }

    async fn send(&mut self, outbox: &mut SendBatch) -> io::Result<()> {
        self.did.push("send");
        self.datagrams.extend(outbox.datagrams().map(|(_, datagram)| datagram.to_vec()));
        outbox.clear();
        Ok(())
    }

    fn unsent(&self) -> u64 {
        self.unsent
    }

    fn rebind(&mut self) -> io::Result<()> {
        self.did.push("rebind");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_engine_wants_is_carried_out_in_order_when_there_is_room() {
    let mut engine = Plain::new(at(2));
    let (mut path, mut device) = (Echo::default(), Memory::default());
    let (events, receiver) = mpsc::channel(3);
    let (commands, mut asked) = mpsc::channel(1);
    for event in [1, 2, 3] {
        events.try_send(event).unwrap();
    }
    let ended = run(&mut engine, &mut path, &mut device, receiver, &commands);
    let listener = async {
        for expected in [1, 2, 3] {
            assert_eq!(asked.recv().await, Some(expected));
        }
        drop(events);
    };
    let (ended, ()) = tokio::join!(ended, listener);
    assert!(ended.is_ok());
    assert_eq!(path.did, ["rebind", "send"].repeat(3));
    assert_eq!(engine.seen.events, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn what_is_due_is_done_on_time_and_once() {
    let mut engine = Plain::new(at(2));
    let start = now();
    engine.due = Some(start + Duration::from_secs(3600));
    let (_events, receiver) = mpsc::channel(1);
    let (commands, _asked) = mpsc::channel(1);
    let (mut path, mut device) = (Echo::default(), Memory::default());
    let day = Duration::from_secs(86_400);
    let ended = time::timeout(day, run(&mut engine, &mut path, &mut device, receiver, &commands));
    assert!(ended.await.is_err(), "it goes on");
    assert_eq!(engine.seen.timeouts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_the_host_does_not_starve_the_rest() {
    let mut engine = Plain::new(at(2));
    let packet = [[0; 10].as_slice(), &[0x45; 100]].concat();
    let frames = std::iter::repeat_n(packet, 10_000).chain([vec![9; 50], vec![0; 3]]);
    let mut device = Memory { frames: frames.collect(), written: 0 };
    let mut path = Echo { unsent: 3, ..Echo::default() };
    let (events, receiver) = mpsc::channel(1);
    let (commands, mut asked) = mpsc::channel(1);
    let others = async {
        events.send(7).await.unwrap();
        assert_eq!(asked.recv().await, Some(7));
        time::sleep(Duration::from_secs(1)).await;
        drop(events);
    };
    let (ended, ()) =
        tokio::join!(run(&mut engine, &mut path, &mut device, receiver, &commands), others);
    assert!(ended.is_ok());
    assert_eq!(device.written, 10_001);
    assert_eq!(engine.seen.packets, 10_000);
    // Each in its turn, 16 packets after 16; which turn is theirs is by chance.
    let until = engine.seen.until;
    assert!(until.iter().all(|until| until.is_some_and(|until| until < 2_000)), "{until:?}");
    assert_eq!(engine.seen.moves, engine.seen.refusals);
    // Two bad frames, and what the path did not send.
    assert_eq!(engine.seen.lost, 2 + 3);
}
