//! The segment being written: frames in a buffer, and the names and the context between them.

use std::sync::Arc;

use super::AppendError;
use super::checkpoint::{ChainSeq, RunContext};
use super::entry_codec::{self, EntryHeader};
use super::file_ops::{FileOp, FileSlot};
use super::frame::{self, FrameKind, Salt, frame_len};
use super::segment::Segment;
use crate::queue::{ConfigNames, Entry, TopicId, to_u64};

/// Names and context are repeated every 256 KiB, so that entries behind a damaged copy can still be
/// decoded.
const CONTEXT_REPEAT_BYTES: u64 = 256 << 10;
/// A buffer of this length is handed to the operating system.
const BUFFER_BYTES: usize = 64 << 10;

/// An entry to append.
#[derive(Clone, Copy, Debug)]
pub(in crate::queue) struct NewEntry<'a> {
    pub(in crate::queue) id: u64,
    pub(in crate::queue) topic: TopicId,
    pub(in crate::queue) seq: u64,
    pub(in crate::queue) epoch: &'a str,
    pub(in crate::queue) entry: &'a Entry,
}

/// Appends frames to the newest segment.
#[derive(Debug)]
pub(super) struct Writer<F> {
    names: ConfigNames,
    context: RunContext,
    chain_seq: ChainSeq,
    /// The segment being written; `None` while the storage fails.
    tail: Option<Tail<F>>,
    /// Bytes appended in this run, through all segments.
    position: u64,
}

#[derive(Debug)]
struct Tail<F> {
    file: FileSlot<F>,
    number: u64,
    size: u64,
    /// Offset of the first byte of the buffer.
    flushed_bytes: u64,
    buffer: Vec<u8>,
    /// PLCs whose names were written since the last context.
    declared_plcs: Vec<u16>,
    /// Offset from which on the context is written again.
    repeat_at: u64,
    space: TailSpace,
}

/// Where the segment being written takes its space from.
#[derive(Clone, Copy, Debug)]
pub(super) struct TailSpace {
    /// The file has its full length already, so that it does not grow.
    pub(super) is_allocated: bool,
    /// It was begun for the log's own records when there was no room for data.
    pub(super) is_reserve: bool,
}

/// A segment that is written no more, and may not be durable.
#[derive(Debug)]
pub(super) struct Unsynced<F> {
    pub(super) file: FileSlot<F>,
    pub(super) number: u64,
    /// Position of its first byte.
    pub(super) start: u64,
    /// Position behind its last byte.
    pub(super) end: u64,
}

impl<F> Writer<F> {
    pub(super) const fn new(names: ConfigNames, context: RunContext, chain_seq: ChainSeq) -> Self {
        Self { names, context, chain_seq, tail: None, position: 0 }
    }

    pub(super) const fn names(&self) -> &ConfigNames {
        &self.names
    }

    pub(super) const fn context(&self) -> &RunContext {
        &self.context
    }

    pub(super) const fn chain_seq(&self) -> ChainSeq {
        self.chain_seq
    }

