//! Plan of the requests that read the tags of a PLC. Pure.

mod group;
mod report;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) use group::TagGroup;
pub use report::{report, report_shared};

use crate::config::{Plc, Tag};
use crate::plc::{PlcModel, Table};

/// Maximum number of bits in one request (Modbus Application Protocol V1.1b3, 6.1 and 6.2).
pub const MAX_BITS: u16 = 2000;

/// Assumed time that a PLC takes to answer a request. The system task of an M2xx answers between
/// two IEC tasks: 1 to 20 ms at normal load.
pub const ASSUMED_ANSWER_TIME: Duration = Duration::from_millis(5);

/// All reads of one PLC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// One class per scan period, shortest period first.
    pub classes: Vec<ScanClass>,
}

/// The requests of one cycle for the tags with the same scan period.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ScanClass {
    /// Time between two cycles.
    pub period: Duration,
    /// Requests in the order in which they are sent: by table and address.
    pub requests: Vec<ReadRequest>,
}

/// A request that reads a range of one table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReadRequest {
    /// Address space.
    pub table: Table,
    /// First register or bit, zero-based.
    pub first: u16,
    /// Number of registers or bits to read.
    pub count: u16,
    /// Indices in `Plc::tags` of the tags that it reads, ascending.
    pub tags: Vec<u16>,
}

/// Returns a plan that joins the tags of one PLC into as few requests as its limits allow.
///
/// Every tag is read by exactly one request of its scan class, as a whole. A request bridges at
/// most `plc.max_gap` unused registers (sixteen times as many bits), stays within one memory area
/// of the model, and reads at most `plc.max_words` registers or [`MAX_BITS`] bits; only a single
/// value that is larger makes a larger request. The tags of one [`Tag::group`] share a request,
/// regardless of the gaps between them.
#[must_use]
pub fn plan(plc: &Plc) -> Plan {
    let mut classes: BTreeMap<Duration, Vec<u16>> = BTreeMap::new();
    for (index, tag) in (0..=u16::MAX).zip(&*plc.tags) {
        classes.entry(tag.scan).or_default().push(index);
    }
    let class = |(period, tags)| ScanClass { period, requests: requests(plc, tags) };
    Plan { classes: classes.into_iter().map(class).collect() }
}

fn requests(plc: &Plc, tags: Vec<u16>) -> Vec<ReadRequest> {
    let mut items = indivisible_spans(plc, tags);
    // In address order, joining greedily gives the fewest requests: ending a request early never
    // makes a later one longer.
    items.sort_by_key(|item| (item.table, item.first, item.end));
    let mut spans: Vec<PendingRequest> = Vec::new();
    for item in items {
        match spans.last_mut().filter(|span| span.can_join(plc, &item)) {
            Some(span) => span.join(item),
            None => spans.push(item),
        }
    }
    spans.into_iter().map(PendingRequest::into_request).collect()
}

/// Returns the units that must not be split: groups, and tags without a group.
fn indivisible_spans(plc: &Plc, tags: Vec<u16>) -> Vec<PendingRequest> {
    let mut items = Vec::new();
    let mut groups: BTreeMap<&str, PendingRequest> = BTreeMap::new();
    for index in tags {
        let Some(tag) = plc.tags.get(usize::from(index)) else { continue };
        let item = PendingRequest::new(index, tag);
        let Some(name) = tag.group.as_deref() else {
            items.push(item);
            continue;
        };
        match groups.get_mut(name) {
            Some(group) => group.join(item),
            None => {
                groups.insert(name, item);
            }
        }
    }
    items.extend(groups.into_values());
    items
}

/// A request to which tags can still be added.
struct PendingRequest {
    table: Table,
    first: u16,
    /// One past the last register or bit: up to 65,536.
    end: u32,
    tags: Vec<u16>,
}

