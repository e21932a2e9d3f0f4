//! Packets for the host, joined where they follow each other, so that it takes many at once.

mod flow;
#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::ops::Range;

use super::frame::{FRAME, Frame, HEADER};
use super::segment::segment;
use super::{Device, Offload};
use flow::Aggregate;

/// Room for packets: all that one inbox of the path may hold.
const BYTES: usize = 256 * 1024;
/// Longest packet, and what decrypting it needs behind it.
const PACKET: usize = u16::MAX as usize + 32;
/// Packets that wait at most: as many of the shortest useful length as fit, about.
const PACKETS: usize = 4096;
/// Packets in one frame. More would gain nothing, and a kernel takes at most 1,024 pieces.
const SEGMENTS: usize = 64;
/// Frames that may still grow at the same time. More streams than that gain less.
const OPEN: usize = 16;

/// Packets for the host, in the order in which they came within each stream. Allocated once and
/// reused; what does not fit is lost, as on a network, and counted.
#[derive(Debug)]
pub(crate) struct Hostbound {
    bytes: Vec<u8>,
    used: usize,
    reserved: usize,
    frames: Vec<Waiting>,
    /// Payloads behind the first packet of each frame.
    tails: Vec<Tail>,
    /// Frames before this one do not grow any more.
    open_from: usize,
    offload: Offload,
    lost: u64,
}

/// A frame that waits to be written.
#[derive(Debug)]
struct Waiting {
    /// Its first packet.
    packet: Range<usize>,
    /// Absent when nothing may be joined to it.
    aggregate: Option<Aggregate>,
    /// The first and the last of its tails.
    tails: Option<(usize, usize)>,
    count: usize,
}

#[derive(Debug)]
struct Tail {
    payload: Range<usize>,
    next: Option<usize>,
}

impl Hostbound {
    /// Makes an empty one for a device that takes `offload`.
    #[must_use]
    pub(crate) fn new(offload: Offload) -> Self {
        Self {
            bytes: vec![0; BYTES + PACKET],
            used: 0,
            reserved: 0,
            frames: Vec::new(),
            tails: Vec::new(),
            open_from: 0,
            offload,
            lost: 0,
        }
    }

    /// Gives `max_length` bytes to write a packet into, at most 65,567; [`Hostbound::commit`] then
    /// adds it.
    pub(crate) fn reserve(&mut self, max_length: usize) -> &mut [u8] {
        self.reserved = max_length.min(PACKET);
        self.bytes.get_mut(self.used..self.used + self.reserved).unwrap_or_default()
    }

    /// Adds the first `length` bytes of what was reserved, an IP packet of exactly that length. A
    /// longer length is cut, 0 adds nothing.
    pub(crate) fn commit(&mut self, length: usize) {
        let length = length.min(self.reserved);
        self.reserved = 0;
        if length == 0 {
            return;
        }
        if self.used + length > BYTES || self.frames.len() + self.tails.len() >= PACKETS {
            self.lost += 1;
            return;
        }
        let packet = self.used..self.used + length;
        self.used += length;
        self.add(packet);
    }

    /// Adds a packet.
    #[cfg(test)]
    pub(crate) fn push(&mut self, packet: &[u8]) {
        let place = self.reserve(packet.len());
        if let Some(fitting) = packet.get(..place.len()) {
            place.copy_from_slice(fitting);
        }
        self.commit(packet.len());
    }

    /// Whether nothing waits.
    #[must_use]
    pub(crate) const fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether it is time to write: another packet might not fit.
    #[must_use]
    pub(crate) const fn is_full(&self) -> bool {
        self.used + PACKET > BYTES || self.frames.len() + self.tails.len() + 8 > PACKETS
    }

    /// Packets that were lost, for want of room or because the host did not take them.
    #[must_use]
    pub(crate) const fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether packets are still joined, and which.
    #[cfg(test)]
    pub(crate) const fn offload(&self) -> Offload {
        self.offload
    }

    /// Writes everything to `device` and is empty then. A packet that the host does not take is
    /// lost; an error of the device comes back, and what was not written yet is lost.
    ///
    /// A host that refuses a joined frame (Linux e269d79c7d35, in some stable kernels of 2024) has
    /// its packets one by one, and none is joined from then on.
    pub(crate) fn write_to(&mut self, device: &mut impl Device) -> io::Result<()> {
        let result = self.flush(|frame| device.write(frame));
        self.used = 0;
        self.reserved = 0;
        self.open_from = 0;
        self.frames.clear();
        self.tails.clear();
        result
    }

