//! `edge-gateway-box stick --device` mounts a real FAT, takes the bundle, and writes onto it.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::{Guest, GuestBuilder, Office, temp_dir};

const STICK: &str = "edge-gateway-box stick --state-dir /state --box-dir /box --run-dir /run/box";

/// Returns a guest with the keys of a box, and a stick at /dev/loop0 with the bundle of that box.
fn guest_with_stick() -> GuestBuilder {
    let program = Office::program().with_file_name("edge-gateway-box");
    let (dir, office) = (temp_dir(), Office::new("192.0.2.1:51820"));
    office.run(&["add", "amsterdam-01", "--template", "pump"]);
    let keys = dir.path().join("box");
    let enrolment = Command::new(&program)
        .args(["enrolment", "--output"])
        .arg(dir.path())
        .arg("--box-dir")
        .arg(&keys)
        .output()
        .expect("the program starts");
    let enrolment = String::from_utf8(enrolment.stdout).expect("it prints text");
    office.run(&["enrol", "amsterdam-01", enrolment.trim()]);
    office.run(&["build"]);
    let bundle = office.path("out/bundles/edge-bundle-amsterdam-01.tar");
    let read = |path: &Path| fs::read(path).expect("it was written");
    let mut guest = Guest::builder()
        .modules(&["loop", "vfat", "nls_cp437", "nls_ascii"])
        .program(&program)
        .file("/bundle.tar", read(&bundle));
    for name in ["tunnel.key", "age.key", "certificate.key"] {
        guest = guest.file(&format!("/box/keys/{name}"), read(&keys.join("keys").join(name)));
    }
    guest.setup(
        "chmod 600 /box/keys/*; mkdir /state /m\n\
         dd if=/dev/zero of=/stick bs=1M count=0 seek=64; mkdosfs /stick\n\
         losetup /dev/loop0 /stick; mount -t vfat /dev/loop0 /m\n\
         cp /bundle.tar /m/edge-bundle-amsterdam-01.tar; mkdir /m/edge-bundle-folder\n\
         umount /m",
    )
}

#[test]
fn in_a_guest_a_stick_is_mounted_without_rights_and_written_at_the_end() {
    let guest = guest_with_stick().boot();
    guest.send(&format!("{STICK} --device /dev/loop0 --wait 60 > /out 2>&1 &"));
    // What the gateway does, when it has seen how the stick is mounted.
    guest.run("until [ -e /state/bundle/inbox.tar ]; do usleep 50000; done");
    let mounted = guest.run("grep /box/stick /proc/mounts");
    guest.run("cmp /bundle.tar /state/bundle/inbox.tar && rm /state/bundle/inbox.tar");
    guest.run("while grep -q /box/stick /proc/mounts; do usleep 50000; done; mount /dev/loop0 /m");

    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(mounted.split([' ', ',']).any(|found| found == option), "{option}: {mounted}");
    }
    let status = guest.run("cat /m/edge-status.txt");
    assert!(status.contains("edge-bundle-amsterdam-01.tar: bundle 1 was loaded"), "{status}");
    assert!(
        status.contains("edge-bundle-folder: it cannot be read: it is a directory"),
        "{status}"
    );
    assert!(guest.run("cat /m/edge-enrol-*.txt").contains("tunnel_public_key"));
}

#[test]
fn in_a_guest_a_stick_that_cannot_be_used_is_named() {
    let guest = guest_with_stick().boot();
    let refused = |line: &str| {
        let result = guest.try_run(line);
        assert_eq!(result.code, 1, "{line}: {}", result.output);
        result.output
    };
    guest.run("dd if=/dev/zero of=/zeros bs=1M count=4; losetup /dev/loop1 /zeros");
    let damaged = refused(&format!("{STICK} --device /dev/loop1"));
    assert!(damaged.contains("neither FAT nor exFAT, or is damaged"), "{damaged}");
    // Write-protected: its bundle is loaded all the same.
    guest.run("losetup -d /dev/loop0; losetup -r /dev/loop0 /stick");
    let protected = refused(&format!("{STICK} --device /dev/loop0 --wait 0"));
    assert!(protected.contains("bundle 1 was loaded"), "{protected}");
    assert!(protected.contains("cannot write the stick"), "{protected}");
    guest.run("cmp /bundle.tar /state/bundle/inbox.tar");
    assert_eq!(guest.try_run("grep /box/stick /proc/mounts").code, 1, "it is unmounted");
}
