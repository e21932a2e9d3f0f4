//! Addresses and routes of the tunnel's interface are restored.

use std::time::Duration;

use tokio::time::timeout;

use crate::core::{ClockBounds, Now, Tunnel, TunnelReport, TunnelState};
use crate::device_tunnel::device_tunnel;
use crate::netlink::ChangeMonitor;
use crate::settings::RoutePolicy;
use crate::testing::{Namespace, ip, site_and_hub};
use crate::transport::memory_pair;

const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Returns the addresses and routes of the interface, as `ip` prints them.
fn shown() -> String {
    [
        ip(&["-o", "link", "show", "dev", "edge0"]),
        ip(&["-o", "addr", "show", "dev", "edge0"]),
        ip(&["route", "show", "dev", "edge0"]),
        ip(&["-6", "route", "show", "dev", "edge0"]),
    ]
    .concat()
}

/// Waits until there are no more changes.
async fn quiet(monitor: &mut ChangeMonitor) {
    for _ in 0..10 {
        if timeout(Duration::from_secs(2), monitor.changed()).await.is_err() {
            return;
        }
    }
    panic!("changes do not end");
}

#[tokio::test]
async fn as_root_addresses_and_routes_are_restored_unless_the_interface_is_down() {
    let _namespace = Namespace::enter();
    let (settings, _) = site_and_hub();
    let (transport, _hub) =
        memory_pair("192.0.2.1:1".parse().unwrap(), "192.0.2.2:1".parse().unwrap());
    let site = Tunnel::site(settings.clone(), ClockBounds::default(), Now::read(), 1);
    let name = "edge0".parse().unwrap();
    let (handle, mut driver) = device_tunnel(&settings, RoutePolicy::Auto, name, site, transport);
    driver.open().unwrap();
    let whole = shown();
    assert!(whole.contains("fd77::/64") && whole.contains("10.77.0.0/16"), "{whole}");
    let mut monitor = ChangeMonitor::listen().unwrap();
    let others = async {
        for damage in [
            "link set edge0 down;link set edge0 up",
            "addr flush dev edge0",
            "route flush dev edge0",
            "-6 route del fd77::/64",
            "link set edge0 mtu 1420",
        ] {
            for line in damage.split(';') {
                ip(&line.split(' ').collect::<Vec<_>>());
            }
            assert_ne!(shown(), whole, "{damage}");
            timeout(TEST_TIMEOUT, async {
                while shown() != whole {
                    monitor.changed().await;
                }
            })
            .await
            .unwrap_or_else(|_| panic!("{damage}: {}", shown()));
        }
        // The reconciler's own changes cause no further ones.
        quiet(&mut monitor).await;
        assert_eq!(shown(), whole);
        // An administrator takes it down.
        ip(&["link", "set", "edge0", "down"]);
        quiet(&mut monitor).await;
        assert!(!ip(&["link", "show", "dev", "edge0"]).contains(",UP"));
        let mut reports = handle.reports();
        let is_down = |report: &TunnelReport| report.state == TunnelState::InterfaceDown;
        let report = timeout(TEST_TIMEOUT, reports.wait_for(is_down)).await.unwrap();
        let sentence = report.unwrap().diagnosis.to_string();
        assert!(sentence.contains("ip link set edge0 up"), "{sentence}");
        ip(&["link", "set", "edge0", "up"]);
        let is_up = |report: &TunnelReport| report.state != TunnelState::InterfaceDown;
        timeout(TEST_TIMEOUT, reports.wait_for(is_up)).await.unwrap().unwrap();
    };
    driver.run(others).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn as_root_an_interface_that_cannot_be_created_is_reported_and_tried_again() {
    let _namespace = Namespace::enter();
    ip(&["link", "add", "edge0", "type", "veth", "peer", "name", "other"]);
    let (settings, _) = site_and_hub();
    let (transport, _hub) =
        memory_pair("192.0.2.1:1".parse().unwrap(), "192.0.2.2:1".parse().unwrap());
    let site = Tunnel::site(settings.clone(), ClockBounds::default(), Now::read(), 1);
    let name = "edge0".parse().unwrap();
    let (handle, driver) = device_tunnel(&settings, RoutePolicy::Auto, name, site, transport);
    let mut reports = handle.reports();
    let others = async {
        let is_missing = |report: &TunnelReport| report.state == TunnelState::NoInterface;
        let sentence = reports.wait_for(is_missing).await.unwrap().diagnosis.to_string();
        assert!(sentence.contains("`edge0` exists already"), "{sentence}");
        assert_eq!(*handle.interface().borrow(), None);
        ip(&["link", "del", "edge0"]);
        let is_there = |report: &TunnelReport| report.state != TunnelState::NoInterface;
        timeout(TEST_TIMEOUT, reports.wait_for(is_there)).await.unwrap().unwrap();
        assert!(handle.interface().borrow().is_some());
    };
    driver.run(others).await.unwrap();
}
