//! Packages of edge-gateway in `packages/`: which of them bundles name, and where they are copied.

use std::collections::BTreeMap;
use std::fs;

use provisioning::bundle::{Manifest, verify};
use provisioning::office::build::{BuildError, BuiltSite, sha256};

use crate::office::{Office, SITE, TestBox, files};

const OTHER: &str = "rotterdam-01";

/// A fleet with two enrolled sites and the packages of two versions.
fn office() -> (Office, [TestBox; 2]) {
    let (office, boxes) = (Office::new(), [TestBox::new(), TestBox::new()]);
    office.done(&["add", OTHER, "--template", "pump"]);
    office.enrol(&boxes[0]);
    office.done(&["enrol", OTHER, boxes[1].enrolment_file().to_str().unwrap()]);
    for name in ["0.1.0_amd64", "0.1.0_arm64", "0.2.0_amd64", "0.2.0_arm64"] {
        put(&office, name, name);
    }
    set_version(&office, "version = \"0.1.0\"");
    (office, boxes)
}

/// Writes a package; to the office it is one by its first bytes.
fn put(office: &Office, name: &str, content: &str) {
    let dir = office.path("packages");
    fs::create_dir_all(&dir).unwrap();
    let content = format!("!<arch>\n{content}");
    fs::write(dir.join(format!("edge-gateway_{name}.deb")), content).unwrap();
}

/// Replaces the lines before the first section of fleet.toml.
fn set_version(office: &Office, lines: &str) {
    let path = office.path("fleet.toml");
    let text = fs::read_to_string(&path).unwrap();
    let at = text.find("[tunnel]").unwrap();
    fs::write(&path, format!("{lines}\n{}", &text[at..])).unwrap();
}

