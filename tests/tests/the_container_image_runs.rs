//! The programs for boxes without a system around them: the container image under runc, with a root
//! that it cannot write and without rights, and each program alone in an empty root.
//!
//! By default the program is that of the tests, for this machine, which needs its C library and its
//! time zones. With static programs, nothing is shared with it.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use e2e::{
    CertificateAuthority, Container, ContainerImage, EVENT_TIMEOUT, Gateway, GatewayConfig,
    Linkage, LocalHub, Mosquitto, PackageSet, Port, STOP_TIMEOUT, Simulator, TempDir,
    system_program, temp_dir,
};
use tunnel::PrivateKey;

/// A demo of three seconds under emulation, beside a compiler.
const DEMO_TIMEOUT: Duration = Duration::from_secs(60);

/// The user and the group in the image.
const USER: u32 = 65532;
/// Each kind of box: its architecture, the target of Rust for it, and the emulator of it.
const BOXES: [(&str, &str, &str); 3] = [
    ("amd64", "x86_64-unknown-linux-musl", "qemu-x86_64-static"),
    ("arm64", "aarch64-unknown-linux-musl", "qemu-aarch64-static"),
    ("armv7", "armv7-unknown-linux-musleabihf", "qemu-arm-static"),
];
/// Changes the root of a program, after directories of this machine up to `--` are mounted in it.
const IN_ROOT: &str = r#"
set -eu
root=$1
shift
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --bind -o ro "$1" "$root$1"
    shift
done
shift
exec chroot --userspec=65532:65532 "$root" "$@"
"#;

/// Returns the image of all static programs, if there are static programs.
fn image() -> ContainerImage {
    let (packages, linkage) = match test_settings::STATIC_PROGRAMS.path() {
        Some(dir) => {
            let programs = BOXES.map(|(arch, target, _)| (arch, dir.join(target)));
            (PackageSet::image(programs), Linkage::Static)
        }
        None => (PackageSet::of_format("oci"), Linkage::Dynamic),
    };
    ContainerImage::unpack(&packages.path("-oci.tar"), linkage)
}

#[test]
fn as_root_the_image_runs_the_demo() {
    let image = image();
    assert_eq!(image.user(), (USER.into(), USER.into()));
    let mut container = image.start(&["demo", "--json", "--for", "3s"]);
    let process = container.process();
    let messages = std::io::read_to_string(process.stdout()).expect("it prints text");
    let status = process.wait(DEMO_TIMEOUT);
    assert!(status.success(), "{status}:\n{}", process.log().text());
    assert!(messages.lines().count() > 3, "{messages}");
}

#[test]
fn as_root_the_image_publishes_through_the_tunnel_with_tls_and_stops() {
    let (plc, port, authority) = (Simulator::start(), Port::reserve(), CertificateAuthority::new());
    let (files, broker) = broker(&authority, &port);
    let key = PrivateKey::generate();
    let hub = LocalHub::start(key.public_key(), None, port.address());
    let (config, state) = (temp_dir(), temp_dir());
    config.write("ca.pem", &authority.pem());
    config.write_private("tunnel.key", key.expose().as_str());
    let in_container = |name: &str| format!("/etc/edge-gateway/{name}");
    let text = GatewayConfig::with_broker("g", format!("mqtts://{}:1883", LocalHub::ADDRESS))
        .set("gateway.timezone", "Europe/Amsterdam")
        .set("mqtt.ca_file", in_container("ca.pem"))
        .set("tunnel.private_key_file", in_container("tunnel.key"))
        .set("tunnel.address", format!("{}/32", LocalHub::SITE_ADDRESS))
        .hub("hub-a", hub.address(), hub.public_key(), LocalHub::ADDRESS)
        .plcs(plc.plc_sections(1, Duration::from_millis(100)));
    config.write("gateway.toml", &text.to_string());
    give_to_user(config.path());
    give_to_user(state.path());
    let image = image().mount(config.path(), "/etc/edge-gateway", "ro").mount(
        state.path(),
        "/var/lib/edge-gateway",
        "rw",
    );
    let consumer = broker.subscribe("edge/g/data/#");

    let mut container = image.start(&[]);
    for _ in 0..3 {
        let message = consumer.try_next(EVENT_TIMEOUT);
        let log = container.process().log().text();
        assert!(message.expect(&log).json()["life"].is_number(), "{log}");
    }
    let queue = fs::read_dir(state.path()).expect("it is there").count();
    assert!(queue > 0, "the queue is on the volume");
    stops_well(&mut container);
    drop(files);
}