impl PendingRequest {
    fn new(index: u16, tag: &Tag) -> Self {
        let (table, first) = (tag.location.table, tag.location.first);
        Self { table, first, end: end_of(tag), tags: vec![index] }
    }

    /// Returns whether an item that begins at or after the first address may join.
    fn can_join(&self, plc: &Plc, item: &Self) -> bool {
        // 16 bits take the place of a register in an answer.
        let gap = u32::from(plc.max_gap) * if self.table.holds_bits() { 16 } else { 1 };
        item.table == self.table
            && u32::from(item.first) <= self.end + gap
            && self.end.max(item.end) - u32::from(self.first)
                <= max_count(self.table, plc.max_words)
            // The PLC refuses a request that leaves an area, with all its tags (exception 2).
            && area_index(plc.model, self.table, self.first)
                == area_index(plc.model, self.table, item.first)
    }

    fn join(&mut self, item: Self) {
        self.first = self.first.min(item.first);
        self.end = self.end.max(item.end);
        self.tags.extend(item.tags);
    }

    fn into_request(mut self) -> ReadRequest {
        self.tags.sort_unstable();
        let count = u16::try_from(self.end - u32::from(self.first)).unwrap_or(u16::MAX);
        ReadRequest { table: self.table, first: self.first, count, tags: self.tags }
    }
}

fn end_of(tag: &Tag) -> u32 {
    u32::from(tag.location.first) + u32::from(tag.location.count)
}

/// Returns the maximum number of registers or bits in one request.
fn max_count(table: Table, max_words: u16) -> u32 {
    u32::from(if table.holds_bits() { MAX_BITS } else { max_words })
}

/// Returns the index of the memory area that holds an address.
fn area_index(model: PlcModel, table: Table, address: u16) -> Option<usize> {
    model.memory_areas(table).iter().position(|window| window.registers.contains(&address))
}

impl ScanClass {
    /// Returns an estimate of how long one cycle occupies the connection: for each request
    /// [`ASSUMED_ANSWER_TIME`] and the transfer of both frames at 100 Mbit/s.
    #[must_use]
    pub fn estimated_duration(&self) -> Duration {
        self.requests.iter().map(|request| ASSUMED_ANSWER_TIME + request.transfer_time()).sum()
    }
}

impl ReadRequest {
    /// Returns the function code that reads this table (Modbus Application Protocol V1.1b3, 6.1 to
    /// 6.4).
    #[must_use]
    pub const fn function_code(&self) -> u8 {
        match self.table {
            Table::Coil => 1,
            Table::DiscreteInput => 2,
            Table::HoldingRegister => 3,
            Table::InputRegister => 4,
        }
    }

    /// Returns the number of registers or bits that belong to at least one tag of `plc`.
    #[must_use]
    pub fn used_count(&self, plc: &Plc) -> u16 {
        let mut places: Vec<(u32, u32)> = self
            .tags
            .iter()
            .filter_map(|&index| plc.tags.get(usize::from(index)))
            .map(|tag| (tag.location.first.into(), end_of(tag)))
            .collect();
        places.sort_unstable();
        let mut used = 0;
        let mut covered = 0;
        // Tags may overlap: a word, and a bit of it.
        for (first, end) in places {
            used += end.saturating_sub(covered.max(first));
            covered = covered.max(end);
        }
        u16::try_from(used).unwrap_or(u16::MAX)
    }

    fn transfer_time(&self) -> Duration {
        /// Bytes of Ethernet (with preamble and gap), IPv4 and TCP headers per frame.
        const FRAME: u64 = 78;
        /// Bytes of MBAP header and PDU of the request, and of the answer without its data.
        const MODBUS: u64 = 12 + 9;
        const NANOS_PER_BYTE: u64 = 80;
        let data = if self.table.holds_bits() { self.count.div_ceil(8) } else { self.count * 2 };
        Duration::from_nanos((2 * FRAME + MODBUS + u64::from(data)) * NANOS_PER_BYTE)
    }
}
