//! Why there is no session, as sentences for an installer.

use std::fmt;

use provisioning::config::{Mqtt, MqttVersion, Scheme};
use serde::Serialize;
use thiserror::Error;

use super::ClientSettings;
use super::failure::SessionFailure;
use super::inbound_guard::PeerProtocol;
use super::inflight::ACK_TIMEOUT;
use super::reason_code::{self, BrokerReason};
use crate::model::{Sentence, UntrustedText};
use crate::uplink::DialError;

/// Why a session ended or was not established. `broker` is host and port, `reason` the standard's
/// name of a reason code, `cause` the text of the operating system or of the MQTT library.
#[derive(Clone, Debug, Error, PartialEq, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub(super) enum BrokerDiagnosis {
    #[error("The gateway cannot open a socket: {cause}.")]
    NoSocket { cause: UntrustedText },
    #[error("The password for the broker cannot be read: {cause}.")]
    PasswordFile { cause: UntrustedText },
    #[error(
        "{broker} accepts the connection but does not answer: check that an MQTT broker listens \
         there, write mqtts:// if and only if it uses TLS, or try version = \"{other_version}\"."
    )]
    NoConnack { broker: String, other_version: &'static str },
    #[error(
        "An HTTP server answers at {broker}, perhaps the WebSocket port of a broker: write the \
         port for MQTT into brokers, as a rule 1883, or 8883 with mqtts://."
    )]
    HttpServer { broker: String },
    #[error("{broker} uses TLS: write mqtts:// instead of mqtt:// in brokers.")]
    TlsServer { broker: String },
    #[error(
        "What answers at {broker} is not an MQTT broker: check host and port in brokers, and write \
         mqtts:// if and only if the broker uses TLS."
    )]
    NotMqtt { broker: String },
    #[error("The broker {broker} answers in MQTT 3.1.1: write version = \"3.1.1\", or \"auto\".")]
    AnswersV3 { broker: String },
    #[error("The broker {broker} does not answer the subscription.")]
    NoSuback { broker: String },
    #[error("The broker {broker} refuses the user name or the password. {reload}")]
    BadPassword { broker: String, reload: PasswordReload },
    #[error(
        "The broker {broker} refuses this gateway ({reason}): check the user name, the password \
         and the rights of {client_id}. {reload}"
    )]
    Unauthorized {
        broker: String,
        reason: &'static str,
        client_id: String,
        /// As in `BadPassword`.
        reload: PasswordReload,
    },
    #[error(
        "The broker {broker} does not support this version of MQTT: try version = \
         \"{other_version}\"."
    )]
    UnsupportedVersion { broker: String, other_version: &'static str },
    #[error("The broker {broker} refuses the client id {client_id}.")]
    BadClientId { broker: String, client_id: String },
    #[error(
        "The broker {broker} refuses the connection: {reason}{}.", in_brackets(text.as_ref())
    )]
    ConnackRefused {
        broker: String,
        reason: &'static str,
        /// The broker's own explanation, if it sent one.
        text: Option<UntrustedText>,
    },
    #[error(
        "The broker {broker} does not support the configured quality of service: write lower = \
         [\"qos\"] into [mqtt] to use the highest that it supports, or correct qos in [publish] \
         and [mqtt.will]."
    )]
    QosNotSupported { broker: String },
    #[error(
        "The broker {broker} does not support retained messages: write lower = [\"retain\"] into \
         [mqtt] to send them without RETAIN, or retain = false into [publish] and [mqtt.will]."
    )]
    RetainNotSupported { broker: String },
    #[error(
        "The broker {broker} accepts packets of at most {bytes} bytes, fewer than any message of \
         this gateway has: raise its maximum packet size."
    )]
    PacketLimit { broker: String, bytes: usize },
    #[error(
        "The broker {broker} sends its clients to another server{} ({reason}): write that one into \
         brokers.", named(server.as_ref())
    )]
    Moved {
        broker: String,
        reason: &'static str,
        /// The server reference, if the broker sent one.
        server: Option<UntrustedText>,
    },
    #[error(
        "The broker {broker} closes the connection at once: check that it accepts this gateway's \
         certificate, cert_file and key_file, or try version = \"{other_version}\"."
    )]
    ClosedAtOnceTls { broker: String, other_version: &'static str },
    #[error(
        "{broker} closes the connection at once: check that an MQTT broker without TLS listens \
         there, write mqtts:// for one with TLS, or try version = \"{other_version}\"."
    )]
    ClosedAtOnce { broker: String, other_version: &'static str },
    #[error(
        "Another client uses the client id {client_id} at {broker}: every gateway needs its own."
    )]
    TakenOver { broker: String, client_id: String },
    #[error("The broker {broker} ended the connection: {reason}{}.", in_brackets(text.as_ref()))]
    Disconnected {
        broker: String,
        reason: &'static str,
        /// The broker's own explanation, if it sent one.
        text: Option<UntrustedText>,
    },
    #[error(
        "The broker {broker} closed the connection; if this repeats, check that no other client \
         uses the client id {client_id}."
    )]
    Closed { broker: String, client_id: String },
    #[error("The connection to {broker} was lost: {cause}.")]
    ConnectionLost { broker: String, cause: UntrustedText },
    #[error("The broker {broker} no longer answers.")]
    NoPingresp { broker: String },
    #[error("Nothing has come back from the broker {broker} for {seconds} s.")]
    NoAcknowledgement { broker: String, seconds: u64 },
    #[error("The connection to {broker} is too slow or has stalled.")]
    NotWritten { broker: String },
    #[error(
        "{broker} sent a message of {size} bytes, above the gateway's limit of 1 MiB; \
         subscriptions pause for 10 minutes."
    )]
    MessageTooLarge { broker: String, size: usize },
    #[error("{broker} violates the MQTT protocol: {cause}.")]
    ProtocolViolation { broker: String, cause: UntrustedText },
    #[error("{broker} did not acknowledge a message, although it acknowledged later ones.")]
    AcknowledgementMissing { broker: String },
    #[error("The broker {broker} refused many messages of QoS 2; the gateway reconnects.")]
    InflightSlotsLeaked { broker: String },
    #[error("The tunnel uses another hub; the gateway selects a broker again.")]
    HubChanged,
    #[error(
        "The broker {broker} closes the connection over the subscription to {filter}: allow this \
         gateway to read there in the broker's access list (ACL), in Mosquitto with the line \
         \"topic read {filter}\"."
    )]
    SubscriptionClosed { broker: String, filter: String },
    #[error(
        "The broker {broker} sends messages to which this gateway did not subscribe; the gateway \
         begins a new session there."
    )]
    #[serde(rename = "foreign_subscription")]
    UnknownSubscription { broker: String },
    #[error("The session that the broker {broker} had kept is ended; a new one follows.")]
    KeptSessionEnded { broker: String },
    #[error("The gateway reconnects to {broker} to subscribe again.")]
    SubscribeRetry { broker: String },
    #[error("The gateway reconnects to {broker} for messages that wait there.")]
    MessagesWaiting { broker: String },
    #[error("The gateway reconnects to {broker} to try MQTT 5 again.")]
    VersionRetry { broker: String },
    #[error(
        "The gateway reconnects to {broker} with its new certificate, because the old one is about \
         to expire."
    )]
    CertificateRenewed { broker: String },
    /// Serialised like the error itself: its codes differ from those above.
    #[error(transparent)]
    #[serde(untagged)]
    Dial(DialError),
}

