//! Packages depend on programs and sources alone: packing twice gives the same bytes, the checksums
//! hold, and the bill of materials lists what cargo links.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "test code may stop on the spot")]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use e2e::PackageSet;
use serde_json::Value;

/// What stands in the name of each file of a release.
const KINDS: [&str; 8] = [
    "SHA256SUMS",
    "edge-gateway-*-linux-*.tar.gz",
    "edge-gateway-*-oci.tar",
    "edge-gateway-*.cdx.json",
    "edge-gateway_*.ipk",
    "edge-gateway_*.deb",
    "edge-provision-*.cdx.json",
    "edge-provision_*.deb",
];

/// These programs use the libraries of this machine: packages for boxes without them are no default.
#[test]
fn by_default_only_what_runs_on_its_boxes_is_packed() {
    let names = PackageSet::of_default_formats().names();
    let kinds = names.iter().map(|name| name.rsplit_once('.').map_or(&**name, |(_, kind)| kind));
    assert_eq!(
        kinds.collect::<Vec<_>>(),
        ["SHA256SUMS", "json", "deb", "json", "deb"],
        "{names:?}"
    );
}

#[test]
fn packing_twice_gives_the_same_bytes_and_right_checksums() {
    let packing = [(); 2].map(|()| thread::spawn(PackageSet::of_all_formats));
    let [first, second] = packing.map(|packed| packed.join().expect("it is packed"));
    let names = first.names();
    assert_eq!(names, second.names());
    let is_of = |name: &String, kind: &str| {
        let mut parts = kind.split('*');
        let rest = name.strip_prefix(parts.next().unwrap_or_default());
        rest.is_some_and(|rest| parts.all(|part| rest.contains(part)))
    };
    assert_eq!(names.len(), KINDS.len(), "{names:?}");
    for (name, kind) in names.iter().zip(KINDS) {
        assert!(is_of(name, kind), "{name} is not {kind}: {names:?}");
        let [one, other] = [&first, &second].map(|set| fs::read(set.dir().join(name)));
        assert!(one.expect("it is readable") == other.expect("it is readable"), "{name} differs");
    }

    let mut check = Command::new("sha256sum");
    check.args(["--check", "--strict", "SHA256SUMS"]).current_dir(first.dir());
    let checked = check.output().expect("sha256sum is installed");
    assert!(checked.status.success(), "{checked:?}");
    let found: Vec<String> = String::from_utf8_lossy(&checked.stdout)
        .lines()
        .map(|line| line.trim_end_matches(": OK").to_owned())
        .collect();
    assert_eq!(found, names[1..], "each file has a checksum");

    for (name, package) in [("edge-gateway-", "gateway"), ("edge-provision-", "provisioning")] {
        let bill = names.iter().find(|file| file.starts_with(name) && file.ends_with(".json"));
        the_bill_lists_what_cargo_links(&first.dir().join(bill.expect("it is there")), package);
    }
}

fn the_bill_lists_what_cargo_links(bill: &Path, package: &str) {
    let bill: Value =
        serde_json::from_slice(&fs::read(bill).expect("it is readable")).expect("it is JSON");
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    let components = bill["components"].as_array().expect("a list");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let listed = components.iter().map(|one| (text(&one["name"]), text(&one["version"])));
    assert_eq!(listed.collect::<BTreeSet<_>>(), linked(package), "of {package}");
    let refs: BTreeSet<_> = components.iter().map(|one| text(&one["bom-ref"])).collect();
    assert_eq!(refs.len(), components.len(), "each component has a reference of its own");
    for component in components {
        let licence = component["licenses"][0]["expression"].as_str();
        assert!(licence.is_some_and(|licence| !licence.is_empty()), "{component}");
        assert_eq!(component["type"], "library", "{component}");
    }
    let own = text(&bill["metadata"]["component"]["bom-ref"]);
    for dependency in bill["dependencies"].as_array().expect("a list") {
        let used = dependency["dependsOn"].as_array().expect("a list").iter();
        for name in used.chain([&dependency["ref"]]).map(text) {
            assert!(name == own || refs.contains(&name), "{name} is no component of {package}");
        }
    }
}

/// Returns names and versions of the crates that are linked into a program.
fn linked(package: &str) -> BTreeSet<(String, String)> {
    let cargo = env::var("CARGO").expect("cargo runs the tests");
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let tree = Command::new(cargo)
        .args(["tree", "-p", package, "-e", "normal", "--target", &target])
        .args(["--prefix", "none", "--locked"])
        .output()
        .expect("cargo can be started");
    assert!(tree.status.success(), "{tree:?}");
    let crates = String::from_utf8(tree.stdout).expect("names are text");
    let name_and_version = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        (words.next().unwrap_or_default(), words.next().unwrap_or_default().replacen('v', "", 1))
    };
    // The first line is the package itself.
    crates.lines().skip(1).map(name_and_version).filter(|(name, _)| !name.is_empty()).collect()
}
