//! What a start does with the bundles on the disk.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::super::active::InboxVerdict;
use super::*;

fn counter_in_use(bundles: &Bundles) -> Option<u64> {
    bundles.active.as_ref().map(|active| active.counter)
}

#[test]
fn a_box_without_bundles_runs_with_its_own_file_and_writes_nothing() {
    let dir = StateDir::new();
    let bundles = dir.open();
    assert_eq!((bundles.active, bundles.events), (None, Vec::new()));
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 0);
}

#[test]
fn a_bundle_that_a_person_brings_is_in_use_and_its_files_are_for_the_gateway_only() {
    let dir = StateDir::new();
    let files = [
        ("certificates/ca.pem", "a certificate"),
        ("gateway.toml", GATEWAY_TOML),
        ("secrets/mqtt.password", "secret"),
    ];
    dir.load(&bundle_of("amsterdam-01", 3, &files));
    let bundles = dir.open();
    assert_eq!(states(&bundles.events), ["staged"]);
    let trial = bundles.trial().unwrap();
    assert_eq!((trial.counter, trial.source, trial.time_left), (3, BundleSource::ByHand, None));
    let active = bundles.active.unwrap();
    assert_eq!((active.counter, active.gateway.as_str()), (3, "amsterdam-01"));
    assert!(!dir.path("inbox.tar").exists() && !dir.path("inbox.refused").exists());
    for (name, content) in files {
        let path = active.file.with_file_name(name);
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    let mode = fs::metadata(active.file.parent().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn what_is_refused_changes_nothing_and_says_why() {
    let dir = StateDir::with_confirmed(3);
    let before = fs::read(dir.path("record")).unwrap();
    let mut damaged = bundle(4);
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let other = bundle_of("rotterdam-01", 4, &[("gateway.toml", GATEWAY_TOML)]);
    for (bytes, reason) in [
        (bundle(3), "which this box has had already"),
        (bundle(2), "older"),
        (damaged, "was changed after it was signed"),
        (vec![0; 2 << 20], "not a regular file of at most 1048576 bytes"),
    ] {
        dir.load(&bytes);
        let bundles = dir.open();
        assert_eq!((states(&bundles.events), counter_in_use(&bundles)), (vec!["refused"], Some(3)));
        let refused = fs::read_to_string(dir.path("inbox.refused")).unwrap();
        assert!(refused.contains(reason), "{refused}");
        assert!(bundles.events[0].sentence.text.contains(reason));
        assert_eq!(fs::read(dir.path("record")).unwrap(), before);
        assert!(!dir.path("inbox.tar").exists());
    }
    // The id of the gateway is known only while it runs.
    let mut bundles = dir.open();
    dir.load(&other);
    assert!(matches!(bundles.take_inbox(None), Some(InboxVerdict::Refused(_))));
    // A pipe blocks nothing.
    assert!(Command::new("mkfifo").arg(dir.path("inbox.tar")).status().unwrap().success());
    assert_eq!(states(&dir.open().events), ["refused"]);
}

#[test]
fn a_bundle_that_is_started_too_often_is_rolled_back() {
    let dir = StateDir::with_confirmed(3);
    dir.load(&bundle(4));
    for start in 0..5 {
        let bundles = dir.open();
        assert_eq!(counter_in_use(&bundles), Some(4), "start {start}");
        assert!(bundles.trial().unwrap().time_left.is_some());
    }
    let bundles = dir.open();
    assert_eq!((counter_in_use(&bundles), states(&bundles.events)), (Some(3), vec!["reverted"]));
    assert!(bundles.events[0].sentence.text.contains("started 5 times"));
    assert!(dir.open().events.is_empty(), "it is said once");
}

#[test]
fn a_bundle_that_the_gateway_cannot_start_with_is_rolled_back() {
    let dir = StateDir::with_confirmed(3);
    assert!(!dir.open().revert_unusable("no".to_owned()).unwrap());
    dir.load(&bundle(4));
    let mut bundles = dir.open();
    assert!(bundles.revert_unusable("bad key".to_owned()).unwrap());
    assert_eq!(counter_in_use(&bundles), Some(3));
    let text = &bundles.events.last().unwrap().sentence.text;
    assert_eq!(
        text,
        "Bundle 4 was rolled back: the gateway cannot start with it: bad key. Correct it at the \
         office and build the next one."
    );
    // It is never tried again.
    dir.load(&bundle(4));
    assert_eq!(states(&dir.open().events), ["refused"]);
    dir.load(&bundle(5));
    assert_eq!(counter_in_use(&dir.open()), Some(5));
}

#[test]
fn a_damaged_bundle_gives_way_to_the_one_before_it_or_to_the_file_of_the_box() {
    let dir = StateDir::with_confirmed(3);
    dir.load(&bundle(4));
    assert_eq!(counter_in_use(&dir.open()), Some(4));
    fs::write(dir.path("b.tar"), "").unwrap();
    let bundles = dir.open();
    assert_eq!((counter_in_use(&bundles), states(&bundles.events)), (Some(3), vec!["reverted"]));
    fs::write(dir.path("a.tar"), "").unwrap();
    let bundles = dir.open();
    assert_eq!((counter_in_use(&bundles), states(&bundles.events)), (None, vec!["refused"]));
    // The newest bundle brings it back.
    dir.load(&bundle(5));
    assert_eq!(counter_in_use(&dir.open()), Some(5));
}

#[test]
fn a_damaged_record_gives_way_to_the_bundle_that_a_person_brings() {
    let dir = StateDir::with_confirmed(3);
    fs::write(dir.path("record"), "last = ").unwrap();
    let bundles = dir.open();
    assert_eq!((counter_in_use(&bundles), states(&bundles.events)), (None, vec!["refused"]));
    dir.load(&bundle(4));
    assert_eq!(counter_in_use(&dir.open()), Some(4));
}

#[test]
fn what_an_interrupted_write_left_does_not_prevent_the_next_one() {
    let dir = StateDir::with_confirmed(3);
    for name in ["record.new", "b.tar.new", "keys.new"] {
        fs::write(dir.path(name), "half").unwrap();
    }
    fs::create_dir_all(dir.path("b-new/secrets")).unwrap();
    fs::create_dir_all(dir.path("b/secrets")).unwrap();
    fs::write(dir.path("b/secrets/old"), "of another bundle").unwrap();
    dir.load(&bundle(4));
    assert_eq!(counter_in_use(&dir.open()), Some(4));
    assert!(!dir.path("b/secrets").exists() && !dir.path("record.new").exists());
}

/// Makes each write of this file fail: a directory that is not empty stands in its place.
fn block(dir: &StateDir, name: &str) {
    fs::create_dir_all(dir.path(&format!("{name}.new/in the way"))).unwrap();
}

fn unblock(dir: &StateDir, name: &str) {
    fs::remove_dir_all(dir.path(&format!("{name}.new"))).unwrap();
}

#[test]
fn a_bundle_that_the_disk_does_not_take_waits_for_room_and_is_not_in_use() {
    for file in ["keys", "b.tar", "record"] {
        let dir = StateDir::with_confirmed(3);
        let mut bundles = dir.open();
        dir.load(&bundle(4));
        block(&dir, file);
        assert!(matches!(bundles.take_inbox(None), Some(InboxVerdict::NotStored(_))), "{file}");
        assert_eq!(counter_in_use(&dir.open()), Some(3), "{file}");
        assert!(dir.path("inbox.tar").exists() && !dir.path("inbox.refused").exists(), "{file}");
        unblock(&dir, file);
        assert_eq!(counter_in_use(&dir.open()), Some(4), "{file}");
        assert!(!dir.path("inbox.tar").exists(), "{file}");
    }
}

#[test]
fn the_next_bundle_of_a_person_waits_for_the_verdict_on_the_one_before() {
    let dir = StateDir::with_confirmed(3);
    dir.load(&bundle(4));
    assert_eq!(counter_in_use(&dir.open()), Some(4));
    dir.load(&bundle(5));
    assert_eq!(counter_in_use(&dir.open()), Some(4));
    assert!(dir.path("inbox.tar").exists());
    dir.open().revert(RevertReason::TooManyStarts).unwrap();
    assert_eq!(counter_in_use(&dir.open()), Some(5));
}

#[test]
fn secrets_of_an_earlier_bundle_do_not_stay_on_the_disk() {
    let dir = StateDir::new();
    let files = [("gateway.toml", GATEWAY_TOML), ("secrets/first.key", "secret")];
    dir.load(&bundle_of("amsterdam-01", 1, &files));
    dir.open().trials.confirm().unwrap();
    for counter in [2, 3] {
        dir.load(&bundle(counter));
        dir.open().trials.confirm().unwrap();
    }
    assert_eq!(counter_in_use(&dir.open()), Some(3));
    assert!(!dir.path("a/secrets").exists() && !dir.path("b/secrets").exists());
}

#[test]
fn the_command_line_finds_the_file_in_use() {
    let dir = StateDir::new();
    assert_eq!(file_in_use(&dir.0), None);
    dir.load(&bundle(3));
    let file = dir.open().active.unwrap().file;
    assert_eq!(file_in_use(&dir.0), Some(file));
    assert_eq!(dir.open().state_dir(), dir.0);
}

#[test]
fn secrets_come_from_the_helper_or_from_the_operator() {
    let (dir, run) = (StateDir::new(), StateDir::new());
    let files = [("gateway.toml", GATEWAY_TOML), ("secrets.age", "encrypted")];
    dir.load(&bundle_of("amsterdam-01", 3, &files));
    fs::create_dir_all(dir.path("secrets")).unwrap();
    fs::write(dir.path("secrets/mqtt.password"), "of the operator").unwrap();
    let password = |bundles: &Bundles| {
        let file = bundles.active.as_ref().unwrap().file.with_file_name("secrets/mqtt.password");
        fs::read_to_string(file).unwrap()
    };
    assert_eq!(password(&dir.open()), "of the operator");
    fs::create_dir(run.0.join("3")).unwrap();
    fs::write(run.0.join("3/mqtt.password"), "of the helper").unwrap();
    assert_eq!(password(&Bundles::open(&dir.0, &run.0).unwrap()), "of the helper");
    // What the helper refuses is not in use.
    fs::write(run.0.join("4.refused"), "not for this box\n").unwrap();
    dir.open().trials.confirm().unwrap();
    dir.load(&bundle_of("amsterdam-01", 4, &files));
    let bundles = Bundles::open(&dir.0, &run.0).unwrap();
    assert_eq!(counter_in_use(&bundles), Some(3));
    assert!(bundles.events.last().unwrap().sentence.text.contains("not for this box"));
}
