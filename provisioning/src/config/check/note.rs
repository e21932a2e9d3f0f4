//! What holds, and is probably not what somebody meant.

use std::time::Duration;

use crate::config::Tag;
use crate::config::draft::Draft;
use crate::config::raw::RawTag;
use crate::plc::{Family, IecType, Kind, Model};

/// Period of MAST in a new project of Machine Expert.
const MAST: Duration = Duration::from_millis(10);

/// Looks at the tags of one PLC, of which each holds by itself.
pub(super) fn note(raw: &[RawTag], tags: &[Tag], model: Option<Model>, draft: &mut Draft<'_>) {
    if model.is_some_and(|model| model.family() == Family::MachineExpert) {
        for (raw, tag) in raw.iter().zip(tags) {
            note_misaligned(raw, tag, draft);
        }
        note_hasty(raw, tags, draft);
    }
    note_overlaps(raw, tags, draft);
}

/// The first tag that is read more often than the program of an M241, M251 or M262 runs by default,
/// every 10 ms, so that most reads bring what the last one brought.
fn note_hasty(raw: &[RawTag], tags: &[Tag], draft: &mut Draft<'_>) {
    let hasty = raw.iter().zip(tags).find(|(_, tag)| tag.scan < MAST);
    let Some((raw, tag)) = hasty else { return };
    let message = format!(
        "\"{}\" is read every {:?}, and the program of the PLC runs every {MAST:?} unless it says else",
        tag.name, tag.scan
    );
    let help = "compare `scan` with the period of the PLC's task; `max_share` and `max_requests` \
                spare the PLC, and cycles beyond them are skipped";
    draft.note(&raw.scan.at, message, help.to_owned(), None);
}

/// Machine Expert aligns a variable to its size, and warns where an address does not: a value at
/// another one is more often a slip than a pragma.
fn note_misaligned(raw: &RawTag, tag: &Tag, draft: &mut Draft<'_>) {
    let item = tag.iec.item;
    if tag.location.table.holds_bits() || matches!(item.kind(), Kind::Text | Kind::Bool) {
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
    draft.note(&raw.at.at, message, help, None);
}

/// An INT, an LREAL (el), a UINT (you).
fn article(item: IecType) -> String {
    let name = item.to_string();
    let article = if name.starts_with(['A', 'E', 'I', 'L', 'O']) { "an" } else { "a" };
    format!("{article} {name}")
}

/// Two values of different kinds cannot both be what lies in the same bytes. A bit of a word, and
/// one variable under two names, are meant.
fn note_overlaps(raw: &[RawTag], tags: &[Tag], draft: &mut Draft<'_>) {
    let has_bytes = |tag: &Tag| !tag.location.table.holds_bits() && tag.iec.item != IecType::Bool;
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
            last.location.table != tag.location.table || end(last) <= end(tag)
        }) {
            furthest = Some(index);
        }
    }
}

fn is_overlap(below: &Tag, above: &Tag) -> bool {
    let is_same = below.iec == above.iec && first_byte(below) == first_byte(above);
    below.location.table == above.location.table && first_byte(above) < end(below) && !is_same
}

fn note_overlap(raw: &[RawTag], tags: &[Tag], pair: (usize, usize), draft: &mut Draft<'_>) {
    let (first, second) = pair;
    let (Some(one), Some(two)) = (tags.get(first), tags.get(second)) else { return };
    let (Some(raw_one), Some(raw_two)) = (raw.get(first), raw.get(second)) else { return };
    let message = format!(
        "\"{}\" ({} at {}) lies in the same bytes as \"{}\" ({} at {})",
        two.name, two.iec, two.at, one.name, one.iec, one.at
    );
    let help = "compare addresses and types with their declarations; leave it if this is meant";
    let here = format!("\"{}\" is here", one.name);
    draft.note(&raw_two.at.at, message, help.to_owned(), Some((&raw_one.at.at, here)));
}

/// In the PLC's memory.
fn first_byte(tag: &Tag) -> usize {
    2 * usize::from(tag.location.first) + usize::from(tag.location.byte)
}

fn end(tag: &Tag) -> usize {
    first_byte(tag) + usize::try_from(tag.iec.size()).unwrap_or(usize::MAX / 2)
}
