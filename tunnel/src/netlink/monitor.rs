//! That something of the host's network has changed. What it was does not matter: who listens looks
//! for himself, and so nothing depends on news that were lost.

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

/// From the first of several changes to the look at what has become of them. A storm of changes is
/// looked at as often.
const SETTLE_TIME: Duration = Duration::from_millis(500);
/// Messages that are thrown away at once; more are more than the kernel keeps.
const MAX_DISCARDED: usize = 1024;

/// Hears of changes of links, addresses and routes. Needs no privilege.
#[derive(Debug)]
pub(crate) struct ChangeMonitor {
    /// Absent where the kernel tells nothing.
    socket: Option<AsyncFd<OwnedFd>>,
    /// When to look, once something has been heard.
    due: Option<Instant>,
}

impl ChangeMonitor {
    /// Listens in this network namespace. Has to be called in a tokio runtime. Fails where a
    /// sandbox keeps netlink away.
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

    /// Hears nothing, ever.
    pub(crate) const fn disabled() -> Self {
        Self { socket: None, due: None }
    }

    /// Waits until something has changed and half a second has passed since. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        let Some(socket) = &self.socket else { return std::future::pending().await };
        let due = match self.due {
            Some(due) => due,
            None => {
                if socket.readable().await.is_err() {
                    // The runtime ends.
                    return std::future::pending().await;
                }
                *self.due.insert(Instant::now() + SETTLE_TIME)
            }
        };
        time::sleep_until(due).await;
        self.due = None;
        discard_pending(socket);
    }

    /// Makes [`News::changed`] ready at this time, whatever happens before.
    pub(crate) const fn wake_at(&mut self, at: Instant) {
        self.due = Some(at);
    }
}

/// Takes what has been told up to now.
fn discard_pending(socket: &AsyncFd<OwnedFd>) {
    // The rest of a message that does not fit is thrown away by the kernel.
    let mut start = [0; 16];
    for _ in 0..MAX_DISCARDED {
        let told = socket.try_io(Interest::READABLE, |fd| {
            Ok(recv(fd.as_raw_fd(), &mut start, MsgFlags::MSG_DONTWAIT)?)
        });
        if told.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::testing::{Namespace, ip};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Waits until nothing is told any more: the kernel has afterthoughts, about its own addresses.
    async fn quiet(news: &mut ChangeMonitor) {
        for _ in 0..20 {
            if timeout(SETTLE_TIME * 6 / 5, news.changed()).await.is_err() {
                return;
            }
        }
        panic!("something is told for ever");
    }

    #[tokio::test]
    async fn as_root_links_addresses_and_routes_of_both_families_are_news_once() {
        let _namespace = Namespace::enter();
        let mut news = ChangeMonitor::listen().unwrap();
        for change in [
            "link add cable type veth peer name other",
            "addr add 192.0.2.1/24 dev cable",
            "link set cable up;link set other up",
            "addr add fd02::1/64 dev cable nodad",
            "route add 10.0.0.0/8 via 192.0.2.2",
            "-6 route add fd00::/16 via fd02::2",
        ] {
            let lines = change.split(';');
            quiet(&mut news).await;
            lines.for_each(|line| drop(ip(&line.split(' ').collect::<Vec<_>>())));
            timeout(PATIENCE, news.changed()).await.expect(change);
        }
        quiet(&mut news).await;
    }

    #[tokio::test]
    async fn as_root_what_is_heard_is_not_lost_with_the_waiting_future_or_in_a_storm() {
        let _namespace = Namespace::enter();
        let mut news = ChangeMonitor::listen().unwrap();
        ip(&["link", "set", "lo", "mtu", "9000"]);
        assert!(timeout(SETTLE_TIME / 10, news.changed()).await.is_err());
        timeout(PATIENCE, news.changed()).await.unwrap();
        quiet(&mut news).await;
        // More than the kernel keeps: it says so, and nothing else is of interest.
        let storm: String = (0..1_000)
            .map(|n| format!("addr add 10.1.{}.{}/32 dev lo\n", n / 250, n % 250))
            .collect();
        let file = std::env::temp_dir().join(format!("edge-storm-{}", std::process::id()));
        std::fs::write(&file, storm).unwrap();
        ip(&["-batch", file.to_str().unwrap()]);
        std::fs::remove_file(file).unwrap();
        timeout(PATIENCE, news.changed()).await.unwrap();
        quiet(&mut news).await;
        ip(&["link", "set", "lo", "mtu", "1500"]);
        timeout(PATIENCE, news.changed()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_is_told_nothing_is_heard() {
        assert!(timeout(PATIENCE, ChangeMonitor::disabled().changed()).await.is_err());
    }
}
