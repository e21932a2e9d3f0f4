//! The tunnel's own datagrams, which the host would route into the tunnel.

use super::*;
use crate::core::TunnelState;

/// Bytes that the interface may send for one stream: its segments with headers, and its handshake.
const MAX_SENT: u64 = 2 * STREAM_BYTES as u64;

/// Returns how many bytes the host has sent into the interface.
fn bytes_into_interface() -> u64 {
    let shown = ip(&["-s", "-o", "link", "show", "dev", "edge0"]);
    let after = shown.split("TX:").nth(1).expect("it has counters");
    let bytes = after.split('\\').nth(1).and_then(|line| line.split_whitespace().next());
    bytes.expect("a number").parse().expect("a number")
}

/// Waits until the site reports this state.
fn wait_for(reports: &watch::Receiver<TunnelReport>, state: TunnelState) {
    let end = std::time::Instant::now() + 2 * TEST_TIMEOUT;
    while reports.borrow().state != state {
        assert!(std::time::Instant::now() < end, "{}", reports.borrow().diagnosis);
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn as_root_a_hub_that_answers_from_an_address_behind_itself_is_not_followed_there() {
    let [mut site, hub] = tunnels();
    let behind: IpNet = "198.51.100.0/24".parse().unwrap();
    site.set_host_routes(vec![behind]);
    let [report, _] = run_tunnels([site, hub], [Offload::TcpAndUdp; 2], |a, b, reports| {
        a.enter_again();
        ip(&["route", "add", "198.51.100.0/24", "dev", "edge0"]);
        b.enter_again();
        ip(&["addr", "add", "198.51.100.2/32", "dev", "lo"]);
        ip(&["route", "replace", "192.0.2.0/24", "dev", "other", "src", "198.51.100.2"]);
        stream(a, b, "10.77.0.2");
        a.enter_again();
        assert_eq!(reports.borrow().state, TunnelState::Up);
        assert!(bytes_into_interface() < MAX_SENT, "{}", bytes_into_interface());
    });
    assert_eq!(report.endpoint, Some("192.0.2.2:51820".parse().unwrap()));
    assert_eq!(report.counters.dropped(DropReason::Looped), 0);
}

#[test]
fn as_root_a_route_that_leads_the_hub_into_the_tunnel_is_reported_and_costs_nothing() {
    let [report, _] = run_tunnels(tunnels(), [Offload::TcpAndUdp; 2], |a, b, reports| {
        stream(a, b, "10.77.0.2");
        a.enter_again();
        ip(&["route", "add", "192.0.2.2/32", "dev", "edge0"]);
        TcpStream::connect_timeout(&"10.77.0.2:1".parse().unwrap(), Duration::from_millis(100))
            .unwrap_err();
        wait_for(reports, TunnelState::RoutedInside);
        assert!(bytes_into_interface() < MAX_SENT, "{}", bytes_into_interface());
        ip(&["route", "del", "192.0.2.2/32", "dev", "edge0"]);
        stream(a, b, "10.77.0.2");
    });
    assert!(report.counters.dropped(DropReason::Looped) > 0);
}
