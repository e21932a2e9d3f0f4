//! Hand-written settings for tests of several modules.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use provisioning::config::{
    Broker, BundleSettings, Config, DatetimeFormat, Durability, Gateway, HostPort, JsonFormat,
    Lower, Metrics, Mqtt, MqttVersion, OnFull, Pacing, PayloadShape, Plc, Publish, Qos, Queue,
    QueueOrder, Scheme, Tag, Tls, Via,
};
use provisioning::plc::{ByteOrder, IecType, Location, PlcModel, Table};

/// Returns a configuration with this number of PLCs: `plc0`, `plc1`, ...
pub(crate) fn config(plcs: usize) -> Config {
    Config {
        gateway: gateway(),
        tunnel: None,
        mqtt: Mqtt {
            brokers: vec![Broker { scheme: Scheme::Mqtt, address: host_port("127.0.0.1", 1883) }],
            via: Via::Direct,
            tls: Tls::default(),
            version: Some(MqttVersion::V5),
            client_id: "amsterdam-01".to_owned(),
            keep_alive: Duration::from_secs(30),
            credentials: None,
            will: None,
            lower: Lower::default(),
            session_expiry: Duration::ZERO,
            writes_in_clear: false,
        },
        queue: queue(),
        bundle: BundleSettings::default(),
        metrics: Metrics { listen: Vec::new(), tags: false },
        plcs: (0..plcs).map(|n| plc(&format!("plc{n}"), &["temperature", "pressure"])).collect(),
    }
}

/// Returns the settings of a queue of 1 MiB, with the defaults for the rest.
pub(crate) fn queue() -> Queue {
    Queue {
        durability: Durability::Balanced,
        max_size: 1 << 20,
        min_free: 0,
        on_full: OnFull::DropOldest,
        order: QueueOrder::LiveFirst,
    }
}

/// Returns the gateway of the examples in the documentation.
pub(crate) fn gateway() -> Gateway {
    Gateway {
        id: "amsterdam-01".to_owned(),
        location: "amsterdam".to_owned(),
        timezone: TimeZone::fixed(jiff::tz::offset(2)),
        // No directory can be made there: a test must not store anything.
        state_dir: PathBuf::from("/dev/null/state"),
    }
}

/// Returns an M241 of machine `pump6` with these tags, published flat and with a stamp.
pub(crate) fn plc(name: &str, tags: &[&str]) -> Plc {
    Plc {
        name: name.to_owned(),
        model: PlcModel::M241,
        machine: "pump6".to_owned(),
        device: "M241".to_owned(),
        address: host_port("127.0.0.1", 502),
        unit_id: 255,
        timeout: Duration::from_secs(1),
        max_words: 120,
        max_gap: 32,
        pacing: Pacing::default(),
        accept_program: None,
        publish: Publish {
            topic: format!("edge/amsterdam-01/data/{name}"),
            shape: PayloadShape::Flat,
            qos: Qos::AtLeastOnce,
            retain: false,
            datetime: DatetimeFormat::Rfc3339,
            heartbeat: Duration::from_secs(60),
            stamp: true,
            extra: serde_json::Map::new(),
            on: None,
        },
        tags: Arc::new(tags.iter().map(|name| tag(name)).collect()),
    }
}

fn tag(name: &str) -> Tag {
    let table = Table::HoldingRegister;
    Tag {
        name: name.to_owned(),
        at: "%MW10".into(),
        location: Location { table, first: 10, count: 1, byte: 0, bit: None },
        data_type: IecType::Int.into(),
        byte_order: ByteOrder::Cdab,
        unit: None,
        scaling: None,
        decimals: None,
        json_format: JsonFormat::Plain,
        deadband: None,
        validity: None,
        scan: Duration::from_secs(1),
        metric: true,
        group: None,
        write: None,
    }
}

fn host_port(host: &str, port: u16) -> HostPort {
    HostPort { host: host.to_owned(), port }
}
