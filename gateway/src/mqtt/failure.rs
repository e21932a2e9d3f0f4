//! Why there is no session, in a word for programs and a sentence for an installer.

use std::io;

use provisioning::config::{Mqtt, MqttVersion, Scheme};
use thiserror::Error;

use super::reason_code;
use crate::uplink::DialError;

/// Why a session ended or did not come about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DisconnectReason {
    /// The broker could not be reached.
    Unreachable,
    /// The broker refuses user name, password or rights.
    Unauthorized,
    /// The broker refuses the connection for another reason.
    Refused,
    /// Another client with the same id took our place.
    TakenOver,
    /// The connection broke or was closed.
    Closed,
    /// The broker does not answer any more.
    Silent,
    /// The broker sent a message above our limit.
    TooLarge,
    /// One of the two ends does not keep to the protocol.
    Protocol,
    /// We end the session ourselves to start a better one. The will is not published.
    Renewed,
}

impl DisconnectReason {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::Unreachable,
        Self::Unauthorized,
        Self::Refused,
        Self::TakenOver,
        Self::Closed,
        Self::Silent,
        Self::TooLarge,
        Self::Protocol,
        Self::Renewed,
    ];

    /// A word for it, from a closed set.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Unauthorized => "unauthorized",
            Self::Refused => "refused",
            Self::TakenOver => "taken_over",
            Self::Closed => "closed",
            Self::Silent => "silent",
            Self::TooLarge => "too_large",
            Self::Protocol => "protocol",
            Self::Renewed => "renewed",
        }
    }
}

/// What ended a session, or kept it from coming about.
#[derive(Debug, Error)]
pub(super) enum SessionFailure {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the way to the broker failed inside the gateway")]
    Bridge(#[source] io::Error),
    #[error("the broker did not answer the connect request")]
    NoConnack,
    #[error("the broker did not answer the subscription")]
    NoSuback,
    #[error("connection refused with code {code}")]
    Connack { code: u8 },
    #[error("closed before the connect request was answered")]
    ClosedBeforeConnack,
    #[error("disconnected with code {code}")]
    Disconnected { code: u8, text: Option<String> },
    #[error("closed by the broker")]
    Closed,
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    #[error("no answer to a ping")]
    NoPingresp,
    #[error("nothing acknowledged")]
    NoAcknowledgement,
    #[error("a message could not be written in time")]
    NotWritten,
    #[error("incoming message of {size} bytes")]
    TooLarge { size: usize },
    #[error("protocol error: {0}")]
    Protocol(String),
    #[error("packet id used twice")]
    Collision,
    #[error("too many refused messages of QoS 2")]
    InflightSlotsLeaked,
    #[error("subscriptions are due again")]
    SubscribeRetry,
    #[error("the tunnel leads to another hub")]
    HubChanged,
}

impl SessionFailure {
    /// The same failure, when the broker has not answered CONNECT yet.
    pub(super) fn before_connack(self) -> Self {
        if matches!(self, Self::Closed | Self::Broken(_)) {
            Self::ClosedBeforeConnack
        } else {
            self
        }
    }

    pub(super) fn reason(&self) -> DisconnectReason {
        match self {
            Self::Dial(_) | Self::Bridge(_) => DisconnectReason::Unreachable,
            Self::Connack { code } | Self::Disconnected { code, .. }
                if reason_code::is_login_refused(*code) =>
            {
                DisconnectReason::Unauthorized
            }
            Self::Disconnected { code: reason_code::SESSION_TAKEN_OVER, .. } => {
                DisconnectReason::TakenOver
            }
            Self::Connack { .. } => DisconnectReason::Refused,
            Self::Disconnected { .. }
            | Self::ClosedBeforeConnack
            | Self::Closed
            | Self::Broken(_) => DisconnectReason::Closed,
            Self::NoConnack
            | Self::NoSuback
            | Self::NoPingresp
            | Self::NoAcknowledgement
            | Self::NotWritten => DisconnectReason::Silent,
            Self::TooLarge { .. } => DisconnectReason::TooLarge,
            Self::Protocol(_) | Self::Collision => DisconnectReason::Protocol,
            Self::InflightSlotsLeaked | Self::SubscribeRetry | Self::HubChanged => {
                DisconnectReason::Renewed
            }
        }
    }

