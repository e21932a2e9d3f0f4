//! The Debian package in a sandbox of this machine: owners and modes are right, the program runs as
//! its own user, an upgrade keeps the configuration, and a purge removes everything.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{
    EVENT_TIMEOUT, Gateway, Process, Sandbox, TempDir, eventually, temp_dir, workspace_program,
};

const UNIT: &str = "/usr/lib/systemd/system/edge-gateway.service";
/// Highest exposure in `systemd-analyze security`, in tenths, on its scale from 0 to 10.
const MAX_EXPOSURE: &str = "15";

#[test]
fn lintian_finds_nothing_in_the_package() {
    let built = Package::build();
    let output = Command::new("lintian")
        .args(["--fail-on", "error,warning", "--allow-root"])
        .arg(&built.path)
        .output()
        .expect("lintian is installed");
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
}

#[test]
fn as_root_the_package_installs_starts_and_purges() {
    let sandbox = Sandbox::start();
    let package = Package::build();
    sandbox.copy_in(&package.path, "/tmp/edge-gateway.deb");
    let before = files_of_that_name(&sandbox);

    sandbox.run("dpkg", &["--install", "/tmp/edge-gateway.deb"]);
    owners_and_modes_are_right(&sandbox);
    the_unit_is_valid_and_tight(&sandbox);
    only_its_user_reads_the_configuration(&sandbox);
    the_program_runs_as_its_user(&sandbox);
    an_upgrade_keeps_the_configuration(&sandbox);
    sandbox.run("dpkg", &["--purge", "edge-gateway"]);
    nothing_is_left(&sandbox);
    assert_eq!(files_of_that_name(&sandbox), before);
}

/// This machine may have such files of its own, for example in a checkout below /var.
fn files_of_that_name(sandbox: &Sandbox) -> String {
    sandbox.run("find", &["/etc", "/usr", "/var", "-xdev", "-name", "*edge-gateway*"])
}

fn owners_and_modes_are_right(sandbox: &Sandbox) {
    let expected = [
        ("/usr/bin/edge-gateway", "root:root 755"),
        (UNIT, "root:root 644"),
        ("/etc/edge-gateway", "root:edge-gateway 750"),
        ("/etc/edge-gateway/gateway.toml", "root:edge-gateway 640"),
        ("/var/lib/edge-gateway", "edge-gateway:edge-gateway 750"),
        ("/usr/share/doc/edge-gateway/book/README.md", "root:root 644"),
        ("/usr/share/doc/edge-gateway/book/pictures/chain.svg", "root:root 644"),
    ];
    for (path, owner_and_mode) in expected {
        let found = sandbox.run("stat", &["--format", "%U:%G %a", path]);
        assert_eq!(found.trim(), owner_and_mode, "{path}");
    }
    let account = sandbox.run("getent", &["passwd", "edge-gateway"]);
    assert!(account.trim().ends_with(":/var/lib/edge-gateway:/usr/sbin/nologin"), "{account}");
}

/// An older systemd warns about keys that it does not know, but does not fail.
fn the_unit_is_valid_and_tight(sandbox: &Sandbox) {
    sandbox.run("systemd-analyze", &["verify", UNIT]);
    let threshold = format!("--threshold={MAX_EXPOSURE}");
    sandbox.run("systemd-analyze", &["security", "--offline=true", "--no-pager", &threshold, UNIT]);
}

fn only_its_user_reads_the_configuration(sandbox: &Sandbox) {
    let read = |user: &str| sandbox.try_run("setpriv", &as_user(user, &["edge-gateway", "check"]));
    let own = read("edge-gateway");
    assert!(own.status.success(), "the shipped configuration is refused: {own:?}");
    assert_eq!(read("nobody").status.code(), Some(1), "the user nobody can read the configuration");
}

fn the_program_runs_as_its_user(sandbox: &Sandbox) {
    let mut command = sandbox.command("setpriv");
    let mut process =
        Process::start(command.args(as_user("edge-gateway", &["edge-gateway", "run"])));
    let answer = eventually("/healthz answers 200", EVENT_TIMEOUT, || {
        assert!(process.is_running(), "it ended:\n{}", process.log().text());
        let answer = sandbox.try_run("bash", &["-c", HEALTHZ]);
        answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).into_owned())
    });
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    process.terminate();
    let status = process.wait(EVENT_TIMEOUT);
    assert!(status.success(), "{status}:\n{}", process.log().text());
}

fn an_upgrade_keeps_the_configuration(sandbox: &Sandbox) {
    let config = "/etc/edge-gateway/gateway.toml";
    sandbox
        .run("sh", &["-c", &format!("echo '# ours' >> {config}; touch /var/lib/edge-gateway/x")]);
    sandbox.run("dpkg", &["--install", "/tmp/edge-gateway.deb"]);
    assert!(sandbox.run("cat", &[config]).ends_with("# ours\n"));
    owners_and_modes_are_right(sandbox);
}

fn nothing_is_left(sandbox: &Sandbox) {
    for database in ["passwd", "group"] {
        assert!(!sandbox.try_run("getent", &[database, "edge-gateway"]).status.success());
    }
    assert!(!sandbox.try_run("dpkg", &["--status", "edge-gateway"]).status.success());
}

/// A GET request in bash, because the sandbox has its own network namespace.
const HEALTHZ: &str = r"
exec 3<>/dev/tcp/127.0.0.1/9464
printf 'GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
cat <&3
";

fn as_user<'a>(user: &'a str, command: &[&'a str]) -> Vec<&'a str> {
    let group = if user == "nobody" { "nogroup" } else { user };
    let rights = ["--reuid", user, "--regid", group, "--init-groups", "--no-new-privs"];
    [&rights, command].concat()
}

/// A package of the program that was built with the tests.
struct Package {
    path: PathBuf,
    _dir: TempDir,
}

impl Package {
    fn build() -> Self {
        let dir = temp_dir();
        let built = Command::new(workspace_program("xtask", test_settings::XTASK))
            .args([Path::new("deb"), Path::new("--binary"), &Gateway::program()])
            .args([Path::new("--output"), dir.path()])
            .output()
            .expect("xtask can be started");
        assert!(built.status.success(), "{built:?}");
        let output = String::from_utf8_lossy(&built.stdout).into_owned();
        let path = output.lines().last().expect("its last line is the path");
        Self { path: path.into(), _dir: dir }
    }
}
