//! Promise 8 at the office: no secret of a fleet is in git, in a rendered file, in what a command
//! prints, or readable by others.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::Office;

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("the directory is readable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn git(office: &Office, arguments: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(office.path("")).args(arguments).output();
    let output = output.expect("git is installed");
    assert!(output.status.success(), "git {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns the lines of a file that are secret: passwords, and the base64 of keys.
fn secret_lines(text: &str) -> Vec<String> {
    let is_secret = |line: &&str| line.len() >= 32 && !line.contains("comment");
    text.lines().map(str::trim).filter(is_secret).map(str::to_owned).collect()
}

#[test]
fn no_command_prints_a_secret_and_git_takes_none() {
    let office = Office::new("hub-a.example.net:51820");
    git(&office, &["init", "--quiet"]);
    let mut printed = String::new();
    for arguments in [
        &["add", "site-a", "--template", "pump", "--with-key"][..],
        &["add", "site-b", "--template", "pump"],
        &["add", "hub-b", "--hub", "--endpoint", "hub-b.example.net:51820"],
        &["check"],
        &["list", "--json"],
        &["hub"],
    ] {
        let output = office.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        printed.push_str(&String::from_utf8_lossy(&output.stdout));
        printed.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    // A mistake shows the line that has it: a password that was written into a site's file.
    office.change("sites/site-b.toml", |text| format!("{text}\n[mqtt]\npassword = \"geheim\"\n"));
    let rejected = office.output(&["check"]);
    assert_eq!(rejected.status.code(), Some(1));
    printed.push_str(&String::from_utf8_lossy(&rejected.stderr));
    assert!(!printed.contains("geheim"), "{printed}");

    let secret_files = files_below(&office.path("secrets"));
    assert!(secret_files.len() >= 6, "{secret_files:?}");
    let secrets: Vec<String> = secret_files
        .iter()
        .flat_map(|path| secret_lines(&fs::read_to_string(path).expect("text")))
        .collect();
    assert!(secrets.len() >= secret_files.len(), "{secret_files:?}");
    let rendered = files_below(&office.path("out"));
    let (with_keys, others): (Vec<_>, Vec<_>) =
        rendered.iter().partition(|path| path.ends_with("wireguard/edge.conf"));
    assert_eq!(with_keys.len(), 2);
    let tracked = [git(&office, &["add", "."]), git(&office, &["grep", "--cached", "-h", ""])];
    for secret in &secrets {
        assert!(!printed.contains(secret), "{printed}");
        assert!(!tracked[1].contains(secret), "git has a secret");
        for path in &others {
            let text = fs::read_to_string(path).expect("text");
            assert!(!text.contains(secret), "{}", path.display());
        }
    }
    let is_private = |path: &Path| {
        let mode = fs::metadata(path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    };
    secret_files.iter().chain(with_keys).for_each(|path| is_private(path));
    is_private(&office.path("secrets"));
}

#[test]
fn init_and_add_can_be_run_again_and_keep_what_is_there() {
    let office = Office::new("hub-a.example.net:51820");
    office.change(".gitignore", |_| "/target/\n/secrets/\n".to_owned());
    let fleet = office.read("fleet.toml");
    let again = office.output(&["init", ".", "--endpoint", "hub-a.example.net:51820"]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(office.read("fleet.toml"), fleet);

    // Interrupted before fleet.toml was written: the key of the hub stays.
    fs::remove_file(office.path("fleet.toml")).expect("it is there");
    office.run(&["init", ".", "--endpoint", "hub-a.example.net:51820"]);
    assert_eq!(office.read("fleet.toml"), fleet);
    let ignored = office.read(".gitignore");
    assert!(
        ignored.starts_with("/target/\n/secrets/\n") && ignored.ends_with("/out/\n"),
        "{ignored}"
    );

    office.run(&["add", "site-a", "--template", "pump", "--with-key"]);
    let site = office.read("sites/site-a.toml");
    assert_eq!(office.output(&["add", "site-a"]).status.code(), Some(1));
    assert_eq!(office.read("sites/site-a.toml"), site);
    fs::remove_file(office.path("sites/site-a.toml")).expect("it is there");
    office.run(&["add", "site-a", "--template", "pump", "--with-key"]);
    assert_eq!(office.read("sites/site-a.toml"), site);
    assert_eq!(office.output(&["add", "Site A"]).status.code(), Some(2));
}