    fn flush(&mut self, mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<()>) -> io::Result<()> {
        for index in 0..self.frames.len() {
            let frame = self.finish(index);
            let Err(error) = self.write_frame(index, frame, &mut write) else { continue };
            if error.kind() == io::ErrorKind::InvalidInput && frame != Frame::default() {
                self.offload = Offload::Nothing;
                self.write_apart(index, frame, &mut write)?;
            } else if is_of_packet(&error) {
                self.lost += self.count(index..index + 1);
            } else {
                self.lost += self.count(index..self.frames.len());
                return Err(error);
            }
        }
        Ok(())
    }

    /// How many packets some frames stand for.
    fn count(&self, frames: Range<usize>) -> u64 {
        let frames = self.frames.get(frames).unwrap_or_default();
        frames.iter().map(|frame| frame.count as u64).sum()
    }

    /// Makes the headers of a frame fit what was joined to it.
    fn finish(&mut self, index: usize) -> Frame {
        let Some(waiting) = self.frames.get(index).filter(|waiting| waiting.count > 1) else {
            return Frame::default();
        };
        let packet = self.bytes.get_mut(waiting.packet.clone()).unwrap_or_default();
        waiting.aggregate.as_ref().and_then(|joined| joined.finish(packet)).unwrap_or_default()
    }

    fn write_frame(
        &self,
        index: usize,
        frame: Frame,
        write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<()>,
    ) -> io::Result<()> {
        let headers = self.frames.get(index).and_then(|waiting| waiting.aggregate.as_ref());
        let header = frame.to_bytes(headers.map_or(0, Aggregate::headers));
        let mut pieces = [IoSlice::new(&[]); SEGMENTS + 1];
        let contents = std::iter::once(header.as_slice()).chain(self.pieces(index));
        let mut count = 0;
        for (piece, bytes) in pieces.iter_mut().zip(contents) {
            *piece = IoSlice::new(bytes);
            count += 1;
        }
        write(pieces.get(..count).unwrap_or_default())
    }

    /// The first packet of a frame, and the payloads that are joined to it.
    fn pieces(&self, index: usize) -> impl Iterator<Item = &[u8]> {
        let waiting = self.frames.get(index);
        let first = waiting.map(|waiting| waiting.packet.clone());
        let tail = waiting.and_then(|waiting| waiting.tails).map(|(first, _)| first);
        let tails = std::iter::successors(tail.and_then(|at| self.tails.get(at)), |tail| {
            tail.next.and_then(|at| self.tails.get(at))
        });
        first
            .into_iter()
            .chain(tails.map(|tail| tail.payload.clone()))
            .map(|range| self.bytes.get(range).unwrap_or_default())
    }

    /// Writes the packets of a frame that the host has refused.
    fn write_apart(
        &mut self,
        index: usize,
        frame: Frame,
        write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut whole: Vec<u8> = Vec::with_capacity(FRAME);
        self.pieces(index).for_each(|piece| whole.extend_from_slice(piece));
        let (mut lost, mut result) = (0, Ok(()));
        let segmented = segment(frame, &mut whole, |packet| {
            match write(&[IoSlice::new(&[0; HEADER]), IoSlice::new(packet)]) {
                Ok(()) => {}
                Err(error) if is_of_packet(&error) => lost += 1,
                Err(error) => result = Err(error),
            }
        });
        debug_assert!(segmented.is_ok(), "what was joined comes apart");
        self.lost += lost;
        result
    }

    /// Joins a packet that lies in the buffer to a frame, or makes it one.
    fn add(&mut self, packet: Range<usize>) {
        let bytes = self.bytes.get(packet.clone()).unwrap_or_default();
        let Some(new) = Aggregate::of(bytes, self.offload) else {
            self.frames.push(Waiting { packet, aggregate: None, tails: None, count: 1 });
            self.open_from = self.frames.len();
            return;
        };
        let open = self.frames.iter_mut().skip(self.open_from).rev().take(OPEN);
        for waiting in open {
            let Some(aggregate) = &mut waiting.aggregate else { continue };
            let first = self.bytes.get(waiting.packet.clone()).unwrap_or_default();
            if !aggregate.is_same_stream(first, bytes, &new) {
                continue;
            }
            if waiting.count < SEGMENTS && aggregate.join(first, bytes, &new) {
                let payload = packet.start + usize::from(new.headers())..packet.end;
                let at = self.tails.len();
                if let Some((_, last)) = waiting.tails
                    && let Some(last) = self.tails.get_mut(last)
                {
                    last.next = Some(at);
                }
                self.tails.push(Tail { payload, next: None });
                waiting.tails = Some((waiting.tails.map_or(at, |(first, _)| first), at));
                waiting.count += 1;
                return;
            }
            // What comes now comes behind: an earlier frame must not take it.
            break;
        }
        self.frames.push(Waiting { packet, aggregate: Some(new), tails: None, count: 1 });
    }
}

/// Whether an error concerns one packet and not the device.
fn is_of_packet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::WouldBlock)
}
