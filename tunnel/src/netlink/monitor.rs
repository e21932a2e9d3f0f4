//! Notifications that the host's network has changed. What has changed is not reported: the
//! receiver checks the current state, so a lost notification does no harm.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{MsgFlags, NetlinkAddr, SockFlag, bind, recv};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{self, Instant};

use super::open_socket;
use crate::device::watch_fd;

/// Time from the first of several changes to the notification, which is also the interval during a
/// storm of changes.
const SETTLE_TIME: Duration = Duration::from_millis(500);
/// Messages discarded at once, which is more than the kernel queues.
const MAX_DISCARDED: usize = 1024;

/// Watches links, addresses and routes. Needs no privilege.
#[derive(Debug)]
pub(crate) struct ChangeMonitor {
    /// `None` where the kernel does not notify.
    socket: Option<AsyncFd<OwnedFd>>,
    /// When to notify, once a change was seen.
    due: Option<Instant>,
}

impl ChangeMonitor {
    /// Starts to watch this network namespace. Must be called in a tokio runtime. Fails where a
    /// sandbox forbids netlink.
    pub(crate) fn listen() -> io::Result<Self> {
        let fd = open_socket(SockFlag::SOCK_NONBLOCK)?;
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_ROUTE;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups.unsigned_abs()))?;
        Ok(Self { socket: Some(watch_fd(fd)?), due: None })
    }

    /// Creates a monitor that never notifies.
    pub(crate) const fn disabled() -> Self {
        Self { socket: None, due: None }
    }

    /// Waits until something has changed and half a second has passed. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        let Some(socket) = &self.socket else { return std::future::pending().await };
        let due = match self.due {
            Some(due) => due,
            None => {
                if socket.readable().await.is_err() {
                    // The runtime is shutting down.
                    return std::future::pending().await;
                }
                // Kept in `self`, so that a dropped future does not lose the change.
                *self.due.insert(Instant::now() + SETTLE_TIME)
            }
        };
        time::sleep_until(due).await;
        self.due = None;
        discard_pending(socket);
    }

    /// Makes [`ChangeMonitor::changed`] ready at this time at the latest.
    pub(crate) const fn wake_at(&mut self, at: Instant) {
        self.due = Some(at);
    }
}

/// Discards the messages that have arrived, at most [`MAX_DISCARDED`].
fn discard_pending(socket: &AsyncFd<OwnedFd>) {
    // The kernel truncates a message that does not fit.
    let mut start = [0; 16];
    // Bounded: under a flood of messages the loop would otherwise never end.
    for _ in 0..MAX_DISCARDED {
        let received = socket.try_io(Interest::READABLE, |fd| {
            Ok(recv(fd.as_raw_fd(), &mut start, MsgFlags::MSG_DONTWAIT)?)
        });
        if received.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::testing::{Namespace, ip};

    const TEST_TIMEOUT: Duration = Duration::from_secs(10);

    /// Waits until there are no more notifications: the kernel sends late ones about its own
    /// addresses.
    async fn quiet(monitor: &mut ChangeMonitor) {
        for _ in 0..20 {
            if timeout(SETTLE_TIME * 6 / 5, monitor.changed()).await.is_err() {
                return;
            }
        }
        panic!("notifications do not end");
    }

    #[tokio::test]
    async fn as_root_changes_of_links_addresses_and_routes_are_reported_once() {
        let _namespace = Namespace::enter();
        let mut monitor = ChangeMonitor::listen().unwrap();
        for change in [
            "link add cable type veth peer name other",
            "addr add 192.0.2.1/24 dev cable",
            "link set cable up;link set other up",
            "addr add fd02::1/64 dev cable nodad",
            "route add 10.0.0.0/8 via 192.0.2.2",
            "-6 route add fd00::/16 via fd02::2",
        ] {
            let lines = change.split(';');
            quiet(&mut monitor).await;
            lines.for_each(|line| drop(ip(&line.split(' ').collect::<Vec<_>>())));
            timeout(TEST_TIMEOUT, monitor.changed()).await.expect(change);
        }
        quiet(&mut monitor).await;
    }

    #[tokio::test]
    async fn as_root_a_change_is_not_lost_with_a_dropped_future_or_in_a_storm() {
        let _namespace = Namespace::enter();
        let mut monitor = ChangeMonitor::listen().unwrap();
        ip(&["link", "set", "lo", "mtu", "9000"]);
        assert!(timeout(SETTLE_TIME / 10, monitor.changed()).await.is_err());
        timeout(TEST_TIMEOUT, monitor.changed()).await.unwrap();
        quiet(&mut monitor).await;
        // More than the kernel queues: it reports the overflow, which is all that is needed.
        let storm: String = (0..1_000)
            .map(|n| format!("addr add 10.1.{}.{}/32 dev lo\n", n / 250, n % 250))
            .collect();
        let file = std::env::temp_dir().join(format!("edge-storm-{}", std::process::id()));
        std::fs::write(&file, storm).unwrap();
        ip(&["-batch", file.to_str().unwrap()]);
        std::fs::remove_file(file).unwrap();
        timeout(TEST_TIMEOUT, monitor.changed()).await.unwrap();
        quiet(&mut monitor).await;
        ip(&["link", "set", "lo", "mtu", "1500"]);
        timeout(TEST_TIMEOUT, monitor.changed()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_disabled_monitor_never_reports() {
        assert!(timeout(TEST_TIMEOUT, ChangeMonitor::disabled().changed()).await.is_err());
    }
}
