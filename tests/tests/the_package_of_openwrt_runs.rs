//! The package of OpenWrt, read as opkg reads it, and run on a small root with BusyBox. OpenWrt's
//! own functions and its procd are stand-ins (`tests/peers/openwrt`).
#![expect(clippy::expect_used, clippy::panic, reason = "test code may stop on the spot")]

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{EVENT_TIMEOUT, PackageSet, Process, Sandbox, commands_of_page};

const CONFIG: &str = "/etc/edge-gateway/gateway.toml";
const INIT: &str = "/etc/init.d/edge-gateway";

/// Members of the archive of files: mode, owner and path.
const FILES: &str = "\
drwxr-xr-x 0/0 ./
drwxr-xr-x 0/0 ./etc/
drwxr-x--- 0/0 ./etc/edge-gateway/
-rw-r----- 0/0 ./etc/edge-gateway/gateway.toml
drwxr-xr-x 0/0 ./etc/init.d/
-rwxr-xr-x 0/0 ./etc/init.d/edge-gateway
drwxr-xr-x 0/0 ./lib/
drwxr-xr-x 0/0 ./lib/upgrade/
drwxr-xr-x 0/0 ./lib/upgrade/keep.d/
-rw-r--r-- 0/0 ./lib/upgrade/keep.d/edge-gateway
drwxr-xr-x 0/0 ./srv/
drwxr-x--- 0/0 ./srv/edge-gateway/
drwxr-xr-x 0/0 ./usr/
drwxr-xr-x 0/0 ./usr/bin/
-rwxr-xr-x 0/0 ./usr/bin/edge-gateway
";
const CONTROL: &str = "\
drwxr-xr-x 0/0 ./
-rw-r--r-- 0/0 ./conffiles
-rw-r--r-- 0/0 ./control
-rwxr-xr-x 0/0 ./postinst
-rwxr-xr-x 0/0 ./prerm
";
const OUTER: &str = "\
-rw-r--r-- 0/0 ./debian-binary
-rw-r--r-- 0/0 ./data.tar.gz
-rw-r--r-- 0/0 ./control.tar.gz
";
/// What opkg and its index need to know (OpenWrt, scripts/ipkg-build and ipkg-make-index.sh).
const FIELDS: [&str; 11] = [
    "Package",
    "Version",
    "Depends",
    "Source",
    "SourceDateEpoch",
    "License",
    "Section",
    "Maintainer",
    "Architecture",
    "Installed-Size",
    "Description",
];

#[test]
fn the_package_has_the_archives_and_fields_that_opkg_reads() {
    let package = PackageSet::of_format("ipk");
    let dir = package.dir();
    let ipk = package.path(".ipk");
    assert_eq!(members(&ipk), OUTER);
    tar(&[Path::new("-xzf"), &ipk, Path::new("-C"), dir]);
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect("it was unpacked");
    assert_eq!(read("debian-binary"), "2.0\n");
    assert_eq!(members(&dir.join("data.tar.gz")), FILES);
    assert_eq!(members(&dir.join("control.tar.gz")), CONTROL);

    tar(&[Path::new("-xzf"), &dir.join("control.tar.gz"), Path::new("-C"), dir]);
    let control = read("control");
    let fields = control.lines().map(|line| line.split_once(": ").expect("a field"));
    let (names, values): (Vec<_>, Vec<_>) = fields.unzip();
    assert_eq!(names, FIELDS);
    assert!(values.iter().all(|value| !value.is_empty() && !value.contains('{')), "{control}");
    let version = format!("Version: {}-r1\n", env!("CARGO_PKG_VERSION"));
    assert!(control.contains(&version), "{control}");
    let name = ipk.file_name().expect("it has a name").to_string_lossy().into_owned();
    let named = format!("edge-gateway_{}-r1_{}.ipk", env!("CARGO_PKG_VERSION"), values[8]);
    assert_eq!(name, named, "opkg takes the architecture from the field, people from the name");
    assert_eq!(read("conffiles"), format!("{CONFIG}\n"));
}

/// Returns mode, owner and path of each member.
fn members(archive: &Path) -> String {
    let list = tar(&[Path::new("--numeric-owner"), Path::new("-tvzf"), archive]);
    let line = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            [mode, owner, .., path] => format!("{mode} {owner} {path}\n"),
            other => panic!("{other:?}"),
        }
    };
    list.lines().map(line).collect()
}

