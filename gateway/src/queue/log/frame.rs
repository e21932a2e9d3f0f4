//! Frames: the form of a record in a segment, and how records behind damaged bytes are found. Pure.
//!
//! A segment begins with 16 bytes: magic bytes, the version of the format, and their checksum.
//! Frames follow, each at a multiple of 4 bytes:
//!
//! | bytes | content |
//! |---|---|
//! | 2 | magic bytes |
//! | 1 | kind |
//! | 1 | 0 |
//! | 4 | length of the payload, little endian |
//! | 4 | CRC-32C over segment number, run, offset, kind, length and payload |
//! | n | payload, then zeros up to a multiple of 4 |
//!
//! The segment number in the checksum invalidates what a recycled file held before. The run makes
//! sure that numbers of topics are read with the table they were written with, and the offset that
//! a frame is valid in its own place only.

use super::bytes::ByteReader;
use crate::queue::to_u64;

/// Bytes before the first frame.
pub(super) const HEADER_LEN: usize = 16;
/// Bytes before a payload.
pub(super) const FRAME_LEN: usize = 12;
/// Version of the format that this version writes.
pub(super) const VERSION: u32 = 1;
/// A frame begins at a multiple of this.
const FRAME_ALIGN: usize = 4;
const FILE_MARK: [u8; 8] = *b"EDGEQLOG";
const FRAME_MARK: [u8; 2] = [0xE9, 0x67];

/// What a frame holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FrameKind {
    /// The run that writes, its epoch and its table of topics. Its checksum is without a run.
    Context,
    /// The state of the whole log.
    Checkpoint,
    /// Names of one PLC and its tags.
    Names,
    /// Telemetry.
    Record,
    /// An event or a reply.
    Message,
    /// Ids that are delivered or dropped.
    Settled,
    /// Numbers that will never be delivered and that no event in the log announces.
    Lost,
    /// A clean shutdown.
    Stop,
}

/// What the checksum of a frame includes in addition to the frame: with it, no frame of another
/// segment or run is accepted in a file that is used again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Salt {
    pub(super) segment: u64,
    pub(super) run: u64,
}

/// A frame in a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogFrame<'a> {
    pub(super) kind: FrameKind,
    pub(super) start: usize,
    pub(super) payload: &'a [u8],
}

/// What the first bytes of a segment state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FileHeader {
    /// A version that this one can read; or they are damaged, and then the frames decide.
    Readable,
    /// A newer version.
    Newer(u32),
}

impl FrameKind {
    const ALL: [Self; 8] = [
        Self::Context,
        Self::Checkpoint,
        Self::Names,
        Self::Record,
        Self::Message,
        Self::Settled,
        Self::Lost,
        Self::Stop,
    ];

    const fn code(self) -> u8 {
        self as u8 + 1
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code.checked_sub(1)?)).copied()
    }
}

impl LogFrame<'_> {
    /// Returns the offset of the first byte behind it.
    pub(super) const fn end(&self) -> usize {
        self.start + frame_len(self.payload.len())
    }

    /// Returns the bytes that it takes.
    pub(super) fn len(&self) -> u64 {
        to_u64(frame_len(self.payload.len()))
    }
}

/// Returns the bytes that the frame of a payload of this length takes.
pub(super) const fn frame_len(payload: usize) -> usize {
    (FRAME_LEN + payload).next_multiple_of(FRAME_ALIGN)
}

pub(super) fn header() -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    let parts = FILE_MARK.into_iter().chain(VERSION.to_le_bytes());
    bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
    let sum = crc32c::crc32c(bytes.get(..12).unwrap_or_default()).to_le_bytes();
    bytes.iter_mut().skip(12).zip(sum).for_each(|(byte, part)| *byte = part);
    bytes
}

