use std::cell::RefCell;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;

const BY_HAND: BundleSource = BundleSource::ByHand;
const LIMIT: Duration = Duration::from_secs(600);
const ALL: Evidence = Evidence {
    tunnel: true,
    broker: true,
    offer: true,
    set: true,
    status: true,
    bundle_refetched: true,
    version: true,
};

/// A disk whose power fails after a number of steps. A write of a slot is two steps: in between,
/// half of it is there. A record is replaced in one.
#[derive(Clone, Debug, Default)]
struct Disk(Rc<RefCell<StoredContent>>);

#[derive(Clone, Debug, Default)]
struct StoredContent {
    record: Option<String>,
    slots: [Vec<u8>; 2],
    /// Steps until the power fails; none for never.
    steps_left: Option<usize>,
}

#[derive(Debug, Eq, PartialEq)]
struct PowerCut;

impl Disk {
    fn step(&self) -> Result<(), PowerCut> {
        match &mut self.0.borrow_mut().steps_left {
            Some(0) => Err(PowerCut),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn slot(&self, slot: TrialSlot) -> Vec<u8> {
        self.0.borrow().slots[index(slot)].clone()
    }
}

fn index(slot: TrialSlot) -> usize {
    match slot {
        TrialSlot::A => 0,
        TrialSlot::B => 1,
    }
}

impl TrialStorage for Disk {
    type Error = PowerCut;

    fn read_record(&self) -> Result<Option<String>, PowerCut> {
        Ok(self.0.borrow().record.clone())
    }

    fn write_record(&mut self, record: &str) -> Result<(), PowerCut> {
        self.step()?;
        self.0.borrow_mut().record = Some(record.to_owned());
        self.step()
    }

    fn write_slot(&mut self, slot: TrialSlot, bundle: &[u8]) -> Result<(), PowerCut> {
        self.step()?;
        self.0.borrow_mut().slots[index(slot)] = bundle[..bundle.len() / 2].to_vec();
        self.step()?;
        self.0.borrow_mut().slots[index(slot)] = bundle.to_vec();
        self.step()
    }
}

fn open(disk: &Disk) -> BundleTrial<Disk> {
    BundleTrial::open(disk.clone(), LIMIT).unwrap()
}

fn content(counter: u64) -> Vec<u8> {
    format!("bundle {counter}").into_bytes()
}

/// Returns the bundle in use; panics if it is not whole.
fn bundle_in_use(trials: &BundleTrial<Disk>) -> Option<Vec<u8>> {
    let slot = match trials.in_use() {
        BundleInUse::Nothing => return None,
        BundleInUse::Confirmed(slot) | BundleInUse::OnTrial { slot, .. } => slot,
    };
    Some(trials.storage().slot(slot))
}

/// Returns a disk with confirmed bundles up to this counter.
fn with_confirmed(counter: u64) -> Disk {
    let disk = Disk::default();
    let mut trials = open(&disk);
    for counter in 1..=counter {
        trials.stage(&content(counter), counter, BY_HAND).unwrap();
        trials.confirm().unwrap();
    }
    disk
}

#[test]
fn a_bundle_is_confirmed_when_everything_is_reached() {
    let disk = with_confirmed(1);
    let mut trials = open(&disk);
    trials.stage(&content(2), 2, BY_HAND).unwrap();
    assert_eq!(trials.start().unwrap(), None);
    let mut evidence = Evidence::default();
    let reached: [fn(&mut Evidence); 7] = [
        |evidence| evidence.tunnel = true,
        |evidence| evidence.broker = true,
        |evidence| evidence.offer = true,
        |evidence| evidence.set = true,
        |evidence| evidence.status = true,
        |evidence| evidence.bundle_refetched = true,
        |evidence| evidence.version = true,
    ];
    for reach in reached {
        assert_eq!(trials.judge(&evidence, Duration::from_secs(599)), TrialDecision::Wait);
        assert!(matches!(trials.judge(&evidence, LIMIT), TrialDecision::Revert(_)));
        reach(&mut evidence);
    }
    assert_eq!(trials.judge(&evidence, LIMIT), TrialDecision::Confirm, "in the last moment");
    trials.confirm().unwrap();
    assert_eq!(open(&disk).in_use(), BundleInUse::Confirmed(TrialSlot::B));
    assert_eq!(bundle_in_use(&open(&disk)), Some(content(2)));
}

#[test]
fn a_bundle_that_loses_the_hub_is_rolled_back_and_never_tried_again() {
    let disk = with_confirmed(1);
    let mut trials = open(&disk);
    trials.stage(&content(2), 2, BY_HAND).unwrap();
    // The time is that of running, over restarts.
    for _ in 0..2 {
        trials.start().unwrap();
        trials.add_running_time(Duration::from_secs(250)).unwrap();
        trials = open(&disk);
    }
    let time_left = Some(Duration::from_secs(100));
    assert_eq!(trials.in_use(), BundleInUse::OnTrial { slot: TrialSlot::B, time_left });
    let none = Evidence::default();
    assert_eq!(trials.judge(&none, Duration::from_secs(99)), TrialDecision::Wait);
    let TrialDecision::Revert(reason) = trials.judge(&none, Duration::from_secs(100)) else {
        panic!()
    };
    let reason = trials.revert(reason).unwrap();
    assert_eq!(
        reason.to_string(),
        "after 10 min of running: the tunnel did not come up: check the hub, its key and the network"
    );
    let mut trials = open(&disk);
    assert_eq!(bundle_in_use(&trials), Some(content(1)));
    assert_eq!(trials.record().reverted.as_ref().unwrap().counter, 2);
    let again = trials.stage(&content(2), 2, BY_HAND).unwrap_err();
    assert!(matches!(again, TrialError::NotNewer { counter: 2, last: 2 }));
    trials.stage(&content(3), 3, BY_HAND).unwrap();
    trials.confirm().unwrap();
    assert_eq!(trials.record().reverted, None);
}

#[test]
fn crashes_and_power_cuts_count_as_starts() {
    let disk = with_confirmed(1);
    open(&disk).stage(&content(2), 2, BY_HAND).unwrap();
    for _ in 0..MAX_STARTS {
        assert_eq!(open(&disk).start().unwrap(), None);
    }
    let mut trials = open(&disk);
    assert_eq!(trials.start().unwrap(), Some(RevertReason::TooManyStarts));
    assert_eq!(bundle_in_use(&trials), Some(content(1)));
}

#[test]
fn the_first_bundle_is_tried_for_ever_and_the_next_one_may_replace_it() {
    let disk = Disk::default();
    let mut trials = open(&disk);
    assert_eq!((trials.in_use(), trials.start().unwrap()), (BundleInUse::Nothing, None));
    trials.stage(&content(1), 1, BY_HAND).unwrap();
    for _ in 0..100 {
        assert_eq!(open(&disk).start().unwrap(), None);
    }
    let mut trials = open(&disk);
    assert_eq!(trials.judge(&Evidence::default(), LIMIT * 1000), TrialDecision::Wait);
    trials.revert(RevertReason::TooManyStarts).unwrap();
    assert_eq!(trials.in_use(), BundleInUse::OnTrial { slot: TrialSlot::A, time_left: None });
    // A person brings another one.
    trials.stage(&content(2), 2, BY_HAND).unwrap();
    assert_eq!(trials.in_use(), BundleInUse::OnTrial { slot: TrialSlot::B, time_left: None });
    trials.confirm().unwrap();
    assert_eq!(bundle_in_use(&open(&disk)), Some(content(2)));
}

#[test]
fn one_bundle_is_on_trial_at_a_time() {
    let mut trials = open(&with_confirmed(1));
    trials.stage(&content(2), 2, BY_HAND).unwrap();
    let second = trials.stage(&content(3), 3, BY_HAND).unwrap_err();
    assert!(matches!(second, TrialError::OnTrial { counter: 2 }));
    assert_eq!(bundle_in_use(&trials), Some(content(2)));
}

/// Stages a bundle and ends its trial; stops at the power cut.
fn change(disk: &Disk, is_good: bool) -> Result<(), TrialError<PowerCut>> {
    let mut trials = BundleTrial::open(disk.clone(), LIMIT)?;
    if trials.record().last_counter() < 3 {
        trials.stage(&content(3), 3, BY_HAND)?;
    }
    trials.start()?;
    trials.add_running_time(Duration::from_secs(30))?;
    if is_good {
        trials.confirm()?;
    } else if let TrialDecision::Revert(reason) = trials.judge(&Evidence::default(), LIMIT) {
        trials.revert(reason)?;
    }
    Ok(())
}

#[test]
fn at_every_power_cut_the_old_bundle_or_the_new_one_is_in_use_and_whole() {
    for (is_good, last) in [(true, content(3)), (false, content(2))] {
        let mut cuts = 0;
        loop {
            let disk = with_confirmed(2);
            disk.0.borrow_mut().steps_left = Some(cuts);
            let is_cut = change(&disk, is_good).is_err();
            disk.0.borrow_mut().steps_left = None;
            let found = bundle_in_use(&open(&disk)).unwrap();
            assert!([content(2), content(3)].contains(&found), "step {cuts}");
            // With power again, the change is made or rolled back as if nothing had happened.
            change(&disk, is_good).unwrap();
            assert_eq!(bundle_in_use(&open(&disk)).unwrap(), last, "step {cuts}");
            if !is_cut {
                break;
            }
            cuts += 1;
        }
        assert!(cuts > 9, "{cuts} steps");
    }
}

#[test]
fn a_full_disk_leaves_what_was_in_use() {
    let disk = with_confirmed(2);
    disk.0.borrow_mut().steps_left = Some(1);
    let mut trials = open(&disk);
    assert!(matches!(trials.stage(&content(3), 3, BY_HAND), Err(TrialError::Storage(PowerCut))));
    disk.0.borrow_mut().steps_left = None;
    assert_eq!(bundle_in_use(&trials), Some(content(2)));
    trials.stage(&content(3), 3, BY_HAND).unwrap();
    assert_eq!(bundle_in_use(&open(&disk)), Some(content(3)));
}

/// The record was replaced, and only then the disk reported an error.
#[test]
fn a_slot_that_the_disk_may_use_is_not_written() {
    let disk = with_confirmed(2);
    let mut trials = open(&disk);
    trials.stage(&content(3), 3, BY_HAND).unwrap();
    disk.0.borrow_mut().steps_left = Some(1);
    assert!(matches!(trials.confirm(), Err(TrialError::Storage(PowerCut))));
    assert_eq!(bundle_in_use(&open(&disk)), Some(content(3)), "the disk holds the new record");
    disk.0.borrow_mut().steps_left = None;
    trials.revert(RevertReason::TooManyStarts).unwrap();
    for steps in 0..9 {
        disk.0.borrow_mut().steps_left = Some(steps);
        let _ = trials.stage(&content(4), 4, BY_HAND);
        let found = bundle_in_use(&open(&disk)).unwrap();
        assert!([content(2), content(4)].contains(&found), "step {steps}");
    }
}

#[test]
fn a_bundle_is_rolled_back_though_the_disk_is_full() {
    let disk = with_confirmed(1);
    let mut trials = open(&disk);
    trials.stage(&content(2), 2, BY_HAND).unwrap();
    disk.0.borrow_mut().steps_left = Some(0);
    trials.revert(RevertReason::TooManyStarts).unwrap_err();
    assert_eq!(bundle_in_use(&trials), Some(content(1)));
    trials.stage(&content(3), 3, BY_HAND).unwrap_err();
    assert_eq!(bundle_in_use(&trials), Some(content(1)));
    disk.0.borrow_mut().steps_left = None;
    trials.stage(&content(3), 3, BY_HAND).unwrap();
    assert_eq!(bundle_in_use(&open(&disk)), Some(content(3)));
}

#[test]
fn a_box_with_a_damaged_record_takes_the_bundle_that_a_person_brings() {
    let disk = with_confirmed(2);
    disk.0.borrow_mut().record = Some("[confirmed]\nslot = \"c\"\n".to_owned());
    let damaged = BundleTrial::open(disk.clone(), LIMIT).unwrap_err();
    assert!(damaged.to_string().contains("bring the newest bundle by hand"), "{damaged}");
    let mut trials = BundleTrial::renew(disk.clone(), LIMIT);
    assert_eq!(trials.in_use(), BundleInUse::Nothing);
    trials.stage(&content(2), 2, BY_HAND).unwrap();
    assert_eq!(bundle_in_use(&open(&disk)), Some(content(2)));
}

#[test]
fn what_is_missing_is_named_without_what_follows_from_it() {
    assert_eq!(Evidence::default().missing(), [MissingEvidence::Tunnel]);
    let no_broker = Evidence { tunnel: true, ..Evidence::default() };
    assert_eq!(no_broker.missing(), [MissingEvidence::Broker]);
    let no_rights = Evidence { offer: false, set: false, ..ALL };
    assert_eq!(no_rights.missing(), [MissingEvidence::Offer, MissingEvidence::Set]);
    // What comes after it was not tried.
    let no_offer = Evidence { offer: false, status: false, bundle_refetched: false, ..ALL };
    assert_eq!(no_offer.missing(), [MissingEvidence::Offer]);
    let no_status = Evidence { status: false, bundle_refetched: false, ..ALL };
    assert_eq!(no_status.missing(), [MissingEvidence::Status]);
    assert_eq!(ALL.missing(), []);
}

/// A step of a box's life.
#[derive(Clone, Debug)]
enum Step {
    Stage,
    Start,
    Run(u64),
    Confirm,
    Judge,
    /// The disk fails after some steps, until it is repaired.
    Cut(usize),
    Repair,
    Reopen,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Stage),
        Just(Step::Start),
        (0..400_u64).prop_map(Step::Run),
        Just(Step::Confirm),
        Just(Step::Judge),
        (0..6_usize).prop_map(Step::Cut),
        Just(Step::Repair),
        Just(Step::Reopen),
    ]
}

