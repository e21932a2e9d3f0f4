//! Entries into the tail, with the names that they need.

use super::bounds::Purpose;
use super::frame::{Kind, frame_len};
use super::record::{self, Head};
use super::state::Link;
use super::{Log, Refusal, Tally};
use crate::queue::ledger::Ledger;
use crate::queue::storage::Storage;
use crate::queue::{Entry, TopicId, to_u64};

/// Names and context are repeated after so much, so that damage to them hides nothing.
pub(super) const REPEAT: u64 = 256 << 10;

/// What is appended.
#[derive(Clone, Copy, Debug)]
pub(in crate::queue) struct Item<'a> {
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
        item: &Item<'_>,
    ) -> Result<Appended, Refusal> {
        let head = Head { id: item.id, link: self.link, topic: item.topic.number(), seq: item.seq };
        let mut payload = Vec::with_capacity(256);
        record::put_entry(&mut payload, head, item.epoch, item.entry);
        let bytes = to_u64(frame_len(payload.len()));
        self.make_place(ledger, bytes, item.entry)?;
        let kind = match item.entry {
            Entry::Record(_) => Kind::Record,
            Entry::Message(_) => Kind::Message,
        };
        self.put(kind, |out| out.extend_from_slice(&payload))?;
        self.link = self.link.next();
        self.appended = self.appended.max(item.id + 1);
        self.open.insert(item.id);
        if let Some(tail) = &mut self.tail {
            tail.segment.first_at = tail.segment.first_at.or_else(|| item.entry.at());
            tail.segment.open.add(Tally { entries: 1, samples: item.entry.samples(), bytes });
        }
        Ok(Appended { bytes, position: self.position })
    }

    /// Whether an entry can be appended now.
    pub(in crate::queue) fn admit_entry(
        &mut self,
        ledger: &Ledger,
        entry: &Entry,
    ) -> Result<(), Refusal> {
        self.make_place(ledger, stored_len(entry), entry)
    }

    /// Makes sure that the tail has room for a frame and knows the names behind it.
    fn make_place(&mut self, ledger: &Ledger, bytes: u64, entry: &Entry) -> Result<(), Refusal> {
        let names = self.names_for(entry);
        let repeat = self.tail.as_ref().is_some_and(|tail| tail.end() >= tail.repeat_at);
        let context = if repeat { self.context_bytes() } else { 0 };
        let purpose = match entry {
            Entry::Record(_) => Purpose::Data,
            Entry::Message(_) => Purpose::Message,
        };
        self.ensure(ledger, bytes + names + context, purpose)?;
        if self.tail.as_ref().is_some_and(|tail| tail.end() >= tail.repeat_at) {
            self.put_context()?;
        }
        let Entry::Record(record) = entry else { return Ok(()) };
        let is_known = self.tail.as_ref().is_some_and(|tail| tail.declared.contains(&record.plc));
        let Some(plc) = self.names.plcs.get(usize::from(record.plc)).filter(|_| !is_known).cloned()
        else {
            return Ok(());
        };
        self.put(Kind::Names, |out| record::put_names(out, record.plc, &plc))?;
        if let Some(tail) = &mut self.tail {
            tail.declared.push(record.plc);
        }
        Ok(())
    }

    /// The room that the names of a record's PLC take at most.
    fn names_for(&self, entry: &Entry) -> u64 {
        let Entry::Record(record) = entry else { return 0 };
        self.names.plcs.get(usize::from(record.plc)).map_or(0, |plc| {
            let tags = plc.tags.iter().map(|tag| tag.len() + 5).sum::<usize>();
            to_u64(frame_len(tags + plc.name.len() + 16))
        })
    }

    /// Where the names and the context have to be repeated, they are.
    fn put_context(&mut self) -> Result<(), Refusal> {
        let mut payload = Vec::new();
        self.context.put(&mut payload);
        self.put(Kind::Context, |out| out.extend_from_slice(&payload))?;
        if let Some(tail) = &mut self.tail {
            tail.declared.clear();
            tail.repeat_at = tail.end() + REPEAT;
        }
        Ok(())
    }

    pub(super) fn context_bytes(&self) -> u64 {
        let mut payload = Vec::new();
        self.context.put(&mut payload);
        to_u64(frame_len(payload.len()))
    }
}

/// About what an entry takes on the disk.
pub(in crate::queue) fn stored_len(entry: &Entry) -> u64 {
    let head = Head { id: u64::from(u32::MAX), link: Link::default(), topic: 0, seq: 1 << 20 };
    let mut payload = Vec::new();
    record::put_entry(&mut payload, head, "", entry);
    to_u64(frame_len(payload.len()))
}