pub(super) fn read_header(bytes: &[u8]) -> FileHeader {
    let mut reader = ByteReader(bytes);
    let (Some(mark), Some(version), Some(sum)) =
        (reader.array::<8>(), reader.array(), reader.array())
    else {
        return FileHeader::Readable;
    };
    let version = u32::from_le_bytes(version);
    let is_whole = u32::from_le_bytes(sum) == crc32c::crc32c(bytes.get(..12).unwrap_or_default());
    if mark == FILE_MARK && is_whole && version > VERSION {
        return FileHeader::Newer(version);
    }
    FileHeader::Readable
}

/// Appends a frame to `out`, whose first byte is at offset `base` of the segment.
pub(super) fn put(
    out: &mut Vec<u8>,
    base: u64,
    salt: Salt,
    kind: FrameKind,
    write: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_LEN]);
    write(out);
    let payload = out.get(start + FRAME_LEN..).unwrap_or_default();
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let sum = checksum(salt, base + to_u64(start), kind, payload);
    let head = FRAME_MARK
        .into_iter()
        .chain([kind.code(), 0])
        .chain(len.to_le_bytes())
        .chain(sum.to_le_bytes());
    out.iter_mut().skip(start).zip(head).for_each(|(byte, part)| *byte = part);
    out.resize(out.len().next_multiple_of(FRAME_ALIGN), 0);
}

fn checksum(salt: Salt, at: u64, kind: FrameKind, payload: &[u8]) -> u32 {
    // The context states the run, so that its own checksum cannot depend on it.
    let run = if kind == FrameKind::Context { 0 } else { salt.run };
    let mut sum = u32::from(kind.code());
    for part in [salt.segment, run, at, to_u64(payload.len())] {
        sum = crc32c::crc32c_append(sum, &part.to_le_bytes());
    }
    crc32c::crc32c_append(sum, payload)
}

/// Every valid frame of a segment, in order; bytes between them are skipped.
#[derive(Clone, Debug)]
pub(super) struct LogFrames<'a> {
    bytes: &'a [u8],
    at: usize,
    salt: Salt,
}

impl<'a> LogFrames<'a> {
    pub(super) const fn new(bytes: &'a [u8], salt: Salt) -> Self {
        Self { bytes, at: HEADER_LEN, salt }
    }

    fn frame(&self, at: usize) -> Option<LogFrame<'a>> {
        let (frame, sum) = frame(self.bytes, at)?;
        (checksum(self.salt, to_u64(at), frame.kind, frame.payload) == sum).then_some(frame)
    }
}

/// Returns a frame that was found at this offset before, without checking it again.
pub(super) fn frame_at(bytes: &[u8], at: usize) -> Option<LogFrame<'_>> {
    frame(bytes, at).map(|(frame, _)| frame)
}

/// Returns what may be a frame, and the checksum that it states.
fn frame(bytes: &[u8], at: usize) -> Option<(LogFrame<'_>, u32)> {
    let mut reader = ByteReader(bytes.get(at..)?);
    if reader.array()? != FRAME_MARK {
        return None;
    }
    let kind = FrameKind::from_code(reader.byte()?)?;
    if reader.byte()? != 0 {
        return None;
    }
    // A tail that a power cut has truncated is shorter than this: then `take` returns `None`.
    let len = usize::try_from(u32::from_le_bytes(reader.array()?)).ok()?;
    let sum = u32::from_le_bytes(reader.array()?);
    Some((LogFrame { kind, start: at, payload: reader.take(len)? }, sum))
}

impl<'a> Iterator for LogFrames<'a> {
    type Item = LogFrame<'a>;

    fn next(&mut self) -> Option<LogFrame<'a>> {
        loop {
            let rest = self.bytes.get(self.at..)?;
            // Skips zeros fast: nearly all bytes without a frame are zeros.
            self.at += FRAME_ALIGN
                * rest
                    .chunks_exact(FRAME_ALIGN)
                    .position(|bytes| bytes.starts_with(&FRAME_MARK))?;
            if let Some(frame) = self.frame(self.at) {
                self.at = frame.end();
                return Some(frame);
            }
            // Torn, damaged or of another segment. Its length cannot be trusted, so the search
            // continues at the next place where a frame may begin.
            self.at += FRAME_ALIGN;
        }
    }
}
