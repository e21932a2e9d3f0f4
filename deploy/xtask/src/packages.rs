//! Debian packages that the tests need.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{command, is_root, run};

/// Each package and its use.
const PACKAGES: &[(&str, &str)] = &[
    ("adduser", "creates the user of the package"),
    ("apt-utils", "apt-ftparchive writes the indexes of the repository"),
    ("binutils", "strip and objdump for the package"),
    ("busybox", "the shell and the tools of a router"),
    ("chromium", "shows the dashboard of Node-RED"),
    ("docker-compose", "reads the compose file of a hub; needs no Docker for that"),
    ("e2fsprogs", "creates and checks the disks of the power cuts"),
    ("fonts-dejavu-core", "letters for the browser"),
    ("gnupg", "signs the repository"),
    ("iproute2", "ip configures the loopback of the sandbox"),
    ("iperf3", "load for the tunnel benches"),
    ("iputils-ping", "pings through the tunnel"),
    ("kmod", "indexes and orders the kernel modules of the guest"),
    ("libmodbus-dev", "libmodbus as a PLC"),
    ("lintian", "checks the package"),
    ("mbpoll", "libmodbus as a client of the simulator"),
    ("minisign", "verifies and signs bundles"),
    ("mmdebstrap", "makes the Debian 13 that the containers boot"),
    ("mosquitto", "the broker of the tests, and mosquitto_passwd"),
    ("mosquitto-clients", "mosquitto_sub and mosquitto_pub as consumer and publisher"),
    ("mount", "mounts a file system on a loop device"),
    ("nats-server", "a cluster of three brokers"),
    ("nftables", "firewalls of sites and routers"),
    ("nginx", "the web server with the bundles"),
    ("nodejs", "runs modbus-serial, a PLC, and Node-RED"),
    ("npm", "installs modbus-serial and Node-RED below target/"),
    ("openssl", "verifies the certificates of the authority; servers with outdated TLS"),
    ("podman", "loads and runs the container image, as its page says"),
    ("prometheus", "promtool checks /metrics"),
    ("python3-venv", "a virtual environment for pymodbus, the PLC of the tests"),
    ("rabbitmq-server", "a third-party broker, with its MQTT plugin"),
    ("runc", "runs the container image"),
    ("systemd", "systemd-analyze checks the unit"),
    ("systemd-container", "systemd-nspawn boots a Debian 13 with its own systemd"),
    ("tzdata", "time zones of dates in the payload"),
    ("umoci", "unpacks the container image"),
    ("util-linux", "unshare, nsenter and setpriv run the package in a sandbox"),
    ("valgrind", "callgrind counts the instructions per value"),
    ("wireguard-go", "a third-party WireGuard as the hub"),
    ("wireguard-tools", "wg, for the hub in the guest"),
    ("xz-utils", "unpacks the guest's kernel, as Debian 12 packs it"),
    ("zstd", "unpacks the guest's kernel, as Debian 13 packs it"),
];

/// Answers every request to start a service with "not allowed" (Debian's invoke-rc.d protocol).
const POLICY: &str = "#!/bin/sh\nexit 101\n";
const POLICY_PATH: &str = "/usr/sbin/policy-rc.d";

/// Installs missing packages when run as root; otherwise lists them and fails.
pub(crate) fn provide() -> Result<()> {
    let missing: Vec<_> = PACKAGES.iter().filter(|(name, _)| !is_installed(name)).collect();
    if missing.is_empty() {
        println!("    all {} packages are installed", PACKAGES.len());
        return Ok(());
    }
    for (name, reason) in &missing {
        println!("    missing: {name} ({reason})");
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    if !is_root()? {
        bail!("install them as root: apt-get install {}", names.join(" "));
    }
    install(&names)
}

/// Returns whether a package is installed, or another one that provides it: a Node.js from
/// elsewhere may include npm.
fn is_installed(package: &str) -> bool {
    let format = "${db:Status-Abbrev} ${Package}, ${Provides}\n";
    let query = command("dpkg-query", &["-W", "-f", format]).output();
    let listed = query.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    listed.unwrap_or_default().lines().any(|line| {
        let Some(names) = line.strip_prefix("ii ") else { return false };
        names.split(',').any(|name| name.split_whitespace().next() == Some(package))
    })
}

fn install(packages: &[&str]) -> Result<()> {
    let _no_services = ServiceStartBlock::install()?;
    run(&mut apt_get(&["update", "-qq"]))?;
    let arguments = ["install", "-qq", "-y", "--no-remove", "--no-install-recommends"];
    run(&mut apt_get(&[&arguments, packages].concat()))
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut apt = command("apt-get", arguments);
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// Prevents that installing a package starts its service, until dropped: the tests start their own.
#[derive(Debug)]
struct ServiceStartBlock {
    /// An existing policy is kept.
    created_policy: bool,
}

impl ServiceStartBlock {
    fn install() -> Result<Self> {
        if Path::new(POLICY_PATH).exists() {
            return Ok(Self { created_policy: false });
        }
        fs::write(POLICY_PATH, POLICY).with_context(|| format!("cannot write {POLICY_PATH}"))?;
        fs::set_permissions(POLICY_PATH, fs::Permissions::from_mode(0o755))?;
        Ok(Self { created_policy: true })
    }
}

impl Drop for ServiceStartBlock {
    fn drop(&mut self) {
        if self.created_policy && fs::remove_file(POLICY_PATH).is_err() {
            eprintln!("xtask: remove {POLICY_PATH}, or packages cannot start their services");
        }
    }
}
