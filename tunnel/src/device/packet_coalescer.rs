//! Packets for the host, joined where they follow each other, so that it takes many at once.

mod flow;
#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::ops::Range;

use super::frame::{MAX_FRAME_LEN, VNET_HEADER_LEN, VnetHeader};
use super::segment::segment;
use super::{Device, Offload};
use crate::packet_buffer::PacketSink;
use flow::CoalescedPacket;

/// Room for packets: all that one inbox of the path may hold.
const CAPACITY_BYTES: usize = 256 * 1024;
/// Longest packet, and what decrypting it needs behind it.
const MAX_PACKET_LEN: usize = u16::MAX as usize + 32;
/// Packets that wait at most: as many of the shortest useful length as fit, about.
const MAX_PACKETS: usize = 4096;
/// Packets in one frame. More would gain nothing, and a kernel takes at most 1,024 pieces.
const MAX_SEGMENTS: usize = 64;
/// Frames that may still grow at the same time. More streams than that gain less.
const MAX_OPEN_FRAMES: usize = 16;

/// Packets for the host, in the order in which they came within each stream. Allocated once and
/// reused; what does not fit is lost, as on a network, and counted.
#[derive(Debug)]
pub(crate) struct PacketCoalescer {
    bytes: Vec<u8>,
    used: usize,
    reserved: usize,
    frames: Vec<PendingFrame>,
    /// Payloads behind the first packet of each frame.
    tails: Vec<JoinedPayload>,
    /// Frames before this one do not grow any more.
    first_open: usize,
    offload: Offload,
    dropped: u64,
}

/// A frame that waits to be written.
#[derive(Debug)]
struct PendingFrame {
    /// Its first packet.
    packet: Range<usize>,
    /// Absent when nothing may be joined to it.
    aggregate: Option<CoalescedPacket>,
    /// The first and the last of its tails.
    tails: Option<(usize, usize)>,
    count: usize,
}

#[derive(Debug)]
struct JoinedPayload {
    payload: Range<usize>,
    next: Option<usize>,
}

impl PacketCoalescer {
    /// Makes an empty one for a device that takes `offload`.
    #[must_use]
    pub(crate) fn new(offload: Offload) -> Self {
        Self {
            bytes: vec![0; CAPACITY_BYTES + MAX_PACKET_LEN],
            used: 0,
            reserved: 0,
            frames: Vec::new(),
            tails: Vec::new(),
            first_open: 0,
            offload,
            dropped: 0,
        }
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
        self.used + MAX_PACKET_LEN > CAPACITY_BYTES
            || self.frames.len() + self.tails.len() + 8 > MAX_PACKETS
    }

    /// Packets that were lost, for want of room or because the host did not take them.
    #[must_use]
    pub(crate) const fn dropped(&self) -> u64 {
        self.dropped
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
        self.first_open = 0;
        self.frames.clear();
        self.tails.clear();
        result
    }

    fn flush(&mut self, mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<()>) -> io::Result<()> {
        for index in 0..self.frames.len() {
            let frame = self.finish_headers(index);
            let Err(error) = self.write_frame(index, frame, &mut write) else { continue };
            if error.kind() == io::ErrorKind::InvalidInput && frame != VnetHeader::default() {
                self.offload = Offload::Nothing;
                self.write_separately(index, frame, &mut write)?;
            } else if is_packet_error(&error) {
                self.dropped += self.packet_count(index..index + 1);
            } else {
                self.dropped += self.packet_count(index..self.frames.len());
                return Err(error);
            }
        }
        Ok(())
    }

    /// How many packets some frames stand for.
    fn packet_count(&self, frames: Range<usize>) -> u64 {
        let frames = self.frames.get(frames).unwrap_or_default();
        frames.iter().map(|frame| frame.count as u64).sum()
    }

