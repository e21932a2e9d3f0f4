//! The metrics for Prometheus: one registry of the gateway's own. Every series exists from the
//! start, at 0, and labels come from closed sets or from the configuration.

mod labels;
mod registrar;
mod tag_page;
#[cfg(test)]
mod tests;
mod tunnel;

pub use labels::{
    CommandOutcome, DropReason, MessageOutcome, OfferOutcome, ReplyOutcome, RequestOutcome,
};
use prometheus::{Gauge, GaugeVec, Histogram, IntCounter, IntGauge, Registry, TextEncoder};
use provisioning::config::{Config, MqttVersion};
use registrar::{Registrar, series};
pub use tag_page::{TagFamily, TagPage, TagPiece, TagPosition, TagRequest};
pub use tunnel::TunnelMetrics;

const REQUEST_SECONDS_BUCKETS: [f64; 11] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
const ACK_SECONDS_BUCKETS: [f64; 11] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Every series of one gateway, and the registry that renders them. Clones share the series.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// One entry per PLC, in the order of the configuration.
    pub plcs: Vec<PlcMetrics>,
    /// The store-and-forward queue.
    pub queue: QueueMetrics,
    /// The broker connection.
    pub mqtt: MqttMetrics,
    /// The tunnel.
    pub tunnel: TunnelMetrics,
    /// Offers of bundles, and the bundle in use.
    pub bundle: BundleMetrics,
    /// `edge_clock_synchronized`.
    pub clock_synchronized: IntGauge,
    /// `edge_certificate_not_after_timestamp_seconds`, one series for each file and broker.
    pub certificates: GaugeVec,
}

series! {
    /// Series of one PLC.
    pub struct PlcMetrics {
        pub up: IntGauge = gauge("edge_plc_up", "1 if the PLC answered its last request, else 0."),
        requests: [IntCounter; RequestOutcome::ALL.len()] = counters(
            "edge_plc_requests_total",
            "Modbus requests by outcome.",
            "outcome",
            RequestOutcome::ALL.map(RequestOutcome::label)
        ),
        pub request_seconds: Histogram = histogram(
            "edge_plc_request_seconds",
            "Round-trip time of a Modbus request.",
            &REQUEST_SECONDS_BUCKETS
        ),
        pub connects: IntCounter =
            counter("edge_plc_connects_total", "Attempts to connect to the PLC."),
        pub cycles_missed: IntCounter = counter(
            "edge_plc_cycles_missed_total",
            "Scan cycles skipped because one took too long or a rate limit was reached."
        ),
        pub last_answer_timestamp: Gauge = float_gauge(
            "edge_plc_last_answer_timestamp_seconds",
            "Unix time of the PLC's last answer; 0 before the first."
        ),
        pub tags_quarantined: IntGauge = gauge(
            "edge_plc_tags_quarantined",
            "Tags that the PLC refuses; the gateway retries them at growing intervals up to an \
             hour."
        ),
        writes: [IntCounter; CommandOutcome::ALL.len()] = counters(
            "edge_writes_total",
            "Commands to write to the PLC, by the state of their reply, and acknowledgements of \
             events.",
            "outcome",
            CommandOutcome::ALL.map(CommandOutcome::label)
        ),
    }
}

series! {
    /// Series of the queue.
    pub struct QueueMetrics {
        pub produced: IntCounter =
            counter("edge_samples_produced_total", "Samples handed to the queue."),
        pub recovered: IntCounter = counter(
            "edge_samples_recovered_total",
            "Samples of earlier runs that were found in the queue at startup."
        ),
        pub delivered: IntCounter =
            counter("edge_samples_delivered_total", "Samples that the broker acknowledged."),
        dropped: [IntCounter; DropReason::ALL.len()] = counters(
            "edge_samples_dropped_total",
            "Samples dropped without delivery, by reason.",
            "reason",
            DropReason::ALL.map(DropReason::label)
        ),
        pub stored: IntGauge = gauge("edge_samples_stored", "Samples waiting for delivery."),
        pub queued_bytes: IntGauge = gauge("edge_queue_bytes", "Bytes waiting for delivery."),
        pub max_bytes: IntGauge =
            gauge("edge_queue_max_bytes", "Most bytes that may wait: `max_size` of `[queue]`."),
        pub unclean_start: IntGauge = gauge(
            "edge_queue_unclean_start",
            "1 if the run before this one ended without an orderly stop, such as by a power cut or \
             a crash, else 0."
        ),
        pub oldest_timestamp: Gauge = float_gauge(
            "edge_queue_oldest_timestamp_seconds",
            "Unix time of the oldest waiting sample; 0 when the queue is empty."
        ),
        pub fits_seconds: Gauge = float_gauge(
            "edge_queue_fits_seconds",
            "Time until the queue is full at the rate of the last five minutes if no broker takes \
             samples; +Inf while none come in."
        ),
        pub written_bytes: IntCounter =
            counter("edge_queue_written_bytes_total", "Bytes that the queue wrote to its files."),
        pub sync_seconds: Histogram = histogram(
            "edge_queue_sync_seconds",
            "Time to sync the queue's files to the disk.",
            &ACK_SECONDS_BUCKETS
        ),
        pub storage_failing: IntGauge = gauge(
            "edge_queue_storage_failing",
            "1 while the storage fails and the queue is kept in memory only, else 0."
        ),
    }
}

