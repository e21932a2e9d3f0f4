//! `edge-gateway tunnel FILE.conf` and `keygen`: the tunnel without the gateway.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use e2e::{
    EVENT_TIMEOUT, Gateway, Namespace, NamespacePair, Process, TempDir, TunnelTestbed, WireguardGo,
    eventually, key_encodings, temp_dir,
};
use tunnel::{PrivateKey, PublicKey};

fn keygen(arguments: &[&Path]) -> Output {
    let output = Command::new(Gateway::program()).arg("keygen").args(arguments).output();
    output.expect("the program is built")
}

#[test]
fn a_new_key_is_readable_by_its_owner_only_and_only_its_public_key_is_printed() {
    let dir = temp_dir();
    let path = dir.path().join("tunnel.key");

    let made = keygen(&[&path]);

    assert!(made.status.success(), "{made:?}");
    assert_eq!(fs::metadata(&path).expect("it exists").permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&path).expect("the test owns it");
    let key: PrivateKey = text.trim().parse().expect("it holds a key");
    assert_eq!(String::from_utf8_lossy(&made.stdout), format!("{}\n", key.public_key()));
    assert!(!format!("{made:?}").contains(text.trim()));
    assert_eq!(made.stderr, b"");
}

#[test]
fn an_existing_key_is_not_overwritten() {
    let dir = temp_dir();
    let path = dir.write("tunnel.key", "the only one\n");

    let refused = keygen(&[&path]);

    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("exists already"), "{refused:?}");
    assert_eq!(refused.stdout, b"");
    assert_eq!(fs::read_to_string(&path).expect("the test owns it"), "the only one\n");
    let nowhere = keygen(&[&dir.path().join("nowhere/tunnel.key")]);
    assert_eq!(nowhere.status.code(), Some(1), "{nowhere:?}");
    assert_eq!(keygen(&[&path, &path]).status.code(), Some(2));
}

/// Writes a wg-quick file that only its owner can read.
fn conf(dir: &TempDir, hub: PublicKey, extra: &str) -> String {
    let (address, network) = (WireguardGo::SITE_ADDRESS, WireguardGo::ADDRESS);
    let key = PrivateKey::generate();
    write(dir, &key, hub, &format!("Address = {address}/32\n{extra}"), network)
}

fn write(dir: &TempDir, key: &PrivateKey, hub: PublicKey, lines: &str, network: &str) -> String {
    let text = format!(
        "[Interface]\nPrivateKey = {}\n{lines}\n[Peer]\nPublicKey = {hub}\nEndpoint = {}\n\
         AllowedIPs = {network}/32\nPersistentKeepalive = 25\n",
        key.expose().as_str(),
        WireguardGo::ENDPOINT,
    );
    let path = dir.write("site.conf", &text);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("the test owns it");
    path.display().to_string()
}

/// Returns the interfaces, addresses and routes of a machine.
fn network_of(namespace: &Namespace) -> String {
    let shown: [&[&str]; 4] = [
        &["-o", "link", "show"],
        &["-o", "address", "show"],
        &["-4", "route", "show", "table", "all"],
        &["-6", "route", "show", "table", "all"],
    ];
    let shown: String = shown.iter().map(|what| namespace.run("ip", what)).collect();
    // The kernel takes its time with the cable's own address.
    shown.lines().filter(|line| !line.contains("cable")).collect::<Vec<_>>().join("\n")
}

