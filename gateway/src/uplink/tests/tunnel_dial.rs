//! What a tunnel decides about a dial.

use nix::sched::{CloneFlags, unshare};
use tokio::sync::watch;
use tunnel::{InterfaceName, TunnelDiagnosis, TunnelReport, TunnelState};

use super::*;

/// The way through a device, to what is behind `hub-a`.
fn through_tunnel(device: &str, network: &str) -> (Uplink, watch::Sender<TunnelReport>) {
    let hubs = [("hub-a", network), ("hub-b", "127.0.0.1/32")].map(testing::hub);
    let (told, report) = watch::channel(testing::report("hub-a"));
    let device: InterfaceName = device.parse().unwrap();
    (Uplink::new(Route::Device(device, TunnelHandle::new(&hubs, report)), Tls::default()), told)
}

#[tokio::test]
async fn a_broker_that_the_hub_in_use_does_not_lead_to_is_skipped() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let broker = broker("127.0.0.1", listener.local_addr().unwrap().port());
    let (uplink, told) = through_tunnel("lo", "127.0.0.2/32");

    let error = uplink.dial(&broker, DIAL_TIMEOUT).await.unwrap_err();

    assert!(matches!(error, DialError::NotBehindHub { .. }), "{error:?}");
    assert!(error.sentence().contains("is not behind the hub hub-a"), "{}", error.sentence());
    told.send_replace(testing::report("hub-b"));
    uplink.dial(&broker, DIAL_TIMEOUT).await.unwrap();
}

#[tokio::test]
async fn a_dial_through_a_tunnel_without_a_session_says_what_is_wrong_with_the_tunnel() {
    let port = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let (uplink, told) = through_tunnel("lo", "127.0.0.1/32");
    let report_state = |state, diagnosis| {
        told.send_replace(TunnelReport { state, diagnosis, ..testing::report("hub-a") });
    };
    let broker = broker("127.0.0.1", port);

    let clock_ahead = TunnelDiagnosis::ClockAhead;
    let sentence = clock_ahead.to_string();
    report_state(TunnelState::ClockAhead, clock_ahead);
    assert_eq!(uplink.dial(&broker, DIAL_TIMEOUT).await.unwrap_err().sentence(), sentence);
    // Short packets pass, and a dial sends only short ones.
    report_state(TunnelState::MtuTooLarge, testing::report("hub-a").diagnosis);
    let error = uplink.dial(&broker, DIAL_TIMEOUT).await.unwrap_err();
    assert!(matches!(error, DialError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn as_root_a_dial_is_bound_to_the_device() {
    // Only this thread is in it, and so are the sockets that it opens.
    unshare(CloneFlags::CLONE_NEWNET)
        .expect("needs root; `cargo xtask test` as another user names what it left out");
    ip("link set lo up");
    ip("address add 10.9.0.2/32 dev lo");
    let listener = TcpListener::bind(("10.9.0.2", 0)).await.unwrap();
    let broker = broker("10.9.0.2", listener.local_addr().unwrap().port());
    let (uplink, _told) = through_tunnel("edge0", "10.9.0.2/32");
    let leaks = async || {
        let error = uplink.dial(&broker, DIAL_TIMEOUT).await.unwrap_err();
        assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");
    };

    // Past the device the broker is there.
    Uplink::direct(Tls::default()).dial(&broker, DIAL_TIMEOUT).await.unwrap();
    listener.accept().await.unwrap();
    leaks().await;
    ip("link add edge0 type veth peer name end");
    ip("address add 10.9.0.1/32 dev edge0");
    leaks().await;
    ip("link set edge0 up");
    ip("link set edge0 down");
    leaks().await;
    ip("link del edge0");
    leaks().await;
    let more = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
    assert!(more.is_err(), "{more:?}");
}

/// Runs `ip` in the thread's namespace.
fn ip(line: &str) {
    let output = std::process::Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {line}: {output:?}");
}
