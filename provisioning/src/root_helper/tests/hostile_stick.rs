//! A stick with anything on it.

use std::fs::{self, File};
use std::os::unix::fs::symlink;

use super::files::{BoxOnDisk, names};
use super::{BundleDraft, KEYS};
use crate::bundle::{PackageDigest, PackageName};
use crate::enrolment::Enrolment;

#[test]
fn the_newest_bundle_of_a_stick_is_loaded_and_everything_is_reported() {
    let here = BoxOnDisk::with_confirmed();
    let keys = here.keys();
    let stick = here.path("stick");
    fs::create_dir(&stick).unwrap();
    let sealed = |counter| BundleDraft::new(counter, &keys).sealed();
    let newest = sealed(3);
    let put = |name: &str, content: &[u8]| fs::write(stick.join(name), content).unwrap();
    put("edge-bundle-amsterdam-01.tar", &newest);
    put("EDGE-BUNDLE-old.tar", &sealed(2));
    put("edge-bundle-same.tar", &sealed(1));
    put("edge-bundle-foreign.tar", &BundleDraft::new(9, &keys).sealed_by(&KEYS.stranger));
    let other = BundleDraft { gateway: "rotterdam-02", ..BundleDraft::new(9, &keys) };
    put("edge-bundle-rotterdam-02.tar", &other.sealed());
    put("edge-bundle\n\x1b[2J..", b"x");
    put("holiday.jpg", &sealed(8));
    File::create(stick.join("edge-bundle-huge.tar")).unwrap().set_len(1 << 40).unwrap();
    fs::create_dir(stick.join("edge-bundle-directory.tar")).unwrap();
    symlink(here.path("box/keys/tunnel.key"), stick.join("edge-bundle-link.tar")).unwrap();

    let (report, status) = here.plug_in(&stick);

    assert_eq!((report.loaded, report.is_refused), (Some(3), true));
    assert_eq!(fs::read(here.bundle("inbox.tar")).unwrap(), newest);
    let box_id = keys.enrolment().unwrap().short_id();
    for expected in [
        &format!("box {box_id}"),
        "edge-bundle-amsterdam-01.tar: bundle 3 was loaded",
        "EDGE-BUNDLE-old.tar: bundle 2, there is a newer one",
        "edge-bundle-same.tar: the bundle has counter 1, which this box has had already",
        "edge-bundle-foreign.tar: `keys-1.txt` is signed by key",
        "edge-bundle-rotterdam-02.tar: the bundle is for the gateway `rotterdam-02`",
        "edge-bundle??[2J..: the bundle is damaged",
        "edge-bundle-huge.tar: it is too long",
        "edge-bundle-directory.tar: it cannot be read: it is a directory",
        "edge-bundle-link.tar: it cannot be read: it is a symbolic link",
        "bundle: 1, confirmed",
    ] {
        assert!(status.contains(expected), "{expected}:\n{status}");
    }
    assert!(!status.contains("holiday") && !status.contains('\x1b'));
    let enrolment = fs::read_to_string(stick.join(format!("edge-enrol-{box_id}.txt"))).unwrap();
    let found = Enrolment::parse(&enrolment).unwrap();
    assert_eq!(found.tunnel_public_key, keys.tunnel_public_key());
    for name in names(&here.path("box/keys")) {
        let secret = fs::read_to_string(here.path("box/keys").join(name)).unwrap();
        let secret = secret.lines().nth(usize::from(secret.starts_with("-----"))).unwrap();
        assert!(!status.contains(secret) && !enrolment.contains(secret));
    }
}

#[test]
fn nothing_is_written_through_a_link_of_a_stick() {
    let here = BoxOnDisk::new();
    let stick = here.path("stick");
    fs::create_dir(&stick).unwrap();
    let victim = here.path("victim");
    fs::write(&victim, "untouched").unwrap();
    for name in ["edge-status.txt", ".edge-status.txt.new"] {
        symlink(&victim, stick.join(name)).unwrap();
    }

    let (report, status) = here.plug_in(&stick);

    assert_eq!((report.loaded, report.is_refused), (None, false));
    assert!(status.contains("there is no edge-bundle-ID.tar on the stick"), "{status}");
    assert!(status.contains("No bundle is in use yet"), "{status}");
    assert_eq!(fs::read(&victim).unwrap(), b"untouched");
}

#[test]
fn a_stick_with_too_many_bundles_is_not_read_to_the_end() {
    let here = BoxOnDisk::new();
    let stick = here.path("stick");
    fs::create_dir(&stick).unwrap();
    for number in 0..100 {
        fs::write(stick.join(format!("edge-bundle-{number:03}.tar")), "x").unwrap();
    }
    let (report, _) = here.plug_in(&stick);
    assert_eq!(report.lines.len(), 65);
}

#[test]
fn packages_of_the_bundle_are_taken_from_the_stick_and_no_others() {
    let here = BoxOnDisk::with_confirmed();
    let stick = here.path("stick");
    fs::create_dir(&stick).unwrap();
    let name = |version, architecture| PackageName::new(version, architecture).unwrap();
    let needed = [name("0.1.0", "arm64"), name("0.2.0", "arm64")];
    let others = [name("0.2.0", "amd64"), name("0.0.9", "arm64")];
    let named = needed.iter().chain(&others);
    let packages = named.map(|name| (name.clone(), PackageDigest::of(name.to_string().as_bytes())));
    let mut bundle = BundleDraft::new(2, &here.keys());
    (bundle.version, bundle.packages) = (Some("0.2.0"), packages.collect());
    fs::write(stick.join("edge-bundle.tar"), bundle.sealed()).unwrap();
    for name in needed.iter().chain(&others).chain([&name("0.3.0", "arm64")]) {
        fs::write(stick.join(name.to_string()), name.to_string()).unwrap();
    }
    fs::write(stick.join(needed[1].to_string()), "altered").unwrap();

    let (report, status) = here.plug_in(&stick);

    assert_eq!((report.loaded, report.is_refused), (Some(2), true));
    assert!(
        status.contains("0.2.0_arm64.deb: it is not the one that the bundle names"),
        "{status}"
    );
    assert_eq!(names(&here.path("box/packages")), [needed[0].to_string()]);
}
