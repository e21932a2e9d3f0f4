use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::bundle::PackageDigest;

const LIMITS: TrialLimits =
    TrialLimits { silence: Duration::from_mins(5), trial: Some(Duration::from_hours(25)) };

fn name(version: &str) -> PackageName {
    PackageName::new(version, "arm64").unwrap()
}

fn installed(version: &str, is_complete: bool) -> InstalledPackage {
    InstalledPackage { name: name(version), is_complete }
}

fn manifest(version: Option<&str>, packages: &[&str]) -> Manifest {
    let packages = packages.iter().map(|version| (name(version), PackageDigest([0; 32])));
    Manifest {
        gateway: "amsterdam-01".to_owned(),
        counter: 18,
        version: version.map(str::to_owned),
        packages: packages.collect::<BTreeMap<_, _>>(),
        ..Manifest::default()
    }
}

/// A box: what is on its disk, and whether the new version works.
#[derive(Clone, Debug)]
struct UpdatedBox {
    record: Option<UpdateRecord>,
    installed: InstalledPackage,
    fate: BundleFate,
    has_packages: bool,
    works: bool,
}

/// Where the power fails in a step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cut {
    Never,
    Before,
    Within,
}

#[derive(Clone, Debug)]
enum BoxEvent {
    Step(Cut),
    PackagesArrive,
    Minutes(u64),
    GatewayConfirms,
    GatewayRollsBack,
}

impl UpdatedBox {
    fn new(works: bool) -> Self {
        let manifest = manifest(Some("0.2.0"), &["0.1.0", "0.2.0"]);
        let record = UpdateRecord::begin(&manifest, &name("0.1.0"), None).unwrap();
        let (installed, fate) = (installed("0.1.0", true), BundleFate::OnTrial);
        Self { record, installed, fate, has_packages: false, works }
    }

    fn answers(&self) -> bool {
        self.works || self.installed.name == name("0.1.0")
    }

    fn step(&mut self, cut: Cut) {
        let Some(record) = &mut self.record else { return };
        let step = record.next_step(self.fate, &self.installed, self.has_packages, LIMITS);
        if cut == Cut::Before {
            return;
        }
        match step {
            UpdateStep::Enter(phase) => record.phase = phase,
            UpdateStep::Install(name) => {
                self.installed = InstalledPackage { name, is_complete: cut == Cut::Never };
            }
            UpdateStep::End => self.record = None,
            UpdateStep::Fetch | UpdateStep::Watch | UpdateStep::Wait => {}
        }
    }

    fn pass(&mut self, minutes: u64) {
        let answers = self.answers();
        let Some(UpdateRecord { phase: UpdatePhase::OnTrial { run_time, silence }, .. }) =
            &mut self.record
        else {
            return;
        };
        let time = Duration::from_mins(minutes);
        *run_time += time;
        *silence = if answers { Duration::ZERO } else { *silence + time };
    }

    /// What the notice says: an honest gateway confirms its bundle only then.
    fn is_reached(&self) -> bool {
        let phase = self.record.as_ref().map(|record| &record.phase);
        matches!(phase, Some(UpdatePhase::OnTrial { .. }))
    }

    fn on_event(&mut self, event: &BoxEvent) {
        let is_on_trial = self.fate == BundleFate::OnTrial && self.answers();
        match event {
            BoxEvent::Step(cut) => self.step(*cut),
            BoxEvent::PackagesArrive => self.has_packages = true,
            BoxEvent::Minutes(minutes) => self.pass(*minutes),
            BoxEvent::GatewayConfirms if is_on_trial && self.is_reached() => {
                self.fate = BundleFate::Confirmed;
            }
            BoxEvent::GatewayRollsBack if is_on_trial => self.fate = BundleFate::RolledBack,
            BoxEvent::GatewayConfirms | BoxEvent::GatewayRollsBack => {}
        }
    }
}

fn event() -> impl Strategy<Value = BoxEvent> {
    prop_oneof![
        6 => prop::sample::select(vec![Cut::Never, Cut::Before, Cut::Within])
            .prop_map(BoxEvent::Step),
        1 => Just(BoxEvent::PackagesArrive),
        2 => (0..4_u64).prop_map(BoxEvent::Minutes),
        1 => Just(BoxEvent::GatewayConfirms),
        1 => Just(BoxEvent::GatewayRollsBack),
    ]
}