#[test]
fn as_root_the_hub_is_reached_and_every_kind_of_exit_leaves_nothing_behind() {
    let (pair, dir, key) = (NamespacePair::new(), temp_dir(), PrivateKey::generate());
    let hub = WireguardGo::start(&pair, key.public_key(), TunnelTestbed::MTU);
    let address = format!("Address = {}/32", WireguardGo::SITE_ADDRESS);
    let file = write(&dir, &key, hub.public_key(), &address, WireguardGo::ADDRESS);
    let program = Gateway::program().display().to_string();
    let state = dir.path().display().to_string();
    let before = network_of(&pair.site);

    for signal in ["TERM", "KILL"] {
        let arguments = ["tunnel", &file, "--interface", "site0", "--state-dir", &state];
        let mut command = pair.site.command(&program);
        let mut tunnel = Process::start(command.args(arguments).env("RUST_LOG", "trace"));
        tunnel.wait_for_line("is up.", EVENT_TIMEOUT);
        pair.site.run("ping", &["-c", "2", "-i", "0.2", "-W", "5", WireguardGo::ADDRESS]);
        assert!(network_of(&pair.site).contains("site0"));
        let arguments = fs::read_to_string(format!("/proc/{}/cmdline", tunnel.id()));
        let told = tunnel.log().text() + &arguments.expect("it runs");
        assert!(told.contains("DEBUG"), "it tells more, or this tests nothing: {told}");
        assert!(key_encodings(&key.expose()).iter().all(|secret| !told.contains(secret)), "{told}");

        tunnel.signal(signal);

        let status = tunnel.wait(EVENT_TIMEOUT);
        assert_eq!(status.success(), signal == "TERM", "{status}: {}", tunnel.log().text());
        eventually("nothing is left", EVENT_TIMEOUT, || {
            (network_of(&pair.site) == before).then_some(())
        });
    }
}

/// Runs `edge-gateway tunnel` on a file until it ends. Returns its exit code and its output.
fn refused(file: &str) -> (Option<i32>, String) {
    let mut command = Command::new(Gateway::program());
    let output = command.args(["tunnel", file, "--interface", "edge-none"]).output();
    let output = output.expect("the program is built");
    assert_eq!(output.stdout, b"");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_file_with_commands_is_refused_and_none_is_run() {
    let dir = temp_dir();
    let marker = dir.path().join("run");
    let touch = format!("touch {}", marker.display());
    let lines = format!("PreUp = {touch}\nPostUp = {touch}\nPreDown = {touch}\nPostDown = {touch}");
    let file = conf(&dir, PrivateKey::generate().public_key(), &lines);

    let (code, said) = refused(&file);

    assert_eq!(code, Some(1), "{said}");
    for key in ["PreUp", "PostUp", "PreDown", "PostDown"] {
        let sentence = format!("`{key}` is a command, and commands from a file are never run");
        assert!(said.contains(&sentence), "{said}");
    }
    assert!(!marker.exists());
    assert!(!Path::new("/sys/class/net/edge-none").exists());
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let dir = temp_dir();
    let file = conf(&dir, PrivateKey::generate().public_key(), "");
    for mode in [0o644, 0o640, 0o604, 0o620] {
        fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("the test owns it");
        let (code, said) = refused(&file);
        assert_eq!(code, Some(1), "{mode:o}: {said}");
        assert!(said.contains("chmod 600"), "{mode:o}: {said}");
    }
}

#[test]
fn as_root_an_unprivileged_user_gets_the_missing_right_named() {
    let (pair, dir) = (NamespacePair::new(), temp_dir());
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("the test owns it");
    let file = conf(&dir, PrivateKey::generate().public_key(), "");
    std::os::unix::fs::chown(&file, Some(65_534), Some(65_534)).expect("root may");
    let program = Gateway::program().display().to_string();
    let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"];

    // As udev makes the device, and as the kernel does.
    for (mode, expected) in
        [("666", "needs the capability CAP_NET_ADMIN"), ("600", "/dev/net/tun may not be opened")]
    {
        let script = format!(
            "mount -t tmpfs tmpfs /dev/net && mknod -m {mode} /dev/net/tun c 10 200 \
             && exec setpriv \"$@\""
        );
        let mut command = pair.site.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
        let output = command.args(nobody).args([&program, "tunnel", &file]).output();

        let output = output.expect("setpriv is there");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected), "{mode}: {said}");
    }
}
