//! Signing keys that are lost, stolen or old, and what takes their places.

use std::fs;

use provisioning::bundle::{SigningKey, SigningKeys, VerifyPolicy, verify};
use provisioning::office::fleet_signing::read_key_file;
use provisioning::office::signing::{NewKey, Signer};

use crate::office::{Office, TestBox};

fn list(office: &Office, number: u32) -> SigningKeys {
    fs::read_to_string(office.path(&format!("signing/keys-{number}.txt"))).unwrap().parse().unwrap()
}

fn signer(office: &Office, name: &str) -> Signer {
    read_key_file(&office.path("secrets").join(name)).unwrap().open(None).unwrap()
}

fn key(office: &Office, name: &str) -> SigningKey {
    signer(office, name).key().clone()
}

#[test]
fn a_lost_or_stolen_offline_key_is_replaced() {
    let (office, own) = (Office::new(), TestBox::new());
    office.enrol(&own);
    office.done(&["build"]);
    let [daily, lost] = ["signing.key", "offline.key"].map(|name| key(&office, name));

    let told = office.done(&["rotate", "--offline-key"]);

    assert!(told.contains("secrets/offline.key is a new key"), "{told}");
    let new = key(&office, "offline.key");
    assert_eq!(list(&office, 2).keys(), [daily, new.clone()]);
    assert_eq!(key(&office, "offline.key.old.1"), lost);
    office.done(&["build"]);
    let first = office.keys();
    let after = VerifyPolicy { last_counter: Some(1), ..own.policy(Some(&first)) };
    assert_eq!(verify(&office.bundle(), &after).unwrap().keys, list(&office, 2));
    // What it is for, and what the one before it is not for any more.
    let stolen = ["rotate", "--signing-key", "--key", "secrets/offline.key.old.1"];
    assert!(office.refused(&stolen).contains("no box takes what it signs"));
    office.done(&["rotate", "--signing-key", "--key", "secrets/offline.key"]);
    assert_eq!(list(&office, 3).keys(), [key(&office, "signing.key"), new]);
}

#[test]
fn the_other_keys_of_a_list_stay() {
    let office = Office::new();
    let mut keys = office.keys().keys().to_vec();
    for comment in ["third", "fourth"] {
        let made = NewKey::generate(None, comment).unwrap();
        keys.push(SigningKey::from_pub_file(&made.public).unwrap());
    }
    let text = SigningKeys::new(1, keys.clone()).unwrap().to_string();
    let signature = signer(&office, "signing.key").sign(text.as_bytes()).unwrap();
    fs::write(office.path("signing/keys-1.txt"), text).unwrap();
    fs::write(office.path("signing/keys-1.txt.minisig"), signature.to_string()).unwrap();
    for (number, what, name, place) in
        [(2, "--signing-key", "signing.key", 0), (3, "--offline-key", "offline.key", 1)]
    {
        office.done(&["rotate", what]);
        keys[place] = key(&office, name);
        assert_eq!(list(&office, number).keys(), keys, "{what}");
    }
}

/// No key that boxes trust is lost, wherever a rotation stops.
#[test]
fn a_rotation_that_stopped_anywhere_is_typed_again() {
    for (what, name) in [("--signing-key", "signing.key"), ("--offline-key", "offline.key")] {
        let [waiting, old] = [".2", ".old.1"].map(|end| format!("secrets/{name}{end}"));
        for stop in [&waiting, "signing/keys-2.txt.minisig.new", "signing/keys-2.txt.new", &old] {
            let office = Office::new();
            let before = key(&office, name);
            fs::create_dir_all(office.path(stop).join("in-the-way")).unwrap();
            let (is_done, told) = office.run(&["rotate", what]);
            assert!(!is_done, "{stop}: {told}");
            assert_eq!(key(&office, name), before, "{stop}");
            fs::remove_dir_all(office.path(stop)).unwrap();

            office.done(&["rotate", what]);

            assert!(!office.path("signing/keys-3.txt").exists(), "{stop}");
            assert!(list(&office, 2).keys().contains(&key(&office, name)), "{stop}");
            assert_eq!(key(&office, &format!("{name}.old.1")), before, "{stop}");
            assert!(!office.path(&waiting).exists(), "{stop}");
            office.done(&["build"]);
        }
    }
}

/// The list was written, and the power failed before its key was renamed.
#[test]
fn the_next_build_completes_a_rotation() {
    let office = Office::new();
    let old = office.path("secrets/signing.key.old.1");
    fs::create_dir_all(&old).unwrap();
    let (is_done, told) = office.run(&["rotate", "--signing-key"]);
    assert!(!is_done, "{told}");
    fs::remove_dir(&old).unwrap();
    office.done(&["build"]);
    assert!(list(&office, 2).keys().contains(&key(&office, "signing.key")));
}

#[test]
fn the_last_rotation_changes_nothing_when_it_is_refused() {
    let office = Office::new();
    for _ in 1..24 {
        office.done(&["rotate", "--signing-key"]);
    }
    for what in ["--signing-key", "--offline-key"] {
        let refused = office.refused(&["rotate", what]);
        assert!(refused.contains("there are 24 lists"), "{refused}");
    }
    office.done(&["build"]);
}
