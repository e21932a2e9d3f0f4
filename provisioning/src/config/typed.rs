//! The checked configuration. A `Config` exists only if every check has passed.

mod bundle;
mod mqtt;
mod tunnel;
mod write;

use std::cmp::Ordering;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

pub use bundle::{BundleSettings, BundleUrl};
pub use mqtt::{
    Broker, ClientCertificate, Credentials, HostPort, Lower, Mqtt, MqttVersion, Qos, Scheme,
    Secret, Tls, Via, Will,
};
pub use tunnel::{Listen, Tunnel, TunnelMode};
pub use write::{EventTrigger, NotAProgramId, ProgramId, WritableValue, WriteRate, WriteRule};

use super::JsonFormat;
use crate::plc::{ByteOrder, DataType, Location, PlcModel};

/// Settings of one gateway.
#[derive(Clone, Debug)]
pub struct Config {
    /// Identity of this gateway and its state directory.
    pub gateway: Gateway,
    /// The tunnel to the hub; absent when it is off.
    pub tunnel: Option<Tunnel>,
    /// The connection to the broker.
    pub mqtt: Mqtt,
    /// The store-and-forward queue.
    pub queue: Queue,
    /// Where bundles are fetched, and how long a new one is on trial.
    pub bundle: BundleSettings,
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
    /// Time zone of dates that are published without an offset.
    pub timezone: TimeZone,
    /// Directory for the queue and the other state files.
    pub state_dir: PathBuf,
}

/// `[publish]` with the overrides of one `[plc.publish]`: how this PLC's samples are published.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Topic with all placeholders replaced.
    pub topic: String,
    /// Structure of the payload.
    pub shape: PayloadShape,
    /// Quality of service.
    pub qos: Qos,
    /// Whether the broker retains the last message.
    pub retain: bool,
    /// Format of dates in the payload.
    pub datetime: DatetimeFormat,
    /// Time after which an unchanged value is published again.
    pub heartbeat: Duration,
    /// Whether the payload has the key `gateway` with id, epoch, seq and quality.
    pub stamp: bool,
    /// Fixed members of every message.
    pub extra: serde_json::Map<String, serde_json::Value>,
    /// The event upon which a message with all tags is published, and nothing else; absent to
    /// publish what changes.
    pub on: Option<EventTrigger>,
}

/// `publish.payload`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PayloadShape {
    /// One flat object with a member per tag.
    Flat,
    /// The same object below the device's name, `{"DEVICE": {..}}`, as an M262 publishes it.
    Nested,
    /// A list with value, quality and time of each tag.
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
    /// How much a power cut may lose.
    pub durability: Durability,
    /// Maximum size of the queue's files, in bytes.
    pub max_size: u64,
    /// Free space to leave on the file system, in bytes.
    pub min_free: u64,
    /// Which samples are dropped when the queue is full.
    pub on_full: OnFull,
    /// Order in which samples are sent after an outage.
    pub order: QueueOrder,
}

/// `queue.durability`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// A sample is sent only after it has been synced to disk.
    Strict,
    /// A power cut loses at most one second; the end of the process loses nothing.
    Balanced,
    /// Only samples that wait longer than a few seconds are written to disk.
    LowWear,
}

/// `queue.order`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueueOrder {
    /// New samples first; the backlog is sent in parallel, as capacity allows.
    LiveFirst,
    /// All samples in the order in which they were taken.
    Strict,
}

/// `queue.on_full`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnFull {
    /// The oldest samples are dropped.
    DropOldest,
    /// New samples are dropped.
    DropNewest,
}

/// `[metrics]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Metrics {
    /// Addresses of the listener; an empty list disables it.
    pub listen: Vec<Listen>,
    /// Whether tags are served on `/metrics/tags` by default; [`Tag::metric`] counts.
    pub tags: bool,
}

/// One `[[plc]]`.
#[derive(Clone, Debug)]
pub struct Plc {
    /// Unique name: topic level, metrics label.
    pub name: String,
    /// PLC family.
    pub model: PlcModel,
    /// Name of the machine in the payload.
    pub machine: String,
    /// Name of the device in the payload.
    pub device: String,
    /// Address of the Modbus server.
    pub address: HostPort,
    /// Modbus unit id.
    pub unit_id: u8,
    /// Time-out of one request.
    pub timeout: Duration,
    /// Maximum number of registers in one read request, 1 to 125.
    pub max_words: u16,
    /// Maximum number of unused registers that a request may read to join two tags; sixteen times
    /// as many bits.
    pub max_gap: u16,
    /// Limits on the load of the PLC.
    pub pacing: Pacing,
    /// The only program with which the PLC is written to; absent: the first one that the gateway
    /// meets with this configuration.
    pub accept_program: Option<ProgramId>,
    /// How the samples of this PLC are published.
    pub publish: Publish,
    /// Tags to read, in the order of the file, at least one. Shared, because samplers and encoders
    /// hold them too.
    pub tags: Arc<Vec<Tag>>,
}

