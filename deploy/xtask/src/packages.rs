//! Debian packages that the tests need.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{command, is_root, run};

/// Each package and what it is for.
const PACKAGES: &[(&str, &str)] = &[
    ("adduser", "the package's own user, made by its postinst"),
    ("binutils", "strip and objdump for the package"),
    ("e2fsprogs", "makes and checks the disk whose power is cut, without mounting it"),
    ("iproute2", "ip brings the loopback of the sandbox up"),
    ("iperf3", "loads the tunnel of the benches"),
    ("iputils-ping", "asks through the tunnel of the benches"),
    ("kmod", "indexes and orders the kernel modules of the guest"),
    ("libmodbus-dev", "libmodbus as a PLC that our client reads"),
    ("lintian", "judges the package"),
    ("mbpoll", "libmodbus as a client of our simulator"),
    ("mosquitto", "the broker of the tests, and mosquitto_passwd"),
    ("mosquitto-clients", "mosquitto_sub and mosquitto_pub as consumer and commander"),
    ("mount", "a file system of its own that is filled and broken, on a loop device"),
    ("nats-server", "three of them are the cluster of brokers of the tests"),
    ("nodejs", "runs modbus-serial, a PLC that our client reads, and Node-RED"),
    ("npm", "installs modbus-serial and Node-RED below target/"),
    ("prometheus", "promtool judges /metrics"),
    ("python3-venv", "holds pymodbus, the PLC of the tests, apart from everything else"),
    ("rabbitmq-server", "a broker of another make, with its MQTT plugin"),
    ("systemd", "systemd-analyze judges the unit"),
    ("tzdata", "time zones of dates in the payload"),
    ("util-linux", "unshare, nsenter and setpriv try the package out in a sandbox"),
    ("valgrind", "callgrind counts the instructions that a value costs"),
    ("wireguard-go", "another make of WireGuard as the hub"),
    ("wireguard-tools", "wg, for the hub in the guest"),
    ("xz-utils", "unpacks the guest's kernel, as Debian 12 packs it"),
    ("zstd", "unpacks the guest's kernel, as Debian 13 packs it"),
];

/// Answers every request to start a service with "not allowed" (Debian's invoke-rc.d protocol).
const POLICY: &str = "#!/bin/sh\nexit 101\n";
const POLICY_PATH: &str = "/usr/sbin/policy-rc.d";

/// Makes sure that all are there: installs what is missing when root, else names it and fails.
pub(crate) fn provide() -> Result<()> {
    let missing: Vec<_> = PACKAGES.iter().filter(|(name, _)| !is_installed(name)).collect();
    if missing.is_empty() {
        println!("    all {} packages are there", PACKAGES.len());
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

/// Whether dpkg has it, or something that provides it: Node.js of other makes brings npm along.
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

/// While this lives, installing a package starts no service: the tests start their own.
#[derive(Debug)]
struct ServiceStartBlock {
    /// Somebody's own policy stays as it is.
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
            eprintln!("xtask: remove {POLICY_PATH} yourself, or no package will start a service");
        }
    }
}
