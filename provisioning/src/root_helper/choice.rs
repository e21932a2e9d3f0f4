//! Which bundle is in use: pure. What the gateway says is a claim, which its user may have made up.

use super::box_record::BoxRecord;
use crate::trial::{TrialRecord, TrialSlot};

/// What follows from a claim of the gateway.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct BundleChoice<R> {
    /// The record of the box from now on.
    pub(super) record: BoxRecord,
    /// The bundle whose secrets and network are to be in use; none leaves everything as it is.
    pub(super) in_use: Option<u64>,
    /// The bundle that is refused, and why.
    pub(super) refused: Option<(u64, RefusedClaim<R>)>,
}

/// Why a claim is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum RefusedClaim<R> {
    /// It is none of the two that may be in use, and not newer than all that were accepted.
    Older {
        /// Largest counter that was accepted.
        last: u64,
    },
    /// It is newer, but is not accepted.
    NotAccepted(R),
}

/// Decides about a claim. `accept` verifies the bundle in a slot, which must have the counter; it
/// is called only for a counter that is larger than all that were accepted.
///
/// In use is one of: the last confirmed bundle, the one on trial, or a newer one that `accept`
/// takes. A bundle that was rolled back, and one that is older than the confirmed one, never comes
/// back.
pub(super) fn choose<R>(
    own: &BoxRecord,
    claim: &TrialRecord,
    mut accept: impl FnMut(TrialSlot, u64) -> Result<(), R>,
) -> BundleChoice<R> {
    let mut record = own.clone();
    let mut refused = None;
    let mut is_confirmed_known = false;
    // Before the one on trial: both may be new if the helper did not run in between.
    if let Some((slot, counter)) = claim.confirmed {
        match confirm(&mut record, slot, counter, &mut accept) {
            Ok(()) => is_confirmed_known = true,
            Err(reason) => refused = Some((counter, reason)),
        }
    }
    let in_use = match &claim.on_trial {
        Some(on_trial) => {
            match try_out(&mut record, on_trial.slot, on_trial.counter, &mut accept) {
                Ok(()) => {
                    refused = None;
                    Some(on_trial.counter)
                }
                Err(reason) => {
                    refused = Some((on_trial.counter, reason));
                    None
                }
            }
        }
        None if is_confirmed_known => {
            // The one on trial was rolled back.
            record.on_trial = None;
            record.confirmed
        }
        None => None,
    };
    BundleChoice { record, in_use, refused }
}

fn confirm<R>(
    record: &mut BoxRecord,
    slot: TrialSlot,
    counter: u64,
    accept: &mut impl FnMut(TrialSlot, u64) -> Result<(), R>,
) -> Result<(), RefusedClaim<R>> {
    if record.confirmed == Some(counter) {
        return Ok(());
    }
    if record.on_trial != Some(counter) {
        accept_newer(record, slot, counter, accept)?;
    }
    record.confirmed = Some(counter);
    record.on_trial = None;
    Ok(())
}

fn try_out<R>(
    record: &mut BoxRecord,
    slot: TrialSlot,
    counter: u64,
    accept: &mut impl FnMut(TrialSlot, u64) -> Result<(), R>,
) -> Result<(), RefusedClaim<R>> {
    if record.on_trial != Some(counter) && record.confirmed != Some(counter) {
        accept_newer(record, slot, counter, accept)?;
        record.on_trial = Some(counter);
    }
    Ok(())
}

