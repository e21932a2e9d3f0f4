//! Addresses and routes of the tunnel's interface are restored.

use std::time::Duration;

use tokio::time::timeout;

use crate::core::{ClockBounds, Now, Tunnel};
use crate::device_tunnel::open_device_tunnel;
use crate::netlink::ChangeMonitor;
use crate::settings::RoutePolicy;
use crate::testing::{Namespace, ip, site_and_hub};
use crate::transport::memory_pair;

const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Returns the addresses and routes of the interface, as `ip` prints them.
fn shown() -> String {
    [
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
    let (_handle, driver) =
        open_device_tunnel(&settings, RoutePolicy::Auto, name, site, transport).unwrap();
    let whole = shown();
    assert!(whole.contains("fd77::/64") && whole.contains("10.77.0.0/16"), "{whole}");
    let mut monitor = ChangeMonitor::listen().unwrap();
    let others = async {
        for damage in [
            "link set edge0 down;link set edge0 up",
            "addr flush dev edge0",
            "route flush dev edge0",
            "-6 route del fd77::/64",
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
    };
    driver.run(others).await.unwrap();
}
