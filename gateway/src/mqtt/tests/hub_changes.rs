//! A tunnel that goes from one hub to another under the connection. Its device is the loopback, to
//! which a socket can be bound like to any other.

use tokio::sync::watch;
use tunnel::TunnelReport;

use super::*;
use crate::mock_broker::OnConnect;
use crate::supervise::Stage;
use crate::uplink::{Route, TunnelHandle, testing};

/// The way through a tunnel with two hubs: `hub-a` leads to 127.0.0.2 only, `hub-b` to all else of
/// the loopback. What is sent here is what the tunnel says of itself.
fn two_hubs(hub: &str) -> (Uplink, watch::Sender<TunnelReport>) {
    let hubs = [("hub-a", "127.0.0.2/32"), ("hub-b", "127.0.0.0/31")].map(testing::hub);
    let (told, report) = watch::channel(testing::report(hub));
    let way = Route::Device("lo".parse().unwrap(), TunnelHandle::new(&hubs, report));
    (Uplink::new(way, Tls::default()), told)
}

#[tokio::test]
async fn a_hub_that_changes_before_the_first_session_costs_none() {
    let (uplink, told) = two_hubs("hub-a");
    let mut world = BrokerWorld::start_with(MqttVersion::V5, vec![], |settings| {
        settings.uplink = uplink;
        // As when the first hub is dead at the start, while the rest of the program comes up.
        told.send_replace(testing::report("hub-b"));
    })
    .await;

    assert_eq!(world.deliver_all(20, Qos::AtLeastOnce).await, vec![1; 20]);
    assert_eq!(world.session, 1);
}

#[tokio::test]
async fn an_attempt_is_broken_off_when_the_hub_changes_and_the_next_one_keeps_its_session() {
    let (uplink, told) = two_hubs("hub-b");
    let silent = Script { connect: OnConnect::Ignore, ..Script::default() };
    let mut world =
        BrokerWorld::start_with(MqttVersion::V5, vec![silent, Script::default()], |settings| {
            settings.uplink = uplink;
        })
        .await;
    // The broker has taken the connection, and would be waited for until its time is over.
    world.yield_to_tasks().await;

    told.send_replace(testing::report("hub-a"));

    let (reason, sentence, retry_in) = world.disconnected().await;
    assert_eq!((reason, retry_in), (DisconnectReason::Renewed, Duration::ZERO), "{sentence}");
    let (reason, sentence, _) = world.disconnected().await;
    assert_eq!(reason, DisconnectReason::Unreachable);
    assert!(sentence.contains("is not behind the hub hub-a"), "{sentence}");
    told.send_replace(testing::report("hub-b"));
    assert_eq!(world.deliver_all(20, Qos::AtLeastOnce).await, vec![1; 20]);
    assert_eq!(world.session, 1);
}

#[tokio::test]
async fn another_hub_ends_the_session_and_begins_the_choice_of_the_broker_at_its_top() {
    let (uplink, told) = two_hubs("hub-a");
    let second = TcpListener::bind(("127.0.0.2", 0)).await.unwrap();
    let at = HostPort { host: "127.0.0.2".into(), port: second.local_addr().unwrap().port() };
    let mut world = BrokerWorld::start_with(MqttVersion::V5, vec![], |settings| {
        settings.uplink = uplink;
        settings.mqtt.brokers.push(Broker { scheme: Scheme::Mqtt, address: at.clone() });
    })
    .await;
    let stage = Stage::new("second");
    let (hear, _heard) = mpsc::channel(4096);
    stage.spawn(CancellationToken::new(), |stop| mock_broker::serve(second, vec![], hear, stop));

    // Only the second one of the list is behind the hub in use.
    assert_eq!(world.disconnected().await.0, DisconnectReason::Unreachable);
    assert_eq!(world.connected().await.0, at.to_string());
    told.send_replace(testing::report("hub-b"));
    assert_eq!(world.disconnected().await.0, DisconnectReason::Renewed);
    assert!(world.connected().await.0.starts_with("127.0.0.1:"));
    told.send_replace(testing::report("hub-a"));
    assert_eq!(world.disconnected().await.0, DisconnectReason::Renewed);
    assert_eq!(world.disconnected().await.0, DisconnectReason::Unreachable);
    assert_eq!(world.connected().await.0, at.to_string());
}
