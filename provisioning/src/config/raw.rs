//! The keys of gateway.toml with their types, defaults and descriptions. The JSON Schema and
//! docs/configuration.md are generated from this file.

use super::field::{Field, ListField, OptionalSection, Section, SectionList, StreamedList};
use super::read::section;
use super::scalar::{
    AlpnName, Boolean, BoundedDuration, BoundedSize, BundleUrlText, Choice, DecimalNumber,
    DeclaredType, EndpointText, Enumeration, GatewayId, HubKey, Integer, JsonMembers, Lowerable,
    NamedZone, NumberList, NumberRange, PlainText, ProgramText, PublicFile, SecretFile, StateDir,
    TopicLevel, TopicTemplate, TunnelAddress, TunnelNetwork, TunnelSwitch, VersionChoice,
    WriteTable,
};
use super::{
    Broker, DatetimeFormat, Durability, HostPort, Listen, OnFull, PayloadShape, QueueOrder, Via,
};
use crate::plc::{ByteOrder, CodePage, PlcModel};

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;

/// Default of `max_words`.
pub(crate) const DEFAULT_MAX_WORDS: u16 = 120;

/// Time between two reads.
pub(super) type Scan = BoundedDuration<1, HOUR>;
/// Time-out of one request to a PLC.
pub(super) type Timeout = BoundedDuration<50, MINUTE>;
/// Time during which no request is sent to a PLC.
pub(super) type Pause = BoundedDuration<0, MINUTE>;
/// Keep alive of MQTT, which has 16 bits for the seconds; 0 disables it.
pub(super) type KeepAlive = BoundedDuration<0, { 65_535 * SECOND }>;
/// Persistent keepalive of the tunnel: NAT routers drop an idle UDP mapping after 30 seconds or
/// more. 0 disables it.
pub(super) type TunnelKeepAlive = BoundedDuration<0, { 65_535 * SECOND }>;
/// How long the broker keeps the session: at most as long as the ids of commands are kept.
pub(super) type SessionExpiry = BoundedDuration<0, { 7 * 24 * HOUR }>;
/// Time that a bundle has to show that it works.
pub(super) type ConfirmTime = BoundedDuration<MINUTE, { 24 * HOUR }>;
/// Time after which an unchanged value is repeated.
pub(super) type Heartbeat = BoundedDuration<100, { 24 * HOUR }>;

section! {
    /// Configuration of an edge gateway: gateway.toml.
    struct RawConfig {
        /// Identity of this gateway and its state directory.
        gateway: Section<RawGateway>;
        /// The WireGuard tunnel to the hub. Without this section there is no tunnel.
        tunnel: OptionalSection<RawTunnel>;
        /// The connection to the broker.
        mqtt: Section<RawMqtt>;
        /// How samples are published; `[plc.publish]` overrides it for one PLC.
        publish: Section<RawPublish>;
        /// The queue that holds samples until the broker has acknowledged them.
        queue: Section<RawQueue>;
        /// Bundles: where this gateway fetches a new one, and how long it is on trial.
        bundle: Section<RawBundle>;
        /// The listener for /metrics, /healthz, /readyz and /status.
        metrics: Section<RawMetrics>;
        /// One PLC, or another Modbus TCP server.
        plc: StreamedList<RawPlc>;
    }
}

section! {
    /// Identity of this gateway and its state directory.
    struct RawGateway {
        /// Name of this gateway in topics, payloads and status. Each gateway of a fleet needs its
        /// own.
        id: Field<GatewayId>, else "required";
        /// Location of the gateway: `location` in the payload, `{location}` in topics.
        location: Field<PlainText> = "";
        /// Time zone of dates that are published without an offset (`datetime = "plain"`), and of
        /// the clocks of the PLCs.
        timezone: Field<NamedZone> = "UTC";
        /// Directory for the queue and the other state files. The gateway needs write access.
        state_dir: Field<StateDir> = "/var/lib/edge-gateway";
    }
}

