//! Suggestions for misspelt words.

/// Returns the candidate closest to `word`, at most three edits away; fewer for short words.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if word.len() > MAX_WORD_BYTES {
        return None;
    }
    let word = word.to_lowercase();
    let length = word.chars().count();
    let max_distance = (length / 3).clamp(1, 3);
    // Each insertion or deletion is an edit.
    let is_near = |candidate: &&str| candidate.chars().count().abs_diff(length) <= max_distance;
    candidates
        .into_iter()
        .filter(is_near)
        .map(|candidate| (edit_distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= max_distance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A longer word is no typing error, and comparing it would take long.
const MAX_WORD_BYTES: usize = 64;

/// Returns `plc.tag.write` for `plc[12].tag[3].write`.
pub(super) fn without_indices(path: &str) -> String {
    path.split(']').filter_map(|part| part.split('[').next()).collect()
}

/// Returns the number of insertions, deletions, substitutions and swaps of neighbours that turn `a`
/// into `b` (optimal string alignment).
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let replaced = at(&last, j) + usize::from(from != to);
            let mut distance = replaced.min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(to) && b.get(j - 1) == Some(from);
            if swapped {
                distance = distance.min(at(&before_last, j - 1) + 1);
            }
            row.push(distance);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_has_a_suggestion_and_an_unrelated_word_has_none() {
        let keys = ["address", "unit_id", "scan", "timeout"];
        assert_eq!(nearest("adress", keys), Some("address"));
        assert_eq!(nearest("Unit-ID", keys), Some("unit_id"));
        assert_eq!(nearest("sacn", keys), Some("scan"));
        assert_eq!(nearest("period", keys), None);
    }

    #[test]
    fn a_path_is_shown_without_the_indices_of_its_lists() {
        assert_eq!(without_indices("plc[12].tag[3].write"), "plc.tag.write");
    }
}
