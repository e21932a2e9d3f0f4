//! Connections through a tunnel.

use nix::sched::{CloneFlags, unshare};
use tokio::sync::watch;
use tunnel::{InterfaceIndex, TunnelDiagnosis, TunnelReport, TunnelState};

use super::*;

/// Returns a route through the loopback interface, with `network` behind `hub-a`.
fn through_loopback(network: &str) -> (Uplink, watch::Sender<TunnelReport>) {
    let (_, interface) = watch::channel(Some(index_of("lo")));
    through_tunnel(interface, network)
}

fn index_of(interface: &str) -> InterfaceIndex {
    InterfaceIndex(nix::net::if_::if_nametoindex(interface).unwrap())
}

fn through_tunnel(
    interface: watch::Receiver<Option<InterfaceIndex>>,
    network: &str,
) -> (Uplink, watch::Sender<TunnelReport>) {
    let hubs = [("hub-a", network), ("hub-b", "127.0.0.1/32")].map(testing::hub);
    let (sender, report) = watch::channel(testing::report("hub-a"));
    let route = Route::Device(interface, TunnelHandle::new(&hubs, report));
    (Uplink::new(route, Tls::default()), sender)
}

#[tokio::test]
async fn a_broker_that_is_not_behind_the_hub_in_use_is_not_dialled() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let broker = broker("127.0.0.1", listener.local_addr().unwrap().port());
    let (uplink, reports) = through_loopback("127.0.0.2/32");

    let error = uplink.dial(&broker, DIAL_TIMEOUT).await.unwrap_err();

    assert!(matches!(error, DialError::NotBehindHub { .. }), "{error:?}");
    assert!(error.to_string().contains("is not behind the hub hub-a"), "{error}");
    reports.send_replace(testing::report("hub-b"));
    uplink.dial(&broker, DIAL_TIMEOUT).await.unwrap();
}

#[tokio::test]
async fn a_failed_dial_reports_the_state_of_a_tunnel_without_a_session() {
    let port = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let (uplink, reports) = through_loopback("127.0.0.1/32");
    let send_report = |state, diagnosis| {
        reports.send_replace(TunnelReport { state, diagnosis, ..testing::report("hub-a") });
    };
    let broker = broker("127.0.0.1", port);

    let clock_ahead = TunnelDiagnosis::ClockAhead;
    let text = clock_ahead.to_string();
    send_report(TunnelState::ClockAhead, clock_ahead);
    let sentence = Sentence::new(&uplink.dial(&broker, DIAL_TIMEOUT).await.unwrap_err());
    assert_eq!(sentence.text, text);
    assert_eq!(
        json!(sentence.detail),
        json!({"code": "no_tunnel", "arguments": {"tunnel": {"code": "clock_ahead"}}})
    );
    // An MTU that is too large does not stop the short packets of a dial.
    send_report(TunnelState::MtuTooLarge, testing::report("hub-a").diagnosis);
    let error = uplink.dial(&broker, DIAL_TIMEOUT).await.unwrap_err();
    assert!(matches!(error, DialError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn a_tunnel_from_which_nothing_comes_back_is_a_fault_before_it_is_silent() {
    let (uplink, reports) = through_loopback("127.0.0.1/32");
    assert_eq!(uplink.fault(), None);
    let unanswered_for = |seconds| {
        let since = std::time::Instant::now().checked_sub(Duration::from_secs(seconds));
        reports.send_replace(TunnelReport { unanswered_since: since, ..testing::report("hub-a") });
        uplink.fault()
    };
    assert_eq!(unanswered_for(1), None);
    let hub = "hub-a".to_owned();
    assert_eq!(unanswered_for(5), Some(DialError::TunnelUnanswered { hub, seconds: 5 }));
    // A session that returns no data explains a time-out of the broker.
    let diagnosis = TunnelDiagnosis::NoData {
        hub: "hub-a".to_owned(),
        address: "192.0.2.2:51820".to_owned(),
        own_address: "10.77.0.12".to_owned(),
        public_key: "key".to_owned(),
    };
    let state = TunnelState::NoData;
    reports.send_replace(TunnelReport { state, diagnosis, ..testing::report("hub-a") });
    assert!(matches!(uplink.fault(), Some(DialError::NoTunnel { .. })));
    assert_eq!(Uplink::direct(Tls::default()).fault(), None);
}

#[tokio::test]
async fn as_root_a_dial_is_bound_to_the_interface() {
    // Moves this thread, and with it the sockets that it opens, into the namespace.
    unshare(CloneFlags::CLONE_NEWNET)
        .expect("needs root; `cargo xtask test` as another user names what it left out");
    ip("link set lo up");
    ip("address add 10.9.0.2/32 dev lo");
    let listener = TcpListener::bind(("10.9.0.2", 0)).await.unwrap();
    let broker = broker("10.9.0.2", listener.local_addr().unwrap().port());
    let (found, interface) = watch::channel(None);
    let (uplink, _reports) = through_tunnel(interface, "10.9.0.2/32");
    let dial_fails = async || {
        let error = uplink.dial(&broker, DIAL_TIMEOUT).await.unwrap_err();
        assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");
    };

    // Without the interface the broker is reachable.
    Uplink::direct(Tls::default()).dial(&broker, DIAL_TIMEOUT).await.unwrap();
    listener.accept().await.unwrap();
    dial_fails().await;
    ip("link add edge0 type veth peer name end");
    ip("address add 10.9.0.1/32 dev edge0");
    found.send_replace(Some(index_of("edge0")));
    dial_fails().await;
    ip("link set edge0 up");
    ip("link set edge0 down");
    ip("link set edge0 name wgx");
    dial_fails().await;
    ip("link del wgx");
    dial_fails().await;
    let more = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
    assert!(more.is_err(), "{more:?}");
}

/// Runs `ip` in the thread's namespace.
fn ip(line: &str) {
    let output = std::process::Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {line}: {output:?}");
}