section! {
    /// The WireGuard tunnel to the hub.
    struct RawTunnel {
        /// Where packets enter the tunnel: `userspace` is a TCP stack in this process, which needs
        /// no privileges and changes no routes; `tun` is a network interface, which needs
        /// CAP_NET_ADMIN; `off` disables the tunnel.
        mode: Field<Choice<TunnelSwitch>> = "userspace";
        /// File with the private key, as `edge-gateway keygen` writes it: a path, relative to this
        /// file, or `cred:NAME` for the credential NAME of systemd. The file must not be readable
        /// by other users, nor writable by its group. It is read again while the tunnel is not up.
        private_key_file: Field<SecretFile>, else "required unless mode is off";
        /// Address of this gateway in the tunnel.
        address: Field<TunnelAddress>, else "required unless mode is off";
        /// Maximum size of a packet in the tunnel, in bytes. 1280 works on every line, 1420 on
        /// every Ethernet.
        mtu: Field<Integer<1280, 9000>> = 1280u16;
        /// An idle tunnel sends a small packet at this interval, so that NAT routers keep its UDP
        /// mapping. 0s disables it; the hub then cannot reach an idle gateway.
        keep_alive: Field<TunnelKeepAlive> = "25s";
        /// One hub.
        hub: SectionList<RawHub>;
    }
}

section! {
    /// One hub. List several in order of preference: if one does not respond, the next one is used.
    struct RawHub {
        /// Unique name of the hub in the status.
        name: Field<TopicLevel>, else "required";
        /// UDP address of the hub: host:port.
        endpoint: Field<EndpointText>, else "required";
        /// Public key of the hub.
        public_key: Field<HubKey>, else "required";
        /// File with the preshared key for this hub; same rules as for private_key_file.
        preshared_key_file: Field<SecretFile>, else "none";
        /// Networks behind the hub. Packets to them go through it; packets from it are dropped if
        /// their source is in none of them.
        allowed_ips: ListField<TunnelNetwork>, else "required";
    }
}

section! {
    /// The connection to the broker.
    struct RawMqtt {
        /// Brokers as `mqtt://host:port`, or `mqtts://host:port` with TLS, in order of preference:
        /// if one fails, the next one is used. An environment variable can set a single broker.
        brokers: ListField<Broker>, else "required";
        /// Route to the brokers: `tunnel` for the tunnel only, `direct` for the routes of the
        /// operating system.
        via: Field<Choice<Via>>, else "\"tunnel\" with [tunnel], else \"direct\"";
        /// Protocol version: `auto` is 5, or 3.1.1 with a broker that says that it does not support
        /// 5. With 3.1.1 a broker acknowledges even messages that its access list rejects.
        version: Field<Choice<VersionChoice>> = "auto";
        /// Client identifier; each client of a broker needs its own.
        client_id: Field<PlainText>, else "gateway.id";
        /// Interval after which an idle connection is checked, in whole seconds. At least 5s with
        /// the versions auto and 5 (required by the client library); 0s disables it, with version
        /// 3.1.1 only.
        keep_alive: Field<KeepAlive> = "30s";
        /// User name.
        username: Field<PlainText>, else "none";
        /// File with the password: a path, relative to this file, or `cred:NAME` for the credential
        /// NAME of systemd. It is read for each connection. The file must not be readable by other
        /// users, nor writable by its group.
        password_file: Field<SecretFile>, else "none";
        /// File with the certificate authorities (PEM), to one of which the broker's
        /// certificate must chain.
        ca_file: Field<PublicFile>, else "those of the system";
        /// File with the certificate of this gateway (PEM), for brokers that ask for one.
        cert_file: Field<PublicFile>, else "none";
        /// File with the private key (PEM) of cert_file. The file must not be readable by other
        /// users, nor writable by its group.
        key_file: Field<SecretFile>, else "none";
        /// Application protocols that the gateway offers in the TLS handshake (ALPN), for a port
        /// that a broker shares with other services, such as 443: `["mqtt"]`, or what the operator
        /// of the broker names.
        alpn: ListField<AlpnName>, else "none";
        /// The message that the broker publishes when it loses the connection to the gateway. By
        /// default: `{"state":"offline"}`, retained, on edge/{gateway}/status.
        will: OptionalSection<RawWill>;
        /// What the gateway may lower if a broker does not support it: `qos` is lowered to
        /// the maximum of the broker, and with `retain` messages are sent without RETAIN. Otherwise
        /// the gateway keeps the samples and says what the broker does not support. Its own status
        /// and its default will are always lowered.
        lower: ListField<Choice<Lowerable>>, else "nothing";
        /// How long the broker keeps commands for a gateway that is away. 0s disables it. Used
        /// only if a tag is writable, and no topic is published with QoS 2.
        session_expiry: Field<SessionExpiry> = "24h";
        /// Allows writes although the connection to a broker is neither in the tunnel, nor
        /// encrypted, nor within this machine: any host in between can then write to the PLCs. The
        /// status says so.
        writes_in_clear: Field<Boolean> = false;
    }
}

