//! What Prometheus sees. One own registry; every series exists at 0 from the start, and labels
//! come from closed sets or from the configuration.

mod labels;
mod secure;

pub use labels::{DropReason, MessageOutcome, RequestOutcome};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use provisioning::config::Config;
pub use secure::TunnelMetrics;

const REQUEST_SECONDS_BUCKETS: [f64; 11] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
const ACK_SECONDS_BUCKETS: [f64; 11] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Every series of one gateway, and the registry that renders them.
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
    /// `edge_clock_synchronized`.
    pub clock_synchronized: IntGauge,
    /// `edge_certificate_not_after_timestamp_seconds`.
    pub certificates: GaugeVec,
}

/// Series of one PLC.
#[derive(Clone, Debug)]
pub struct PlcMetrics {
    /// `edge_plc_up`.
    pub up: IntGauge,
    /// `edge_plc_request_seconds`.
    pub request_seconds: Histogram,
    /// `edge_plc_connects_total`.
    pub connects: IntCounter,
    /// `edge_plc_cycles_missed_total`.
    pub cycles_missed: IntCounter,
    /// `edge_plc_last_answer_timestamp_seconds`.
    pub last_answer_timestamp: Gauge,
    /// `edge_plc_tags_quarantined`.
    pub tags_quarantined: IntGauge,
    requests: [IntCounter; RequestOutcome::ALL.len()],
}

/// Series of the queue.
#[derive(Clone, Debug)]
pub struct QueueMetrics {
    /// `edge_samples_produced_total`.
    pub produced: IntCounter,
    /// `edge_samples_recovered_total`.
    pub recovered: IntCounter,
    /// `edge_queue_written_bytes_total`.
    pub written_bytes: IntCounter,
    /// `edge_queue_sync_seconds`.
    pub sync_seconds: Histogram,
    /// `edge_queue_storage_failing`.
    pub storage_failing: IntGauge,
    /// `edge_samples_delivered_total`.
    pub delivered: IntCounter,
    /// `edge_samples_stored`.
    pub stored: IntGauge,
    /// `edge_queue_bytes`.
    pub queued_bytes: IntGauge,
    /// `edge_queue_oldest_timestamp_seconds`, 0 when empty.
    pub oldest_timestamp: Gauge,
    /// `edge_queue_fits_seconds`, infinite while nothing comes in.
    pub fits_seconds: Gauge,
    dropped: [IntCounter; DropReason::ALL.len()],
}

/// Series of the broker connection.
#[derive(Clone, Debug)]
pub struct MqttMetrics {
    /// `edge_mqtt_connected`.
    pub connected: IntGauge,
    /// `edge_mqtt_ack_seconds`.
    pub ack_seconds: Histogram,
    messages: [IntCounter; MessageOutcome::ALL.len()],
}

impl PlcMetrics {
    /// Counts one request.
    pub fn count_request(&self, outcome: RequestOutcome) {
        count(&self.requests, outcome as usize, 1);
    }
}

impl QueueMetrics {
    /// Counts samples that will never be delivered.
    pub fn count_dropped(&self, reason: DropReason, samples: u64) {
        count(&self.dropped, reason as usize, samples);
    }

    /// Samples that will never be delivered, for whatever reason.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.iter().map(IntCounter::get).sum()
    }
}

impl MqttMetrics {
    /// Series that nobody scrapes, for a command that is not the gateway.
    ///
    /// # Errors
    /// As [`Metrics::new`].
    pub fn unregistered() -> Result<Self, prometheus::Error> {
        register_mqtt(&Registry::new())
    }

