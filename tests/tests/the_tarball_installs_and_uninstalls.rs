//! The tarball in a sandbox of this machine: `install.sh` installs, upgrades and removes, the
//! program runs as its own user, and what an operator wrote is lost only when asked for.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use e2e::{EVENT_TIMEOUT, PackageSet, Process, Sandbox, commands_of_page};

const PROGRAM: &str = "/usr/local/bin/edge-gateway";
const UNIT: &str = "/etc/systemd/system/edge-gateway.service";
const CONFIG: &str = "/etc/edge-gateway/gateway.toml";
/// What is installed on every system, with owner and mode.
const FILES: [(&str, &str); 4] = [
    (PROGRAM, "root:root 755"),
    ("/etc/edge-gateway", "root:edge-gateway 750"),
    (CONFIG, "root:edge-gateway 640"),
    ("/var/lib/edge-gateway", "edge-gateway:edge-gateway 750"),
];
/// Files that useradd and userdel write.
const ACCOUNTS: [&str; 6] = ["passwd", "group", "shadow", "gshadow", "subuid", "subgid"];

#[test]
fn as_root_the_tarball_installs_upgrades_and_uninstalls() {
    let sandbox = Sandbox::start();
    sandbox.copy_in(&PackageSet::of_format("tar").path(".tar.gz"), "/tmp/edge-gateway.tar.gz");
    sandbox.run("sh", &["-c", "cd /tmp && tar -xzf edge-gateway.tar.gz && mv edge-gateway-* here"]);
    assert_eq!(sandbox.changed_files("*edge-gateway*"), [""; 0]);

    only_root_may_install(&sandbox);
    let told = install(&sandbox, "");
    assert!(told.contains("then run: edge-gateway check"), "{told}");
    owners_and_modes_are_right(&sandbox);
    the_unit_starts_the_installed_program(&sandbox);
    the_program_runs_as_its_user(&sandbox);

    sandbox
        .run("sh", &["-c", &format!("echo '# kept' >> {CONFIG}; touch /var/lib/edge-gateway/q")]);
    let installed = installed_files(&sandbox);
    install(&sandbox, "");
    assert_eq!(installed_files(&sandbox), installed);
    owners_and_modes_are_right(&sandbox);
    install(&sandbox, "--uninstall");
    let is_kept = |path: &&String| ![PROGRAM, UNIT].contains(&path.as_str());
    let kept: Vec<_> = installed.iter().filter(is_kept).cloned().collect();
    assert!(kept.len() == installed.len() - 2 && kept.iter().any(|path| path.ends_with("/q")));
    assert_eq!(installed_files(&sandbox), kept);
    assert!(sandbox.run("cat", &[CONFIG]).ends_with("# kept\n"));

    // With the same user, its files are its own again.
    install(&sandbox, "");
    assert_eq!(installed_files(&sandbox), installed);
    install(&sandbox, "--uninstall --purge");
    assert_eq!(installed_files(&sandbox), [""; 0]);
    for database in ["passwd", "group"] {
        assert!(!sandbox.try_run("getent", &[database, "edge-gateway"]).status.success());
    }
    // What is not there is no failure.
    install(&sandbox, "--uninstall --purge");
    let wrong = sandbox.try_run("/tmp/here/install.sh", &["--remove"]);
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
    assert_eq!(installed_files(&sandbox), [""; 0]);
}

#[test]
fn as_root_the_commands_of_the_page_install_and_remove() {
    let sandbox = Sandbox::start();
    let packages = PackageSet::of_format("tar");
    let tarball = packages.path(".tar.gz");
    let name = tarball.file_name().expect("it has a name").to_string_lossy().into_owned();
    sandbox.copy_in(&tarball, &format!("/tmp/{name}"));
    let commands = commands_of_page("docs/site/other-boxes.md", "linux");
    let (edit, commands): (Vec<_>, Vec<_>) =
        commands.into_iter().partition(|command| command.contains("nano"));
    assert_eq!(edit, [format!("sudo nano {CONFIG}")]);
    for command in commands {
        // The sandbox is root's, and has the directory of programs in its path.
        let command = command.replace("sudo ", "");
        sandbox.run("sh", &["-ec", &format!("cd /tmp; {command}")]);
    }
    assert_eq!(installed_files(&sandbox), [""; 0]);
}