/// How a corrected password reaches the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) enum PasswordReload {
    /// The file is read for each connection.
    #[serde(rename = "next attempt")]
    NextAttempt,
    /// systemd gives the file at the start, and restarts the gateway when it changes.
    #[serde(rename = "by itself")]
    ByItself,
    /// systemd gives the file at the start.
    #[serde(rename = "restart")]
    Restart,
}

impl PasswordReload {
    fn of(settings: &ClientSettings) -> Self {
        let credentials = settings.mqtt.credentials.as_ref();
        match credentials.and_then(|own| own.password.as_ref()) {
            Some(file) if !file.is_credential() => Self::NextAttempt,
            _ if settings.restarts_on_new_secrets => Self::ByItself,
            _ => Self::Restart,
        }
    }
}

impl fmt::Display for PasswordReload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NextAttempt => "The gateway reads the password file again at the next attempt.",
            Self::ByItself => "When the password file changes, the gateway restarts by itself.",
            Self::Restart => "After correcting the password: systemctl restart edge-gateway.",
        })
    }
}

impl SessionFailure {
    /// Renders the failure for an installer. `broker` is host and port.
    pub(super) fn sentence(&self, broker: &str, settings: &ClientSettings) -> Sentence {
        Sentence::new(&self.diagnosis(broker.to_owned(), settings))
    }