section! {
    /// The message that the broker publishes when it loses the connection to the gateway. It
    /// replaces `{"state":"offline"}` on the status topic; the status is then not retained.
    struct RawWill {
        /// Topic, with `{gateway}` and `{location}` as placeholders.
        topic: Field<TopicTemplate>, else "required";
        /// Text of the message.
        payload: Field<PlainText>, else "required";
        /// Quality of service.
        qos: Field<Integer<0, 2>> = 1u16;
        /// Whether the broker retains the message for later subscribers.
        retain: Field<Boolean> = true;
    }
}

section! {
    /// How samples are published.
    struct RawPublish {
        /// Topic, with the placeholders `{gateway}` `{location}` `{machine}` `{device}` `{plc}`.
        /// Two PLCs may share one.
        topic: Field<TopicTemplate> = "edge/{gateway}/data/{plc}";
        /// Structure of the payload: one flat object, the same object below the device's name, or a
        /// list with value, quality and time of each tag.
        payload: Field<Choice<PayloadShape>> = "flat";
        /// Quality of service.
        qos: Field<Integer<0, 2>> = 1u16;
        /// Whether the broker retains the last message for later subscribers.
        retain: Field<Boolean> = false;
        /// Format of dates: 2020-06-24T10:01:44.250Z, 2020-06-24 12:01:44 in the gateway's time
        /// zone, or milliseconds since 1970.
        datetime: Field<Choice<DatetimeFormat>> = "rfc3339";
        /// Time after which an unchanged value is published again.
        heartbeat: Field<Heartbeat> = "60s";
        /// Whether the payload has the key `gateway` with id, epoch, seq and quality.
        stamp: Field<Boolean> = true;
        /// Fixed members of every message, for example `{ line = 3 }`.
        extra: Field<JsonMembers>, else "none";
    }
}

section! {
    /// Overrides `[publish]` for one PLC; other keys keep their values from `[publish]`.
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
        /// Fixed members in addition to those of `[publish] extra`.
        extra: Field<JsonMembers>, else "none";
        /// Name of a tag: a BOOL, or a counter. When the BOOL becomes true or the counter changes,
        /// all tags of the PLC are read at once and published in one message. Nothing else is
        /// published then. A pulse that is shorter than the `scan` of this tag is not seen.
        on: Field<PlainText>, else "none";
        /// Address of a word for which there is no tag. After the broker has acknowledged the
        /// message of an event, the gateway writes to it the value of the counter, or 1 until the
        /// BOOL is false again.
        acknowledge: Field<PlainText>, else "none";
    }
}