fn edit_site(office: &Office, from: &str, to: &str) {
    let path = office.path("sites/amsterdam-01.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
}

fn manifest(office: &Office, own: &TestBox, site: &str) -> Manifest {
    let path = office.path(&format!("out/bundles/edge-bundle-{site}.tar"));
    let bytes = fs::read(path).unwrap();
    verify(&bytes, &own.policy(Some(&office.keys()))).unwrap().bundle.manifest().clone()
}

/// Returns the packages of a manifest, `0.1.0_amd64`.
fn named(manifest: &Manifest) -> Vec<String> {
    let name = |name: &str| name.trim_start_matches("edge-gateway_").replace(".deb", "");
    manifest.packages.keys().map(|package| name(&package.to_string())).collect()
}

fn published(office: &Office) -> BTreeMap<String, Vec<u8>> {
    let files = files(&office.path("out/bundles/packages")).into_iter();
    files.map(|(path, content)| (path.to_str().unwrap().to_owned(), content)).collect()
}

#[test]
fn a_bundle_names_its_packages_and_they_lie_where_the_box_fetches_them() {
    let (office, boxes) = office();
    set_version(&office, "version = \"0.2.0\"\nmin_version = \"0.1.0\"");
    put(&office, "0.0.9_arm64", "older than min_version, and perhaps what the box runs");
    fs::write(office.path("packages/edge-provision_0.2.0_amd64.deb"), "another program").unwrap();
    fs::write(office.path("packages/SHA256SUMS"), "checksums").unwrap();
    let told = office.done(&["build"]);
    assert!(told.contains("out/bundles/packages: 5 packages, 5 new, 0 removed"), "{told}");

    let manifest = manifest(&office, &boxes[0], SITE);
    assert_eq!(manifest.version.as_deref(), Some("0.2.0"));
    assert_eq!(manifest.min_version.as_deref(), Some("0.1.0"));
    let all = ["0.0.9_arm64", "0.1.0_amd64", "0.1.0_arm64", "0.2.0_amd64", "0.2.0_arm64"];
    assert_eq!(named(&manifest), all);
    let published = published(&office);
    assert_eq!(published.len(), 5);
    for (name, digest) in &manifest.packages {
        assert_eq!(sha256(&published[&name.to_string()]), digest.to_string());
    }
    let told = office.done(&["verify", "out/bundles/edge-bundle-amsterdam-01.tar"]);
    assert!(told.contains("version 0.2.0, min_version 0.1.0, secrets encrypted"), "{told}");
    let digest = sha256(b"!<arch>\n0.2.0_arm64");
    assert!(told.contains(&format!("edge-gateway_0.2.0_arm64.deb sha256 {digest}\n")), "{told}");
}

/// Who signs on another machine sees once for all bundles what the boxes will install.
#[test]
fn the_one_who_signs_sees_the_packages() {
    let (office, _boxes) = office();
    office.done(&["build", "--unsigned"]);
    let contents = [SITE, OTHER].map(|site| format!("out/bundles/{site}.bundle.tar"));
    let told = office.done(&["sign", &contents[0], &contents[1]]);
    let lines = told.lines().filter(|line| line.starts_with("edge-gateway_0.1.0_arm64.deb sha256"));
    assert_eq!(lines.count(), 1, "{told}");
}

#[test]
fn a_bundle_is_new_only_if_what_it_names_has_changed() {
    let (office, boxes) = office();
    let told = office.done(&["build"]);
    assert!(told.contains("2 new bundles"), "{told}");
    assert!(office.done(&["build"]).contains("0 new bundles, 2 unchanged"));
    assert_eq!(named(&manifest(&office, &boxes[0], SITE)).len(), 4, "any version may run now");

    // A later version concerns only the site that shall run it.
    put(&office, "0.3.0_arm64", "later");
    let told = office.done(&["build"]);
    assert!(told.contains("0 new bundles, 2 unchanged") && told.contains("0 new, 0 rem"), "{told}");
    edit_site(&office, "[site]\n", "[site]\nversion = \"0.3.0\"\n");
    let told = office.done(&["build"]);
    assert!(told.contains("amsterdam-01: bundle 2") && told.contains("1 unchanged"), "{told}");
    assert!(told.contains("5 packages, 1 new, 0 removed"), "{told}");
    let of_site = manifest(&office, &boxes[0], SITE);
    assert_eq!((of_site.version.as_deref(), named(&of_site).len()), (Some("0.3.0"), 5));

    // Back: the box runs the later version, and must be able to return to it.
    edit_site(&office, "version = \"0.3.0\"\n", "");
    assert!(office.done(&["build"]).contains("amsterdam-01: bundle 3"));
    let back = manifest(&office, &boxes[0], SITE);
    assert!(named(&back).contains(&"0.3.0_arm64".to_owned()), "{back:?}");
    assert!(office.done(&["build"]).contains("0 new bundles, 2 unchanged"));

    // Other bytes of the same name.
    put(&office, "0.2.0_amd64", "built again");
    let told = office.done(&["build"]);
    assert!(told.contains("2 new bundles") && told.contains("1 new, 0 removed"), "{told}");
}

#[test]
fn a_copy_that_no_bundle_names_is_removed() {
    let (office, boxes) = office();
    office.done(&["build"]);
    fs::write(office.path("out/bundles/packages/other.txt"), "not a package").unwrap();
    set_version(&office, "version = \"0.2.0\"");
    for name in ["0.1.0_amd64", "0.1.0_arm64"] {
        fs::remove_file(office.path(&format!("packages/edge-gateway_{name}.deb"))).unwrap();
    }
    // The bundle of the other site is as before, and its box may be fetching them.
    let told = office.done(&["build", SITE]);
    assert!(told.contains("2 packages, 0 new, 0 removed"), "{told}");
    let told = office.done(&["build"]);
    assert!(told.contains("2 packages, 0 new, 2 removed"), "{told}");
    assert_eq!(named(&manifest(&office, &boxes[1], OTHER)), ["0.2.0_amd64", "0.2.0_arm64"]);
    assert_eq!(published(&office).len(), 3);
    assert!(office.done(&["build"]).contains("0 new bundles, 2 unchanged"));
}

/// A second person whose copy of the fleet has no packages would take the way back from all boxes.
#[test]
fn a_copy_of_the_fleet_without_packages_builds_nothing_else() {
    let (office, boxes) = office();
    office.done(&["build"]);
    fs::rename(office.path("packages"), office.path("elsewhere")).unwrap();
    assert!(office.done(&["check"]).contains("no problems"));
    let told = office.refused(&["build"]);
    assert!(told.contains("there is no directory packages/ here"), "{told}");
    fs::rename(office.path("elsewhere"), office.path("packages")).unwrap();
    assert!(office.done(&["build"]).contains("0 new bundles, 2 unchanged"));

    // On purpose: the version is left to the boxes.
    fs::remove_dir_all(office.path("packages")).unwrap();
    set_version(&office, "");
    assert!(office.done(&["build"]).contains("2 new bundles"));
    assert!(manifest(&office, &boxes[0], SITE).packages.is_empty());
    let site = fs::read_to_string(office.path("sites/amsterdam-01.toml")).unwrap();
    assert!(!site.contains("packages"), "{site}");
}

#[test]
fn a_fleet_without_packages_has_bundles_with_a_version_alone() {
    let (office, boxes) = office();
    fs::remove_dir_all(office.path("packages")).unwrap();
    let told = office.done(&["build"]);
    assert!(!told.contains("package"), "{told}");
    let of_site = manifest(&office, &boxes[0], SITE);
    assert_eq!((of_site.version.as_deref(), of_site.packages.len()), (Some("0.1.0"), 0));
    // Packages that come later are a change, because now the box can install them.
    put(&office, "0.1.0_arm64", "now");
    assert!(office.done(&["build"]).contains("2 new bundles"));
    assert_eq!(named(&manifest(&office, &boxes[0], SITE)), ["0.1.0_arm64"]);
}

/// What was checked when the fleet was read may be another file when it is copied.
#[test]
fn a_package_that_changes_meanwhile_stops_the_build() {
    let (office, _boxes) = office();
    let fleet = provisioning::office::fleet::Fleet::load(&office.dir.0).unwrap();
    let package = office.path("packages/edge-gateway_0.1.0_arm64.deb");
    fs::remove_file(&package).unwrap();
    std::os::unix::fs::symlink(office.path("secrets/signing.key"), &package).unwrap();
    let error = office.build_fleet(&fleet, jiff::Timestamp::now()).unwrap_err();
    assert!(matches!(error, BuildError::File(_)), "{error}");
    assert!(error.to_string().contains("edge-gateway_0.1.0_arm64.deb"), "{error}");
    assert!(files(&office.path("out/bundles")).is_empty());

    put(&office, "0.1.0_amd64", "a version of its own");
    fs::remove_file(&package).unwrap();
    put(&office, "0.1.0_arm64", "0.1.0_arm64");
    let built = office.build_fleet(&fleet, jiff::Timestamp::now()).unwrap();
    assert_eq!(built, [BuiltSite::Counted(1), BuiltSite::Counted(1)]);
}