    /// Counts messages by what became of them.
    pub fn count_messages(&self, outcome: MessageOutcome, messages: u64) {
        count(&self.messages, outcome as usize, messages);
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
        let registry = Registry::new();
        let info = |name, help, label, value: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            gauge.with_label_values(&[value]).set(1);
            registry.register(Box::new(gauge))
        };
        let version = env!("CARGO_PKG_VERSION");
        info("edge_build_info", "Always 1; the version is the label.", "version", version)?;
        info("edge_config_info", "Always 1; the hash is the label.", "hash", config_hash)?;
        register_writes(&registry, config)?;
        Ok(Self {
            plcs: register_plcs(&registry, config)?,
            queue: register_queue(&registry)?,
            mqtt: register_mqtt(&registry)?,
            tunnel: TunnelMetrics::new(&registry)?,
            clock_synchronized: secure::clock(&registry)?,
            certificates: secure::certificates(&registry)?,
            registry,
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

/// Outcomes of a write, as its reply names them.
const WRITE_OUTCOMES: [&str; 6] = ["done", "rejected", "failed", "expired", "duplicate", "unknown"];

/// What is true of a gateway that writes nothing to PLCs: rules and dashboards find these series before their numbers move.
fn register_writes(registry: &Registry, config: &Config) -> Result<(), prometheus::Error> {
    let writes = IntCounterVec::new(
        Opts::new("edge_writes_total", "Write commands by what became of them."),
        &["plc", "outcome"],
    )?;
    for plc in &config.plcs {
        for outcome in WRITE_OUTCOMES {
            writes.with_label_values(&[plc.name.as_str(), outcome]).reset();
        }
    }
    registry.register(Box::new(writes))
}

fn register_plcs(
    registry: &Registry,
    config: &Config,
) -> Result<Vec<PlcMetrics>, prometheus::Error> {
    let up = IntGaugeVec::new(
        Opts::new("edge_plc_up", "Whether the PLC answered its last request."),
        &["plc"],
    )?;
    let requests = IntCounterVec::new(
        Opts::new("edge_plc_requests_total", "Modbus requests by what became of them."),
        &["plc", "outcome"],
    )?;
    let request_seconds = HistogramVec::new(
        HistogramOpts::new("edge_plc_request_seconds", "Round trip of a Modbus request.")
            .buckets(REQUEST_SECONDS_BUCKETS.to_vec()),
        &["plc"],
    )?;
    let connects = IntCounterVec::new(
        Opts::new("edge_plc_connects_total", "Attempts to open the connection to the PLC."),
        &["plc"],
    )?;
    let missed = IntCounterVec::new(
        Opts::new(
            "edge_plc_cycles_missed_total",
            "Scan cycles skipped because one ran too long or a ceiling was reached.",
        ),
        &["plc"],
    )?;
    let last_answer = GaugeVec::new(
        Opts::new("edge_plc_last_answer_timestamp_seconds", "When the PLC answered last."),
        &["plc"],
    )?;
    let quarantined = IntGaugeVec::new(
        Opts::new("edge_plc_tags_quarantined", "Tags that the PLC refuses; tried now and then."),
        &["plc"],
    )?;
    registry.register(Box::new(quarantined.clone()))?;
    registry.register(Box::new(up.clone()))?;
    registry.register(Box::new(requests.clone()))?;
    registry.register(Box::new(request_seconds.clone()))?;
    registry.register(Box::new(connects.clone()))?;
    registry.register(Box::new(missed.clone()))?;
    registry.register(Box::new(last_answer.clone()))?;
    let one = |name: &str| PlcMetrics {
        up: up.with_label_values(&[name]),
        request_seconds: request_seconds.with_label_values(&[name]),
        connects: connects.with_label_values(&[name]),
        cycles_missed: missed.with_label_values(&[name]),
        last_answer_timestamp: last_answer.with_label_values(&[name]),
        tags_quarantined: quarantined.with_label_values(&[name]),
        requests: RequestOutcome::ALL
            .map(|outcome| requests.with_label_values(&[name, outcome.label()])),
    };
    Ok(config.plcs.iter().map(|plc| one(&plc.name)).collect())
}

fn register_queue(registry: &Registry) -> Result<QueueMetrics, prometheus::Error> {
    let produced = IntCounter::new("edge_samples_produced_total", "Samples handed to the queue.")?;
    let delivered =
        IntCounter::new("edge_samples_delivered_total", "Samples that the broker acknowledged.")?;
    let dropped = IntCounterVec::new(
        Opts::new("edge_samples_dropped_total", "Samples that will never be delivered."),
        &["reason"],
    )?;
    let stored = IntGauge::new("edge_samples_stored", "Samples that wait for the broker.")?;
    let bytes = IntGauge::new("edge_queue_bytes", "Bytes that wait for the broker.")?;
    let oldest = Gauge::new(
        "edge_queue_oldest_timestamp_seconds",
        "When the oldest waiting sample was taken; 0 when none waits.",
    )?;
    let fits = Gauge::new(
        "edge_queue_fits_seconds",
        "How much longer a broker may be away before samples are dropped, at the present rate.",
    )?;
    fits.set(f64::INFINITY);
    let recovered = IntCounter::new(
        "edge_samples_recovered_total",
        "Samples that earlier runs left in the queue, found at the start.",
    )?;
    let written =
        IntCounter::new("edge_queue_written_bytes_total", "Bytes that the queue wrote to files.")?;
    let sync_seconds = Histogram::with_opts(
        HistogramOpts::new("edge_queue_sync_seconds", "Until what was written is on the disk.")
            .buckets(ACK_SECONDS_BUCKETS.to_vec()),
    )?;
    let failing =
        IntGauge::new("edge_queue_storage_failing", "Whether the queue is in memory only.")?;
    registry.register(Box::new(recovered.clone()))?;
    registry.register(Box::new(written.clone()))?;
    registry.register(Box::new(sync_seconds.clone()))?;
    registry.register(Box::new(failing.clone()))?;
    registry.register(Box::new(produced.clone()))?;
    registry.register(Box::new(delivered.clone()))?;
    registry.register(Box::new(dropped.clone()))?;
    registry.register(Box::new(stored.clone()))?;
    registry.register(Box::new(bytes.clone()))?;
    registry.register(Box::new(oldest.clone()))?;
    registry.register(Box::new(fits.clone()))?;
    let dropped = DropReason::ALL.map(|reason| dropped.with_label_values(&[reason.label()]));
    Ok(QueueMetrics {
        produced,
        recovered,
        written_bytes: written,
        sync_seconds,
        storage_failing: failing,
        delivered,
        stored,
        queued_bytes: bytes,
        oldest_timestamp: oldest,
        fits_seconds: fits,
        dropped,
    })
}

fn register_mqtt(registry: &Registry) -> Result<MqttMetrics, prometheus::Error> {
    let connected =
        IntGauge::new("edge_mqtt_connected", "Whether the connection to a broker stands.")?;
    let messages = IntCounterVec::new(
        Opts::new("edge_mqtt_messages_total", "Published messages by what became of them."),
        &["outcome"],
    )?;
    let ack_seconds = Histogram::with_opts(
        HistogramOpts::new(
            "edge_mqtt_ack_seconds",
            "From sending to the broker's acknowledgement.",
        )
        .buckets(ACK_SECONDS_BUCKETS.to_vec()),
    )?;
    registry.register(Box::new(connected.clone()))?;
    registry.register(Box::new(messages.clone()))?;
    registry.register(Box::new(ack_seconds.clone()))?;
    let messages =
        MessageOutcome::ALL.map(|outcome| messages.with_label_values(&[outcome.label()]));
    Ok(MqttMetrics { connected, ack_seconds, messages })
}
