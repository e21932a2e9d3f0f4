//! The checked configuration. Holding one proves that every check has passed.

mod mqtt;
mod tunnel;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

pub use mqtt::{
    Broker, ClientCertificate, Credentials, HostPort, Mqtt, MqttVersion, Qos, Scheme, Secret, Tls,
    Via, Will,
};
pub use tunnel::{Listen, Tunnel, TunnelMode};

use super::JsonFormat;
use crate::plc::{ByteOrder, DataType, Location, PlcModel};

/// Settings of one gateway.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this gateway is and where it keeps its state.
    pub gateway: Gateway,
    /// The tunnel to the hub; absent when it is off.
    pub tunnel: Option<Tunnel>,
    /// The connection to the broker.
    pub mqtt: Mqtt,
    /// The store-and-forward queue.
    pub queue: Queue,
    /// The metrics listener.
    pub metrics: Metrics,
    /// The PLCs, in the order of the file.
    pub plcs: Vec<Plc>,
}

/// `[gateway]`.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// `[a-z0-9-]{1,63}`.
    pub id: String,
    /// Free text for the payload; empty when not given.
    pub location: String,
    /// Zone of dates that are written without one.
    pub timezone: TimeZone,
    /// Directory of everything the gateway remembers.
    pub state_dir: PathBuf,
}

/// `[publish]` with the overrides of one `[plc.publish]`: how this PLC's samples are published.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Topic with every placeholder filled in.
    pub topic: String,
    /// Form of the payload.
    pub shape: PayloadShape,
    /// Quality of service.
    pub qos: Qos,
    /// Whether the broker keeps the last message.
    pub retain: bool,
    /// Form of dates in the payload.
    pub datetime: DatetimeFormat,
    /// An unchanged value is repeated after this.
    pub heartbeat: Duration,
    /// Whether our own `gateway` key (id, epoch, seq, quality) is in the payload.
    pub stamp: bool,
    /// Fixed members that the user wants in every message.
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// `publish.payload`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PayloadShape {
    /// One flat object: the document's datagram.
    Flat,
    /// `{"DEVICE": {..}}`: the form of the M262 example.
    Nested,
    /// One entry per tag with value, quality and time.
    Samples,
}

/// `publish.datetime`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DatetimeFormat {
    /// `2020-06-24T10:01:44.250Z`.
    Rfc3339,
    /// `2020-06-24 12:01:44`, in the gateway's time zone.
    Plain,
    /// Milliseconds since 1970 as a number.
    UnixMs,
}

/// `[queue]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Queue {
    /// What a power cut may take.
    pub durability: Durability,
    /// Most bytes that the queue's files may take.
    pub max_size: u64,
    /// Bytes that stay free on the file system.
    pub min_free: u64,
    /// Who loses when it is full.
    pub on_full: OnFull,
    /// In which order an outage is made up for.
    pub order: QueueOrder,
}

/// `queue.durability`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// Nothing is sent that is not on the disk.
    Strict,
    /// A power cut takes at most a second, the death of the process nothing.
    Balanced,
    /// Only what waits for longer than a few seconds is written at all.
    LowWear,
}

/// `queue.order`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueueOrder {
    /// New samples first, and what an outage left beside them.
    LiveFirst,
    /// Everything in the order in which it was taken.
    Strict,
}

/// `queue.on_full`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnFull {
    /// The oldest telemetry makes room.
    DropOldest,
    /// The newest telemetry is not taken.
    DropNewest,
}

/// `[metrics]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Metrics {
    /// Where to listen; empty switches the listener off.
    pub listen: Vec<Listen>,
}

/// One `[[plc]]`.
#[derive(Clone, Debug)]
pub struct Plc {
    /// Unique name: topic level, metrics label.
    pub name: String,
    /// Family.
    pub model: PlcModel,
    /// Machine in the payload.
    pub machine: String,
    /// Device in the payload.
    pub device: String,
    /// Address of the Modbus server.
    pub address: HostPort,
    /// Modbus unit id.
    pub unit_id: u8,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// Most registers in one read request, 1 to 125.
    pub max_words: u16,
    /// Most unused registers that a request may read to join two tags; bits count as sixteenths.
    pub max_gap: u16,
    /// How it is spared.
    pub pacing: Pacing,
    /// How this PLC is published.
    pub publish: Publish,
    /// What is read, in the order of the file; never empty. Shared by whoever needs them.
    pub tags: Arc<Vec<Tag>>,
}

/// How a PLC is spared. PLCs that share a connection are all spared by the strictest of their
/// values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pacing {
    /// Pause between a connect and the first request.
    pub connect_pause: Duration,
    /// Least pause between an answer and the next request.
    pub request_pause: Duration,
    /// Most of the time that may be spent waiting for answers, in percent, 1 to 100.
    pub max_share: u16,
    /// Most requests in a second, 1 to 1000.
    pub max_requests: u16,
}

/// One `[[plc.tag]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tag {
    /// Key in the payload, unique within its PLC.
    pub name: String,
    /// The address as it was written: `%MW10`.
    pub at: String,
    /// Where it lies.
    pub location: Location,
    /// What it is.
    pub data_type: DataType,
    /// How its bytes lie.
    pub byte_order: ByteOrder,
    /// Engineering unit, for the `samples` payload.
    pub unit: Option<String>,
    /// From raw value to engineering value; absent publishes the raw value.
    pub scaling: Option<Scaling>,
    /// Digits after the point, when they are limited.
    pub decimals: Option<u8>,
    /// How its value is written in JSON.
    pub json_format: JsonFormat,
    /// Least change worth publishing; absent publishes every change.
    pub deadband: Option<f64>,
    /// Time between two reads.
    pub scan: Duration,
    /// Tags of one PLC with the same group are read in one request.
    pub group: Option<String>,
}

/// `value = raw * scale + offset`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// Factor, never zero.
    pub scale: f64,
    /// Added after the factor.
    pub offset: f64,
}

impl Default for Pacing {
    /// What holds where the file says nothing.
    fn default() -> Self {
        let (connect_pause, request_pause) = (Duration::ZERO, Duration::ZERO);
        Self { connect_pause, request_pause, max_share: 50, max_requests: 200 }
    }
}

impl Pacing {
    /// The strictest of both.
    #[must_use]
    pub fn strictest(self, other: Self) -> Self {
        Self {
            connect_pause: self.connect_pause.max(other.connect_pause),
            request_pause: self.request_pause.max(other.request_pause),
            max_share: self.max_share.min(other.max_share),
            max_requests: self.max_requests.min(other.max_requests),
        }
    }
}
