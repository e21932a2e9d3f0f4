//! Commands that stop in the middle, as by a full disk or a power cut, and are typed again.

use std::collections::BTreeSet;
use std::fs;

use crate::office::{Office, SITE, TestBox};

/// A directory with a file in it, where a command writes or removes a file: it stops there.
fn block(office: &Office, name: &str) {
    fs::create_dir_all(office.path(name).join("in-the-way")).unwrap();
}

/// Returns the parts of an enrolment whose keys are refused.
fn refused_keys(office: &Office) -> BTreeSet<String> {
    let text = fs::read_to_string(office.path("enrolled/refused.txt")).unwrap_or_default();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

fn secrets(office: &Office) -> BTreeSet<String> {
    let entries = fs::read_dir(office.path("secrets/sites").join(SITE)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Files where `enrol` and `replace` stop one after the other.
const STEPS: [&str; 4] = [
    "enrolled/refused.txt.new",
    "secrets/sites/amsterdam-01/mqtt.password.2.new",
    "enrolled/sites/amsterdam-01.txt.new",
    "sites/amsterdam-01.toml.new",
];

/// Every step of `enrol` in the place of the first key, which was on a stick with the password.
#[test]
fn an_enrolment_that_stopped_anywhere_is_typed_again() {
    let stick = "secrets/bundles/edge-bundle-amsterdam-01.tar";
    let unsigned = "secrets/bundles/amsterdam-01.bundle.tar";
    for stop in STEPS.into_iter().chain([unsigned, stick]) {
        let (office, own) = (Office::empty(), TestBox::new());
        office.done(&["add", SITE, "--template", "pump", "--with-key"]);
        office.done(&["build"]);
        office.done(&["build", "--unsigned"]);
        assert!(office.path(unsigned).exists() && office.path(stick).exists());
        let in_the_way = office.path(stop);
        let _ = fs::remove_file(&in_the_way);
        let file = own.enrolment_file();
        let enrol = ["enrol", SITE, file.to_str().unwrap()];

        block(&office, stop);
        let (is_done, told) = office.run(&enrol);
        assert!(!is_done && in_the_way.exists(), "{stop}: {told}");
        fs::remove_dir_all(&in_the_way).unwrap();
        office.done(&enrol);

        // The first key is refused, and no key of the box.
        assert_eq!(refused_keys(&office).len(), 1, "{stop}");
        assert!(!office.path(unsigned).exists() && !office.path(stick).exists(), "{stop}");
        let expected = ["mqtt.password.1", "mqtt.password.2"].map(str::to_owned);
        assert_eq!(secrets(&office), BTreeSet::from(expected), "{stop}");
        office.done(&["build"]);
        let password = own.load(&office.bundle(), None);
        assert_eq!(password, office.secret("sites/amsterdam-01/mqtt.password.2"));
        office.done(&enrol);
    }
}

#[test]
fn a_replacement_that_stopped_anywhere_is_typed_again() {
    for stop in STEPS {
        let (office, old, new) = (Office::new(), TestBox::new(), TestBox::new());
        office.enrol(&old);
        office.done(&["build"]);
        let file = new.enrolment_file();
        let replace = ["replace", SITE, file.to_str().unwrap()];

        block(&office, stop);
        let (is_done, told) = office.run(&replace);
        assert!(!is_done, "{stop}: {told}");
        fs::remove_dir_all(office.path(stop)).unwrap();
        office.done(&replace);

        assert_eq!(refused_keys(&office).len(), 3, "{stop}: the keys of the old box");
        office.done(&["build"]);
        let password = new.load(&office.bundle(), None);
        let kept = secrets(&office);
        let passwords = kept.iter().filter(|name| name.starts_with("mqtt.password."));
        let passwords: Vec<_> = passwords.collect();
        assert_eq!(passwords.len(), 1, "{stop}: the old box knew the others");
        assert_eq!(password, office.secret(&format!("sites/{SITE}/{}", passwords[0])), "{stop}");
    }
}

/// The first key ends, whether or not its new password was confirmed.
#[test]
fn an_enrolment_follows_a_password_that_was_not_confirmed() {
    let (office, own) = (Office::empty(), TestBox::new());
    office.done(&["add", SITE, "--template", "pump", "--with-key"]);
    office.done(&["rotate", SITE, "--password"]);
    office.enrol(&own);
    let expected = ["mqtt.password.2", "mqtt.password.3"].map(str::to_owned);
    assert_eq!(secrets(&office), BTreeSet::from(expected));
    office.done(&["hub"]);
}

/// Secrets in clear are for the first contact only.
#[test]
fn no_bundle_stays_after_a_site_is_revoked() {
    let office = Office::empty();
    office.done(&["add", SITE, "--template", "pump", "--with-key"]);
    office.done(&["build"]);
    office.done(&["build", "--unsigned"]);
    office.done(&["revoke", SITE]);
    let left = fs::read_dir(office.path("secrets/bundles")).unwrap().count();
    assert_eq!(left, 0);
}

/// A running `build` would put back what the other command has changed.
#[test]
fn one_command_at_a_time_changes_a_fleet() {
    let (office, own) = (Office::new(), TestBox::new());
    let file = own.enrolment_file();
    let file = file.to_str().unwrap();
    let lock = fs::File::open(office.path("secrets/lock")).unwrap();
    lock.lock().unwrap();
    let commands: [&[&str]; 9] = [
        &["add", "rotterdam-02", "--template", "pump"],
        &["build"],
        &["sign", "amsterdam-01.bundle.tar"],
        &["enrol", SITE, file],
        &["replace", SITE, file],
        &["revoke", SITE],
        &["rotate", SITE, "--password"],
        &["rotate", "--signing-key"],
        &["hub"],
    ];
    for command in commands {
        let told = office.refused(command);
        assert!(told.contains("another edge-provision works on this fleet"), "{command:?}: {told}");
    }
    for command in [&["check"][..], &["list"]] {
        office.done(command);
    }
    lock.unlock().unwrap();
    office.enrol(&own);
}
