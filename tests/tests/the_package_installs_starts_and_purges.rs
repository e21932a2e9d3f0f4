//! The Debian package in a sandbox of this machine: owners and modes are right, the program runs as
//! its own user, an upgrade keeps the configuration, and a purge removes everything.

use std::process::Command;

use e2e::{DebianPackage, EVENT_TIMEOUT, Process, Sandbox};

const UNIT: &str = "/usr/lib/systemd/system/edge-gateway.service";
const SECRETS_PATH_UNIT: &str = "/usr/lib/systemd/system/edge-gateway-secrets.path";
const SECRETS_SERVICE_UNIT: &str = "/usr/lib/systemd/system/edge-gateway-secrets.service";
const BOX_PATH_UNIT: &str = "/usr/lib/systemd/system/edge-gateway-box-apply.path";
const BOX_SERVICE_UNIT: &str = "/usr/lib/systemd/system/edge-gateway-box-apply.service";
const BOX_LED_UNIT: &str = "/usr/lib/systemd/system/edge-gateway-box-led.service";
const BOX_UPDATE_PATH_UNIT: &str = "/usr/lib/systemd/system/edge-gateway-box-update.path";
const BOX_UPDATE_UNIT: &str = "/usr/lib/systemd/system/edge-gateway-box-update.service";
/// Highest exposure in `systemd-analyze security`, in tenths, on its scale from 0 to 10.
const MAX_EXPOSURE: &str = "15";

#[test]
fn lintian_finds_nothing_in_the_packages() {
    let built = DebianPackage::build();
    let output = Command::new("lintian")
        .args(["--fail-on", "error,warning", "--allow-root"])
        .args([built.path(), &built.provision_path()])
        .output()
        .expect("lintian is installed");
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
}

