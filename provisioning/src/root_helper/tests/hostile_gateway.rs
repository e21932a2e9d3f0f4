//! The user of the gateway is hostile: it owns the directory of the gateway.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::files::{BoxOnDisk, names};
use super::{BundleDraft, KEYS, record_text};

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// What a refusal says, and what makes the file that is refused.
type MakeFile<'a> = (&'static str, &'a dyn Fn(&Path));

/// Applies, and checks that nothing has changed; returns what is said.
fn assert_refused(here: &BoxOnDisk, case: &str) -> String {
    let (record, kept) = (here.record(), names(&here.path("box/bundles")));
    let applied = here.apply();
    assert!(applied.is_refused() && applied.in_use.is_none(), "{case}: {applied}");
    assert_eq!(here.record(), record, "{case}");
    assert_eq!(names(&here.path("box/bundles")), kept, "{case}");
    assert_eq!(names(&here.path("network")), Vec::<String>::new(), "{case}");
    assert!(here.path("run/1").exists() && !here.path("run/2").exists(), "{case}");
    applied.to_string()
}

#[test]
fn what_is_no_plain_file_of_the_gateway_is_not_read() {
    let here = BoxOnDisk::with_confirmed();
    let network = ("network/10-edge-x.network", "[Match]\n");
    let good = BundleDraft::new(2, &here.keys()).with(network.0, network.1).sealed();
    let (outside, record) = (here.path("outside"), record_text(Some(('a', 1)), Some(('b', 2))));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("b.tar"), &good).unwrap();
    fs::write(outside.join("record"), &record).unwrap();
    let link = |path: &Path| symlink(outside.join(path.file_name().unwrap()), path).unwrap();
    let hard = |path: &Path| {
        fs::hard_link(outside.join(path.file_name().unwrap()), path).unwrap();
    };
    let huge = |path: &Path| File::create(path).unwrap().set_len(1 << 40).unwrap();
    let loops = |path: &Path| symlink(path, path).unwrap();
    let directory = |path: &Path| fs::create_dir(path).unwrap();
    let garbage = |path: &Path| fs::write(path, [0xff; 700]).unwrap();
    let cases: [MakeFile<'_>; 7] = [
        ("symbolic link", &link),
        ("hard link", &hard),
        ("file too large", &huge),
        ("symbolic link", &loops),
        ("directory", &directory),
        ("pipe", &make_pipe),
        ("", &garbage),
    ];
    for name in ["record", "b.tar"] {
        for (expected, make) in cases {
            let path = here.bundle(name);
            fs::write(here.bundle("record"), &record).unwrap();
            fs::write(here.bundle("b.tar"), &good).unwrap();
            fs::remove_file(&path).unwrap();
            make(&path);
            let said = assert_refused(&here, &format!("{name}: {expected}"));
            assert!(said.contains(expected), "{name}: {expected}: {said}");
            if path.symlink_metadata().unwrap().is_dir() {
                fs::remove_dir(&path).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
        }
    }
    fs::remove_dir_all(here.path("state/bundle")).unwrap();
    symlink(&outside, here.path("state/bundle")).unwrap();
    assert_refused(&here, "the directory is a link");
}

#[test]
fn only_a_newer_bundle_of_this_box_is_accepted() {
    let here = BoxOnDisk::with_confirmed();
    let keys = here.keys();
    let draft = || BundleDraft::new(2, &keys).with("network/10-edge-x.network", "[Match]\n");
    let clear = draft().with("secrets/mqtt.password", "in clear").sealed();
    let of_box = |key| BundleDraft { key: Some(key), ..draft() }.sealed();
    let strange = crate::enrolment::BoxKeys::generate().unwrap();
    let mut altered = draft().sealed();
    let at = altered.len() / 2;
    altered[at] ^= 1;
    let cases = [
        ("another site", BundleDraft { gateway: "rotterdam-02", ..draft() }.sealed(), 2),
        ("another box", of_box(strange.tunnel_public_key()), 2),
        (
            "secrets for another box",
            {
                let sealed = BundleDraft::new(2, &strange).files["secrets.age"].clone();
                let mut files = draft().files;
                files.insert("secrets.age", sealed);
                BundleDraft { files, ..draft() }.sealed()
            },
            2,
        ),
        ("another fleet", draft().sealed_by(&KEYS.stranger), 2),
        ("secrets in clear, pulled", clear, 2),
        ("altered", altered, 2),
        ("an older one under another counter", BundleDraft::new(1, &keys).sealed(), 2),
        ("another counter", draft().sealed(), 3),
        ("the largest counter", draft().sealed(), i64::MAX.unsigned_abs()),
        ("an older one", draft().sealed(), 0),
        (
            "two files of one name",
            { draft().with("network/a.nmconnection", "").with("network/edge-a.nmconnection", "") }
                .sealed(),
            2,
        ),
        ("nothing", Vec::new(), 2),
    ];
    for (case, bundle, counter) in cases {
        fs::write(here.bundle("b.tar"), bundle).unwrap();
        here.say(Some(('a', 1)), Some(('b', counter)));
        assert_refused(&here, case);
        let mut expected = ["1".to_owned(), format!("{counter}.refused"), "status.txt".to_owned()];
        expected.sort();
        assert_eq!(here.handed_over(), expected, "{case}");
    }
    for record in ["", "last = -1", "last = 1\n[tried]\nslot = \"../b\"\ncounter = 2\n", "\0"] {
        fs::write(here.bundle("record"), record).unwrap();
        assert_refused(&here, record);
    }
    // After all that, the right one.
    fs::write(here.bundle("b.tar"), draft().sealed()).unwrap();
    here.say(Some(('a', 1)), Some(('b', 2)));
    assert_eq!(here.apply().in_use.map(|(counter, _)| counter), Some(2));
}