#[test]
fn as_root_the_image_says_what_it_was_not_given() {
    let (plc, port, authority) = (Simulator::start(), Port::reserve(), CertificateAuthority::new());
    let (_files, _broker) = broker(&authority, &port);
    let config = temp_dir();
    let text = GatewayConfig::with_broker("g", format!("mqtts://127.0.0.1:{}", port.number()))
        .plcs(plc.plc_sections(1, Duration::from_millis(100)));
    config.write("gateway.toml", &text.to_string());
    give_to_user(config.path());

    let image = image().mount(config.path(), "/etc/edge-gateway", "ro");
    let mut container = image.start(&[]);

    let process = container.process();
    process.wait_for_line("state_dir /var/lib/edge-gateway is in memory", EVENT_TIMEOUT);
    process.wait_for_line("This machine has no list of authorities to verify", EVENT_TIMEOUT);
    stops_well(&mut container);
}

/// Starts a broker with a port for TLS, which knows the address of the hub.
fn broker(authority: &CertificateAuthority, port: &Port) -> (TempDir, Mosquitto) {
    let (files, (certificate, key)) = (temp_dir(), authority.sign(LocalHub::ADDRESS));
    let certificate = files.write("broker.pem", &certificate);
    let key = files.write("broker.key", &key);
    let broker = Mosquitto::builder()
        .line(&format!("listener {} 127.0.0.1", port.number()))
        .line(&format!("certfile {}", certificate.display()))
        .line(&format!("keyfile {}", key.display()))
        .start();
    (files, broker)
}

/// Gives a directory and its files to the user of the image.
fn give_to_user(dir: &Path) {
    let files = fs::read_dir(dir).expect("it is there");
    let files = files.map(|file| file.expect("it is readable").path());
    for path in files.chain([dir.to_owned()]) {
        chown(&path, Some(USER), Some(USER)).expect("this is root");
    }
}

fn stops_well(container: &mut Container) {
    let process = container.process();
    process.terminate();
    let status = process.wait(STOP_TIMEOUT);
    assert!(status.success(), "{status}:\n{}", process.log().text());
}

/// Without static programs, that of the tests takes their place, with its libraries.
#[test]
fn as_root_static_programs_run_in_an_empty_root() {
    match test_settings::STATIC_PROGRAMS.path() {
        None => the_demo_runs_in_a_root(&Gateway::program(), None, Linkage::Dynamic.shared()),
        Some(dir) => {
            for (_, target, emulator) in BOXES {
                let is_foreign = !target.starts_with(std::env::consts::ARCH);
                let emulator = is_foreign.then(|| system_program(Path::new(emulator)));
                let program = dir.join(target).join("edge-gateway");
                the_demo_runs_in_a_root(&program, emulator.as_deref(), &[]);
            }
        }
    }
}

fn the_demo_runs_in_a_root(program: &Path, emulator: Option<&Path>, shared: &[&str]) {
    let dir = temp_dir();
    let root = dir.path().join("root");
    fs::create_dir(&root).expect("its own directory is writable");
    let in_root = [emulator.map(|path| (path, "emulator")), Some((program, "edge-gateway"))];
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-c", IN_ROOT, "sh"]).arg(&root);
    unshare.args(shared.iter().filter(|path| Path::new(path).exists())).arg("--");
    for (path, name) in in_root.into_iter().flatten() {
        fs::copy(path, root.join(name)).expect("a program can be copied");
        unshare.arg(format!("/{name}"));
    }
    // The demo needs a directory that it can write, and there is no other.
    give_to_user(&root);
    let ended = unshare.args(["demo", "--json", "--for", "3s"]).output().expect("it is installed");
    let log = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{}: {}\n{log}", program.display(), ended.status);
    let messages = String::from_utf8_lossy(&ended.stdout);
    assert!(messages.lines().count() > 3, "{}: {messages}\n{log}", program.display());
}
