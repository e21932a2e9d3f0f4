//! Tags that must be read in one request.

use std::time::Duration;

use super::{area_index, end_of, max_count};
use crate::config::Tag;
use crate::plc::{PlcModel, Table};

/// The members of one group that have been seen.
pub(crate) struct TagGroup<'a> {
    table: Table,
    scan: Duration,
    first: &'a Tag,
    last: &'a Tag,
}

impl<'a> TagGroup<'a> {
    /// A group with one member.
    pub(crate) const fn new(tag: &'a Tag) -> Self {
        Self { table: tag.location.table, scan: tag.scan, first: tag, last: tag }
    }

    /// Takes a member, or says why one request cannot read it with the others.
    pub(crate) fn join(
        &mut self,
        tag: &'a Tag,
        model: PlcModel,
        max_words: u16,
    ) -> Result<(), String> {
        if tag.location.table != self.table {
            return Err(format!("{} and {} lie in different tables", self.first.at, tag.at));
        }
        if tag.scan != self.scan {
            return Err(format!("{} and {} have different `scan`", self.first.at, tag.at));
        }
        let first = if tag.location.first < self.first.location.first { tag } else { self.first };
        let last = if end_of(tag) > end_of(self.last) { tag } else { self.last };
        let (from, count) = (first.location.first, end_of(last) - u32::from(first.location.first));
        if area_index(model, self.table, from) != area_index(model, self.table, last.location.first)
        {
            return Err(format!("{} and {} lie in different memory areas", first.at, last.at));
        }
        let most = max_count(self.table, max_words);
        if count > most {
            let unit = if self.table.holds_bits() { "bits" } else { "registers" };
            return Err(format!(
                "from {} to {} are {count} {unit}, and one request takes {most}",
                first.at, last.at
            ));
        }
        (self.first, self.last) = (first, last);
        Ok(())
    }
}
