//! The registers and coils of a unit over which a session ended. Pure.

use std::collections::BTreeSet;

use provisioning::plc::Table;

/// Registers and coils, each with its table: at most those of the tags that can be written.
#[derive(Debug, Default)]
pub(super) struct LostRegisters(BTreeSet<(Table, u16)>);

/// Table, first address and count.
type RegisterRange = (Table, u16, usize);

impl LostRegisters {
    /// Records that the session ended over a request with this range. Any of its registers may be
    /// the reason.
    pub(super) fn on_lost(&mut self, range: RegisterRange) {
        self.0.extend(places(range));
    }

    /// Records that a request with this range was answered.
    pub(super) fn on_answered(&mut self, range: RegisterRange) {
        for place in places(range) {
            self.0.remove(&place);
        }
    }

    /// Returns whether a request with this range may end the session, too.
    pub(super) fn overlaps(&self, range: RegisterRange) -> bool {
        places(range).any(|place| self.0.contains(&place))
    }
}

fn places((table, first, count): RegisterRange) -> impl Iterator<Item = (Table, u16)> {
    (first..=u16::MAX).take(count).map(move |address| (table, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_register_is_remembered_until_a_request_with_it_is_answered() {
        let words = |first, count| (Table::HoldingRegister, first, count);
        let mut lost = LostRegisters::default();
        lost.on_lost(words(500, 3));
        for (range, is_lost) in [((499, 1), false), ((499, 2), true), ((502, 9), true)] {
            assert_eq!(lost.overlaps(words(range.0, range.1)), is_lost, "{range:?}");
        }
        assert!(!lost.overlaps((Table::Coil, 500, 3)));
        lost.on_answered(words(501, 2));
        assert!(lost.overlaps(words(500, 1)) && !lost.overlaps(words(501, 100)));
        lost.on_lost(words(u16::MAX, 2));
        assert!(lost.overlaps(words(u16::MAX, 1)));
    }
}
