//! The file as people write it: every key with its type, its default and its meaning. The JSON
//! Schema and docs/configuration.md are made from here.

use super::field::{Field, ListField, OptionalSection, Section, SectionList, StreamedList};
use super::read::section;
use super::scalar::{
    AbsolutePath, Boolean, BoundedDuration, BoundedSize, Choice, DecimalNumber, DeclaredType,
    EndpointText, Enumeration, GatewayId, HubKey, Integer, JsonMembers, NamedZone, PlainText,
    PublicFile, SecretFile, TopicLevel, TopicTemplate, TunnelAddress, TunnelNetwork, TunnelSwitch,
};
use super::{
    Broker, DatetimeFormat, Durability, HostPort, Listen, MqttVersion, OnFull, PayloadShape,
    QueueOrder, Via,
};
use crate::plc::{ByteOrder, CodePage, PlcModel};

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;

/// Time between two reads.
pub(super) type Scan = BoundedDuration<1, HOUR>;
/// Longest wait for one answer of a PLC.
pub(super) type Timeout = BoundedDuration<50, MINUTE>;
/// Time in which a PLC is left alone.
pub(super) type Pause = BoundedDuration<0, MINUTE>;
/// MQTT counts the seconds of a keep alive with 16 bits; 0 switches it off.
pub(super) type KeepAlive = BoundedDuration<0, { 65_535 * SECOND }>;
/// Longest silence of an idle tunnel; routers forget a UDP flow after 30 seconds and more. 0 sends
/// nothing.
pub(super) type TunnelKeepAlive = BoundedDuration<0, { 65_535 * SECOND }>;
/// Time after which an unchanged value is repeated.
pub(super) type Heartbeat = BoundedDuration<100, { 24 * HOUR }>;

section! {
    /// Configuration of an edge gateway: gateway.toml.
    struct RawConfig {
        /// Who this gateway is and where it keeps its state.
        gateway: Section<RawGateway>;
        /// The WireGuard tunnel to the hub. Without this section there is none.
        tunnel: OptionalSection<RawTunnel>;
        /// The connection to the broker.
        mqtt: Section<RawMqtt>;
        /// What is published, and how; `[plc.publish]` overrides it for one PLC.
        publish: Section<RawPublish>;
        /// The queue that holds samples until the broker has acknowledged them.
        queue: Section<RawQueue>;
        /// The listener for /metrics, /healthz, /readyz and /status.
        metrics: Section<RawMetrics>;
        /// One PLC, or another Modbus TCP server.
        plc: StreamedList<RawPlc>;
    }
}

section! {
    /// Who this gateway is and where it keeps its state.
    struct RawGateway {
        /// Name of this gateway, unique in the fleet: in topics, payloads and status.
        id: Field<GatewayId>, else "required";
        /// Where it stands: `location` in the payload, `{location}` in topics.
        location: Field<PlainText> = "";
        /// Zone of dates that are written without one (`datetime = "plain"`), and of the PLCs'
        /// clocks.
        timezone: Field<NamedZone> = "UTC";
        /// Directory of everything that the gateway remembers.
        state_dir: Field<AbsolutePath> = "/var/lib/edge-gateway";
    }
}

section! {
    /// The WireGuard tunnel to the hub.
    struct RawTunnel {
        /// Where its packets come from: a TCP stack in this process, which wants no privileges and
        /// touches no routes; a device of the operating system, which wants CAP_NET_ADMIN; or
        /// nowhere.
        mode: Field<Choice<TunnelSwitch>> = "userspace";
        /// File with the private key, as `edge-gateway keygen` prints it: relative to this file, or
        /// `cred:NAME` for a file in $CREDENTIALS_DIRECTORY. Others must not be able to read it,
        /// nor its group to write it.
        private_key_file: Field<SecretFile>, else "required unless mode is off";
        /// Address of this gateway in the tunnel.
        address: Field<TunnelAddress>, else "required unless mode is off";
        /// Longest packet in the tunnel, in bytes. 1280 passes every line, 1420 every Ethernet.
        mtu: Field<Integer<1280, 9000>> = 1280u16;
        /// An idle tunnel sends one small packet in this time, so that routers on the way do not
        /// forget it; 0s sends none, and the hub then cannot begin to talk.
        keep_alive: Field<TunnelKeepAlive> = "25s";
        /// One hub.
        hub: SectionList<RawHub>;
    }
}

section! {
    /// A hub, in order of preference: the next one is taken when this one is silent.
    struct RawHub {
        /// Unique name, in the status.
        name: Field<TopicLevel>, else "required";
        /// Where it listens: host:port (UDP).
        endpoint: Field<EndpointText>, else "required";
        /// Its public key.
        public_key: Field<HubKey>, else "required";
        /// File with the key that is shared with this hub alone, like private_key_file.
        preshared_key_file: Field<SecretFile>, else "none";
        /// Networks that are reached through it, and the only ones that it may send from.
        allowed_ips: ListField<TunnelNetwork>, else "required";
    }
}

