//! Entries into the tail, with the names that they need.

use super::capacity::Purpose;
use super::checkpoint::ChainSeq;
use super::entry_codec::{self, EntryHeader};
use super::frame::{FrameKind, frame_len};
use super::{AppendError, EntryCounts, Log};
use crate::queue::ledger::Ledger;
use crate::queue::storage::Storage;
use crate::queue::{Entry, TopicId, to_u64};

/// Names and context are repeated after so much, so that damage to them hides nothing.
pub(super) const CONTEXT_REPEAT_BYTES: u64 = 256 << 10;

/// What is appended.
#[derive(Clone, Copy, Debug)]
pub(in crate::queue) struct NewEntry<'a> {
    pub(in crate::queue) id: u64,
    pub(in crate::queue) topic: TopicId,
    pub(in crate::queue) seq: u64,
    pub(in crate::queue) epoch: &'a str,
    pub(in crate::queue) entry: &'a Entry,
}

/// Where something was appended.
#[derive(Clone, Copy, Debug)]
pub(in crate::queue) struct Appended {
    /// What it takes on the disk.
    pub(in crate::queue) bytes: u64,
    /// It is durable when so much is.
    pub(in crate::queue) position: u64,
}

impl<S: Storage> Log<S> {
    /// Appends an entry. Its id must be above all that were appended before.
    pub(in crate::queue) fn append(
        &mut self,
        ledger: &Ledger,
        item: &NewEntry<'_>,
    ) -> Result<Appended, AppendError> {
        let head =
            EntryHeader { id: item.id, link: self.link, topic: item.topic.number(), seq: item.seq };
        let mut payload = Vec::with_capacity(256);
        entry_codec::put_entry(&mut payload, head, item.epoch, item.entry);
        let bytes = to_u64(frame_len(payload.len()));
        self.ensure_entry_space(ledger, bytes, item.entry)?;
        let kind = match item.entry {
            Entry::Record(_) => FrameKind::Record,
            Entry::Message(_) => FrameKind::Message,
        };
        self.append_frame(kind, |out| out.extend_from_slice(&payload))?;
        self.link = self.link.next();
        self.appended = self.appended.max(item.id + 1);
        self.waiting_ids.insert(item.id);
        if let Some(tail) = &mut self.tail {
            tail.segment.first_at = tail.segment.first_at.or_else(|| item.entry.at());
            tail.segment.waiting.add(EntryCounts {
                entries: 1,
                samples: item.entry.sample_count(),
                bytes,
            });
        }
        Ok(Appended { bytes, position: self.position })
    }

    /// Whether an entry can be appended now.
    pub(in crate::queue) fn reserve_for_entry(
        &mut self,
        ledger: &Ledger,
        entry: &Entry,
    ) -> Result<(), AppendError> {
        self.ensure_entry_space(ledger, stored_entry_len(entry), entry)
    }

    /// Makes sure that the tail has room for a frame and knows the names behind it.
    fn ensure_entry_space(
        &mut self,
        ledger: &Ledger,
        bytes: u64,
        entry: &Entry,
    ) -> Result<(), AppendError> {
        let names = self.names_len(entry);
        let repeat = self.tail.as_ref().is_some_and(|tail| tail.end() >= tail.repeat_at);
        let context = if repeat { self.context_len() } else { 0 };
        let purpose = match entry {
            Entry::Record(_) => Purpose::Data,
            Entry::Message(_) => Purpose::Message,
        };
        self.ensure_tail_space(ledger, bytes + names + context, purpose)?;
        if self.tail.as_ref().is_some_and(|tail| tail.end() >= tail.repeat_at) {
            self.append_context()?;
        }
        let Entry::Record(record) = entry else { return Ok(()) };
        let is_known =
            self.tail.as_ref().is_some_and(|tail| tail.declared_plcs.contains(&record.plc));
        let Some(plc) = self.names.plcs.get(usize::from(record.plc)).filter(|_| !is_known).cloned()
        else {
            return Ok(());
        };
        self.append_frame(FrameKind::Names, |out| entry_codec::put_names(out, record.plc, &plc))?;
        if let Some(tail) = &mut self.tail {
            tail.declared_plcs.push(record.plc);
        }
        Ok(())
    }

    /// The room that the names of a record's PLC take at most.
    fn names_len(&self, entry: &Entry) -> u64 {
        let Entry::Record(record) = entry else { return 0 };
        self.names.plcs.get(usize::from(record.plc)).map_or(0, |plc| {
            let tags = plc.tags.iter().map(|tag| tag.len() + 5).sum::<usize>();
            to_u64(frame_len(tags + plc.name.len() + 16))
        })
    }

    /// Where the names and the context have to be repeated, they are.
    fn append_context(&mut self) -> Result<(), AppendError> {
        let mut payload = Vec::new();
        self.context.put(&mut payload);
        self.append_frame(FrameKind::Context, |out| out.extend_from_slice(&payload))?;
        if let Some(tail) = &mut self.tail {
            tail.declared_plcs.clear();
            tail.repeat_at = tail.end() + CONTEXT_REPEAT_BYTES;
        }
        Ok(())
    }

    pub(super) fn context_len(&self) -> u64 {
        let mut payload = Vec::new();
        self.context.put(&mut payload);
        to_u64(frame_len(payload.len()))
    }
}

/// About what an entry takes on the disk.
pub(in crate::queue) fn stored_entry_len(entry: &Entry) -> u64 {
    let head =
        EntryHeader { id: u64::from(u32::MAX), link: ChainSeq::default(), topic: 0, seq: 1 << 20 };
    let mut payload = Vec::new();
    entry_codec::put_entry(&mut payload, head, "", entry);
    to_u64(frame_len(payload.len()))
}
