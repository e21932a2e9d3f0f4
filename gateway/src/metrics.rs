//! The metrics for Prometheus: one registry of the gateway's own. Every series exists from the
//! start, at 0, and labels come from closed sets or from the configuration.

mod labels;
mod registrar;
mod tunnel;

pub use labels::{DropReason, MessageOutcome, RequestOutcome};
use prometheus::{Gauge, GaugeVec, Histogram, IntCounter, IntGauge, Registry, TextEncoder};
use provisioning::config::Config;
use registrar::Registrar;
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
    /// `edge_queue_oldest_timestamp_seconds`; 0 when the queue is empty.
    pub oldest_timestamp: Gauge,
    /// `edge_queue_fits_seconds`; infinite while no samples arrive.
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
        Self::register(&Registrar::new())
    }

    /// Counts messages by outcome.
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
        let series = Registrar::new();
        let version = env!("CARGO_PKG_VERSION");
        series
            .gauges("edge_build_info", "Always 1; the label is the gateway's version.", "version")?
            .with_label_values(&[version])
            .set(1);
        series
            .gauges(
                "edge_config_info",
                "Always 1; the label is the hash of the configuration.",
                "hash",
            )?
            .with_label_values(&[config_hash])
            .set(1);
        register_writes(&series, config)?;
        Ok(Self {
            plcs: PlcMetrics::register(&series, config)?,
            queue: QueueMetrics::register(&series)?,
            mqtt: MqttMetrics::register(&series)?,
            tunnel: TunnelMetrics::register(&series)?,
            clock_synchronized: series.gauge(
                "edge_clock_synchronized",
                "1 while the kernel reports that its clock follows a time server, else 0.",
            )?,
            certificates: series.float_gauges(
                "edge_certificate_not_after_timestamp_seconds",
                "Unix time at which the first certificate in the file expires.",
                "file",
            )?,
            registry: series.into_registry(),
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

/// Outcomes of a write command, as its reply names them.
const WRITE_OUTCOMES: [&str; 6] = ["done", "rejected", "failed", "expired", "duplicate", "unknown"];

/// Registers `edge_writes_total` at 0, so that rules and dashboards find the series before the
/// first write.
fn register_writes(series: &Registrar, config: &Config) -> Result<(), prometheus::Error> {
    let writes =
        series.counters("edge_writes_total", "Write commands by outcome.", &["plc", "outcome"])?;
    for plc in &config.plcs {
        for outcome in WRITE_OUTCOMES {
            writes.with_label_values(&[plc.name.as_str(), outcome]).reset();
        }
    }
    Ok(())
}

impl PlcMetrics {
    fn register(series: &Registrar, config: &Config) -> Result<Vec<Self>, prometheus::Error> {
        let up = series.gauges(
            "edge_plc_up",
            "1 if the PLC answered its last request, else 0.",
            "plc",
        )?;
        let requests = series.counters(
            "edge_plc_requests_total",
            "Modbus requests by outcome.",
            &["plc", "outcome"],
        )?;
        let request_seconds = series.histograms(
            "edge_plc_request_seconds",
            "Round-trip time of a Modbus request.",
            &REQUEST_SECONDS_BUCKETS,
            "plc",
        )?;
        let connects = series.counters(
            "edge_plc_connects_total",
            "Attempts to connect to the PLC.",
            &["plc"],
        )?;
        let missed = series.counters(
            "edge_plc_cycles_missed_total",
            "Scan cycles skipped because one took too long or a rate limit was reached.",
            &["plc"],
        )?;
        let last_answer = series.float_gauges(
            "edge_plc_last_answer_timestamp_seconds",
            "Unix time of the PLC's last answer; 0 before the first.",
            "plc",
        )?;
        let quarantined = series.gauges(
            "edge_plc_tags_quarantined",
            "Tags that the PLC refuses; the gateway retries them from time to time.",
            "plc",
        )?;
        let one_plc = |name: &str| Self {
            up: up.with_label_values(&[name]),
            request_seconds: request_seconds.with_label_values(&[name]),
            connects: connects.with_label_values(&[name]),
            cycles_missed: missed.with_label_values(&[name]),
            last_answer_timestamp: last_answer.with_label_values(&[name]),
            tags_quarantined: quarantined.with_label_values(&[name]),
            requests: RequestOutcome::ALL
                .map(|outcome| requests.with_label_values(&[name, outcome.label()])),
        };
        Ok(config.plcs.iter().map(|plc| one_plc(&plc.name)).collect())
    }
}

impl QueueMetrics {
    fn register(series: &Registrar) -> Result<Self, prometheus::Error> {
        let dropped = series.counters(
            "edge_samples_dropped_total",
            "Samples dropped without delivery, by reason.",
            &["reason"],
        )?;
        let fits_seconds = series.float_gauge(
            "edge_queue_fits_seconds",
            "Time until the queue would be full if no broker took samples, at the present rate.",
        )?;
        fits_seconds.set(f64::INFINITY);
        Ok(Self {
            produced: series
                .counter("edge_samples_produced_total", "Samples handed to the queue.")?,
            recovered: series.counter(
                "edge_samples_recovered_total",
                "Samples of earlier runs that were found in the queue at startup.",
            )?,
            written_bytes: series.counter(
                "edge_queue_written_bytes_total",
                "Bytes that the queue wrote to its files.",
            )?,
            sync_seconds: series.histogram(
                "edge_queue_sync_seconds",
                "Time to sync the queue's files to the disk.",
                &ACK_SECONDS_BUCKETS,
            )?,
            storage_failing: series.gauge(
                "edge_queue_storage_failing",
                "1 while the storage fails and the queue is kept in memory only, else 0.",
            )?,
            delivered: series
                .counter("edge_samples_delivered_total", "Samples that the broker acknowledged.")?,
            stored: series.gauge("edge_samples_stored", "Samples waiting for delivery.")?,
            queued_bytes: series.gauge("edge_queue_bytes", "Bytes waiting for delivery.")?,
            oldest_timestamp: series.float_gauge(
                "edge_queue_oldest_timestamp_seconds",
                "Unix time of the oldest waiting sample; 0 when the queue is empty.",
            )?,
            fits_seconds,
            dropped: DropReason::ALL.map(|reason| dropped.with_label_values(&[reason.label()])),
        })
    }
}

impl MqttMetrics {
    fn register(series: &Registrar) -> Result<Self, prometheus::Error> {
        let messages = series.counters(
            "edge_mqtt_messages_total",
            "Published messages by outcome.",
            &["outcome"],
        )?;
        Ok(Self {
            connected: series.gauge(
                "edge_mqtt_connected",
                "1 while an MQTT session with a broker is established, else 0.",
            )?,
            ack_seconds: series.histogram(
                "edge_mqtt_ack_seconds",
                "Time from sending a message to its acknowledgement by the broker.",
                &ACK_SECONDS_BUCKETS,
            )?,
            messages: MessageOutcome::ALL
                .map(|outcome| messages.with_label_values(&[outcome.label()])),
        })
    }
}
