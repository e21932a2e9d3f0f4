//! What holds, and is probably not what somebody meant.

use std::time::Duration;

use crate::config::Tag;
use crate::config::context::ReadContext;
use crate::config::raw::RawTag;
use crate::plc::{IecType, PlcFamily, PlcModel, ValueKind};

/// Period of MAST in a new project of Machine Expert.
const DEFAULT_TASK_PERIOD: Duration = Duration::from_millis(10);

/// Looks at the tags of one PLC, of which each holds by itself.
pub(super) fn note_tags(
    raw: &[RawTag],
    tags: &[Tag],
    model: Option<PlcModel>,
    draft: &mut ReadContext<'_>,
) {
    if model.is_some_and(|model| model.family() == PlcFamily::MachineExpert) {
        for (raw, tag) in raw.iter().zip(tags) {
            note_misaligned(raw, tag, draft);
        }
        note_fast_scan(raw, tags, draft);
    }
    note_overlaps(raw, tags, draft);
}

/// The first tag that is read more often than the program of an M241, M251 or M262 runs by default,
/// every 10 ms, so that most reads bring what the last one brought.
fn note_fast_scan(raw: &[RawTag], tags: &[Tag], draft: &mut ReadContext<'_>) {
    let hasty = raw.iter().zip(tags).find(|(_, tag)| tag.scan < DEFAULT_TASK_PERIOD);
    let Some((raw, tag)) = hasty else { return };
    let message = format!(
        "\"{}\" is read every {:?}, and the program of the PLC runs every {DEFAULT_TASK_PERIOD:?} unless it says else",
        tag.name, tag.scan
    );
    let help = "compare `scan` with the period of the PLC's task; `max_share` and `max_requests` \
                spare the PLC, and cycles beyond them are skipped";
    draft.add_note(&raw.scan.key, message, help.to_owned(), None);
}

/// Machine Expert aligns a variable to its size, and warns where an address does not: a value at
/// another one is more often a slip than a pragma.
fn note_misaligned(raw: &RawTag, tag: &Tag, draft: &mut ReadContext<'_>) {
    let item = tag.data_type.element;
    if tag.location.table.holds_bits() || matches!(item.kind(), ValueKind::Text | ValueKind::Bool) {
        return;
    }
    let size = usize::from(item.size());
    let Some(words) = Some(size / 2).filter(|words| *words > 1) else { return };
    let start = first_byte(tag);
    if start.is_multiple_of(size) {
        return;
    }
    let rule = match words {
        2 => "at an even %MW".to_owned(),
        words => format!("at a %MW that is a multiple of {words}"),
    };
    let below = start / size * words;
    let message = format!("Machine Expert places {} {rule}, and {} is none", article(item), tag.at);
    let help = format!(
        "compare the address with the declaration; the next places are %MW{below} and %MW{}",
        below + words
    );
    draft.add_note(&raw.at.key, message, help, None);
}

/// An INT, an LREAL (el), a UINT (you).
fn article(item: IecType) -> String {
    let name = item.to_string();
    let article = if name.starts_with(['A', 'E', 'I', 'L', 'O']) { "an" } else { "a" };
    format!("{article} {name}")
}

/// Two values of different kinds cannot both be what lies in the same bytes. A bit of a word, and
/// one variable under two names, are meant.
fn note_overlaps(raw: &[RawTag], tags: &[Tag], draft: &mut ReadContext<'_>) {
    let has_bytes =
        |tag: &Tag| !tag.location.table.holds_bits() && tag.data_type.element != IecType::Bool;
    let mut places: Vec<_> = (0..tags.len())
        .filter_map(|index| Some((tags.get(index).filter(|tag| has_bytes(tag))?, index)))
        .map(|(tag, index)| (tag.location.table, first_byte(tag), index))
        .collect();
    places.sort_unstable();
    let mut furthest: Option<usize> = None;
    for (_, _, index) in places {
        let last = furthest.and_then(|last| Some((last, tags.get(last)?)));
        let Some(tag) = tags.get(index) else { continue };
        if let Some((last, other)) = last
            && is_overlap(other, tag)
        {
            note_overlap(raw, tags, (index.min(last), index.max(last)), draft);
        }
        if last.is_none_or(|(_, last)| {
            last.location.table != tag.location.table || end_byte(last) <= end_byte(tag)
        }) {
            furthest = Some(index);
        }
    }
}

fn is_overlap(below: &Tag, above: &Tag) -> bool {
    let is_same = below.data_type == above.data_type && first_byte(below) == first_byte(above);
    below.location.table == above.location.table && first_byte(above) < end_byte(below) && !is_same
}

fn note_overlap(raw: &[RawTag], tags: &[Tag], pair: (usize, usize), draft: &mut ReadContext<'_>) {
    let (first, second) = pair;
    let (Some(one), Some(two)) = (tags.get(first), tags.get(second)) else { return };
    let (Some(raw_one), Some(raw_two)) = (raw.get(first), raw.get(second)) else { return };
    let message = format!(
        "\"{}\" ({} at {}) lies in the same bytes as \"{}\" ({} at {})",
        two.name, two.data_type, two.at, one.name, one.data_type, one.at
    );
    let help = "compare addresses and types with their declarations; leave it if this is meant";
    let here = format!("\"{}\" is here", one.name);
    draft.add_note(&raw_two.at.key, message, help.to_owned(), Some((&raw_one.at.key, here)));
}

/// In the PLC's memory.
fn first_byte(tag: &Tag) -> usize {
    2 * usize::from(tag.location.first) + usize::from(tag.location.byte)
}

fn end_byte(tag: &Tag) -> usize {
    first_byte(tag) + usize::try_from(tag.data_type.size()).unwrap_or(usize::MAX / 2)
}
