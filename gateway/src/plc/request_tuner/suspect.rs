//! A range of tags over which the session ends: it is read in parts until the tags to blame are
//! found.

use std::ops::Range;

/// Most parts into which a range is divided. A part that is answered costs one request, a part that
/// is not answered costs a connection: 16 parts find a tag with fewer connections than halves do.
const MAX_PARTS: usize = 16;

/// A range that is not read as a whole until each of its parts was answered or quarantined.
#[derive(Clone, Debug)]
pub(super) struct SuspectRequest {
    /// Positions of the range over which the session ended.
    whole: Range<usize>,
    /// What is still to be read, in the order of reading.
    parts: Vec<Range<usize>>,
    /// Whether a part of it was rejected, so that the range as a whole is not to blame.
    has_rejected_part: bool,
}

/// What a lost part means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PartLoss {
    /// It is to be read in parts of its own: each may be answered, and only both together not.
    Divided,
    /// It is one slot, at this position.
    Found(usize),
}

impl SuspectRequest {
    pub(super) fn new(whole: Range<usize>) -> Self {
        Self { parts: divide(&whole), whole, has_rejected_part: false }
    }

    pub(super) const fn whole(&self) -> &Range<usize> {
        &self.whole
    }

    /// Returns what is still to be read, in the order of reading.
    pub(super) fn parts(&self) -> &[Range<usize>] {
        &self.parts
    }

    /// Returns whether this position is still to be read.
    pub(super) fn contains(&self, position: usize) -> bool {
        self.parts.iter().any(|part| part.contains(&position))
    }

    /// Returns whether every part was answered, although the whole was not.
    pub(super) const fn is_answered_in_parts(&self) -> bool {
        self.parts.is_empty() && !self.has_rejected_part
    }

    /// Returns the first positions of the parts but the first.
    pub(super) fn inner_starts(&self) -> impl Iterator<Item = usize> + use<> {
        divide(&self.whole).into_iter().skip(1).map(|part| part.start)
    }

    /// Records that a part was answered.
    pub(super) fn on_answer(&mut self, part: &Range<usize>) {
        self.parts.retain(|waiting| waiting != part);
    }

    /// Records that a part was rejected with an exception, which says what to do with it.
    pub(super) fn on_refused(&mut self, part: &Range<usize>) {
        if self.parts.contains(part) {
            self.has_rejected_part = true;
            self.on_answer(part);
        }
    }

    /// Records that the session ended over a part; `None` when it is not one of these.
    pub(super) fn on_lost(&mut self, part: &Range<usize>) -> Option<PartLoss> {
        let index = self.parts.iter().position(|waiting| waiting == part)?;
        self.has_rejected_part = true;
        self.parts.remove(index);
        if part.len() == 1 {
            return Some(PartLoss::Found(part.start));
        }
        Some(PartLoss::Divided)
    }
}

/// Divides a range into at most [`MAX_PARTS`] parts of about equal length.
fn divide(range: &Range<usize>) -> Vec<Range<usize>> {
    let len = range.len().div_ceil(MAX_PARTS).max(1);
    range.clone().step_by(len).map(|start| start..(start + len).min(range.end)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_range_and_the_slot_to_blame_is_found_with_few_losses() {
        for len in [1, 2, 15, 16, 17, 40, 120, 2000] {
            for bad in [0, len / 2, len - 1] {
                let mut suspect = SuspectRequest::new(10..10 + len);
                let covered: Vec<_> = suspect.parts().iter().cloned().flatten().collect();
                assert_eq!(covered, (10..10 + len).collect::<Vec<_>>());
                let (mut losses, mut answers, mut found) = (0, 0, None);
                while let Some(part) = suspect.parts().first().cloned() {
                    if !part.contains(&(10 + bad)) {
                        answers += 1;
                        suspect.on_answer(&part);
                        continue;
                    }
                    losses += 1;
                    match suspect.on_lost(&part).unwrap() {
                        PartLoss::Found(position) => found = Some(position),
                        PartLoss::Divided => {
                            answers += suspect.parts().len();
                            suspect = SuspectRequest::new(part);
                        }
                    }
                }
                assert_eq!(found, Some(10 + bad));
                assert!(losses <= 3 && answers <= 45, "{losses} and {answers} of {len}");
                assert!(!suspect.is_answered_in_parts());
            }
        }
    }

    #[test]
    fn a_whole_whose_parts_are_all_answered_is_to_blame_itself() {
        let mut suspect = SuspectRequest::new(0..3);
        for part in [0..1, 2..3] {
            suspect.on_answer(&part);
            assert!(!suspect.is_answered_in_parts());
        }
        assert!(suspect.contains(1) && !suspect.contains(2));
        assert_eq!(suspect.on_lost(&(0..1)), None, "it was answered");
        suspect.on_answer(&(1..2));
        assert!(suspect.is_answered_in_parts());
        let mut refused = SuspectRequest::new(0..2);
        refused.on_refused(&(0..1));
        refused.on_answer(&(1..2));
        assert!(!refused.is_answered_in_parts() && refused.parts().is_empty());
    }
}