/// BusyBox of Debian has no adduser either.
#[test]
fn as_root_the_tarball_installs_without_systemd_once_there_is_a_user() {
    let sandbox = Sandbox::with_busybox();
    sandbox.copy_in(&PackageSet::of_format("tar").path(".tar.gz"), "/tmp/edge-gateway.tar.gz");
    let unpack = "cd /tmp && gunzip -c edge-gateway.tar.gz | tar -x -f - && mv edge-gateway-* here
        echo root:x:0:0:root:/root:/bin/sh > /etc/passwd; echo root:x:0: > /etc/group";
    sandbox.run("sh", &["-c", unpack]);
    let refused = sandbox.try_run("/tmp/here/install.sh", &[]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("create the user edge-gateway, then run this again"), "{told}");
    assert_eq!(sandbox.run("find", &["/etc", "/usr", "/var", "-name", "*edge-gateway*"]), "");

    let user = "echo edge-gateway:x:100:100::/var/lib/edge-gateway:/bin/false >> /etc/passwd
        echo edge-gateway:x:100: >> /etc/group";
    sandbox.run("sh", &["-c", user]);
    let told = install(&sandbox, "");
    let run = "/usr/local/bin/edge-gateway run /etc/edge-gateway/gateway.toml";
    assert!(told.contains("as the user edge-gateway") && told.contains(run), "{told}");
    for (path, owner_and_mode) in FILES.into_iter().chain([("/usr/local/bin", "root:root 755")]) {
        let found = sandbox.run("stat", &["-c", "%U:%G %a", path]);
        assert_eq!(found.trim(), owner_and_mode, "{path}");
    }
    let command = format!("exec start-stop-daemon -S -c edge-gateway:edge-gateway -x {run}");
    let command = command.replace(" run ", " -- run ");
    let mut gateway = Process::start(sandbox.command("sh").args(["-c", &command]));
    let answer = sandbox.healthz(&mut gateway);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    gateway.terminate();
    let status = gateway.wait(EVENT_TIMEOUT);
    assert!(status.success(), "{status}:\n{}", gateway.log().text());
    install(&sandbox, "--uninstall --purge");
    let left = sandbox.run("find", &["/etc", "/usr", "/var", "-name", "*edge-gateway*"]);
    assert_eq!(left, "");
}

fn install(sandbox: &Sandbox, options: &str) -> String {
    // From another directory, and with the strictest umask.
    sandbox.run("sh", &["-c", &format!("umask 077; cd / && /tmp/here/install.sh {options}")])
}

/// Returns what was installed; the files with all accounts of the machine are not.
fn installed_files(sandbox: &Sandbox) -> Vec<String> {
    let is_accounts = |path: &String| {
        let name = path.trim_start_matches("/etc/").trim_end_matches('-');
        ACCOUNTS.contains(&name) || name == ".pwd.lock"
    };
    let changed = sandbox.changed_files("*edge-gateway*").into_iter();
    changed.filter(|path| !is_accounts(path)).collect()
}

fn only_root_may_install(sandbox: &Sandbox) {
    let nobody = ["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"];
    for option in ["", "--uninstall"] {
        let script = format!("/tmp/here/install.sh {option}");
        let refused =
            sandbox.try_run("setpriv", &[&nobody, ["sh", "-c", &script].as_slice()].concat());
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert_eq!(String::from_utf8_lossy(&refused.stderr), "install.sh: run it as root\n");
    }
    assert_eq!(sandbox.changed_files("*edge-gateway*"), [""; 0]);
}

fn owners_and_modes_are_right(sandbox: &Sandbox) {
    for (path, owner_and_mode) in FILES.into_iter().chain([(UNIT, "root:root 644")]) {
        let found = sandbox.run("stat", &["--format", "%U:%G %a", path]);
        assert_eq!(found.trim(), owner_and_mode, "{path}");
    }
    let account = sandbox.run("getent", &["passwd", "edge-gateway"]);
    assert!(account.trim().ends_with(":/var/lib/edge-gateway:/usr/sbin/nologin"), "{account}");
}

fn the_unit_starts_the_installed_program(sandbox: &Sandbox) {
    let unit = sandbox.run("cat", &[UNIT]);
    assert!(!unit.contains("/usr/bin/edge-gateway"), "{unit}");
    assert!(unit.contains("\nExecStart=/usr/local/bin/edge-gateway run"), "{unit}");
    sandbox.run("systemd-analyze", &["verify", UNIT]);
}

fn the_program_runs_as_its_user(sandbox: &Sandbox) {
    let as_user = |command: &str| {
        let rights = ["--reuid", "edge-gateway", "--regid", "edge-gateway", "--init-groups"];
        let mut setpriv = sandbox.command("setpriv");
        setpriv.args(rights).args(["--no-new-privs", "edge-gateway", command]);
        setpriv
    };
    let check = as_user("check").output().expect("nsenter is installed");
    assert!(check.status.success(), "the shipped configuration is refused: {check:?}");
    let mut process = Process::start(&mut as_user("run"));
    let answer = sandbox.healthz(&mut process);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    process.terminate();
    let status = process.wait(EVENT_TIMEOUT);
    assert!(status.success(), "{status}:\n{}", process.log().text());
}