fn tar(arguments: &[&Path]) -> String {
    let output = Command::new("tar").args(arguments).output().expect("tar is installed");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn as_root_the_package_installs_runs_upgrades_and_is_removed() {
    let router = Sandbox::with_busybox();
    provide_openwrt(&router);
    router.copy_in(&PackageSet::of_format("ipk").path(".ipk"), "/tmp/edge-gateway.ipk");
    install(&router, "");
    owners_and_modes_are_right(&router);
    assert_eq!(actions(&router), ["own", "running"], "a package that is installed starts nothing");

    its_user_accepts_the_configuration(&router);
    let mut gateway = start(&router);
    procd_is_told_everything(&router);
    router.run(INIT, &["enable"]);
    router.run("sh", &["-c", &format!("echo '# kept' >> {CONFIG}; touch /srv/edge-gateway/q")]);
    router.run("rm", &["/var/run/actions"]);
    remove(&router, "PKG_UPGRADE=1");
    assert_eq!(actions(&router), [""; 0], "an upgrade leaves the gateway running");
    install(&router, "PKG_UPGRADE=1");
    assert_eq!(actions(&router), ["own", "running", "restart", "stop"]);
    has_ended_well(&mut gateway);
    assert!(router.run("cat", &[CONFIG]).ends_with("# kept\n"));
    owners_and_modes_are_right(&router);
    let accounts = router.run("grep", &["-c", "^edge-gateway:", "/etc/passwd", "/etc/group"]);
    assert_eq!(accounts, "/etc/passwd:1\n/etc/group:1\n");

    let mut gateway = start(&router);
    router.run("rm", &["/var/run/actions"]);
    remove(&router, "");
    assert_eq!(actions(&router), ["disable", "stop"]);
    has_ended_well(&mut gateway);
    assert!(!router.try_run("test", &["-L", "/etc/rc.d/S95edge-gateway"]).status.success());
    in_an_image_the_first_start_sets_the_owners(&router);
    nothing_starts_without_a_configuration(&router);
}

/// opkg and an editor are not there; the other commands are those that the tests above run.
#[test]
fn the_page_names_the_commands_that_the_package_has() {
    let page = commands_of_page("docs/site/other-boxes.md", "router");
    let [install, edit, others @ ..] = page.as_slice() else { panic!("{page:?}") };
    let version = env!("CARGO_PKG_VERSION");
    assert!(install.starts_with(&format!("opkg install ./edge-gateway_{version}-r1_")));
    assert_eq!(edit, &format!("vi {CONFIG}"));
    let own = ["edge-gateway check", &format!("{INIT} enable"), &format!("{INIT} start")];
    assert_eq!(others, own);
}

/// Plays the image builder, which runs as a user: it cannot give files to others.
fn in_an_image_the_first_start_sets_the_owners(router: &Sandbox) {
    let image = "mkdir -p /tmp/image/lib /tmp/image/etc; cp /lib/functions.sh /tmp/image/lib
        echo root:x:0:0:root:/root:/bin/ash > /tmp/image/etc/passwd
        echo root:x:0: > /tmp/image/etc/group
        rm /var/run/actions; IPKG_INSTROOT=/tmp/image /tmp/package/postinst
        IPKG_INSTROOT=/tmp/image /tmp/package/prerm";
    router.run("sh", &["-ec", image]);
    let count = ["-c", "^edge-gateway:", "/tmp/image/etc/passwd", "/tmp/image/etc/group"];
    let counted = router.run("grep", &count);
    assert_eq!(counted, "/tmp/image/etc/passwd:1\n/tmp/image/etc/group:1\n");
    assert_eq!(actions(router), [""; 0], "nothing runs in an image");
    router.run("chown", &["root:root", "/etc/edge-gateway", CONFIG, "/srv/edge-gateway"]);
    let mut gateway = start(router);
    owners_and_modes_are_right(router);
    gateway.terminate();
    has_ended_well(&mut gateway);
}

fn nothing_starts_without_a_configuration(router: &Sandbox) {
    router.run("sh", &["-c", &format!("rm /var/run/procd; : > {CONFIG}")]);
    let refused = router.try_run(INIT, &["start"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(!router.try_run("test", &["-e", "/var/run/procd"]).status.success());
}

/// Provides the part of OpenWrt that the package uses.
fn provide_openwrt(router: &Sandbox) {
    let peers = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("peers/openwrt");
    router.copy_in(&peers.join("functions.sh"), "/lib/functions.sh");
    router.copy_in(&peers.join("rc.common"), "/etc/rc.common");
    let accounts = "echo root:x:0:0:root:/root:/bin/ash > /etc/passwd; echo root:x:0: > /etc/group";
    router.run("sh", &["-c", accounts]);
}

/// Unpacks the package as opkg does: a file of the configuration that exists is kept.
fn install(router: &Sandbox, environment: &str) {
    router.run(
        "sh",
        &[
            "-ec",
            &format!(
                "mkdir -p /tmp/package && cd /tmp/package
        gunzip -c ../edge-gateway.ipk | tar -x -f -
        gunzip -c control.tar.gz | tar -x -f -
        for file in $(cat conffiles); do [ ! -e $file ] || cp -p $file $file.kept; done
        gunzip -c data.tar.gz | tar -x -f - -C /
        for file in $(cat conffiles); do [ ! -e $file.kept ] || mv $file.kept $file; done
        env {environment} ./postinst"
            ),
        ],
    );
}

/// Runs what opkg runs before it removes the files.
fn remove(router: &Sandbox, environment: &str) {
    router.run("sh", &["-c", &format!("env {environment} /tmp/package/prerm")]);
}

fn owners_and_modes_are_right(router: &Sandbox) {
    let expected = [
        ("/usr/bin/edge-gateway", "root:root 755"),
        (INIT, "root:root 755"),
        ("/etc/edge-gateway", "root:edge-gateway 750"),
        (CONFIG, "root:edge-gateway 640"),
        ("/srv/edge-gateway", "edge-gateway:edge-gateway 750"),
        ("/", "root:root 755"),
        ("/etc", "root:root 755"),
        ("/srv", "root:root 755"),
    ];
    for (path, owner_and_mode) in expected {
        let found = router.run("stat", &["-c", "%U:%G %a", path]);
        assert_eq!(found.trim(), owner_and_mode, "{path}");
    }
    let account = router.run("grep", &["^edge-gateway:", "/etc/passwd"]);
    assert!(account.trim().ends_with(":edge-gateway:/srv/edge-gateway:/bin/false"), "{account}");
}

fn its_user_accepts_the_configuration(router: &Sandbox) {
    // Without a file for its process id, it looks for the program among all processes of this machine.
    let pid_file = ["-S", "-p", "/var/run/check.pid"];
    let as_user = ["-c", "edge-gateway:edge-gateway", "-x", "/usr/bin/edge-gateway", "--"];
    router.run("start-stop-daemon", &[&pid_file[..], &as_user, &["check"]].concat());
}

/// Starts the service, and waits for its HTTP server.
fn start(router: &Sandbox) -> Process {
    let mut gateway = Process::start(router.command(INIT).arg("start"));
    let answer = router.healthz(&mut gateway);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let user = router.run("stat", &["-c", "%U", &format!("/proc/{}", gateway.id())]);
    assert_eq!(user.trim(), "edge-gateway");
    gateway
}

fn has_ended_well(gateway: &mut Process) {
    let status = gateway.wait(EVENT_TIMEOUT);
    assert!(status.success(), "{status}:\n{}", gateway.log().text());
}

fn procd_is_told_everything(router: &Sandbox) {
    let records = router.run("cat", &["/var/run/procd"]);
    assert_eq!(
        records.lines().collect::<Vec<_>>(),
        [
            "command /usr/bin/edge-gateway run /etc/edge-gateway/gateway.toml",
            "respawn 3600 5 0",
            "file /etc/edge-gateway/gateway.toml",
            "stdout 1",
            "stderr 1",
            "user edge-gateway",
            "group edge-gateway",
            "no_new_privs 1",
            "closed",
            "reload edge-gateway",
        ]
    );
}

/// Returns what the init script was asked to do.
fn actions(router: &Sandbox) -> Vec<String> {
    let text = router.try_run("cat", &["/var/run/actions"]).stdout;
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}