proptest! {
    /// Whatever happens, and wherever the power fails: the version follows the bundle.
    #[test]
    fn the_version_follows_the_bundle(
        works: bool, events in prop::collection::vec(event(), 0..60),
    ) {
        let mut updated = UpdatedBox::new(works);
        for event in events {
            let before = updated.clone();
            updated.on_event(&event);
            // A cut run of dpkg is finished by the next step: there is one.
            prop_assert!(updated.installed.is_complete || updated.record.is_some());
            let is_new = updated.installed != before.installed;
            prop_assert!(!is_new || updated.has_packages, "no way back");
        }
        // The gateway of a version that does not work does nothing; the other one ends its trial.
        updated.has_packages = true;
        for _ in 0..20 {
            updated.on_event(&BoxEvent::Step(Cut::Never));
            updated.on_event(&BoxEvent::Minutes(1));
        }
        let is_failed = matches!(
            updated.record.as_ref().map(|record| &record.phase), Some(UpdatePhase::Failed { .. })
        );
        prop_assert!(works || updated.fate != BundleFate::OnTrial || is_failed);
        let event =
            if is_failed { BoxEvent::GatewayRollsBack } else { BoxEvent::GatewayConfirms };
        updated.on_event(&event);
        for _ in 0..4 {
            updated.on_event(&BoxEvent::Step(Cut::Never));
        }

        prop_assert_eq!(&updated.record, &None);
        let expected = match updated.fate {
            BundleFate::Confirmed => "0.2.0",
            BundleFate::RolledBack | BundleFate::OnTrial => "0.1.0",
        };
        prop_assert_eq!(updated.installed, installed(expected, true));
        prop_assert!(updated.fate != BundleFate::OnTrial);
        prop_assert!(works || updated.fate == BundleFate::RolledBack);
    }

    #[test]
    fn any_record_is_read_or_refused(text in ".{0,200}") {
        let _ = text.parse::<UpdateRecord>();
    }
}

#[test]
fn a_record_is_read_as_it_is_written() {
    let reason = "it does \"not\" answer\n[x]".to_owned();
    let (run_time, silence) = (Duration::from_millis(61_001), Duration::from_millis(7));
    for phase in [
        UpdatePhase::Fetching,
        UpdatePhase::Installing,
        UpdatePhase::OnTrial { run_time, silence },
        UpdatePhase::GoingBack { reason: reason.clone() },
        UpdatePhase::Failed { reason },
    ] {
        let record = UpdateRecord { bundle: 18, from: name("0.1.0"), to: name("0.2.0~rc1"), phase };
        assert_eq!(record.to_string().parse(), Ok(record));
    }
}

#[test]
fn an_update_begins_only_with_a_way_back() {
    let begin = |manifest: &Manifest, min| UpdateRecord::begin(manifest, &name("0.1.0"), min);
    assert_eq!(begin(&manifest(None, &[]), None), Ok(None));
    assert_eq!(begin(&manifest(Some("0.1.0"), &[]), Some("0.9.0")), Ok(None));
    let refusal = |version, packages: &[&str], min| {
        begin(&manifest(Some(version), packages), min).unwrap_err().to_string()
    };
    insta::assert_snapshot!(
        [
            refusal("0.2.0", &["0.1.0"], None),
            refusal("0.2.0", &["0.2.0"], None),
            refusal("0.2.0~rc1", &["0.1.0", "0.2.0~rc1"], Some("0.2.0")),
        ].join("\n"),
        @"
    the bundle lists no edge-gateway_0.2.0_arm64.deb, the version to run: put it into packages/ at the office, and build with --again
    the bundle lists no edge-gateway_0.1.0_arm64.deb, the version to go back to: put it into packages/ at the office, and build with --again
    version 0.2.0~rc1 is older than 0.2.0, the `min_version` of the last confirmed bundle: write a later one at the office, and build the next bundle
    "
    );
    let older = begin(&manifest(Some("0.0.9"), &["0.0.9", "0.1.0"]), Some("0.0.8"));
    let older = older.unwrap().unwrap();
    assert_eq!((older.from, older.to, older.bundle), (name("0.1.0"), name("0.0.9"), 18));
}

#[test]
fn a_version_that_never_ends_its_trial_goes_back() {
    let mut updated = UpdatedBox::new(true);
    updated.has_packages = true;
    for _ in 0..3 {
        updated.step(Cut::Never);
    }
    assert!(updated.is_reached());
    updated.pass(25 * 60 - 1);
    updated.step(Cut::Never);
    assert!(updated.is_reached(), "`[bundle] confirm` may be 24 h");
    updated.pass(1);
    for _ in 0..3 {
        updated.step(Cut::Never);
    }
    let reason = "edge-gateway 0.2.0 has not ended its trial".to_owned();
    let phase = updated.record.as_ref().map(|record| record.phase.clone());
    assert_eq!(phase, Some(UpdatePhase::Failed { reason }));
    assert_eq!(updated.installed, installed("0.1.0", true));
}
