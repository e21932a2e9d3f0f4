//! Joins packets for the host that follow each other (GRO), so that it takes many at once.

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

/// Capacity for packets: everything that one [`RecvBatch`](crate::RecvBatch) may hold.
const CAPACITY_BYTES: usize = 256 * 1024;
/// Longest packet, with the padding that decryption leaves behind it.
const MAX_PACKET_LEN: usize = u16::MAX as usize + 32;
/// Packets that may wait; about as many of the shortest useful length as fit.
const MAX_PACKETS: usize = 4096;
/// Packets in one frame. More would gain nothing, and the kernel takes at most 1,024 pieces.
const MAX_SEGMENTS: usize = 64;
/// Frames that may grow at the same time. More streams than that gain less.
const MAX_OPEN_FRAMES: usize = 16;

/// Packets for the host, in order of arrival within each flow. The buffer is reused; packets that
/// do not fit are dropped, as on a network, and counted.
#[derive(Debug)]
pub(crate) struct PacketCoalescer {
    bytes: Vec<u8>,
    used: usize,
    reserved: usize,
    frames: Vec<PendingFrame>,
    /// Payloads after the first packet of each frame.
    joined: Vec<JoinedPayload>,
    /// Frames before this one are complete.
    first_open: usize,
    offload: Offload,
    dropped: u64,
}

/// A frame that waits to be written.
#[derive(Debug)]
struct PendingFrame {
    /// Its first packet.
    packet: Range<usize>,
    /// `None` if nothing may be joined to it.
    aggregate: Option<CoalescedPacket>,
    /// Index of the first and of the last joined payload.
    joined: Option<(usize, usize)>,
    count: usize,
}

#[derive(Debug)]
struct JoinedPayload {
    payload: Range<usize>,
    next: Option<usize>,
}

impl PacketCoalescer {
    /// Creates an empty one for a device with this offload.
    #[must_use]
    pub(crate) fn new(offload: Offload) -> Self {
        Self {
            bytes: Vec::new(),
            used: 0,
            reserved: 0,
            frames: Vec::new(),
            joined: Vec::new(),
            first_open: 0,
            offload,
            dropped: 0,
        }
    }

    /// Adds a packet.
    #[cfg(test)]
    pub(crate) fn push(&mut self, packet: &[u8]) {
        let buffer = self.reserve(packet.len());
        if let Some(fitting) = packet.get(..buffer.len()) {
            buffer.copy_from_slice(fitting);
        }
        self.commit(packet.len());
    }

    /// Returns whether no packet waits.
    #[must_use]
    pub(crate) const fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Returns whether it must be written: another packet might not fit.
    #[must_use]
    pub(crate) const fn is_full(&self) -> bool {
        self.used + MAX_PACKET_LEN > CAPACITY_BYTES
            || self.frames.len() + self.joined.len() + 8 > MAX_PACKETS
    }

    /// Returns the number of packets dropped because a buffer was full or the host rejected them.
    #[must_use]
    pub(crate) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns the offload that is still in use.
    #[cfg(test)]
    pub(crate) const fn offload(&self) -> Offload {
        self.offload
    }

    /// Writes everything to `device`. A packet that the host rejects is dropped. If the device
    /// fails, the rest is dropped and the error is returned.
    ///
    /// If the host rejects a joined frame (Linux e269d79c7d35, in some stable kernels of 2024), its
    /// packets are written one by one, and no more are joined.
    pub(crate) fn write_to(&mut self, device: &mut impl Device) -> io::Result<()> {
        let result = self.flush(|frame| device.write(frame));
        self.used = 0;
        self.reserved = 0;
        self.first_open = 0;
        self.frames.clear();
        self.joined.clear();
        result
    }