section! {
    /// The connection to the broker.
    struct RawMqtt {
        /// Brokers as `mqtt://host:port`, or `mqtts://host:port` with TLS; more than one means
        /// fail-over in this order. A single one can be set by the environment.
        brokers: ListField<Broker>, else "required";
        /// How they are reached: through the tunnel, and never past it, or as the operating system
        /// routes.
        via: Field<Choice<Via>>, else "\"tunnel\" with [tunnel], else \"direct\"";
        /// Protocol version. Under 3.1.1 a broker acknowledges even what its access list refuses.
        version: Field<Choice<MqttVersion>> = "5";
        /// Client identifier; no two clients of a broker may have the same.
        client_id: Field<PlainText>, else "gateway.id";
        /// Time after which a silent connection is checked. Whole seconds; at least 5s with
        /// version 5 (the client library requires it); 0s switches it off, with version 3.1.1
        /// only.
        keep_alive: Field<KeepAlive> = "30s";
        /// User name.
        username: Field<PlainText>, else "none";
        /// File with the password, relative to this file, or `cred:NAME` for a file in
        /// $CREDENTIALS_DIRECTORY. Others must not be able to read it, nor its group to write it.
        password_file: Field<SecretFile>, else "none";
        /// File with the certificates (PEM) of the authorities that a broker's certificate must
        /// come from.
        ca_file: Field<PublicFile>, else "those of the system";
        /// File with this gateway's own certificate (PEM), for brokers that ask for one.
        cert_file: Field<PublicFile>, else "none";
        /// File with the private key (PEM) of cert_file. Others must not be able to read it, nor
        /// its group to write it.
        key_file: Field<SecretFile>, else "none";
        /// The message that the broker publishes when the gateway vanishes. Without it:
        /// "offline", retained, on edge/{gateway}/status.
        will: OptionalSection<RawWill>;
    }
}

section! {
    /// The message that the broker publishes when the gateway vanishes.
    struct RawWill {
        /// Topic, with `{gateway}` and `{location}` as placeholders.
        topic: Field<TopicTemplate>, else "required";
        /// Text of the message.
        payload: Field<PlainText>, else "required";
        /// Quality of service.
        qos: Field<Integer<0, 2>> = 1u16;
        /// Whether the broker keeps it for later subscribers.
        retain: Field<Boolean> = true;
    }
}

section! {
    /// What is published, and how.
    struct RawPublish {
        /// Topic, with the placeholders `{gateway}` `{location}` `{machine}` `{device}` `{plc}`.
        /// Two PLCs may share one.
        topic: Field<TopicTemplate> = "edge/{gateway}/data/{plc}";
        /// Form of the payload: one flat object, an object below the device's name, or one entry
        /// per tag with value, quality and time.
        payload: Field<Choice<PayloadShape>> = "flat";
        /// Quality of service.
        qos: Field<Integer<0, 2>> = 1u16;
        /// Whether the broker keeps the last message for later subscribers.
        retain: Field<Boolean> = false;
        /// Form of dates: 2020-06-24T10:01:44.250Z, 2020-06-24 12:01:44 in the gateway's time
        /// zone, or milliseconds since 1970.
        datetime: Field<Choice<DatetimeFormat>> = "rfc3339";
        /// Unchanged values are published again after this.
        heartbeat: Field<Heartbeat> = "60s";
        /// Whether the payload carries the key `gateway` with id, epoch, seq and quality.
        stamp: Field<Boolean> = true;
        /// Fixed members of every message, for example `{ line = 3 }`.
        extra: Field<JsonMembers>, else "none";
    }
}

section! {
    /// Overrides `[publish]` for one PLC; what is left out is as there.
    struct RawPlcPublish {
        /// See `[publish]`.
        topic: Field<TopicTemplate>, else "publish.topic";
        /// See `[publish]`.
        payload: Field<Choice<PayloadShape>>, else "publish.payload";
        /// See `[publish]`.
        qos: Field<Integer<0, 2>>, else "publish.qos";
        /// See `[publish]`.
        retain: Field<Boolean>, else "publish.retain";
        /// See `[publish]`.
        datetime: Field<Choice<DatetimeFormat>>, else "publish.datetime";
        /// See `[publish]`.
        heartbeat: Field<Heartbeat>, else "publish.heartbeat";
        /// See `[publish]`.
        stamp: Field<Boolean>, else "publish.stamp";
        /// Added to the members of `[publish]`.
        extra: Field<JsonMembers>, else "none";
    }
}

section! {
    /// The queue that holds samples until the broker has acknowledged them. It lies in
    /// `state_dir`.
    struct RawQueue {
        /// What a power cut may take: nothing that was sent (strict), one second (balanced), or
        /// five seconds, and hardly anything is written while the broker answers (low-wear).
        durability: Field<Choice<Durability>> = "balanced";
        /// Most bytes that its files may take.
        max_size: Field<BoundedSize<{ 64 * KIB }, { 4 * GIB }>> = "256MiB";
        /// Bytes that it leaves free on the file system.
        min_free: Field<BoundedSize<0, { 4 * GIB }>> = "64MiB";
        /// Who loses when it is full: the oldest samples or the newest.
        on_full: Field<Choice<OnFull>> = "drop-oldest";
        /// After an outage: new samples first and the old ones beside them, or all in the order in
        /// which they were taken.
        order: Field<Choice<QueueOrder>> = "live-first";
    }
}