series! {
    /// Series of the broker connection.
    pub struct MqttMetrics {
        pub connected: IntGauge = gauge(
            "edge_mqtt_connected",
            "1 while an MQTT session with a broker is established, else 0."
        ),
        pub version: IntGauge = gauge(
            "edge_mqtt_version",
            "Protocol version of the MQTT session: 5, or 3 for 3.1.1; 0 without a session."
        ),
        messages: [IntCounter; MessageOutcome::ALL.len()] = counters(
            "edge_mqtt_messages_total",
            "Published messages by outcome.",
            "outcome",
            MessageOutcome::ALL.map(MessageOutcome::label)
        ),
        replies: [IntCounter; ReplyOutcome::ALL.len()] = counters(
            "edge_mqtt_replies_total",
            "Replies on response topics of commands, by outcome.",
            "outcome",
            ReplyOutcome::ALL.map(ReplyOutcome::label)
        ),
        pub ack_seconds: Histogram = histogram(
            "edge_mqtt_ack_seconds",
            "Time from sending a message to its acknowledgement by the broker.",
            &ACK_SECONDS_BUCKETS
        ),
    }
}

series! {
    /// Series of bundles.
    pub struct BundleMetrics {
        offers: [IntCounter; OfferOutcome::ALL.len()] = counters(
            "edge_bundle_offers_total",
            "Offers of bundles, and attempts to fetch what they offer.",
            "outcome",
            OfferOutcome::ALL.map(OfferOutcome::label)
        ),
        pub number: IntGauge =
            gauge("edge_bundle_number", "Counter of the bundle in use; 0 without one."),
        pub on_trial: IntGauge = gauge(
            "edge_bundle_on_trial",
            "1 while the bundle in use is on trial and may be rolled back, else 0."
        ),
    }
}

impl BundleMetrics {
    /// Counts an offer.
    pub fn count_offer(&self, outcome: OfferOutcome) {
        count(&self.offers, outcome as usize, 1);
    }
}

impl PlcMetrics {
    /// Counts one request.
    pub fn count_request(&self, outcome: RequestOutcome) {
        count(&self.requests, outcome as usize, 1);
    }

    /// Counts one command.
    pub fn count_command(&self, outcome: CommandOutcome) {
        count(&self.writes, outcome as usize, 1);
    }
}

impl QueueMetrics {
    /// Counts samples dropped without delivery.
    pub fn count_dropped(&self, reason: DropReason, samples: u64) {
        count(&self.dropped, reason as usize, samples);
    }

    /// Returns the number of samples dropped since the start, all reasons together.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.iter().map(IntCounter::get).sum()
    }
}

impl MqttMetrics {
    /// Creates series outside of any scraped registry, for commands other than `run`.
    ///
    /// # Errors
    /// As [`Metrics::new`].
    pub fn unregistered() -> Result<Self, prometheus::Error> {
        Self::register(&Registrar::new(), &[])
    }

    /// Records the protocol version of the session; `None` without a session.
    pub fn set_version(&self, version: Option<MqttVersion>) {
        self.version.set(match version {
            Some(MqttVersion::V5) => 5,
            Some(MqttVersion::V311) => 3,
            None => 0,
        });
    }

    /// Counts messages by outcome.
    pub fn count_messages(&self, outcome: MessageOutcome, messages: u64) {
        count(&self.messages, outcome as usize, messages);
    }

    /// Counts replies on response topics.
    pub fn count_replies(&self, outcome: ReplyOutcome, replies: u64) {
        count(&self.replies, outcome as usize, replies);
    }
}

fn count(counters: &[IntCounter], index: usize, by: u64) {
    if let Some(counter) = counters.get(index) {
        counter.inc_by(by);
    }
}

impl Metrics {
    /// Registers every series for this configuration.
    ///
    /// # Errors
    /// Fails when two series have the same name and labels, which the configuration's unique PLC
    /// names rule out.
    pub fn new(config: &Config, config_hash: &str) -> Result<Self, prometheus::Error> {
        let registrar = Registrar::new();
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let help = "Always 1; the label is the gateway's version.";
        registrar.gauge("edge_build_info", help, &version)?.set(1);
        let help = "Always 1; the label is the hash of the configuration.";
        registrar.gauge("edge_config_info", help, &[("hash", config_hash)])?.set(1);
        let mut plcs = Vec::with_capacity(config.plcs.len());
        for plc in &config.plcs {
            let labels = [("plc", plc.name.as_str())];
            plcs.push(PlcMetrics::register(&registrar, &labels)?);
        }
        let queue = QueueMetrics::register(&registrar, &[])?;
        queue.fits_seconds.set(f64::INFINITY);
        queue.max_bytes.set(i64::try_from(config.queue.max_size).unwrap_or(i64::MAX));
        Ok(Self {
            plcs,
            queue,
            mqtt: MqttMetrics::register(&registrar, &[])?,
            tunnel: TunnelMetrics::register(&registrar, &[])?,
            bundle: BundleMetrics::register(&registrar, &[])?,
            clock_synchronized: registrar.gauge(
                "edge_clock_synchronized",
                "1 while the kernel reports that its clock follows a time server, else 0.",
                &[],
            )?,
            certificates: registrar.float_gauges(
                "edge_certificate_not_after_timestamp_seconds",
                "Unix time at which the first certificate in the file, or that of the broker, expires.",
                "file",
            )?,
            registry: registrar.into_registry(),
        })
    }

    /// Renders the text exposition format 0.0.4.
    ///
    /// # Errors
    /// Fails when a series cannot be encoded.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
