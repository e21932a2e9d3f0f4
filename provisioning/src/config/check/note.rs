//! Notes on tags that are valid but probably a mistake.

use std::time::Duration;

use crate::config::Tag;
use crate::config::context::ReadContext;
use crate::config::raw::RawTag;
use crate::plc::{IecType, PlcFamily, PlcModel, ValueKind};

/// Period of the MAST task in a new project of Machine Expert.
const DEFAULT_TASK_PERIOD: Duration = Duration::from_millis(10);

/// Adds notes on the tags of one PLC. Each tag has passed its own checks.
pub(super) fn note_tags(
    raw: &[RawTag],
    tags: &[Tag],
    model: Option<PlcModel>,
    context: &mut ReadContext<'_>,
) {
    if model.is_some_and(|model| model.family() == PlcFamily::MachineExpert) {
        for (raw, tag) in raw.iter().zip(tags) {
            note_misaligned(raw, tag, context);
        }
        note_fast_scan(raw, tags, context);
    }
    if model.is_some_and(|model| model.family() == PlcFamily::ModbusTables) {
        raw.iter().zip(tags).for_each(|(raw, tag)| note_bool_in_register(raw, tag, context));
    }
    note_overlaps(raw, tags, context);
}

/// Adds a note on the first tag that is read more often than the program of an M241, M251 or M262
/// runs by default (every 10 ms), because most reads would return the same value.
fn note_fast_scan(raw: &[RawTag], tags: &[Tag], context: &mut ReadContext<'_>) {
    let hasty = raw.iter().zip(tags).find(|(_, tag)| tag.scan < DEFAULT_TASK_PERIOD);
    let Some((raw, tag)) = hasty else { return };
    let message = format!(
        "\"{}\" is read every {:?}, but the PLC program runs every {DEFAULT_TASK_PERIOD:?} by \
         default",
        tag.name, tag.scan
    );
    let help = "compare `scan` with the period of the PLC's task; cycles beyond `max_share` and \
                `max_requests` are skipped";
    context.add_note(&raw.scan.key, message, help.to_owned(), None);
}

/// Adds a note on a BOOL in a register of a device that may mean the whole register, or another
/// bit: only its low byte is read.
fn note_bool_in_register(raw: &RawTag, tag: &Tag, context: &mut ReadContext<'_>) {
    let Tag { name, at, location, data_type, .. } = tag;
    let is_byte = !location.table.holds_bits() && location.bit.is_none();
    if data_type.element != IecType::Bool || data_type.elements() != 1 || !is_byte {
        return;
    }
    let message = format!("the BOOL \"{name}\" is the low byte of {at}: 0x0100 would be false");
    let help = format!("write {at}.8 for bit 8, or type = \"WORD\" for the whole register");
    context.add_note(&raw.at.key, message, help, None);
}

/// Adds a note on a tag whose address is not a multiple of its size. Machine Expert aligns
/// variables and warns otherwise, so such an address is more likely a typing error than a pragma.
fn note_misaligned(raw: &RawTag, tag: &Tag, context: &mut ReadContext<'_>) {
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
    let message =
        format!("Machine Expert places {} {rule}, which {} is not", article(item), tag.at);
    let help = format!(
        "compare the address with the declaration; the nearest addresses are %MW{below} and %MW{}",
        below + words
    );
    context.add_note(&raw.at.key, message, help, None);
}

/// Returns the article by pronunciation: an INT, an LREAL (el), a UINT (you).
fn article(item: IecType) -> String {
    let name = item.to_string();
    let article = if name.starts_with(['A', 'E', 'I', 'L', 'O']) { "an" } else { "a" };
    format!("{article} {name}")
}

/// Adds a note on values of different types in the same bytes. A bit of a word, and the same
/// variable under two names, are common and get no note.
fn note_overlaps(raw: &[RawTag], tags: &[Tag], context: &mut ReadContext<'_>) {
    let has_bytes =
        |tag: &Tag| !tag.location.table.holds_bits() && tag.data_type.element != IecType::Bool;
    let mut places: Vec<_> = (0..tags.len())
        .filter_map(|index| Some((tags.get(index).filter(|tag| has_bytes(tag))?, index)))
        .map(|(tag, index)| (tag.location.table, first_byte(tag), index))
        .collect();
    places.sort_unstable();
    // In order of the first byte, only the value that ends furthest can overlap the next one.
    let mut furthest: Option<usize> = None;
    for (_, _, index) in places {
        let last = furthest.and_then(|last| Some((last, tags.get(last)?)));
        let Some(tag) = tags.get(index) else { continue };
        if let Some((last, other)) = last
            && is_overlap(other, tag)
        {
            note_overlap(raw, tags, (index.min(last), index.max(last)), context);
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

fn note_overlap(raw: &[RawTag], tags: &[Tag], pair: (usize, usize), context: &mut ReadContext<'_>) {
    let (first, second) = pair;
    let (Some(one), Some(two)) = (tags.get(first), tags.get(second)) else { return };
    let (Some(raw_one), Some(raw_two)) = (raw.get(first), raw.get(second)) else { return };
    let message = format!(
        "\"{}\" ({} at {}) occupies the same bytes as \"{}\" ({} at {})",
        two.name, two.data_type, two.at, one.name, one.data_type, one.at
    );
    let help = "compare addresses and types with their declarations; ignore this if intended";
    let here = format!("\"{}\" is here", one.name);
    context.add_note(&raw_two.at.key, message, help.to_owned(), Some((&raw_one.at.key, here)));
}

/// Returns the first byte of a tag in the memory of the PLC.
fn first_byte(tag: &Tag) -> usize {
    2 * usize::from(tag.location.first) + usize::from(tag.location.byte)
}

fn end_byte(tag: &Tag) -> usize {
    first_byte(tag) + usize::try_from(tag.data_type.size()).unwrap_or(usize::MAX / 2)
}
