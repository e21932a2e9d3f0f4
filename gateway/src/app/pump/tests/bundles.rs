//! What the pump does for the task that applies bundles.

use provisioning::trial::TrialState;
use tokio::sync::oneshot;

use super::*;
use crate::app::pump::bundle_link::BundleChannels;
use crate::apply::{BundleEvent, BundleReport, SessionEvidence};
use crate::model::{Detail, Sentence};
use crate::mqtt::{DeliveryTag, IncomingMessage};

fn event(state: TrialState) -> BundleEvent {
    let detail = Detail { code: "reverted".to_owned(), arguments: serde_json::Map::new() };
    let sentence = Sentence { text: "Bundle 4 was rolled back.".to_owned(), detail };
    BundleEvent { state, counter: Some(4), sentence }
}

/// Returns the next message that fits. The broker acknowledges it and those before it.
async fn message_with(
    broker: &mpsc::Sender<mqtt::MqttEvent>,
    requests: &mut mpsc::Receiver<MqttRequest>,
    part: &str,
) -> OutgoingMessage {
    loop {
        let message = next_message(requests).await.unwrap();
        if let Some(ticket) = message.ticket {
            broker.send(mqtt::MqttEvent::Acknowledged { ticket }).await.unwrap();
        }
        if String::from_utf8_lossy(&message.payload).contains(part) {
            return message;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_a_bundle_is_in_the_status_and_an_event() {
    let TestPump { mut pump, plcs, from_plcs, broker, from_broker, mut outgoing } =
        TestPump::new(&testing::config(1), &metrics());
    let BundleChannels { reports, .. } = pump.bundle_channels(Some(3));
    let status = pump.status();
    let running = pump.run(from_plcs, from_broker, GRACE);
    let around = async {
        assert_eq!(status.borrow().gateway.config.counter, Some(3));
        broker.send(connected(1)).await.unwrap();
        let (done, queued) = oneshot::channel();
        reports.send(BundleReport::Event(event(TrialState::Reverted), done)).await.unwrap();
        queued.await.unwrap();
        let text = message_with(&broker, &mut outgoing, r#""event":"bundle""#).await;
        assert_eq!(&*text.topic, "edge/amsterdam-01/event");
        let payload = String::from_utf8(text.payload).unwrap();
        for part in [r#""state":"reverted""#, r#""counter":4"#, "Bundle 4 was rolled back."] {
            assert!(payload.contains(part), "{payload}");
        }
        // The office reads the state and both counters from the retained status.
        let text =
            message_with(&broker, &mut outgoing, r#""trial":{"state":"reverted","counter":4"#)
                .await;
        assert!(String::from_utf8(text.payload).unwrap().contains(r#""counter":3"#));
        reports.send(BundleReport::Status(None)).await.unwrap();
        tokio::time::sleep(TICK_INTERVAL).await;
        assert_eq!(status.borrow().trial, None);
        drop((plcs, broker, outgoing));
    };
    tokio::join!(running, around);
}

#[tokio::test(start_paused = true)]
async fn the_task_learns_what_the_session_shows_and_what_is_offered() {
    let TestPump { mut pump, plcs, from_plcs, broker, from_broker, mut outgoing } =
        TestPump::new(&testing::config(1), &metrics());
    let BundleChannels { mut offers, mut session, .. } = pump.bundle_channels(None);
    let running = pump.run(from_plcs, from_broker, GRACE);
    let around = async {
        let refused = |filter: &str| mqtt::MqttEvent::SubscriptionRefused {
            filter: filter.to_owned(),
            code: mqtt::NOT_AUTHORIZED,
            reason: String::new(),
        };
        broker.send(connected(1)).await.unwrap();
        assert!(!session.borrow().status_accepted);
        message_with(&broker, &mut outgoing, r#""state":"online""#).await;
        session.wait_for(|one| one.is_connected && one.status_accepted).await.unwrap();
        broker.send(refused("edge/amsterdam-01/offer")).await.unwrap();
        session.wait_for(|one| one.offer_refused && !one.set_refused).await.unwrap();
        broker.send(refused("edge/amsterdam-01/set/+")).await.unwrap();
        session.wait_for(|one| one.set_refused).await.unwrap();
        broker.send(disconnected(DisconnectReason::Unavailable)).await.unwrap();
        session.wait_for(|one| *one == SessionEvidence::default()).await.unwrap();

        broker.send(connected(2)).await.unwrap();
        let delivery = Some(DeliveryTag::unknown(7));
        let (topic, payload) = ("edge/amsterdam-01/offer".to_owned(), b"offer".to_vec());
        let offer = IncomingMessage { topic, payload, delivery, ..Default::default() };
        broker.send(mqtt::MqttEvent::Received(offer)).await.unwrap();
        offers.changed().await.unwrap();
        assert_eq!(offers.borrow_and_update().as_deref(), Some(b"offer".as_slice()));
        loop {
            if let MqttRequest::Acknowledge(tag) = outgoing.recv().await.unwrap() {
                assert_eq!(Some(tag), delivery);
                break;
            }
        }
        drop((plcs, broker, outgoing));
    };
    tokio::join!(running, around);
}
