//! Registers of images: which lie together, what they held, and what to send for them.

use std::collections::BTreeMap;

use provisioning::config;
use provisioning::plan::{MAX_BITS, ReadRequest};
use provisioning::plc::{PlcModel, Table};

use super::super::Registers;
use crate::model::{ImageContent, MaskedWord, TagImage};
use crate::plc::session::WriteRequest;

/// Most registers in one read request (Modbus Application Protocol V1.1b3, 6.3).
const MAX_READ_WORDS: u16 = 125;
/// Most registers in one write request (6.12).
const MAX_WRITE_WORDS: u16 = 123;
/// Most bits in one write request (6.11).
const MAX_WRITE_BITS: u16 = 1968;

/// A range of registers or bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct RegisterSpan {
    table: Table,
    first: u16,
    count: u16,
}

/// What registers and bits hold; a bit is 0 or 1.
#[derive(Debug, Default)]
pub(super) struct RegisterMap(BTreeMap<(Table, u16), u16>);

impl RegisterSpan {
    pub(super) fn to_request(self) -> ReadRequest {
        let Self { table, first, count } = self;
        ReadRequest { table, first, count, tags: Vec::new() }
    }

    pub(super) fn overlaps(self, image: &TagImage) -> bool {
        overlap((self.table, self.first, self.count.into()), image)
    }

    fn end(self) -> u32 {
        u32::from(self.first) + u32::from(self.count)
    }
}

impl RegisterMap {
    /// Adds the answer to a request for a span.
    pub(super) fn insert(&mut self, span: RegisterSpan, registers: &Registers) {
        let places = (span.first..=u16::MAX).map(|address| (span.table, address));
        match registers {
            Registers::Words(words) => self.0.extend(places.zip(words.iter().copied())),
            Registers::Bits(bits) => self.0.extend(places.zip(bits.iter().copied().map(u16::from))),
        }
    }

    /// Returns what the registers of an image hold; `None` when one was not read.
    pub(super) fn registers_of(&self, image: &TagImage) -> Option<Registers> {
        let held = (image.first..=u16::MAX).take(image.count());
        let held: Option<Vec<u16>> =
            held.map(|address| self.0.get(&(image.table, address)).copied()).collect();
        Some(match &image.content {
            ImageContent::Words(_) => Registers::Words(held?),
            ImageContent::Bits(_) => {
                Registers::Bits(held?.into_iter().map(|bit| bit != 0).collect())
            }
        })
    }
}

/// Returns the spans of the images, joined where they adjoin or overlap: each is within one memory
/// area, and within what one read request may have. Only an image that is larger is divided.
pub(super) fn spans(images: &[TagImage], plc: &config::Plc) -> Vec<RegisterSpan> {
    let limits = |table: Table| match table.holds_bits() {
        true => (MAX_BITS, MAX_BITS),
        false => (plc.max_words, MAX_READ_WORDS),
    };
    joined(images, plc.model, limits)
}

/// Returns the images that fill only a part of a register, also together: what else is in it has to
/// be read and kept.
pub(super) fn incomplete(images: &[TagImage]) -> Vec<TagImage> {
    let merged = merge(images);
    let is_partial = |address: &u16| {
        let word = merged.get(&(Table::HoldingRegister, *address));
        word.is_some_and(|word| word.mask != u16::MAX)
    };
    let partial = images.iter().filter(|image| {
        image.has_foreign_bits()
            && (image.first..=u16::MAX).take(image.count()).any(|address| is_partial(&address))
    });
    partial.cloned().collect()
}

