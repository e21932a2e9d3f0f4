//! The TOML of a file, in pieces: a table tree takes ten times the room of its text, so those of
//! the PLCs are made one after the other.
//!
//! Two pieces that are each a whole TOML document are one document when they are joined, and
//! elements of an array of tables know nothing of each other. So a file may be cut in front of the
//! headers of its tables wherever every piece holds by itself. Where one does not (the header was a
//! line of a text, the PLCs are an array in one line, the tables of a PLC stand apart), the file is
//! read as a whole.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The list that is cut.
pub(super) const PLC_LIST: &str = "plc";
const PLC_HEADER: &str = "[[plc]]";

/// Where a file is cut.
pub(super) struct SplitDocument<'a> {
    text: &'a str,
    /// Everything but the PLCs, which are blank in it: places in it are those of the file.
    pub(super) rest: Cow<'a, str>,
    plcs: Vec<Range<usize>>,
}

impl<'a> SplitDocument<'a> {
    /// Cuts a file; nothing when it cannot be cut, or holds no PLC.
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

    /// Calls `f` with every entry and the place in the file from which its places count.
    pub(super) fn for_each_plc(&self, mut f: impl FnMut(usize, &Spanned<DeValue<'_>>)) {
        for range in &self.plcs {
            // `of` has parsed every one of them.
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

/// The one entry of a piece that holds nothing else.
fn single_entry<'a, 'b>(table: &'b DeTable<'a>) -> Option<&'b Spanned<DeValue<'a>>> {
    let list = table.get(PLC_LIST).filter(|_| table.len() == 1)?.as_ref().as_array()?;
    list.first().filter(|_| list.len() == 1)
}

/// The text with blanks instead of everything in `ranges`; its start when nothing follows them.
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
        // The blanks end the line that they are on.
        blanked.pop();
        blanked.push('\n');
    }
    blanked.push_str(text.get(blanked.len()..).unwrap_or_default());
    Cow::Owned(blanked)
}

/// Stretches of whole lines.
#[derive(Default)]
struct SplitRanges {
    plcs: Vec<Range<usize>>,
    others: Vec<Range<usize>>,
}

impl SplitRanges {
    /// Cuts in front of every line that looks like the header of a PLC, or of what is no part of
    /// one; nothing where the tables of a PLC do not follow it.
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