section! {
    /// The listener for /metrics, /healthz, /readyz and /status.
    struct RawMetrics {
        /// IP addresses with ports, and `tunnel:PORT` for a port that only the tunnel reaches; an
        /// empty list switches the listener off.
        listen: ListField<Listen>, else "\"tunnel:9464\" with [tunnel], else \"127.0.0.1:9464\"";
    }
}

section! {
    /// One PLC, or another Modbus TCP server.
    struct RawPlc {
        /// Unique name: `{plc}` in topics, label in metrics, in the status.
        name: Field<TopicLevel>, else "required";
        /// Family of the PLC: decides addresses, unit id and byte order.
        model: Field<Choice<PlcModel>>, else "required";
        /// Machine in the payload; two PLCs may share one.
        machine: Field<PlainText>, else "name";
        /// Device in the payload.
        device: Field<PlainText>, else "model";
        /// Address of the PLC; the port is 502 unless given.
        address: Field<HostPort>, else "required";
        /// Modbus unit id.
        unit_id: Field<Integer<0, 255>>, else "255, generic: 1";
        /// Time between two reads.
        scan: Field<Scan> = "1s";
        /// Longest wait for one answer.
        timeout: Field<Timeout> = "1s";
        /// Most registers in one request.
        max_words: Field<Integer<1, 125>> = 120u16;
        /// Most unused registers that one request may read to join two tags.
        max_gap: Field<Integer<0, 124>>, else "32, generic: 0";
        /// Pause between a connect and the first request. PLCs with the same address share one
        /// connection; of this and the next three keys the strictest of their values holds.
        connect_pause: Field<Pause> = "0ms";
        /// Least pause between an answer and the next request.
        request_pause: Field<Pause> = "0ms";
        /// Most of the PLC's time that reading may take, in percent: waiting for answers within
        /// any 10s. Cycles beyond it are skipped and counted as missed.
        max_share: Field<Integer<1, 100>> = 50u16;
        /// Most requests in a second. Cycles beyond it are skipped and counted as missed.
        max_requests: Field<Integer<1, 10000>> = 200u16;
        /// How the bytes of a value lie in its registers; A is the most significant one.
        order: Field<Choice<ByteOrder>>, else "CDAB, generic: ABCD";
        /// Zone in which the PLC's clock runs: DT and LDT carry none. Where the clock is put back,
        /// the first of two equal times is meant; a time that was left out counts an hour later.
        timezone: Field<NamedZone>, else "gateway.timezone";
        /// Overrides `[publish]` for this PLC.
        publish: OptionalSection<RawPlcPublish>;
        /// One variable of the PLC.
        tag: SectionList<RawTag>;
    }
}

section! {
    /// One variable of a PLC.
    struct RawTag {
        /// Key in the payload, unique within its PLC.
        name: Field<PlainText>, else "required";
        /// Address as declared in Machine Expert: %MW10, %MD5, %ML3, %MB20, %MX20.3, %MW10.3,
        /// %IX0.3, %QX0.3; of an M221: %MW10, %MW10:X3, %MD10, %MF10, %M5; or holding:10,
        /// holding:10.3, coil:3, discrete:3; generic also input:10.
        at: Field<PlainText>, else "required";
        /// Type as declared in Machine Expert: BOOL, BYTE, WORD, DWORD, LWORD, SINT, INT, DINT, LINT,
        /// USINT, UINT, UDINT, ULINT, REAL, LREAL, TIME, LTIME, DATE, TOD, DT, LDATE, LTOD, LDT,
        /// STRING(20), WSTRING(20), and ARRAY[0..9] OF any of them.
        r#type: Field<DeclaredType>, else "required";
        /// Code page of a STRING: that of ISO 8859-1, or UTF-8 if the PLC's project says so.
        encoding: Field<Choice<CodePage>>, else "latin-1";
        /// Names of the numbers of an enumeration, for example `{ 0 = "stop", 1 = "run" }`: the name
        /// is published. A number without one is published as it is, with the quality invalid.
        r#enum: Field<Enumeration>, else "none";
        /// Engineering unit, in the payload `samples`.
        unit: Field<PlainText>, else "none";
        /// The value is multiplied by this.
        scale: Field<DecimalNumber>, else "1";
        /// Then this is added.
        offset: Field<DecimalNumber>, else "0";
        /// Digits after the point. An integer with scale or offset has as many as these were
        /// written with (`scale = 0.1` has one), so that 3 times 0.1 is 0.3.
        decimals: Field<Integer<0, 15>>, else "see meaning";
        /// Smaller changes than this are not published; without it, every change is.
        deadband: Field<DecimalNumber>, else "none";
        /// Time between two reads.
        scan: Field<Scan>, else "plc.scan";
        /// How the bytes lie in the registers.
        order: Field<Choice<ByteOrder>>, else "plc.order";
        /// Tags of one PLC with the same word here are read in one request, so that they belong to
        /// the same moment: a value and its scale factor, the members of a structure.
        group: Field<PlainText>, else "none";
    }
}