/// Returns the requests that write the images, where the PLC held `before`: one for all that
/// adjoin, in the order of their addresses. Only registers of the images are written.
pub(super) fn write_requests(
    images: &[TagImage],
    before: &RegisterMap,
    plc: &config::Plc,
) -> Vec<WriteRequest> {
    let merged = merge(images);
    let limits = |table: Table| match table.holds_bits() {
        true => (MAX_WRITE_BITS, MAX_WRITE_BITS),
        false => (plc.max_words, MAX_WRITE_WORDS),
    };
    let request = |span: RegisterSpan| {
        let word = |address: u16| {
            let place = (span.table, address);
            let held = before.0.get(&place).copied().unwrap_or_default();
            merged.get(&place).map_or(held, |word| word.merged_into(held))
        };
        let words = (span.first..=u16::MAX).take(span.count.into()).map(word);
        to_write(span, words)
    };
    joined(images, plc.model, limits).into_iter().map(request).collect()
}

fn to_write(span: RegisterSpan, words: impl Iterator<Item = u16>) -> WriteRequest {
    let first = span.first;
    if span.table.holds_bits() {
        WriteRequest::Bits { first, bits: words.map(|word| word != 0).collect() }
    } else {
        WriteRequest::Words { first, words: words.collect() }
    }
}

/// Returns for each register what the images together set in it.
fn merge(images: &[TagImage]) -> BTreeMap<(Table, u16), MaskedWord> {
    let mut merged: BTreeMap<(Table, u16), MaskedWord> = BTreeMap::new();
    for image in images {
        let words: Vec<MaskedWord> = match &image.content {
            ImageContent::Words(words) => words.clone(),
            ImageContent::Bits(bits) => {
                bits.iter().map(|bit| MaskedWord::whole(u16::from(*bit))).collect()
            }
        };
        for (address, word) in (image.first..=u16::MAX).zip(words) {
            let place = merged.entry((image.table, address)).or_default();
            *place =
                MaskedWord { value: word.merged_into(place.value), mask: place.mask | word.mask };
        }
    }
    merged
}

/// Joins images up to the first of the limits of their table, and divides what is longer than the
/// second.
fn joined(
    images: &[TagImage],
    model: PlcModel,
    limits: impl Fn(Table) -> (u16, u16),
) -> Vec<RegisterSpan> {
    let mut parts: Vec<RegisterSpan> = images.iter().filter_map(span_of).collect();
    parts.sort_by_key(|part| (part.table, part.first, part.end()));
    let mut spans: Vec<RegisterSpan> = Vec::new();
    for part in parts {
        let (usual, most) = limits(part.table);
        let joined = spans.last().and_then(|last| join(*last, part, model, usual.min(most)));
        match (joined, spans.last_mut()) {
            (Some(joined), Some(last)) => *last = joined,
            _ => spans.push(part),
        }
    }
    let divided = |span: RegisterSpan| {
        let (_, most) = limits(span.table);
        let starts = (0..span.count).step_by(usize::from(most).max(1));
        starts.map(move |start| RegisterSpan {
            first: span.first + start,
            count: most.min(span.count - start),
            ..span
        })
    };
    spans.into_iter().flat_map(divided).collect()
}

/// Returns two spans as one, if they overlap, or adjoin within a memory area and the limit.
fn join(
    one: RegisterSpan,
    other: RegisterSpan,
    model: PlcModel,
    limit: u16,
) -> Option<RegisterSpan> {
    let count = u16::try_from(one.end().max(other.end()) - u32::from(one.first)).ok()?;
    let area = |address: u16| {
        let areas = model.memory_areas(one.table);
        areas.iter().position(|area| area.registers.contains(&address))
    };
    let is_near = one.table == other.table && u32::from(other.first) <= one.end();
    let overlaps = u32::from(other.first) < one.end();
    let fits = count <= limit && area(one.first) == area(other.first);
    (is_near && (overlaps || fits)).then_some(RegisterSpan { count, ..one })
}

fn span_of(image: &TagImage) -> Option<RegisterSpan> {
    let count = u16::try_from(image.count()).ok().filter(|count| *count > 0)?;
    Some(RegisterSpan { table: image.table, first: image.first, count })
}

/// Returns whether a range has a register of the image.
pub(super) fn overlap((table, first, count): (Table, u16, usize), image: &TagImage) -> bool {
    let (first, other) = (usize::from(first), usize::from(image.first));
    table == image.table && first < other + image.count() && other < first + count
}
