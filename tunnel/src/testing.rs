//! Helpers of the tests: two ends that know each other, and network namespaces for tests that need
//! root.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

use crate::key::PrivateKey;
use crate::settings::{Endpoint, Hub, HubSettings, Settings, SitePeer};

/// A network namespace, which the kernel removes when nothing is left in it.
///
/// Only the thread that entered it is in it, so tests do not affect each other.
#[derive(Debug)]
pub(crate) struct Namespace(File);

impl Namespace {
    /// Creates a namespace with a loopback interface and enters it.
    ///
    /// # Panics
    /// If the test does not run as root.
    pub(crate) fn enter() -> Self {
        unshare(CloneFlags::CLONE_NEWNET)
            .expect("needs root; `cargo xtask test` as another user names what it left out");
        ip(&["link", "set", "lo", "up"]);
        Self(File::open("/proc/thread-self/ns/net").expect("procfs is mounted"))
    }

    /// Returns its path in procfs, for programs that move something into it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Enters it again.
    pub(crate) fn enter_again(&self) {
        setns(&self.0, CloneFlags::CLONE_NEWNET).expect("it is a network namespace");
    }
}

/// Runs `ip` in the thread's namespace and returns its output.
pub(crate) fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `ip` like [`ip`], with JSON output.
pub(crate) fn ip_json(arguments: &[&str]) -> String {
    ip(&[&["-j", "-d"], arguments].concat())
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}

/// Returns a site (10.77.0.12, fd77::12) and its hub (10.77.0.1, fd77::1) at 192.0.2.1:51820.
pub(crate) fn site_and_hub() -> (Settings, HubSettings) {
    let (site, hub) = (PrivateKey::generate(), PrivateKey::generate());
    let keys = SitePeer {
        public_key: site.public_key(),
        preshared_key: None,
        allowed_ips: vec![net("10.77.0.12/32"), net("fd77::12/128")],
    };
    let hub_end = HubSettings {
        private_key: hub.clone(),
        addresses: vec![net("10.77.0.1/16"), net("fd77::1/64")],
        mtu: 1280,
        sites: vec![keys],
    };
    let hub = Hub {
        name: "hub".to_owned(),
        endpoint: Endpoint { host: "192.0.2.1".to_owned(), port: 51820 },
        public_key: hub.public_key(),
        preshared_key: None,
        allowed_ips: vec![net("10.77.0.0/16"), net("fd77::/64")],
    };
    let settings = Settings {
        private_key: site,
        addresses: vec![net("10.77.0.12/32"), net("fd77::12/128")],
        mtu: 1280,
        keep_alive: Some(Duration::from_secs(25)),
        hubs: vec![hub],
    };
    (settings, hub_end)
}