    fn flush(&mut self, mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<()>) -> io::Result<()> {
        for index in 0..self.frames.len() {
            let frame = self.finish_headers(index);
            let Err(error) = self.write_frame(index, frame, &mut write) else { continue };
            if error.kind() == io::ErrorKind::InvalidInput && frame != VnetHeader::default() {
                // The kernel will reject further ones too, and each costs a failed call.
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

    /// Returns the number of packets in some frames.
    fn packet_count(&self, frames: Range<usize>) -> u64 {
        let frames = self.frames.get(frames).unwrap_or_default();
        frames.iter().map(|frame| frame.count as u64).sum()
    }

    /// Adapts the headers of a frame to the joined payloads.
    fn finish_headers(&mut self, index: usize) -> VnetHeader {
        let Some(frame) = self.frames.get(index).filter(|frame| frame.count > 1) else {
            return VnetHeader::default();
        };
        let packet = self.bytes.get_mut(frame.packet.clone()).unwrap_or_default();
        frame.aggregate.as_ref().and_then(|joined| joined.finish(packet)).unwrap_or_default()
    }

    fn write_frame(
        &self,
        index: usize,
        frame: VnetHeader,
        write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<()>,
    ) -> io::Result<()> {
        let headers = self.frames.get(index).and_then(|frame| frame.aggregate.as_ref());
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

    /// Returns the first packet of a frame and the joined payloads.
    fn pieces(&self, index: usize) -> impl Iterator<Item = &[u8]> {
        let frame = self.frames.get(index);
        let first = frame.map(|frame| frame.packet.clone());
        let payload = frame.and_then(|frame| frame.joined).map(|(first, _)| first);
        let joined = std::iter::successors(payload.and_then(|at| self.joined.get(at)), |payload| {
            payload.next.and_then(|at| self.joined.get(at))
        });
        first
            .into_iter()
            .chain(joined.map(|payload| payload.payload.clone()))
            .map(|range| self.bytes.get(range).unwrap_or_default())
    }

    /// Writes the packets of a rejected frame one by one.
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
        debug_assert!(segmented.is_ok(), "a joined frame can be split");
        self.dropped += lost;
        result
    }

    /// Joins a packet in the buffer to a frame, or starts a frame with it.
    fn coalesce(&mut self, packet: Range<usize>) {
        let bytes = self.bytes.get(packet.clone()).unwrap_or_default();
        let Some(new) = CoalescedPacket::new(bytes, self.offload) else {
            self.frames.push(PendingFrame { packet, aggregate: None, joined: None, count: 1 });
            self.first_open = self.frames.len();
            return;
        };
        let open = self.frames.iter_mut().skip(self.first_open).rev().take(MAX_OPEN_FRAMES);
        for frame in open {
            let Some(aggregate) = &mut frame.aggregate else { continue };
            let first = self.bytes.get(frame.packet.clone()).unwrap_or_default();
            if !aggregate.is_same_flow(first, bytes, &new) {
                continue;
            }
            if frame.count < MAX_SEGMENTS && aggregate.try_append(first, bytes, &new) {
                let payload = packet.start + usize::from(new.headers())..packet.end;
                let at = self.joined.len();
                if let Some((_, last)) = frame.joined
                    && let Some(last) = self.joined.get_mut(last)
                {
                    last.next = Some(at);
                }
                self.joined.push(JoinedPayload { payload, next: None });
                frame.joined = Some((frame.joined.map_or(at, |(first, _)| first), at));
                frame.count += 1;
                return;
            }
            // An earlier frame of the flow must not take it, or packets would be reordered.
            break;
        }
        self.frames.push(PendingFrame { packet, aggregate: Some(new), joined: None, count: 1 });
    }
}

impl PacketSink for PacketCoalescer {
    fn reserve(&mut self, max_length: usize) -> &mut [u8] {
        self.reserved = max_length.min(MAX_PACKET_LEN);
        // It grows to what the traffic needs: an allocator may touch every zero of a large buffer.
        if self.bytes.len() < self.used + self.reserved {
            self.bytes.resize(self.used + self.reserved, 0);
        }
        self.bytes.get_mut(self.used..self.used + self.reserved).unwrap_or_default()
    }

    fn commit(&mut self, length: usize) {
        let length = length.min(self.reserved);
        self.reserved = 0;
        if length == 0 {
            return;
        }
        if self.used + length > CAPACITY_BYTES
            || self.frames.len() + self.joined.len() >= MAX_PACKETS
        {
            self.dropped += 1;
            return;
        }
        let packet = self.used..self.used + length;
        self.used += length;
        self.coalesce(packet);
    }
}

/// Returns whether an error concerns one packet and not the device.
fn is_packet_error(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::WouldBlock)
}
