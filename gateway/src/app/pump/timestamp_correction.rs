//! Marks and corrects the times of records that were taken while the clock was wrong. Pure.

use std::borrow::Cow;

use crate::clock::{ClockHistory, Correction};
use crate::model::{Quality, Record, UnixTime};

/// Marks samples taken while the clock is known to be wrong. Only good ones: a sample keeps one
/// quality, and any other already says that its value cannot be relied on.
pub(super) fn mark_unsynced(record: &mut Record) {
    for sample in record.samples.iter_mut().filter(|sample| sample.quality == Quality::Good) {
        sample.quality = Quality::Unsynced;
    }
}

/// Returns the record as it is sent, and whether its times were corrected.
pub(super) fn corrected<'r>(record: &'r Record, history: &ClockHistory) -> (Cow<'r, Record>, bool) {
    let correction = record.clock.map(|period| history.correction(period));
    apply(record, correction.unwrap_or(Correction::Unknown))
}

fn apply(record: &Record, correction: Correction) -> (Cow<'_, Record>, bool) {
    let is_marked = || record.samples.iter().any(|sample| sample.quality == Quality::Unsynced);
    match correction {
        Correction::Confirmed if is_marked() => (Cow::Owned(shifted(record, 0)), false),
        Correction::Unknown | Correction::Confirmed => (Cow::Borrowed(record), false),
        Correction::Shift(micros) => (Cow::Owned(shifted(record, micros)), true),
    }
}

fn shifted(record: &Record, micros: i64) -> Record {
    let shift = |at: UnixTime| UnixTime::from_micros(at.as_micros().saturating_add(micros));
    let mut record = record.clone();
    record.at = shift(record.at);
    for sample in &mut record.samples {
        sample.at = shift(sample.at);
        if sample.quality == Quality::Unsynced {
            sample.quality = Quality::Good;
        }
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Sample, Value};

    const AT: UnixTime = UnixTime::from_micros(5_000_000);

    fn record() -> Record {
        let sample = |tag, quality| Sample { tag, value: Some(Value::Int(7)), quality, at: AT };
        let samples = vec![sample(0, Quality::Good), sample(1, Quality::Stopped)];
        Record { plc: 0, at: AT, clock: None, samples }
    }

    #[test]
    fn samples_of_a_wrong_clock_are_marked_until_their_times_are_corrected() {
        let mut marked = record();
        mark_unsynced(&mut marked);
        let qualities =
            |record: &Record| record.samples.iter().map(|s| s.quality).collect::<Vec<_>>();
        assert_eq!(qualities(&marked), [Quality::Unsynced, Quality::Stopped]);
        assert_eq!(apply(&marked, Correction::Unknown), (Cow::Borrowed(&marked), false));

        let (sent, is_corrected) = apply(&marked, Correction::Shift(1_000_000));

        let at = UnixTime::from_micros(6_000_000);
        assert_eq!((sent.at, sent.samples[0].at, is_corrected), (at, at, true));
        assert_eq!(qualities(&sent), [Quality::Good, Quality::Stopped]);
        assert_eq!(apply(&marked, Correction::Confirmed), (Cow::Owned(record()), false));
    }

    #[test]
    fn a_record_with_right_times_is_sent_unchanged() {
        let record = record();
        assert!(matches!(apply(&record, Correction::Confirmed), (Cow::Borrowed(_), false)));
    }
}