/// Limits on the load of a PLC. For PLCs that share a connection, the strictest of each limit
/// applies to all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pacing {
    /// Pause between a connect and the first request.
    pub connect_pause: Duration,
    /// Minimum pause between an answer and the next request.
    pub request_pause: Duration,
    /// Maximum share of the time during which a request may be under way, in percent, 1 to 100.
    pub max_share: u16,
    /// Maximum number of requests per second, 1 to 10,000.
    pub max_requests: u16,
}

/// One `[[plc.tag]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tag {
    /// Key in the payload, unique within its PLC.
    pub name: String,
    /// Address as written in the file: `%MW10`.
    pub at: Box<str>,
    /// Place in the Modbus tables.
    pub location: Location,
    /// Type as declared in the PLC.
    pub data_type: DataType,
    /// Order of the bytes in the registers.
    pub byte_order: ByteOrder,
    /// Engineering unit, for the `samples` payload.
    pub unit: Option<Box<str>>,
    /// Conversion from raw value to engineering value; absent publishes the raw value.
    pub scaling: Option<Scaling>,
    /// Number of digits after the decimal point; absent publishes all.
    pub decimals: Option<u8>,
    /// Format of the value in JSON.
    pub json_format: JsonFormat,
    /// Smallest change that is published; absent publishes every change.
    pub deadband: Option<f64>,
    /// Which numbers are no values; absent when all are.
    pub validity: Option<Arc<Validity>>,
    /// Time between two reads.
    pub scan: Duration,
    /// Whether the value is served on `/metrics/tags`; never for a text.
    pub metric: bool,
    /// Tags of one PLC with the same group are read in one request.
    pub group: Option<Box<str>>,
    /// What may be written; absent for a tag that is only read. Boxed, because few tags have it and
    /// there may be 65,535 of them for each PLC.
    pub write: Option<Box<WriteRule>>,
}

/// `value = raw * scale + offset`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// Factor, not zero.
    pub scale: f64,
    /// Added to the scaled value.
    pub offset: f64,
}

/// Numbers of a tag that are no values: their quality is `invalid`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Validity {
    /// Raw numbers by which the device says that it has no value.
    pub invalid_values: Vec<Number>,
    /// Smallest value, after scaling.
    pub min: Option<f64>,
    /// Largest value, after scaling.
    pub max: Option<f64>,
}

/// A number of the file: exact, also with 64 bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Written without a decimal point.
    Whole(i128),
    /// Written with one; finite.
    Real(f64),
}

impl Number {
    /// Returns the nearest double.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "the nearest double is meant")]
    pub const fn to_f64(self) -> f64 {
        match self {
            Self::Whole(number) => number as f64,
            Self::Real(number) => number,
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => write!(f, "{number}"),
            Self::Real(number) => write!(f, "{number:?}"),
        }
    }
}

impl Plc {
    /// Returns whether a command may write to a tag of this PLC.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.tags.iter().any(|tag| tag.write.is_some())
    }

    /// Returns whether anything is ever written to this PLC: upon a command, or to acknowledge an
    /// event.
    #[must_use]
    pub fn has_writes(&self) -> bool {
        self.is_writable() || self.publish.on.is_some_and(|on| on.acknowledge.is_some())
    }
}

impl Config {
    /// Returns whether the gateway writes to PLCs upon messages that a host on the way to the
    /// broker could forge, as `mqtt.writes_in_clear` allows.
    #[must_use]
    pub fn has_writes_in_clear(&self) -> bool {
        self.plcs.iter().any(Plc::has_writes) && self.mqtt.exposed_broker().is_some()
    }
}

impl PartialOrd for Number {
    /// Compares the numbers as they are written, not their nearest doubles.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (*self, *other) {
            (Self::Whole(one), Self::Whole(other)) => Some(one.cmp(&other)),
            (Self::Real(one), Self::Real(other)) => one.partial_cmp(&other),
            (Self::Whole(one), Self::Real(other)) => compare(one, other),
            (Self::Real(one), Self::Whole(other)) => compare(other, one).map(Ordering::reverse),
        }
    }
}

/// Compares a whole number with a finite one, exactly.
#[expect(clippy::cast_possible_truncation, reason = "`as` saturates, which keeps the order")]
fn compare(whole: i128, real: f64) -> Option<Ordering> {
    let floor = real.floor();
    let order = whole.cmp(&(floor as i128));
    let is_above = real > floor;
    Some(if order == Ordering::Equal && is_above { Ordering::Less } else { order })
}

impl Default for Pacing {
    /// Returns the defaults of `[[plc]]`.
    fn default() -> Self {
        let (connect_pause, request_pause) = (Duration::ZERO, Duration::ZERO);
        Self { connect_pause, request_pause, max_share: 50, max_requests: 200 }
    }
}

impl Pacing {
    /// Returns the stricter value of each limit.
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
