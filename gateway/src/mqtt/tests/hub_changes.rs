//! A tunnel that changes its hub during a connection. Its interface is the loopback, to which a
//! socket can be bound as to any other.

use tokio::sync::watch;
use tunnel::{InterfaceIndex, TunnelReport, TunnelState};

use super::*;
use crate::mock_broker::{self, OnConnect};
use crate::supervise::Stage;
use crate::uplink::{Route, TunnelHandle, testing};

/// Returns a route through a tunnel with two hubs: 127.0.0.2 is behind `hub-a`, the rest of the
/// loopback behind `hub-b`. The sender publishes the tunnel's reports.
fn two_hubs(hub: &str) -> (Uplink, watch::Sender<TunnelReport>) {
    let hubs = [("hub-a", "127.0.0.2/32"), ("hub-b", "127.0.0.0/31")].map(testing::hub);
    let (sender, report) = watch::channel(testing::report(hub));
    let (_, interface) = watch::channel(Some(InterfaceIndex(1)));
    let way = Route::Device(interface, TunnelHandle::new(&hubs, report));
    (Uplink::new(way, Tls::default()), sender)
}

#[tokio::test]
async fn a_hub_change_before_the_first_session_ends_no_session() {
    let (uplink, reports) = two_hubs("hub-a");
    let mut world = BrokerWorld::start_with(MqttVersion::V5, vec![], |settings| {
        settings.uplink = uplink;
        // The first hub is dead at startup, and the tunnel changes over before the first dial.
        reports.send_replace(testing::report("hub-b"));
    })
    .await;

    assert_eq!(world.deliver_all(20, Qos::AtLeastOnce).await, vec![1; 20]);
    assert_eq!(world.session, 1);
}

#[tokio::test]
async fn a_hub_change_aborts_a_connection_attempt_and_the_next_session_stays() {
    let (uplink, reports) = two_hubs("hub-b");
    let silent = Script { connect: OnConnect::Ignore, ..Script::default() };
    let mut world =
        BrokerWorld::start_with(MqttVersion::V5, vec![silent, Script::default()], |settings| {
            settings.uplink = uplink;
        })
        .await;
    // The broker has accepted the connection, and the client waits for its CONNACK.
    world.yield_to_tasks().await;

    reports.send_replace(testing::report("hub-a"));

    let (reason, sentence, retry_in) = world.disconnected().await;
    assert_eq!((reason, retry_in), (DisconnectReason::Renewed, Duration::ZERO), "{sentence}");
    let (reason, sentence, _) = world.disconnected().await;
    assert_eq!(reason, DisconnectReason::Unreachable);
    assert!(sentence.text.contains("is not behind the hub hub-a"), "{sentence}");
    reports.send_replace(testing::report("hub-b"));
    assert_eq!(world.deliver_all(20, Qos::AtLeastOnce).await, vec![1; 20]);
    assert_eq!(world.session, 1);
}

#[tokio::test]
async fn a_hub_change_ends_the_session_and_starts_at_the_first_broker() {
    let (uplink, reports) = two_hubs("hub-a");
    let second = TcpListener::bind(("127.0.0.2", 0)).await.unwrap();
    let at = HostPort { host: "127.0.0.2".into(), port: second.local_addr().unwrap().port() };
    let mut world = BrokerWorld::start_with(MqttVersion::V5, vec![], |settings| {
        settings.uplink = uplink;
        settings.mqtt.brokers.push(Broker { scheme: Scheme::Mqtt, address: at.clone() });
    })
    .await;
    let stage = Stage::new("second");
    let (events, _events) = mpsc::channel(4096);
    stage.spawn(CancellationToken::new(), |stop| mock_broker::serve(second, vec![], events, stop));

    // Only the second broker of the list is behind the hub in use.
    assert_eq!(world.disconnected().await.0, DisconnectReason::Unreachable);
    assert_eq!(world.connected().await.0, at.to_string());
    reports.send_replace(testing::report("hub-b"));
    assert_eq!(world.disconnected().await.0, DisconnectReason::Renewed);
    assert!(world.connected().await.0.starts_with("127.0.0.1:"));
    reports.send_replace(testing::report("hub-a"));
    assert_eq!(world.disconnected().await.0, DisconnectReason::Renewed);
    assert_eq!(world.disconnected().await.0, DisconnectReason::Unreachable);
    assert_eq!(world.connected().await.0, at.to_string());
}

#[tokio::test]
async fn a_tunnel_that_comes_back_ends_the_pause() {
    // Without a broker behind the hub, each attempt fails at once and is followed by a pause.
    let (uplink, reports) = two_hubs("hub-a");
    let mut world = BrokerWorld::start_with(MqttVersion::V5, vec![], |settings| {
        settings.uplink = uplink;
    })
    .await;
    let mut pauses = Duration::ZERO;
    let rounds = async {
        while pauses < Duration::from_secs(600) {
            pauses += world.disconnected().await.2;
            world.yield_to_tasks().await;
            let state = TunnelState::Silent;
            reports.send_replace(TunnelReport { state, ..testing::report("hub-a") });
            world.yield_to_tasks().await;
            reports.send_replace(testing::report("hub-a"));
        }
    };
    tokio::time::timeout(Duration::from_secs(60), rounds).await.expect("no pause is waited for");
}