#[test]
fn secrets_in_clear_are_used_if_a_person_brought_them() {
    let here = BoxOnDisk::with_confirmed();
    let keys = here.keys();
    let bundle = BundleDraft::new(2, &keys).with("secrets/mqtt.password", "in clear").sealed();
    here.load(&bundle).unwrap();
    fs::rename(here.bundle("inbox.tar"), here.bundle("b.tar")).unwrap();
    here.say(Some(('a', 1)), Some(('b', 2)));

    assert!(here.apply().refused.is_none());

    assert_eq!(fs::read(here.path("run/2/mqtt.password")).unwrap(), b"in clear");
}

#[test]
fn a_bundle_for_the_gateway_is_written_through_no_link() {
    let here = BoxOnDisk::new();
    let bundle = BundleDraft::new(1, &here.keys()).sealed();
    let victim = here.path("victim");
    fs::write(&victim, "untouched").unwrap();
    for name in ["inbox.tar", ".inbox.tar.new", "inbox.refused"] {
        symlink(&victim, here.bundle(name)).unwrap();
    }

    here.load(&bundle).unwrap();

    assert_eq!(fs::read(&victim).unwrap(), b"untouched");
    let inbox = here.bundle("inbox.tar");
    assert!(inbox.symlink_metadata().unwrap().is_file());
    assert_eq!(names(&here.path("state/bundle")), ["inbox.tar"]);
    fs::remove_file(&inbox).unwrap();
    fs::create_dir(&inbox).unwrap();
    let refused = here.load(&bundle).unwrap_err();
    assert!(refused.contains("cannot write the bundle"), "{refused}");
    assert_eq!(names(&here.path("state/bundle")), ["inbox.tar"], "nothing is left");
    fs::remove_dir_all(here.path("state/bundle")).unwrap();
    let outside = here.path("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, here.path("state/bundle")).unwrap();
    assert!(here.load(&bundle).is_err());
    assert_eq!(names(&outside), Vec::<String>::new());
}

#[test]
fn a_file_that_is_swapped_all_the_time_is_read_whole_or_not_at_all() {
    let here = BoxOnDisk::with_confirmed();
    let bundle = BundleDraft::new(2, &here.keys()).sealed();
    let (good, stranger) = (here.path("good"), here.path("stranger"));
    fs::write(&stranger, BundleDraft::new(2, &here.keys()).sealed_by(&KEYS.stranger)).unwrap();
    here.say(Some(('a', 1)), Some(('b', 2)));
    let is_over = AtomicBool::new(false);

    std::thread::scope(|scope| {
        let swap = scope.spawn(|| {
            let next = here.bundle("next");
            let mut swaps = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                match swaps % 4 {
                    0 => symlink(&stranger, &next).unwrap(),
                    1 => make_pipe(&next),
                    2 => drop(fs::copy(&stranger, &next).unwrap()),
                    _ => {
                        fs::write(&good, &bundle).unwrap();
                        fs::rename(&good, &next).unwrap();
                    }
                }
                fs::rename(&next, here.bundle("b.tar")).unwrap();
                swaps += 1;
            }
            swaps
        });
        for _ in 0..40 {
            let applied = here.apply();
            let is_accepted = applied.in_use.as_ref().is_some_and(|(counter, _)| *counter == 2);
            assert!(is_accepted || applied.refused.is_some(), "{applied}");
            if is_accepted {
                assert_eq!(fs::read(here.path("box/bundles/2.tar")).unwrap(), bundle);
            }
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(swap.join().unwrap() > 0);
    });
}

#[test]
fn refusals_do_not_fill_the_memory() {
    let here = BoxOnDisk::with_confirmed();
    for counter in 2..60 {
        here.say(Some(('a', 1)), Some(('b', counter)));
        here.apply();
    }
    assert_eq!(here.handed_over(), ["1", "59.refused", "status.txt"]);
}