#[test]
fn as_root_the_package_installs_starts_and_purges() {
    let sandbox = Sandbox::start();
    let package = DebianPackage::build();
    sandbox.copy_in(package.path(), "/tmp/edge-gateway.deb");
    let before = files_of_that_name(&sandbox);

    // As the documents say; `apt` needs no network for a file.
    sandbox.run("sh", &["-c", "cd /tmp && apt install --yes ./edge-gateway.deb"]);
    owners_and_modes_are_right(&sandbox);
    the_units_are_valid_and_tight(&sandbox);
    only_its_user_reads_the_configuration(&sandbox);
    a_directory_in_memory_is_noted(&sandbox);
    the_program_runs_as_its_user(&sandbox);
    a_check_by_root_judges_for_the_user_of_the_service(&sandbox);
    a_change_restarts_the_service_once(&sandbox);
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
        (SECRETS_PATH_UNIT, "root:root 644"),
        (SECRETS_SERVICE_UNIT, "root:root 644"),
        ("/usr/bin/edge-gateway-box", "root:root 755"),
        (BOX_PATH_UNIT, "root:root 644"),
        (BOX_SERVICE_UNIT, "root:root 644"),
        (BOX_LED_UNIT, "root:root 644"),
        ("/usr/lib/systemd/system/edge-gateway-box-stick@.service", "root:root 644"),
        ("/usr/lib/udev/rules.d/60-edge-gateway-box.rules", "root:root 644"),
        ("/usr/share/man/man1/edge-gateway-box.1.gz", "root:root 644"),
        ("/usr/share/bash-completion/completions/edge-gateway-box", "root:root 644"),
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
fn the_units_are_valid_and_tight(sandbox: &Sandbox) {
    let units = [
        UNIT,
        SECRETS_PATH_UNIT,
        SECRETS_SERVICE_UNIT,
        BOX_PATH_UNIT,
        BOX_SERVICE_UNIT,
        BOX_LED_UNIT,
        BOX_UPDATE_PATH_UNIT,
        BOX_UPDATE_UNIT,
    ];
    sandbox.run("systemd-analyze", &[&["verify"], units.as_slice()].concat());
    for wanted in [
        "edge-gateway.service.wants/edge-gateway-secrets.path",
        "multi-user.target.wants/edge-gateway-box-apply.path",
        "multi-user.target.wants/edge-gateway-box-apply.service",
        "multi-user.target.wants/edge-gateway-box-led.service",
        "multi-user.target.wants/edge-gateway-box-update.path",
    ] {
        sandbox.run("test", &["-L", &format!("/etc/systemd/system/{wanted}")]);
    }
    let gateway = "/etc/systemd/system/multi-user.target.wants/edge-gateway.service";
    sandbox.run("test", &["!", "-e", gateway]);
    let threshold = format!("--threshold={MAX_EXPOSURE}");
    sandbox.run("systemd-analyze", &["security", "--offline=true", "--no-pager", &threshold, UNIT]);
}

fn only_its_user_reads_the_configuration(sandbox: &Sandbox) {
    let read = |user: &str| sandbox.try_run("setpriv", &as_user(user, &["edge-gateway", "check"]));
    let own = read("edge-gateway");
    assert!(own.status.success(), "the shipped configuration is refused: {own:?}");
    assert_eq!(read("nobody").status.code(), Some(1), "the user nobody can read the configuration");
}

/// `/tmp` of the sandbox is in memory.
fn a_directory_in_memory_is_noted(sandbox: &Sandbox) {
    let note = |state_dir: &str| {
        let variable = format!("EDGE_GATEWAY__STATE_DIR={state_dir}");
        let checked = sandbox.try_run("env", &[&variable, "edge-gateway", "check"]);
        assert!(checked.status.success(), "{checked:?}");
        String::from_utf8_lossy(&checked.stderr).contains("is in memory")
    };
    assert!(note("/tmp/not/there/yet"));
    // Of a kind that is not.
    assert!(!note("/proc/edge-gateway"));
}

fn the_program_runs_as_its_user(sandbox: &Sandbox) {
    let mut command = sandbox.command("setpriv");
    let mut process =
        Process::start(command.args(as_user("edge-gateway", &["edge-gateway", "run"])));
    let answer = sandbox.healthz(&mut process);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    process.terminate();
    let status = process.wait(EVENT_TIMEOUT);
    assert!(status.success(), "{status}:\n{}", process.log().text());
}

/// Root can read the secret; the service cannot.
fn a_check_by_root_judges_for_the_user_of_the_service(sandbox: &Sandbox) {
    let secret = "/etc/edge-gateway/mqtt.password";
    let file = "/etc/edge-gateway/with-a-secret.toml";
    let shell = |script: &str| sandbox.run("sh", &["-c", script]);
    shell(&format!("umask 077; echo secret > {secret}"));
    shell(&format!(
        "cp -p /etc/edge-gateway/gateway.toml {file}; sed -i \
         's|^brokers.*|&\\nusername = \"g\"\\npassword_file = \"{secret}\"|' {file}"
    ));
    let check = || sandbox.try_run("edge-gateway", &["check", file]);

    let refused = check();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(text.contains(&format!("runs as edge-gateway, which may not read {secret}")), "{text}");
    assert!(text.contains(&format!("chown edge-gateway {secret}")), "{text}");

    shell(&format!("chown edge-gateway {secret}"));
    let accepted = check();
    assert!(accepted.status.success(), "{accepted:?}");
    shell(&format!("chown root:root {file}; chmod 600 {file}"));
    let text = String::from_utf8_lossy(&check().stderr).into_owned();
    assert!(text.contains(&format!("chgrp edge-gateway {file}")), "{text}");
    // systemd reads a credential as root.
    shell(&format!("chown root:edge-gateway {file}; chmod 640 {file}; chown root {secret}"));
    shell(&format!("sed -i 's|\"{secret}\"|\"cred:mqtt.password\"|' {file}"));
    for directory in ["", "CREDENTIALS_DIRECTORY=/etc/edge-gateway"] {
        shell(&format!("env {directory} edge-gateway check {file}"));
    }
    shell(&format!("rm {file} {secret}"));
}

/// Plays systemd, which does not run here: the conditions of the unit, in their order.
fn a_change_restarts_the_service_once(sandbox: &Sandbox) {
    let unit = sandbox.run("cat", &[SECRETS_SERVICE_UNIT]);
    let conditions = unit.lines().filter_map(|line| line.strip_prefix("ExecCondition="));
    let conditions: Vec<_> = conditions
        .filter(|command| !command.contains("sleep"))
        .map(|c| c.replace("$$", "$"))
        .collect();
    assert_eq!(conditions.len(), 2);
    let restarts = |started: &str| {
        // What `systemctl show` prints of a service that started then.
        let systemctl = format!("systemctl() {{ echo '{started}'; }}; export -f systemctl");
        let conditions = conditions.join(" && ").replace("/bin/sh -c", "bash -c");
        sandbox.try_run("bash", &["-c", &format!("{systemctl}; {conditions}")]).status.success()
    };
    let shell = |script: &str| sandbox.run("sh", &["-c", script]);
    let now = || format!("@{}", shell("date +%s").trim());
    let config = "/etc/edge-gateway/gateway.toml";
    shell("sleep 1.1");
    let started = now();
    assert!(!restarts(&started), "nothing has changed");
    assert!(!restarts(""), "the service has never run");
    shell("sleep 1.1; touch /etc/edge-gateway/.gateway.toml.swp /etc/edge-gateway/gateway.toml~");
    assert!(!restarts(&started), "an editor was opened");
    shell(&format!("cp -p {config} /tmp/valid; touch {config}"));
    assert!(restarts(&started), "the configuration was written");
    shell(&format!("echo 'no toml' >> {config}"));
    assert!(!restarts(&started), "the configuration is invalid");
    shell(&format!("cat /tmp/valid > {config}; rm /etc/edge-gateway/*~ /etc/edge-gateway/.g*"));
    shell("sleep 1.1");
    assert!(!restarts(&now()), "the service has restarted since");
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

fn as_user<'a>(user: &'a str, command: &[&'a str]) -> Vec<&'a str> {
    let group = if user == "nobody" { "nogroup" } else { user };
    let rights = ["--reuid", user, "--regid", group, "--init-groups", "--no-new-privs"];
    [&rights, command].concat()
}