section! {
    /// The queue that holds samples until the broker has acknowledged them. Its files are in
    /// `state_dir`.
    struct RawQueue {
        /// What a power cut may lose: no message that was sent (strict), the last second
        /// (balanced), or the last five seconds (low-wear, which hardly writes while the broker
        /// responds).
        durability: Field<Choice<Durability>> = "balanced";
        /// Maximum size of the queue's files.
        max_size: Field<BoundedSize<{ 64 * KIB }, { 4 * GIB }>> = "256MiB";
        /// Space that the queue leaves free on the file system.
        min_free: Field<BoundedSize<0, { 4 * GIB }>> = "64MiB";
        /// Which samples are dropped when the queue is full: the oldest or the newest.
        on_full: Field<Choice<OnFull>> = "drop-oldest";
        /// Order after an outage: live-first sends new samples first, and the backlog between them;
        /// strict sends all samples in the order in which they were taken.
        order: Field<Choice<QueueOrder>> = "live-first";
    }
}

section! {
    /// Bundles: where this gateway fetches a new one, and how long it is on trial.
    struct RawBundle {
        /// Directory of a web server with the bundles: `http://`, an IP address, and optionally a
        /// port and a path. The gateway fetches `edge-bundle-ID.tar` from it when the office offers
        /// a bundle. With a tunnel, the address must be in `allowed_ips` of a hub: nothing is
        /// fetched outside the tunnel. Without this key, a bundle has to be brought to the box.
        url: Field<BundleUrlText>, else "none";
        /// Time that a new bundle has to reach the hub, the broker and the web server, counted
        /// while the gateway runs. After it, the gateway rolls back to the previous bundle.
        confirm: Field<ConfirmTime> = "10m";
    }
}

section! {
    /// The listener for /metrics, /healthz, /readyz and /status.
    struct RawMetrics {
        /// IP addresses with ports, and `tunnel:PORT` for a port that is reachable through the
        /// tunnel only. An empty list disables the listener.
        listen: ListField<Listen>, else "\"tunnel:9464\" with [tunnel], else \"127.0.0.1:9464\"";
        /// Whether the values of all tags are served on /metrics/tags; `metric` of a tag overrides
        /// it. Values of texts are not served.
        tags: Field<Boolean> = false;
    }
}

