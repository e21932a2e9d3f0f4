//! `[mqtt]`: the connection to the broker.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// `[mqtt]`.
#[derive(Clone, Debug)]
pub struct Mqtt {
    /// Tried in this order; never empty.
    pub brokers: Vec<Broker>,
    /// How they are reached.
    pub via: Via,
    /// What proves who a broker is, and who we are; used for [`Scheme::Mqtts`].
    pub tls: Tls,
    /// Protocol version.
    pub version: MqttVersion,
    /// Client identifier; the gateway's id unless given.
    pub client_id: String,
    /// Keep alive; zero switches it off (3.1.1 only).
    pub keep_alive: Duration,
    /// User name and password.
    pub credentials: Option<Credentials>,
    /// The user's own will, which replaces "offline" on the status topic.
    pub will: Option<Will>,
}

/// One entry of `mqtt.brokers`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Broker {
    /// Whether TLS is spoken.
    pub scheme: Scheme,
    /// Host and port.
    pub address: HostPort,
}

/// The first part of a broker's address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// `mqtt://`.
    Mqtt,
    /// `mqtts://`.
    Mqtts,
}

/// `mqtt.via`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Via {
    /// Through the tunnel, and never past it.
    Tunnel,
    /// As the operating system routes.
    Direct,
}

/// TLS towards the brokers. The files are read again for each connection, so that a renewed
/// certificate is taken without a restart.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tls {
    /// Authorities that a broker's certificate must come from; absent: those of the system.
    pub ca_file: Option<PathBuf>,
    /// What proves who we are.
    pub client: Option<ClientCertificate>,
}

/// A certificate with its key, both PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientCertificate {
    /// The certificate and those between it and the authority.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

/// Host name or IP address with a port. Names are resolved when connecting, every time.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct HostPort {
    /// Name, IPv4 or IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// MQTT protocol version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MqttVersion {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.0.
    V5,
}

/// User name and password for the broker.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password, read from `password_file`.
    pub password: Option<Secret>,
}

/// Text that never shows itself in a log or an error.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

/// The message that the broker publishes when this gateway vanishes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Will {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: String,
    /// Quality of service.
    pub qos: Qos,
    /// Whether the broker keeps it.
    pub retain: bool,
}

/// MQTT quality of service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Qos {
    /// QoS 0: sent once, never acknowledged.
    AtMostOnce,
    /// QoS 1: acknowledged.
    AtLeastOnce,
    /// QoS 2: acknowledged in two steps.
    ExactlyOnce,
}

impl HostPort {
    /// The same for every way to write one place: capitals, the dot at the end of a name and the
    /// forms of an IPv6 address make no difference. Whether two names lead to one address is not
    /// known here.
    #[must_use]
    pub fn normalised(&self) -> Self {
        let host = self.host.trim_end_matches('.').to_lowercase();
        let host = host.parse().map_or(host, |address: IpAddr| address.to_canonical().to_string());
        Self { host, port: self.port }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// Gives the text away, to the one place that has to send it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}
