//! Splits the TOML of a file so that one PLC is parsed at a time.
//!
//! A parsed TOML table takes ten times the memory of its text; parsing one `[[plc]]` after the
//! other keeps the peak low. Two parts that are each a complete TOML document form one document
//! when joined, and the elements of an array of tables are independent. The file can therefore be
//! split before the headers of its tables, provided that every part parses alone. If a part does
//! not (the header was inside a multi-line string, the PLCs are an inline array, the tables of a
//! PLC are not adjacent), the file is parsed as a whole.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The list that is split.
pub(super) const PLC_LIST: &str = "plc";
const PLC_HEADER: &str = "[[plc]]";

/// A file split into its PLCs and the rest.
pub(super) struct SplitDocument<'a> {
    text: &'a str,
    /// The text with the PLCs replaced by blanks, so that byte positions stay those of the file.
    pub(super) rest: Cow<'a, str>,
    plcs: Vec<Range<usize>>,
}

impl<'a> SplitDocument<'a> {
    /// Splits a file. Returns `None` when a part is not a TOML document, or there is no PLC.
    pub(super) fn split(text: &'a str) -> Option<Self> {
        let SplitRanges { plcs, others } = SplitRanges::find(text)?;
        let is_entry =
            |range: &Range<usize>| single_entry(&parse_table(text, range)?).is_some().then_some(());
        let is_rest = |range: &Range<usize>| {
            parse_table(text, range).filter(|table| !table.contains_key(PLC_LIST)).map(|_| ())
        };
        plcs.iter().try_for_each(is_entry)?;
        others.iter().try_for_each(is_rest)?;
        (!plcs.is_empty()).then(|| Self { text, rest: blank_out(text, &plcs), plcs })
    }

    /// Calls `f` with each PLC and the byte position at which its part begins; spans inside the PLC
    /// are relative to that position.
    pub(super) fn for_each_plc(&self, mut f: impl FnMut(usize, &Spanned<DeValue<'_>>)) {
        for range in &self.plcs {
            // `split` has parsed every part once, so neither can fail here.
            let Some(table) = parse_table(self.text, range) else { continue };
            if let Some(entry) = single_entry(&table) {
                f(range.start, entry);
            }
        }
    }
}

fn parse_table<'a>(text: &'a str, range: &Range<usize>) -> Option<DeTable<'a>> {
    DeTable::parse(text.get(range.clone())?).ok().map(Spanned::into_inner)
}

/// Returns the PLC of a part that holds one PLC and nothing else.
fn single_entry<'a, 'b>(table: &'b DeTable<'a>) -> Option<&'b Spanned<DeValue<'a>>> {
    let list = table.get(PLC_LIST).filter(|_| table.len() == 1)?.as_ref().as_array()?;
    list.first().filter(|_| list.len() == 1)
}

/// Returns the text with `ranges` replaced by blanks, or only its start when the ranges reach to
/// the end.
fn blank_out<'a>(text: &'a str, ranges: &[Range<usize>]) -> Cow<'a, str> {
    let is_last = |range: &Range<usize>| range.end == text.len();
    let joined = ranges.windows(2).all(|pair| matches!(pair, [a, b] if a.end == b.start));
    if let Some(first) = ranges.first().filter(|_| joined && ranges.last().is_some_and(is_last)) {
        return Cow::Borrowed(text.get(..first.start).unwrap_or_default());
    }
    let mut blanked = String::with_capacity(text.len());
    for range in ranges {
        blanked.push_str(text.get(blanked.len()..range.start).unwrap_or_default());
        blanked.extend(std::iter::repeat_n(' ', range.len()));
        // A range ends with a line break; without it the next line would join the blanks.
        blanked.pop();
        blanked.push('\n');
    }
    blanked.push_str(text.get(blanked.len()..).unwrap_or_default());
    Cow::Owned(blanked)
}

/// Ranges of whole lines.
#[derive(Default)]
struct SplitRanges {
    plcs: Vec<Range<usize>>,
    others: Vec<Range<usize>>,
}

impl SplitRanges {
    /// Splits before every line that looks like the header of a PLC, or of a section that is not
    /// part of one. Returns `None` when a table of a PLC does not follow its PLC.
    fn find(text: &str) -> Option<Self> {
        let mut cuts = Self::default();
        let mut in_plc = false;
        let mut end = 0;
        for line in text.split_inclusive('\n') {
            let start = end;
            end += line.len();
            let line = line.trim_start();
            let begins = line.starts_with(PLC_HEADER);
            if begins {
                in_plc = true;
            } else if line.starts_with("[plc.") || line.starts_with("[[plc.") {
                in_plc.then_some(())?;
            } else if line.starts_with('[') {
                in_plc = false;
            }
            let kind = if in_plc { &mut cuts.plcs } else { &mut cuts.others };
            match kind.last_mut().filter(|last| last.end == start && !begins) {
                Some(last) => last.end = end,
                None => kind.push(start..end),
            }
        }
        Some(cuts)
    }
}