    /// Makes the headers of a frame fit what was joined to it.
    fn finish_headers(&mut self, index: usize) -> VnetHeader {
        let Some(waiting) = self.frames.get(index).filter(|waiting| waiting.count > 1) else {
            return VnetHeader::default();
        };
        let packet = self.bytes.get_mut(waiting.packet.clone()).unwrap_or_default();
        waiting.aggregate.as_ref().and_then(|joined| joined.finish(packet)).unwrap_or_default()
    }

    fn write_frame(
        &self,
        index: usize,
        frame: VnetHeader,
        write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<()>,
    ) -> io::Result<()> {
        let headers = self.frames.get(index).and_then(|waiting| waiting.aggregate.as_ref());
        let header = frame.to_bytes(headers.map_or(0, CoalescedPacket::headers));
        let mut pieces = [IoSlice::new(&[]); MAX_SEGMENTS + 1];
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
    fn write_separately(
        &mut self,
        index: usize,
        frame: VnetHeader,
        write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut whole: Vec<u8> = Vec::with_capacity(MAX_FRAME_LEN);
        self.pieces(index).for_each(|piece| whole.extend_from_slice(piece));
        let (mut lost, mut result) = (0, Ok(()));
        let segmented = segment(frame, &mut whole, |packet| {
            match write(&[IoSlice::new(&[0; VNET_HEADER_LEN]), IoSlice::new(packet)]) {
                Ok(()) => {}
                Err(error) if is_packet_error(&error) => lost += 1,
                Err(error) => result = Err(error),
            }
        });
        debug_assert!(segmented.is_ok(), "what was joined comes apart");
        self.dropped += lost;
        result
    }

    /// Joins a packet that lies in the buffer to a frame, or makes it one.
    fn coalesce(&mut self, packet: Range<usize>) {
        let bytes = self.bytes.get(packet.clone()).unwrap_or_default();
        let Some(new) = CoalescedPacket::new(bytes, self.offload) else {
            self.frames.push(PendingFrame { packet, aggregate: None, tails: None, count: 1 });
            self.first_open = self.frames.len();
            return;
        };
        let open = self.frames.iter_mut().skip(self.first_open).rev().take(MAX_OPEN_FRAMES);
        for waiting in open {
            let Some(aggregate) = &mut waiting.aggregate else { continue };
            let first = self.bytes.get(waiting.packet.clone()).unwrap_or_default();
            if !aggregate.is_same_flow(first, bytes, &new) {
                continue;
            }
            if waiting.count < MAX_SEGMENTS && aggregate.try_append(first, bytes, &new) {
                let payload = packet.start + usize::from(new.headers())..packet.end;
                let at = self.tails.len();
                if let Some((_, last)) = waiting.tails
                    && let Some(last) = self.tails.get_mut(last)
                {
                    last.next = Some(at);
                }
                self.tails.push(JoinedPayload { payload, next: None });
                waiting.tails = Some((waiting.tails.map_or(at, |(first, _)| first), at));
                waiting.count += 1;
                return;
            }
            // What comes now comes behind: an earlier frame must not take it.
            break;
        }
        self.frames.push(PendingFrame { packet, aggregate: Some(new), tails: None, count: 1 });
    }
}

impl PacketSink for PacketCoalescer {
    fn reserve(&mut self, max_length: usize) -> &mut [u8] {
        self.reserved = max_length.min(MAX_PACKET_LEN);
        self.bytes.get_mut(self.used..self.used + self.reserved).unwrap_or_default()
    }

    fn commit(&mut self, length: usize) {
        let length = length.min(self.reserved);
        self.reserved = 0;
        if length == 0 {
            return;
        }
        if self.used + length > CAPACITY_BYTES
            || self.frames.len() + self.tails.len() >= MAX_PACKETS
        {
            self.dropped += 1;
            return;
        }
        let packet = self.used..self.used + length;
        self.used += length;
        self.coalesce(packet);
    }
}

/// Whether an error concerns one packet and not the device.
fn is_packet_error(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::WouldBlock)
}
