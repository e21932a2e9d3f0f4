//! Groups: tags that must be read in one request.

use std::time::Duration;

use super::{area_index, end_of, max_count};
use crate::config::Tag;
use crate::plc::{PlcModel, Table};

/// The tags that have joined a group so far.
pub(crate) struct TagGroup<'a> {
    table: Table,
    scan: Duration,
    first: &'a Tag,
    last: &'a Tag,
}

impl<'a> TagGroup<'a> {
    /// Returns a group with one tag.
    pub(crate) const fn new(tag: &'a Tag) -> Self {
        Self { table: tag.location.table, scan: tag.scan, first: tag, last: tag }
    }

    /// Adds a tag, or returns why it cannot be read in one request with the others.
    pub(crate) fn join(
        &mut self,
        tag: &'a Tag,
        model: PlcModel,
        max_words: u16,
    ) -> Result<(), String> {
        if tag.location.table != self.table {
            return Err(format!("{} and {} are in different tables", self.first.at, tag.at));
        }
        if tag.scan != self.scan {
            return Err(format!("{} and {} have different `scan`", self.first.at, tag.at));
        }
        let first = if tag.location.first < self.first.location.first { tag } else { self.first };
        let last = if end_of(tag) > end_of(self.last) { tag } else { self.last };
        let (from, count) = (first.location.first, end_of(last) - u32::from(first.location.first));
        if area_index(model, self.table, from) != area_index(model, self.table, last.location.first)
        {
            return Err(format!("{} and {} are in different memory areas", first.at, last.at));
        }
        let max = max_count(self.table, max_words);
        if count > max {
            let unit = if self.table.holds_bits() { "bits" } else { "registers" };
            return Err(format!(
                "{} to {} are {count} {unit}, but one request reads at most {max}",
                first.at, last.at
            ));
        }
        (self.first, self.last) = (first, last);
        Ok(())
    }
}