    /// Returns the end of what was appended, as a position in the log.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    pub(super) const fn is_open(&self) -> bool {
        self.tail.is_some()
    }

    /// Returns the file and the number of the segment being written.
    pub(super) fn file(&self) -> Option<(&FileSlot<F>, u64)> {
        self.tail.as_ref().map(|tail| (&tail.file, tail.number))
    }

    /// Returns whether the segment being written was begun in the reserve.
    pub(super) fn is_reserve(&self) -> bool {
        self.tail.as_ref().is_some_and(|tail| tail.space.is_reserve)
    }

    /// Returns whether the file being written does not grow.
    pub(super) fn is_allocated(&self) -> bool {
        self.tail.as_ref().is_some_and(|tail| tail.space.is_allocated)
    }

    /// Returns how many bytes fit into the segment being written, if its last `margin` bytes stay
    /// free and its file may grow by `growth` bytes.
    pub(super) fn room(&self, margin: u64, growth: u64) -> u64 {
        let Some(tail) = &self.tail else { return 0 };
        let in_file = tail.size.saturating_sub(margin + tail.end());
        match tail.space.is_allocated {
            true => in_file,
            false => in_file.min(growth.saturating_sub(to_u64(tail.buffer.len()))),
        }
    }

    /// Returns whether half of the segment being written is used.
    pub(super) fn is_half_full(&self) -> bool {
        self.tail.as_ref().is_some_and(|tail| tail.end() * 2 >= tail.size)
    }

    /// Returns the position up to which everything was flushed.
    pub(super) fn flushed_position(&self) -> u64 {
        self.position - self.tail.as_ref().map_or(0, |tail| to_u64(tail.buffer.len()))
    }

    /// Returns how many bytes of context and names an entry needs in front of it, at most.
    pub(super) fn declaration_len(&self, entry: &Entry) -> u64 {
        let context = if self.needs_context() { self.context_len() } else { 0 };
        let Entry::Record(record) = entry else { return context };
        let plc = self.names.plcs.get(usize::from(record.plc));
        context
            + plc.map_or(0, |plc| {
                let tags = plc.tags.iter().map(|tag| tag.len() + 5).sum::<usize>();
                to_u64(frame_len(tags + plc.name.len() + 16))
            })
    }

    fn needs_context(&self) -> bool {
        self.tail.as_ref().is_some_and(|tail| tail.end() >= tail.repeat_at)
    }

    fn context_len(&self) -> u64 {
        let mut payload = Vec::new();
        self.context.put(&mut payload);
        to_u64(frame_len(payload.len()))
    }

    /// Appends the context and the names that an entry needs in front of it.
    pub(super) fn declare(&mut self, entry: &Entry) -> Result<(), AppendError> {
        if self.needs_context() {
            self.append(FrameKind::Context, |context, out| context.put(out))?;
            if let Some(tail) = &mut self.tail {
                tail.declared_plcs.clear();
                tail.repeat_at = tail.end() + CONTEXT_REPEAT_BYTES;
            }
        }
        let (Entry::Record(record), Some(tail)) = (entry, &mut self.tail) else { return Ok(()) };
        let plc = self.names.plcs.get(usize::from(record.plc));
        let Some(plc) = plc.filter(|_| !tail.declared_plcs.contains(&record.plc)) else {
            return Ok(());
        };
        tail.declared_plcs.push(record.plc);
        self.position += tail.put(self.context.run, FrameKind::Names, |out| {
            entry_codec::put_names(out, record.plc, plc);
        });
        Ok(())
    }

    /// Returns the payload of an entry; [`Writer::append_chained`] takes it.
    pub(super) fn encode(&self, new: &NewEntry<'_>) -> Vec<u8> {
        let header = EntryHeader {
            id: new.id,
            chain_seq: self.chain_seq,
            topic: new.topic.number(),
            seq: new.seq,
        };
        let mut payload = Vec::with_capacity(256);
        entry_codec::put_entry(&mut payload, header, new.epoch, new.entry);
        payload
    }

    /// Appends an entry or a loss, which carries the next number of the chain.
    pub(super) fn append_chained(
        &mut self,
        kind: FrameKind,
        payload: &[u8],
    ) -> Result<(), AppendError> {
        self.append(kind, |_, out| out.extend_from_slice(payload))?;
        // After the frame: a number that was given to nothing would look like a lost frame.
        self.chain_seq = self.chain_seq.next();
        Ok(())
    }

    /// Appends a frame to the buffer.
    pub(super) fn append(
        &mut self,
        kind: FrameKind,
        write: impl FnOnce(&RunContext, &mut Vec<u8>),
    ) -> Result<(), AppendError> {
        let Some(tail) = &mut self.tail else { return Err(super::storage_unusable()) };
        self.position += tail.put(self.context.run, kind, |out| write(&self.context, out));
        Ok(())
    }

    /// Returns whether the buffer is long enough to be flushed.
    pub(super) fn is_buffer_full(&self) -> bool {
        self.tail.as_ref().is_some_and(|tail| tail.buffer.len() >= BUFFER_BYTES)
    }

    /// Takes the buffer and returns it as a write, with its length; `None` when it is empty.
    pub(super) fn flush(&mut self) -> Option<(FileOp<F>, u64)> {
        let tail = self.tail.as_mut().filter(|tail| !tail.buffer.is_empty())?;
        let (bytes, at) = (std::mem::take(&mut tail.buffer), tail.flushed_bytes);
        let len = to_u64(bytes.len());
        tail.flushed_bytes += len;
        Some((FileOp::Write { file: Arc::clone(&tail.file), bytes, at }, len))
    }

    /// Begins a segment with these first bytes.
    pub(super) fn begin(
        &mut self,
        file: FileSlot<F>,
        segment: &Segment,
        preamble: Vec<u8>,
        space: TailSpace,
    ) {
        let len = to_u64(preamble.len());
        self.position += len;
        self.tail = Some(Tail {
            file,
            number: segment.number,
            size: segment.size,
            flushed_bytes: 0,
            buffer: preamble,
            declared_plcs: Vec::new(),
            repeat_at: len + CONTEXT_REPEAT_BYTES,
            space,
        });
    }

    /// Ends the segment being written and returns its file.
    pub(super) fn close(&mut self) -> Option<Unsynced<F>> {
        let tail = self.tail.take()?;
        let (start, end) = (self.position - tail.end(), self.position);
        Some(Unsynced { file: tail.file, number: tail.number, start, end })
    }

    /// Returns to the position up to which everything is durable, after a failure.
    pub(super) const fn rewind(&mut self, synced: u64) {
        self.position = synced;
    }

    /// Records that a power cut may cost this many seconds of data, because the device is slow.
    pub(super) fn extend_loss_window(&mut self, seconds: u64) {
        if seconds > self.context.power_window {
            self.context.power_window = seconds;
            // The next run has to know: the next entry repeats the context.
            self.tail.iter_mut().for_each(|tail| tail.repeat_at = 0);
        }
    }

    /// Continues under another epoch, from this segment on.
    pub(super) fn change_epoch(&mut self, epoch: Arc<str>, run: u64) {
        self.context.epoch = epoch;
        self.context.run = run;
    }
}

impl<F> Tail<F> {
    /// Returns the offset of the next frame.
    fn end(&self) -> u64 {
        self.flushed_bytes + to_u64(self.buffer.len())
    }

    /// Appends a frame. Returns its length.
    fn put(&mut self, run: u64, kind: FrameKind, write: impl FnOnce(&mut Vec<u8>)) -> u64 {
        let before = self.buffer.len();
        let salt = Salt { segment: self.number, run };
        frame::put(&mut self.buffer, self.flushed_bytes, salt, kind, write);
        to_u64(self.buffer.len() - before)
    }
}

/// Returns about how many bytes an entry takes on the disk.
pub(in crate::queue) fn stored_entry_len(entry: &Entry) -> u64 {
    let (id, seq) = (u64::from(u32::MAX), 1 << 20);
    let header = EntryHeader { id, chain_seq: ChainSeq::default(), topic: 0, seq };
    let mut payload = Vec::new();
    entry_codec::put_entry(&mut payload, header, "", entry);
    to_u64(frame_len(payload.len()))
}
