//! The usual hub, the WireGuard of the Linux kernel, with a site behind lossy and slow networks.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

#[path = "the_kernels_wireguard_is_a_hub/site.rs"]
mod site;

use std::time::{Duration, Instant};

use e2e::{EVENT_TIMEOUT, KernelHub};
use site::Site;
use tunnel::PrivateKey;

/// An MQTT CONNECT of a client without a name, and its answer (MQTT 3.1.1, 3.1 and 3.2).
const CONNECT: &[u8] = b"\x10\x0C\0\x04MQTT\x04\x02\0\0\0\0";
const CONNACK: &[u8] = b"\x20\x02\0\0";

#[test]
fn in_a_guest_the_kernels_wireguard_carries_tcp_to_an_echo_and_a_broker() {
    let key = PrivateKey::generate();
    let hub = KernelHub::start(&key.public_key().to_string());
    let consumer = hub.subscribe("#");
    let mut stranger = Site::new(&PrivateKey::generate(), &hub);
    assert!(stranger.exchange(KernelHub::ECHO_PORT, b"x", 1, Duration::from_secs(1)).is_none());
    assert!(!hub.has_handshake());
    assert_eq!(hub.transferred_bytes().1, 0, "the hub answered an unknown key");

    let mut site = Site::new(&key, &hub);
    let sent: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let echo = site.exchange(KernelHub::ECHO_PORT, &sent, sent.len(), EVENT_TIMEOUT);

    assert!(echo.expect("the echo answers") == sent, "the echo differs");
    assert!(hub.has_handshake());
    let (received, returned) = hub.transferred_bytes();
    let least = u64::try_from(sent.len()).expect("the number fits");
    assert!(received > least && returned > least, "{received} {returned}");
    let answer = site.exchange(KernelHub::BROKER_PORT, CONNECT, CONNACK.len(), EVENT_TIMEOUT);
    assert_eq!(answer.as_deref(), Some(CONNACK));
    assert_eq!(consumer.try_next(Duration::ZERO), None);
}

#[test]
fn in_a_guest_loss_and_delay_slow_the_tunnel_down_and_break_nothing() {
    let key = PrivateKey::generate();
    let hub = KernelHub::start(&key.public_key().to_string());
    let mut site = Site::new(&key, &hub);
    assert!(site.exchange(KernelHub::ECHO_PORT, b"x", 1, EVENT_TIMEOUT).is_some());

    hub.impair(Duration::from_millis(40), 5);
    let sent: Vec<u8> = (0..5_000_u32).flat_map(u32::to_le_bytes).collect();
    let start = Instant::now();
    let echo = site.exchange(KernelHub::ECHO_PORT, &sent, sent.len(), EVENT_TIMEOUT);

    assert!(start.elapsed() >= Duration::from_millis(80), "the delay has no effect");
    assert!(echo.expect("the echo answers") == sent, "the echo differs");
    assert!(hub.guest().run("tc -statistics qdisc show dev ifb0").contains("netem"));
    hub.impair(Duration::ZERO, 100);
    assert_eq!(site.exchange(KernelHub::ECHO_PORT, b"x", 1, Duration::from_secs(1)), None);
    hub.clear_impairment();
    assert!(site.exchange(KernelHub::ECHO_PORT, b"x", 1, EVENT_TIMEOUT).is_some());
}