    /// Tells an installer what is wrong. `broker` is host and port.
    pub(super) fn sentence(&self, broker: &str, mqtt: &Mqtt) -> String {
        let client_id = &mqtt.client_id;
        match self {
            Self::Dial(error) => error.sentence(),
            Self::Bridge(error) => format!("the gateway cannot open a socket: {error}"),
            Self::NoConnack => format!(
                "{broker} takes the connection but does not answer: check that an MQTT broker \
                 without TLS listens there"
            ),
            Self::NoSuback => format!("the broker {broker} does not answer our subscription"),
            Self::Connack { code } => refused(*code, broker, mqtt),
            // In TLS 1.3 a broker looks at a certificate when the handshake is over for us.
            Self::ClosedBeforeConnack if uses_tls(broker, mqtt) => format!(
                "the broker {broker} closes the connection at once: check that it accepts this \
                 gateway's certificate, cert_file and key_file, or try version = \"{}\"",
                other_version(mqtt.version)
            ),
            Self::ClosedBeforeConnack => format!(
                "{broker} closes the connection at once: check that an MQTT broker without TLS \
                 listens there, or try version = \"{}\"",
                other_version(mqtt.version)
            ),
            Self::Disconnected { code, text } => disconnected(*code, text, broker, client_id),
            Self::Closed => format!(
                "the broker {broker} closed the connection; if this repeats, check that no other \
                 client uses the id {client_id}"
            ),
            Self::Broken(error) => format!("the connection to {broker} broke: {error}"),
            Self::NoPingresp => format!("the broker {broker} does not answer any more"),
            Self::NoAcknowledgement => {
                format!("the broker {broker} takes messages but does not acknowledge them")
            }
            Self::NotWritten => format!("the connection to {broker} is too slow or stands still"),
            Self::TooLarge { size } => format!(
                "{broker} sent a message of {size} bytes, above our limit of 1 MiB; subscriptions \
                 pause for 10 minutes"
            ),
            Self::Protocol(text) => format!("{broker} does not keep to MQTT: {text}"),
            Self::Collision => {
                format!("{broker} left a message unacknowledged while it acknowledged later ones")
            }
            Self::InflightSlotsLeaked => format!(
                "the broker {broker} refused many messages of QoS 2, so the connection starts anew"
            ),
            Self::HubChanged => {
                "the tunnel goes to another hub, so the choice of the broker begins anew".to_owned()
            }
            Self::SubscribeRetry => {
                format!("the connection to {broker} starts anew to try the subscriptions again")
            }
        }
    }
}

fn uses_tls(broker: &str, mqtt: &Mqtt) -> bool {
    let mut brokers = mqtt.brokers.iter().filter(|known| known.address.to_string() == broker);
    brokers.any(|known| known.scheme == Scheme::Mqtts)
}

fn refused(code: u8, broker: &str, mqtt: &Mqtt) -> String {
    let client_id = &mqtt.client_id;
    match code {
        reason_code::BAD_USER_NAME_OR_PASSWORD => {
            format!("the broker {broker} refuses user name or password")
        }
        code if reason_code::is_login_refused(code) => {
            format!(
                "the broker {broker} refuses this gateway ({}): check user name, password and the \
                 rights of {client_id}",
                reason_code::name(code)
            )
        }
        reason_code::UNSUPPORTED_VERSION => format!(
            "the broker {broker} does not speak this version of MQTT: try version = \"{}\"",
            other_version(mqtt.version)
        ),
        reason_code::CLIENT_ID_NOT_VALID => {
            format!("the broker {broker} refuses the client id {client_id}")
        }
        code => format!("the broker {broker} refuses the connection: {}", reason_code::name(code)),
    }
}

fn disconnected(code: u8, text: &Option<String>, broker: &str, client_id: &str) -> String {
    match (code, text) {
        (reason_code::SESSION_TAKEN_OVER, _) => {
            format!("another client uses the id {client_id} at {broker}: every id must be unique")
        }
        (code, Some(text)) => {
            format!(
                "the broker {broker} ended the connection: {} ({text})",
                reason_code::name(code)
            )
        }
        (code, None) => {
            format!("the broker {broker} ended the connection: {}", reason_code::name(code))
        }
    }
}

const fn other_version(version: MqttVersion) -> &'static str {
    match version {
        MqttVersion::V311 => "5",
        MqttVersion::V5 => "3.1.1",
    }
}