    fn diagnosis(&self, broker: String, settings: &ClientSettings) -> BrokerDiagnosis {
        use BrokerDiagnosis as Diagnosis;
        let mqtt = &settings.mqtt;
        let client_id = mqtt.client_id.clone();
        let other_version = other_version(mqtt.version);
        match self {
            Self::Dial(error) => Diagnosis::Dial(error.clone()),
            Self::PasswordFile(cause) => {
                Diagnosis::PasswordFile { cause: UntrustedText::new(cause) }
            }
            Self::Bridge(error) => Diagnosis::NoSocket { cause: UntrustedText::of(error) },
            Self::NoConnack => Diagnosis::NoConnack { broker, other_version },
            Self::NotMqtt(PeerProtocol::Http) => Diagnosis::HttpServer { broker },
            Self::NotMqtt(PeerProtocol::Tls) => Diagnosis::TlsServer { broker },
            Self::NotMqtt(PeerProtocol::Other) => Diagnosis::NotMqtt { broker },
            Self::AnswersV3 => Diagnosis::AnswersV3 { broker },
            Self::QosNotSupported => Diagnosis::QosNotSupported { broker },
            Self::RetainNotSupported => Diagnosis::RetainNotSupported { broker },
            Self::PacketLimit { bytes } => Diagnosis::PacketLimit { broker, bytes: *bytes },
            Self::NoSuback => Diagnosis::NoSuback { broker },
            Self::Connack(said) => connack_refused(said, broker, settings),
            // In TLS 1.3 a broker checks the client's certificate after the client has finished
            // the handshake, so a rejected certificate looks like an early close.
            Self::ClosedBeforeConnack if uses_tls(&broker, mqtt) => {
                Diagnosis::ClosedAtOnceTls { broker, other_version }
            }
            Self::ClosedBeforeConnack => Diagnosis::ClosedAtOnce { broker, other_version },
            Self::Disconnected(said) => disconnected(said, broker, client_id),
            Self::Closed => Diagnosis::Closed { broker, client_id },
            Self::Broken(error) => {
                Diagnosis::ConnectionLost { broker, cause: UntrustedText::of(error) }
            }
            Self::NoPingresp => Diagnosis::NoPingresp { broker },
            Self::NoAcknowledgement => {
                Diagnosis::NoAcknowledgement { broker, seconds: ACK_TIMEOUT.as_secs() }
            }
            Self::NotWritten => Diagnosis::NotWritten { broker },
            Self::TooLarge { size } => Diagnosis::MessageTooLarge { broker, size: *size },
            Self::Protocol(cause) => Diagnosis::ProtocolViolation { broker, cause: cause.clone() },
            Self::Collision => Diagnosis::AcknowledgementMissing { broker },
            Self::InflightSlotsLeaked => Diagnosis::InflightSlotsLeaked { broker },
            Self::HubChanged => Diagnosis::HubChanged,
            Self::SubscriptionClosed => {
                Diagnosis::SubscriptionClosed { broker, filter: settings.subscriptions.join(", ") }
            }
            Self::UnknownSubscription => Diagnosis::UnknownSubscription { broker },
            Self::KeptSessionEnded => Diagnosis::KeptSessionEnded { broker },
            Self::SubscribeRetry => Diagnosis::SubscribeRetry { broker },
            Self::MessagesWaiting => Diagnosis::MessagesWaiting { broker },
            Self::VersionRetry => Diagnosis::VersionRetry { broker },
            Self::CertificateRenewed => Diagnosis::CertificateRenewed { broker },
        }
    }
}

/// Returns what a DISCONNECT means.
fn disconnected(said: &BrokerReason, broker: String, client_id: String) -> BrokerDiagnosis {
    let reason = reason_code::name(said.code);
    match said.code {
        reason_code::SESSION_TAKEN_OVER => BrokerDiagnosis::TakenOver { broker, client_id },
        reason_code::USE_ANOTHER_SERVER | reason_code::SERVER_MOVED => {
            BrokerDiagnosis::Moved { broker, reason, server: said.server.clone() }
        }
        _ => BrokerDiagnosis::Disconnected { broker, reason, text: said.text.clone() },
    }
}

/// Returns what a CONNACK with a failure code means.
fn connack_refused(
    said: &BrokerReason,
    broker: String,
    settings: &ClientSettings,
) -> BrokerDiagnosis {
    let (mqtt, reload) = (&settings.mqtt, PasswordReload::of(settings));
    let client_id = mqtt.client_id.clone();
    let reason = reason_code::name(said.code);
    match said.code {
        reason_code::QOS_NOT_SUPPORTED => BrokerDiagnosis::QosNotSupported { broker },
        reason_code::RETAIN_NOT_SUPPORTED => BrokerDiagnosis::RetainNotSupported { broker },
        reason_code::USE_ANOTHER_SERVER | reason_code::SERVER_MOVED => {
            BrokerDiagnosis::Moved { broker, reason, server: said.server.clone() }
        }
        reason_code::BAD_USER_NAME_OR_PASSWORD => BrokerDiagnosis::BadPassword { broker, reload },
        code if reason_code::is_login_refused(code) => {
            BrokerDiagnosis::Unauthorized { broker, reason, client_id, reload }
        }
        reason_code::UNSUPPORTED_VERSION => BrokerDiagnosis::UnsupportedVersion {
            broker,
            other_version: other_version(mqtt.version),
        },
        reason_code::CLIENT_ID_NOT_VALID => BrokerDiagnosis::BadClientId { broker, client_id },
        _ => BrokerDiagnosis::ConnackRefused { broker, reason, text: said.text.clone() },
    }
}

fn uses_tls(broker: &str, mqtt: &Mqtt) -> bool {
    let mut brokers = mqtt.brokers.iter().filter(|known| known.address.to_string() == broker);
    brokers.any(|known| known.scheme == Scheme::Mqtts)
}

const fn other_version(version: Option<MqttVersion>) -> &'static str {
    match version {
        Some(MqttVersion::V311) => "5",
        Some(MqttVersion::V5) | None => "3.1.1",
    }
}

fn in_brackets(text: Option<&UntrustedText>) -> String {
    text.map_or_else(String::new, |text| format!(" ({text})"))
}

fn named(server: Option<&UntrustedText>) -> String {
    server.map_or_else(String::new, |server| format!(", {server}"))
}
