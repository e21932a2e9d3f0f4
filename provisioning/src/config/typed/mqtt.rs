//! `[mqtt]`: the connection to the broker.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::PasswordFile;

/// `[mqtt]`.
#[derive(Clone, Debug)]
pub struct Mqtt {
    /// Brokers in order of preference, at least one.
    pub brokers: Vec<Broker>,
    /// Route to the brokers.
    pub via: Via,
    /// Certificates for brokers with [`Scheme::Mqtts`].
    pub tls: Tls,
    /// Protocol version; absent: 5, or 3.1.1 with a broker that says that it does not support 5.
    pub version: Option<MqttVersion>,
    /// Client identifier; by default the gateway's id.
    pub client_id: String,
    /// Keep alive in whole seconds; zero disables it (3.1.1 only).
    pub keep_alive: Duration,
    /// User name and password; absent for an anonymous connection.
    pub credentials: Option<Credentials>,
    /// Configured will, which replaces "offline" on the status topic.
    pub will: Option<Will>,
    /// What may be lowered to the limits of a broker.
    pub lower: Lower,
    /// How long the broker keeps the session of a gateway that is away; zero for not at all.
    pub session_expiry: Duration,
    /// Whether writes are allowed although anyone on the way to a broker could forge them.
    pub writes_in_clear: bool,
}

/// One entry of `mqtt.brokers`.
///
/// ```
/// use provisioning::config::{Broker, Scheme};
///
/// let broker: Broker = "mqtts://broker.example.net".parse()?;
/// assert_eq!((broker.scheme, broker.address.port), (Scheme::Mqtts, 8883));
/// assert!("broker.example.net".parse::<Broker>().is_err());
/// # Ok::<(), provisioning::config::ArgumentError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Broker {
    /// With or without TLS.
    pub scheme: Scheme,
    /// Host and port.
    pub address: HostPort,
}

/// Scheme of a broker's address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// `mqtt://`: plain TCP.
    Mqtt,
    /// `mqtts://`: TLS.
    Mqtts,
}

/// `mqtt.via`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Via {
    /// Through the tunnel only.
    Tunnel,
    /// By the routes of the operating system.
    Direct,
}

/// TLS settings for the brokers. The files are read again for each connection, so that a renewed
/// certificate is used without a restart.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tls {
    /// Certificate authorities (PEM) that a broker's certificate must chain to; absent: the
    /// authorities of the operating system.
    pub ca_file: Option<PathBuf>,
    /// Certificate of the gateway, for brokers that ask for one.
    pub client: Option<ClientCertificate>,
    /// Application protocols that the gateway offers (RFC 7301), for ports that several services
    /// share; empty to offer none.
    pub alpn: Vec<String>,
}

/// A certificate with its key, both PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientCertificate {
    /// The certificate, followed by its intermediate certificates.
    pub cert_file: PathBuf,
    /// Private key of the certificate.
    pub key_file: PathBuf,
}

/// Host name or IP address with a port. A name is resolved for every connection.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HostPort {
    /// Host name, IPv4 address, or IPv6 address without brackets.
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

/// `mqtt.lower`: what the gateway may lower if a broker does not support what is configured.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Lower {
    /// The quality of service, to the maximum of the broker.
    pub qos: bool,
    /// RETAIN, with a broker that retains nothing.
    pub retain: bool,
}

/// User name and password for the broker.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// File with the password. It is read again for each connection, so that a corrected password
    /// is used without a restart.
    pub password: Option<PasswordFile>,
}

/// Text that is redacted in `Debug` output, so that no log or error contains it.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

/// The message that the broker publishes when the connection to this gateway is lost.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Will {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: String,
    /// Quality of service.
    pub qos: Qos,
    /// Whether the broker retains the message.
    pub retain: bool,
}

/// MQTT quality of service.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Qos {
    /// QoS 0: sent once, never acknowledged.
    AtMostOnce,
    /// QoS 1: acknowledged.
    AtLeastOnce,
    /// QoS 2: acknowledged in two steps.
    ExactlyOnce,
}

impl Mqtt {
    /// Returns the first broker whose connection a host on the way could read and change: it is
    /// neither in the tunnel, nor encrypted, nor within this machine.
    #[must_use]
    pub fn exposed_broker(&self) -> Option<&Broker> {
        let is_exposed = |broker: &&Broker| {
            self.via == Via::Direct
                && broker.scheme == Scheme::Mqtt
                && !broker.address.is_loopback()
        };
        self.brokers.iter().find(is_exposed)
    }
}

impl MqttVersion {
    /// Returns the version as people write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V311 => "3.1.1",
            Self::V5 => "5",
        }
    }
}

impl HostPort {
    /// Returns one spelling for all spellings of the same host: lower case, without the final dot
    /// of a name, with the canonical form of an IP address. Names are not resolved.
    #[must_use]
    pub fn normalised(&self) -> Self {
        let host = self.host.trim_end_matches('.').to_lowercase();
        let host = host.parse().map_or(host, |address: IpAddr| address.to_canonical().to_string());
        Self { host, port: self.port }
    }

    /// Returns whether the host is this machine: `localhost`, or a loopback address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.normalised().host;
        host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
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

    /// Returns the text, for the code that sends it.
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
