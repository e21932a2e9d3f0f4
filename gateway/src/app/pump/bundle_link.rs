//! What the pump has to do with bundles: it passes offers on, collects what the session with the
//! broker shows, and publishes what becomes of a bundle.

use tokio::sync::{mpsc, watch};

use super::{Pump, Ticket};
use crate::apply::{BundleReport, SessionEvidence};
use crate::clock;
use crate::mqtt::{IncomingMessage, MqttEvent};

/// Reports that wait for the pump.
const REPORT_CAPACITY: usize = 4;

/// The pump's ends of the channels.
#[derive(Debug)]
pub(super) struct BundleLink {
    topic: String,
    pub(super) reports: mpsc::Receiver<BundleReport>,
    offers: watch::Sender<Option<Vec<u8>>>,
    session: watch::Sender<SessionEvidence>,
}

/// The other ends, for the task that applies bundles.
#[derive(Debug)]
pub(in crate::app) struct BundleChannels {
    pub(in crate::app) reports: mpsc::Sender<BundleReport>,
    pub(in crate::app) offers: watch::Receiver<Option<Vec<u8>>>,
    pub(in crate::app) session: watch::Receiver<SessionEvidence>,
}

/// Returns the topic of offers.
pub(in crate::app) fn offer_topic(gateway_id: &str) -> String {
    format!("edge/{gateway_id}/offer")
}

impl BundleLink {
    /// Returns a link that nothing uses yet.
    pub(super) fn new(gateway_id: &str) -> Self {
        Self {
            topic: offer_topic(gateway_id),
            reports: mpsc::channel(1).1,
            offers: watch::Sender::new(None),
            session: watch::Sender::new(SessionEvidence::default()),
        }
    }

    /// Records what an event shows.
    pub(super) fn on_mqtt_event(&self, event: &MqttEvent) {
        match event {
            MqttEvent::Connected { .. } => self.session.send_modify(|one| one.is_connected = true),
            // What is refused may be reported before the session is: only its end forgets it.
            MqttEvent::Disconnected { .. } => {
                self.session.send_replace(SessionEvidence::default());
            }
            MqttEvent::SubscriptionRefused { filter, .. } => {
                let is_offer = *filter == self.topic;
                self.session.send_modify(|one| {
                    one.offer_refused |= is_offer;
                    one.set_refused |= !is_offer;
                });
            }
            MqttEvent::Acknowledged { ticket } => {
                if Ticket::from_number(*ticket) == Ticket::Status {
                    self.session
                        .send_if_modified(|one| !std::mem::replace(&mut one.status_accepted, true));
                }
            }
            MqttEvent::Deferred { .. } | MqttEvent::Refused { .. } | MqttEvent::Received(_) => {}
        }
    }

    /// Returns whether a message is an offer, which is passed on.
    fn take_offer(&self, message: &IncomingMessage) -> bool {
        let is_offer = message.topic == self.topic;
        if is_offer {
            self.offers.send_replace(Some(message.payload.clone()));
        }
        is_offer
    }
}

impl Pump {
    /// Returns the channels for the task that applies bundles. `counter` is that of the bundle in
    /// use.
    pub(in crate::app) fn bundle_channels(&mut self, counter: Option<u64>) -> BundleChannels {
        self.status_tracker.set_bundle_counter(counter);
        let (reports, from_task) = mpsc::channel(REPORT_CAPACITY);
        self.bundles.reports = from_task;
        let (offers, session) = (self.bundles.offers.subscribe(), self.bundles.session.subscribe());
        BundleChannels { reports, offers, session }
    }

    /// Handles a message on the topic of offers. Returns whether it is one.
    pub(super) fn on_offer(&mut self, message: &IncomingMessage) -> bool {
        let is_offer = self.bundles.take_offer(message);
        if is_offer {
            // The broker retains it, so it may forget this copy at once.
            self.commands.acknowledge(message.delivery);
        }
        is_offer
    }

    /// Shows and publishes what became of a bundle.
    pub(super) fn on_bundle_report(&mut self, report: BundleReport) {
        match report {
            BundleReport::Status(event) => self.status_tracker.set_trial(event.as_ref()),
            BundleReport::Event(event, queued) => {
                self.status_tracker.set_trial(Some(&event));
                self.push_event(event.body(clock::now()));
                // The task may have stopped waiting.
                let _ = queued.send(());
            }
        }
    }
}
