//! `edge-provision diff` shows what a change of the fleet's files does at which site.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::process::Command;

use e2e::Office;

fn git(office: &Office, arguments: &[&str]) {
    let mut command = Command::new("git");
    command.arg("-C").arg(office.path("")).args(["-c", "user.name=a", "-c", "user.email=a@b"]);
    let status = command.args(arguments).status().expect("git is installed");
    assert!(status.success(), "git {arguments:?}");
}

fn commit(office: &Office) {
    git(office, &["add", "."]);
    git(office, &["commit", "--quiet", "-m", "a change"]);
}

/// Returns what `diff` prints, and its exit code.
fn diff(office: &Office, arguments: &[&str]) -> (String, Option<i32>) {
    let output = office.output(&[&["diff"], arguments].concat());
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).expect("it prints text"), output.status.code())
}

#[test]
fn sites_with_the_same_change_are_shown_once() {
    let office = Office::new("hub-a.example.net:51820");
    for site in ["site-a", "site-b", "site-c"] {
        office.run(&["add", site, "--template", "pump"]);
    }
    git(&office, &["init", "--quiet"]);
    commit(&office);
    assert_eq!(diff(&office, &[]), (String::new(), Some(0)));

    office.change("templates/pump.toml", |text| text.replace("scan = \"1s\"", "scan = \"2s\""));
    office.change("sites/site-c.toml", |text| text + "scan = \"5s\"\n");
    let (shown, code) = diff(&office, &[]);
    assert_eq!(code, Some(1));
    assert!(shown.contains("2 sites: site-a, site-b\n"), "{shown}");
    assert!(shown.contains("-scan = \"1s\"\n+scan = \"2s\"\n"), "{shown}");
    assert!(shown.contains("1 site: site-c\n") && shown.contains("+scan = \"5s\"\n"), "{shown}");

    let (shown, code) = diff(&office, &["site-c"]);
    assert_eq!(code, Some(1));
    assert!(shown.contains("1 site: site-c\n") && !shown.contains("site-a"), "{shown}");
    let (shown, code) = diff(&office, &["site-d"]);
    assert!(shown.contains("there is no site site-d") && code == Some(1), "{shown}");
    let (shown, code) = diff(&office, &["--since", "none"]);
    assert!(shown.contains("git: ") && code == Some(1), "{shown}");

    commit(&office);
    office.run(&["add", "site-d", "--template", "pump"]);
    let (shown, _) = diff(&office, &["site-d"]);
    assert!(shown.contains("1 site: site-d\nnew\n"), "{shown}");
    assert_eq!(diff(&office, &["site-a"]), (String::new(), Some(0)));
}

#[test]
fn another_version_is_shown_like_any_other_change() {
    let office = Office::new("hub-a.example.net:51820");
    for site in ["site-a", "site-b", "site-c"] {
        office.run(&["add", site, "--template", "pump"]);
    }
    git(&office, &["init", "--quiet"]);
    commit(&office);
    office.change("fleet.toml", |text| format!("version = \"0.2.0\"\n{text}"));
    office.change("sites/site-c.toml", |text| {
        text.replace("[site]\n", "[site]\nversion = \"0.1.0\"\n")
    });
    let (shown, _) = diff(&office, &[]);
    assert!(shown.contains("2 sites: site-a, site-b\n"), "{shown}");
    assert!(
        shown.contains("manifest.toml\n") && shown.contains("+version = \"0.2.0\"\n"),
        "{shown}"
    );
    assert!(shown.contains("1 site: site-c\n"), "{shown}");
    assert!(shown.contains("+version = \"0.1.0\"\n"), "{shown}");
}