section! {
    /// One PLC, or another Modbus TCP server.
    struct RawPlc {
        /// Unique name of the PLC: `{plc}` in topics, label in metrics, name in the status.
        name: Field<TopicLevel>, else "required";
        /// Family of the PLC. Determines addresses, default unit id and default byte order.
        model: Field<Choice<PlcModel>>, else "required";
        /// Name of the machine in the payload; several PLCs may have the same.
        machine: Field<PlainText>, else "name";
        /// Name of the device in the payload.
        device: Field<PlainText>, else "model";
        /// Address of the PLC; the default port is 502.
        address: Field<HostPort>, else "required";
        /// Modbus unit id.
        unit_id: Field<Integer<0, 255>>, else "255, generic: 1";
        /// Time between two reads.
        scan: Field<Scan> = "1s";
        /// Time-out of one request.
        timeout: Field<Timeout> = "1s";
        /// Maximum number of registers in one request.
        max_words: Field<Integer<1, 125>> = DEFAULT_MAX_WORDS;
        /// Maximum number of unused registers that one request may read to join two tags.
        max_gap: Field<Integer<0, 124>>, else "32, generic: 0";
        /// Pause between a connect and the first request. PLCs with the same address share one
        /// connection, so the strictest of their values applies. The same holds for
        /// `request_pause`, `max_share` and `max_requests`.
        connect_pause: Field<Pause> = "0ms";
        /// Minimum pause between an answer and the next request.
        request_pause: Field<Pause> = "0ms";
        /// Maximum share of the time during which a request to the PLC may be under way, in percent
        /// of any 10s. Cycles beyond it are skipped and counted as missed. It does not limit the
        /// cycle load of the PLC program.
        max_share: Field<Integer<1, 100>> = 50u16;
        /// Maximum number of requests per second. Cycles beyond it are skipped and counted as
        /// missed.
        max_requests: Field<Integer<1, 10000>> = 200u16;
        /// Order of the bytes of a value in its registers; A is the most significant byte.
        order: Field<Choice<ByteOrder>>, else "CDAB, generic: ABCD";
        /// Time zone of the PLC's clock, because DT and LDT have none. An hour that occurs twice
        /// when clocks are set back is read as the first; a time in an hour that is skipped is read
        /// as one hour later.
        timezone: Field<NamedZone>, else "gateway.timezone";
        /// Signature of the program for which the addresses of this PLC were checked, as the status
        /// shows it: 32 hexadecimal digits. The PLC is not written to while it has another program.
        accept_program: Field<ProgramText>, else "the first one after a change of this file";
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
        /// Type as declared in Machine Expert: BOOL, BYTE, WORD, DWORD, LWORD, SINT, INT, DINT,
        /// LINT, USINT, UINT, UDINT, ULINT, REAL, LREAL, TIME, LTIME, DATE, TOD, DT, LDATE, LTOD,
        /// LDT, STRING(20), WSTRING(20), and ARRAY[0..9] OF any of them. An enumeration is an INT
        /// unless it is declared with another type.
        r#type: Field<DeclaredType>, else "required";
        /// Encoding of a STRING: ISO 8859-1, or UTF-8 if that is set in the PLC project. With
        /// utf-8 a byte that is no UTF-8 makes the whole text invalid; with utf-8-lossy it is
        /// published as U+FFFD, for programs that cut texts within a letter.
        encoding: Field<Choice<CodePage>>, else "latin-1";
        /// Names of the numbers of an enumeration, for example `{ 0 = "stop", 1 = "run" }`. The
        /// name is published; a number without a name is published as a number, with quality
        /// invalid.
        r#enum: Field<Enumeration>, else "none";
        /// Engineering unit, for the payload `samples`.
        unit: Field<PlainText>, else "none";
        /// Factor by which the raw value is multiplied.
        scale: Field<DecimalNumber>, else "1";
        /// Value that is added after scaling.
        offset: Field<DecimalNumber>, else "0";
        /// Number of digits after the decimal point. The default for an integer with scale or
        /// offset is the number of digits that these are written with (`scale = 0.1` has one), so
        /// that 3 times 0.1 is 0.3.
        decimals: Field<Integer<0, 15>>, else "see meaning";
        /// Only changes greater than this are published. Without it, every change is published.
        deadband: Field<DecimalNumber>, else "none";
        /// Raw numbers, before scaling, by which the device says that it has no value, for example
        /// `[-32768]`. They are published as null with quality invalid.
        invalid_values: Field<NumberList>, else "none";
        /// Smallest and largest value, after scaling: `{ min = -40, max = 150 }`, or one of them.
        /// Others are published as null with quality invalid.
        valid: Field<NumberRange>, else "none";
        /// Time between two reads.
        scan: Field<Scan>, else "plc.scan";
        /// Order of the bytes in the registers.
        order: Field<Choice<ByteOrder>>, else "plc.order";
        /// Whether the value is served on /metrics/tags: a number, true and false as 1 and 0, an
        /// array element by element. The default for a text is false.
        metric: Field<Boolean>, else "metrics.tags";
        /// Tags of a PLC with the same group are read in one request, so that their values belong
        /// together: a value and its scale factor, the members of a structure.
        group: Field<PlainText>, else "none";
        /// Makes the tag writable: `{}` for every value of its type, or a table of `min` and `max`
        /// after scaling, or `values = [..]`, and of `rate = "6/min"`. A value that does not fill
        /// its registers also needs `whole_word = true`: the gateway then reads the word, changes
        /// its part and writes the word, and what the PLC writes to the rest meanwhile is lost.
        write: Field<WriteTable>, else "read-only";
    }
}
