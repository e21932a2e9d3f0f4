//! What follows from the end of a certificate. Pure; all times are seconds since 1970.

use std::collections::BTreeMap;

use provisioning::certificates::Certificate;

const DAY: i64 = 86_400;
/// Days before the end of a certificate at which an event is published.
const NOTICE_DAYS: [i64; 3] = [30, 14, 3];
/// A certificate of the gateway is about to end in its last three days, or in the last third of
/// its validity if that is shorter.
const RENEWAL_LEAD: i64 = 3 * DAY;

/// Decides which certificates an event is published for.
#[derive(Debug, Default)]
pub(in crate::app) struct ExpiryNotices {
    /// The end of each certificate, and the days of the last notice on it.
    given: BTreeMap<String, (i64, i64)>,
}

/// A certificate has only this many days left.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::app) struct ExpiryNotice {
    pub(in crate::app) file: String,
    pub(in crate::app) not_after: i64,
    /// Whole days until then; negative after the end.
    pub(in crate::app) days: i64,
}

impl ExpiryNotices {
    /// Returns the notice that is due for a certificate: one when it has 30, 14 and 3 days left.
    /// After a start or a replacement only the most urgent one is due.
    pub(in crate::app) fn on_checked(
        &mut self,
        file: &str,
        not_after: i64,
        now: i64,
    ) -> Option<ExpiryNotice> {
        let left = not_after.saturating_sub(now);
        let reached = NOTICE_DAYS.into_iter().filter(|days| left <= days * DAY).min()?;
        let given = self.given.get(file).filter(|(end, _)| *end == not_after);
        if given.is_some_and(|(_, days)| *days <= reached) {
            return None;
        }
        self.given.insert(file.to_owned(), (not_after, reached));
        Some(ExpiryNotice { file: file.to_owned(), not_after, days: days_left(not_after, now) })
    }
}

/// Returns the whole days until the end; negative after it.
pub(in crate::app) const fn days_left(not_after: i64, now: i64) -> i64 {
    not_after.saturating_sub(now).div_euclid(DAY)
}

/// Returns whether the connection should be replaced by one with the certificate on disk: the one
/// in use is about to end, and that on disk is valid and ends later.
pub(in crate::app) fn is_renewal_due(
    in_use: &Certificate,
    on_disk: &Certificate,
    now: i64,
) -> bool {
    let (used, new) = (&in_use.facts, &on_disk.facts);
    let lead = RENEWAL_LEAD.min((used.not_after - used.not_before) / 3);
    let is_valid = (new.not_before..=new.not_after).contains(&now);
    now >= used.not_after - lead && is_valid && new.not_after > used.not_after
}
