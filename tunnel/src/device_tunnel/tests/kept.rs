//! A tunnel keeps its addresses and routes.

use std::time::Duration;

use tokio::time::timeout;

use crate::core::{ClockBounds, Now, Tunnel};
use crate::device_tunnel::open_device_tunnel;
use crate::key::PrivateKey;
use crate::netlink::ChangeMonitor;
use crate::settings::{Endpoint, Hub, RoutePolicy, Settings};
use crate::testing::{Namespace, ip};
use crate::transport::memory_pair;

const PATIENCE: Duration = Duration::from_secs(20);

fn settings() -> Settings {
    let hub = Hub {
        name: "hub".to_owned(),
        endpoint: Endpoint { host: "192.0.2.2".to_owned(), port: 51820 },
        public_key: PrivateKey::generate().public_key(),
        preshared_key: None,
        allowed_ips: ["10.77.0.0/16", "fd77::/64"].map(|net| net.parse().unwrap()).to_vec(),
    };
    Settings {
        private_key: PrivateKey::generate(),
        addresses: ["10.77.0.12/32", "fd77::12/128"].map(|net| net.parse().unwrap()).to_vec(),
        mtu: 1280,
        keep_alive: None,
        hubs: vec![hub],
    }
}

/// What the host has of the tunnel.
fn shown() -> String {
    [
        ip(&["-o", "addr", "show", "dev", "edge0"]),
        ip(&["route", "show", "dev", "edge0"]),
        ip(&["-6", "route", "show", "dev", "edge0"]),
    ]
    .concat()
}

/// Waits until nothing changes any more.
async fn quiet(news: &mut ChangeMonitor) {
    for _ in 0..10 {
        if timeout(Duration::from_secs(2), news.changed()).await.is_err() {
            return;
        }
    }
    panic!("changes go on for ever");
}

#[tokio::test]
async fn as_root_a_device_that_was_down_has_its_addresses_and_routes_again() {
    let _namespace = Namespace::enter();
    let (path, _hub) = memory_pair("192.0.2.1:1".parse().unwrap(), "192.0.2.2:1".parse().unwrap());
    let site = Tunnel::site(settings(), ClockBounds::default(), Now::read(), 1);
    let name = "edge0".parse().unwrap();
    let (_handle, driver) =
        open_device_tunnel(&settings(), RoutePolicy::Auto, name, site, path).unwrap();
    let whole = shown();
    assert!(whole.contains("fd77::/64") && whole.contains("10.77.0.0/16"), "{whole}");
    let mut news = ChangeMonitor::listen().unwrap();
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
            timeout(PATIENCE, async {
                while shown() != whole {
                    news.changed().await;
                }
            })
            .await
            .unwrap_or_else(|_| panic!("{damage}: {}", shown()));
        }
        // Our own changes are no reason for further ones: it becomes quiet.
        quiet(&mut news).await;
        assert_eq!(shown(), whole);
        // Somebody wants it down.
        ip(&["link", "set", "edge0", "down"]);
        quiet(&mut news).await;
        assert!(!ip(&["link", "show", "dev", "edge0"]).contains(",UP"));
    };
    driver.run(others).await.unwrap();
}
