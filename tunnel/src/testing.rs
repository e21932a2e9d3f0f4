//! Network namespaces for tests that need root.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace of its own, which goes when nothing is left in it.
///
/// Only the thread that entered it is in it, so tests do not see each other.
#[derive(Debug)]
pub(crate) struct Namespace(File);

impl Namespace {
    /// Makes one with a loopback interface, and enters it.
    ///
    /// # Panics
    /// When the test does not run as root.
    pub(crate) fn enter() -> Self {
        unshare(CloneFlags::CLONE_NEWNET)
            .expect("needs root; `cargo xtask test` as another user names what it left out");
        ip(&["link", "set", "lo", "up"]);
        Self(File::open("/proc/thread-self/ns/net").expect("procfs is there"))
    }

    /// Its path in procfs, for programs that are to move something into it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Enters it again.
    pub(crate) fn enter_again(&self) {
        setns(&self.0, CloneFlags::CLONE_NEWNET).expect("it is a network namespace");
    }
}

/// Runs `ip` in the thread's namespace and gives what it prints.
pub(crate) fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is there");
    assert!(output.status.success(), "ip {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The same as JSON.
pub(crate) fn ip_json(arguments: &[&str]) -> String {
    ip(&[&["-j", "-d"], arguments].concat())
}