proptest! {
    /// After an error the program goes on, or is started again.
    #[test]
    fn a_whole_bundle_is_in_use_in_every_life(steps in prop::collection::vec(any_step(), 1..60)) {
        let disk = Disk::default();
        let mut trials = open(&disk);
        let mut last = 0;
        for step in steps {
            let done = match step {
                Step::Stage => {
                    let counter = trials.record().last_counter() + 1;
                    trials.stage(&content(counter), counter, BY_HAND).map(|_| ())
                }
                Step::Start => trials.start().map(|_| ()),
                Step::Run(seconds) => trials.add_running_time(Duration::from_secs(seconds)),
                Step::Confirm => trials.confirm(),
                Step::Judge => match trials.judge(&Evidence::default(), LIMIT) {
                    TrialDecision::Revert(reason) => trials.revert(reason).map(|_| ()),
                    TrialDecision::Confirm | TrialDecision::Wait => Ok(()),
                },
                Step::Cut(steps) => {
                    disk.0.borrow_mut().steps_left = Some(steps);
                    Ok(())
                }
                Step::Repair => {
                    disk.0.borrow_mut().steps_left = None;
                    Ok(())
                }
                Step::Reopen => {
                    trials = open(&disk);
                    Ok(())
                }
            };
            if let Err(error) = done {
                let is_expected =
                    matches!(error, TrialError::Storage(PowerCut) | TrialError::OnTrial { .. });
                prop_assert!(is_expected, "{error}");
            }
            for trials in [&trials, &open(&disk)] {
                let record = trials.record();
                let on_trial = record.on_trial.as_ref().map(|on_trial| on_trial.counter);
                let counter = on_trial.or_else(|| record.confirmed.map(|(_, counter)| counter));
                prop_assert_eq!(bundle_in_use(trials), counter.map(content));
                prop_assert!(counter <= Some(record.last_counter()));
            }
            prop_assert!(trials.record().last_counter() >= last);
            last = trials.record().last_counter();
        }
    }

    #[test]
    fn a_record_comes_back(
        confirmed in prop::option::of((any::<bool>(), 1..u64::from(u32::MAX))),
        on_trial in prop::option::of(
            (any::<bool>(), 1..u64::from(u32::MAX), any::<u32>(), 0..1_000_000_u64)
        ),
        reverted in prop::option::of((1..u64::from(u32::MAX), ".{0,80}")),
        last in 0..u64::from(u32::MAX),
    ) {
        let slot = |first| if first { TrialSlot::A } else { TrialSlot::B };
        let record = TrialRecord {
            confirmed: confirmed.map(|(first, counter)| (slot(first), counter)),
            on_trial: on_trial.map(|(first, counter, starts, run_time)| BundleOnTrial {
                source: if first { BY_HAND } else { BundleSource::Pulled },
                slot: slot(first), counter, starts, run_time: Duration::from_millis(run_time),
            }),
            reverted: reverted.map(|(counter, reason)| RevertedBundle { counter, reason }),
            last,
        };
        prop_assert_eq!(record.to_string().parse::<TrialRecord>(), Ok(record));
    }

    #[test]
    fn any_record_is_read_or_refused(text in ".{0,200}") {
        let _ = text.parse::<TrialRecord>();
    }
}