fn accept_newer<R>(
    record: &mut BoxRecord,
    slot: TrialSlot,
    counter: u64,
    accept: &mut impl FnMut(TrialSlot, u64) -> Result<(), R>,
) -> Result<(), RefusedClaim<R>> {
    if counter <= record.last {
        return Err(RefusedClaim::Older { last: record.last });
    }
    accept(slot, counter).map_err(RefusedClaim::NotAccepted)?;
    record.last = counter;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::bundle::BundleSource;
    use crate::trial::{BundleInUse, BundleOnTrial, BundleTrial, RevertReason, TrialStorage};

    /// A gateway that keeps its bundles as it should; a bundle is its counter.
    #[derive(Default)]
    struct HonestState {
        record: Option<String>,
        slots: [u64; 2],
    }

    fn index(slot: TrialSlot) -> usize {
        usize::from(slot == TrialSlot::B)
    }

    impl TrialStorage for HonestState {
        type Error = std::convert::Infallible;

        fn read_record(&self) -> Result<Option<String>, Self::Error> {
            Ok(self.record.clone())
        }

        fn write_record(&mut self, record: &str) -> Result<(), Self::Error> {
            self.record = Some(record.to_owned());
            Ok(())
        }

        fn write_slot(&mut self, slot: TrialSlot, bundle: &[u8]) -> Result<(), Self::Error> {
            self.slots[index(slot)] = u64::from(bundle[0]);
            Ok(())
        }
    }

    fn claim(confirmed: Option<u64>, on_trial: Option<u64>) -> TrialRecord {
        let mut record: TrialRecord = "last = 0".parse().unwrap();
        record.confirmed = confirmed.map(|counter| (TrialSlot::A, counter));
        record.on_trial = on_trial.map(|counter| BundleOnTrial {
            source: BundleSource::Pulled,
            slot: TrialSlot::B,
            counter,
            starts: 0,
            run_time: Duration::ZERO,
        });
        record
    }

    #[derive(Clone, Copy, Debug)]
    enum GatewayStep {
        Stage,
        Confirm,
        Revert,
        HelperRuns,
    }

    fn gateway_step() -> impl Strategy<Value = GatewayStep> {
        prop::sample::select(vec![
            GatewayStep::Stage,
            GatewayStep::Confirm,
            GatewayStep::Revert,
            GatewayStep::HelperRuns,
        ])
    }

    proptest! {
        /// Whenever the helper runs, and however often it missed a change.
        #[test]
        fn an_honest_gateway_is_never_refused(
            steps in prop::collection::vec(gateway_step(), 1..60),
        ) {
            let limit = Duration::from_secs(60);
            let mut trials = BundleTrial::open(HonestState::default(), limit).unwrap();
            let mut own = BoxRecord::default();
            let mut newest = 0_u8;
            for step in steps {
                match step {
                    GatewayStep::Stage => {
                        newest += 1;
                        let _ = trials.stage(&[newest], newest.into(), BundleSource::Pulled);
                    }
                    GatewayStep::Confirm => trials.confirm().unwrap(),
                    GatewayStep::Revert => {
                        trials.revert(RevertReason::TooManyStarts).unwrap();
                    }
                    GatewayStep::HelperRuns => {
                        let slots = trials.storage().slots;
                        let chosen = choose(&own, trials.record(), |slot, counter| {
                            if slots[index(slot)] == counter { Ok(()) } else { Err(()) }
                        });
                        prop_assert_eq!(&chosen.refused, &None);
                        let in_use = match trials.in_use() {
                            BundleInUse::Nothing => None,
                            BundleInUse::Confirmed(slot) | BundleInUse::OnTrial { slot, .. } => {
                                Some(slots[index(slot)])
                            }
                        };
                        prop_assert_eq!(chosen.in_use, in_use);
                        own = chosen.record;
                    }
                }
            }
        }

        /// `signed` are the bundles of this box that the office has made.
        #[test]
        fn a_hostile_claim_chooses_between_the_confirmed_and_the_newest_signed(
            signed in prop::collection::btree_set(1..12_u64, 0..8),
            claims in prop::collection::vec(
                (prop::option::of(0..14_u64), prop::option::of(0..14_u64)), 1..30,
            ),
        ) {
            let mut own = BoxRecord::default();
            let mut gone: BTreeSet<u64> = BTreeSet::new();
            for (confirmed, on_trial) in claims {
                let mut accepted = BTreeSet::new();
                let chosen = choose(&own, &claim(confirmed, on_trial), |_, counter| {
                    if !signed.contains(&counter) { return Err(()) }
                    accepted.insert(counter);
                    Ok(())
                });
                let record = &chosen.record;
                if let Some(in_use) = chosen.in_use {
                    let is_known = [own.confirmed, own.on_trial].contains(&Some(in_use));
                    prop_assert!(is_known || accepted.contains(&in_use) && in_use > own.last);
                    prop_assert!(signed.contains(&in_use) && !gone.contains(&in_use));
                    prop_assert!(Some(in_use) >= own.confirmed);
                }
                prop_assert!(accepted.iter().all(|counter| *counter > own.last));
                prop_assert!(record.last >= own.last && record.confirmed >= own.confirmed);
                prop_assert!(record.on_trial.is_none_or(|tried| Some(tried) > record.confirmed));
                let known = |record: &BoxRecord| {
                    let known = [record.confirmed, record.on_trial];
                    known.into_iter().flatten().collect::<BTreeSet<_>>()
                };
                gone.extend(known(&own).difference(&known(record)));
                own = chosen.record;
            }
        }

        #[test]
        fn any_record_of_the_box_is_read_or_refused(text in ".{0,200}") {
            let _ = text.parse::<BoxRecord>();
        }
    }

    #[test]
    fn a_bundle_that_was_rolled_back_does_not_come_back() {
        let confirmed = BoxRecord { last: 16, confirmed: Some(16), ..BoxRecord::default() };
        let accept = |_, _| Ok::<_, ()>(());
        let on_trial = choose(&confirmed, &claim(Some(16), Some(17)), accept);
        assert_eq!((on_trial.in_use, on_trial.record.on_trial), (Some(17), Some(17)));
        let reverted = choose(&on_trial.record, &claim(Some(16), None), accept);
        assert_eq!((reverted.in_use, reverted.record.on_trial), (Some(16), None));

        let again = choose(&reverted.record, &claim(Some(16), Some(17)), accept);

        assert_eq!(again.refused, Some((17, RefusedClaim::Older { last: 17 })));
        assert_eq!((again.in_use, again.record), (None, reverted.record));
    }

    #[test]
    fn an_empty_or_refused_claim_changes_nothing() {
        let own =
            BoxRecord { last: 17, confirmed: Some(16), on_trial: Some(17), ..BoxRecord::default() };
        let refuse = |_, _| Err("not signed");
        let expected = |refused| BundleChoice { record: own.clone(), in_use: None, refused };
        assert_eq!(choose(&own, &claim(None, None), refuse), expected(None));
        let older = Some((3, RefusedClaim::Older { last: 17 }));
        assert_eq!(choose(&own, &claim(Some(3), None), refuse), expected(older));
        let not_signed = Some((18, RefusedClaim::NotAccepted("not signed")));
        assert_eq!(choose(&own, &claim(Some(18), None), refuse), expected(not_signed.clone()));
        assert_eq!(choose(&own, &claim(Some(16), Some(18)), refuse), expected(not_signed));
    }
}
