//! Why a session ended or was not established.

use std::io;

use super::inbound_guard::PeerProtocol;
use super::reason_code::{self, BrokerReason};
use crate::model::UntrustedText;
use crate::uplink::DialError;

/// Why a session ended or was not established, as a closed set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DisconnectReason {
    /// The broker could not be reached.
    Unreachable,
    /// The broker rejects the user name, the password or the rights.
    Unauthorized,
    /// The broker rejects the connection for another reason.
    Refused,
    /// Another client connected with the same client id.
    TakenOver,
    /// The connection was lost or closed, without a reason code or with one that may concern a
    /// message.
    Closed,
    /// The broker ended the session for a reason of its own: a quota, a restart, an overload.
    Unavailable,
    /// The broker no longer answers.
    Silent,
    /// The broker sent a message above the gateway's limit.
    TooLarge,
    /// The broker violates the protocol.
    Protocol,
    /// The gateway ended the session to start a new one. The broker does not publish the will.
    Renewed,
}

impl DisconnectReason {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::Unreachable,
        Self::Unauthorized,
        Self::Refused,
        Self::TakenOver,
        Self::Closed,
        Self::Unavailable,
        Self::Silent,
        Self::TooLarge,
        Self::Protocol,
        Self::Renewed,
    ];

    /// Returns the word for it in logs and tests.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Unauthorized => "unauthorized",
            Self::Refused => "refused",
            Self::TakenOver => "taken_over",
            Self::Closed => "closed",
            Self::Unavailable => "unavailable",
            Self::Silent => "silent",
            Self::TooLarge => "too_large",
            Self::Protocol => "protocol",
            Self::Renewed => "renewed",
        }
    }

    /// Returns whether the session may have ended over a message of the gateway.
    #[must_use]
    pub const fn may_concern_message(self) -> bool {
        matches!(self, Self::Closed | Self::Unauthorized)
    }
}

/// What ended a session or prevented it.
#[derive(Debug)]
pub(super) enum SessionFailure {
    /// The broker could not be reached.
    Dial(DialError),
    /// The password could not be read.
    PasswordFile(String),
    /// The socket between rumqttc and the connection could not be opened.
    Bridge(io::Error),
    /// The broker did not answer CONNECT in time.
    NoConnack,
    /// The broker did not answer SUBSCRIBE in time.
    NoSuback,
    /// What answers is not an MQTT broker.
    NotMqtt(PeerProtocol),
    /// The broker accepted a CONNECT of version 5 in the words of 3.1.1.
    AnswersV3,
    /// The broker refused the connection.
    Connack(BrokerReason),
    /// The broker does not support the configured quality of service.
    QosNotSupported,
    /// The broker does not support retained messages, which are configured.
    RetainNotSupported,
    /// The broker accepts packets of this many bytes at most, too few for any message.
    PacketLimit { bytes: usize },
    /// The broker closed the connection before it answered CONNECT.
    ClosedBeforeConnack,
    /// The broker sent DISCONNECT.
    Disconnected(BrokerReason),
    /// The broker closed the connection.
    Closed,
    /// The connection was lost, or reset by the broker.
    Broken(io::Error),
    /// The broker did not answer a PINGREQ in time.
    NoPingresp,
    /// The broker acknowledged nothing for 30 s, although messages were in flight.
    NoAcknowledgement,
    /// A packet could not be written in time.
    NotWritten,
    /// The broker sent a packet of this many bytes, above the gateway's limit.
    TooLarge { size: usize },
    /// The broker violates the protocol.
    Protocol(UntrustedText),
    /// A packet id came up again while its earlier message was unacknowledged.
    Collision,
    /// Refused messages of QoS 2 have used up rumqttc's in-flight window.
    InflightSlotsLeaked,
    /// The broker closed the connection instead of answering the subscription.
    SubscriptionClosed,
    /// It is time to subscribe again after a pause.
    SubscribeRetry,
    /// Messages wait in the persistent session that did not fit before SUBACK.
    MessagesWaiting,
    /// The broker sends messages for which the gateway has no subscription, and UNSUBSCRIBE did
    /// not end that.
    UnknownSubscription,
    /// The session that the broker had kept is ended; a new one follows.
    KeptSessionEnded,
    /// It is time to try MQTT 5 again.
    VersionRetry,
    /// The certificate of the gateway is about to end, and there is a new one.
    CertificateRenewed,
    /// The tunnel uses another hub.
    HubChanged,
}

impl SessionFailure {
    /// Returns whether the broker itself says that it does not support the version of the
    /// CONNECT. A close, silence and a time-out are not: any fault of the network looks like them.
    pub(super) fn is_version_refused(&self) -> bool {
        matches!(self, Self::AnswersV3)
            || matches!(self, Self::Connack(said) if said.code == reason_code::UNSUPPORTED_VERSION)
    }

    /// Returns what the failure means while CONNECT is unanswered.
    pub(super) fn before_connack(self) -> Self {
        if matches!(self, Self::Closed | Self::Broken(_)) {
            Self::ClosedBeforeConnack
        } else {
            self
        }
    }

    /// Returns what the failure means while SUBSCRIBE is unanswered: a broker may close the
    /// connection over a filter that its access list forbids.
    pub(super) fn before_suback(self) -> Self {
        let is_refusal =
            matches!(&self, Self::Disconnected(said) if said.code == reason_code::NOT_AUTHORIZED);
        if is_refusal || matches!(self, Self::Closed | Self::Broken(_)) {
            Self::SubscriptionClosed
        } else {
            self
        }
    }

    /// Returns whether the subscription may have caused the end of the session.
    pub(super) const fn is_over_subscription(&self) -> bool {
        matches!(self, Self::SubscriptionClosed | Self::NoSuback)
    }

    /// Returns whether this fault of the tunnel is the cause: nothing has come back from the
    /// broker, or the broker gave up because nothing arrived.
    pub(super) fn is_explained_by(&self, fault: &DialError) -> bool {
        let is_unheard = matches!(
            self,
            Self::NoConnack
                | Self::NoSuback
                | Self::Broken(_)
                | Self::NoPingresp
                | Self::NoAcknowledgement
                | Self::NotWritten
                | Self::Dial(DialError::TlsTimedOut { .. })
        );
        let is_close = matches!(
            self,
            Self::Closed | Self::SubscriptionClosed | Self::Dial(DialError::TlsClosed { .. })
        );
        let was_unheard = is_close
            || matches!(self, Self::Disconnected(said) if said.code == reason_code::KEEP_ALIVE_TIMEOUT);
        is_unheard || was_unheard && matches!(fault, DialError::NoTunnel { .. })
    }

    /// Returns whether the tunnel has prevented the session.
    pub(super) const fn is_tunnel_fault(&self) -> bool {
        let Self::Dial(error) = self else { return false };
        matches!(error, DialError::NoTunnel { .. } | DialError::TunnelUnanswered { .. })
    }

    /// Returns the reason as the caller of [`super::run`] sees it.
    pub(super) fn reason(&self) -> DisconnectReason {
        match self {
            Self::Dial(_) | Self::PasswordFile(_) | Self::Bridge(_) => {
                DisconnectReason::Unreachable
            }
            Self::Connack(said) | Self::Disconnected(said)
                if reason_code::is_login_refused(said.code) =>
            {
                DisconnectReason::Unauthorized
            }
            Self::Disconnected(said) if said.code == reason_code::SESSION_TAKEN_OVER => {
                DisconnectReason::TakenOver
            }
            Self::Connack(_)
            | Self::AnswersV3
            | Self::QosNotSupported
            | Self::RetainNotSupported
            | Self::PacketLimit { .. } => DisconnectReason::Refused,
            Self::Disconnected(said) if !reason_code::may_concern_message(said.code) => {
                DisconnectReason::Unavailable
            }
            Self::Disconnected(_)
            | Self::ClosedBeforeConnack
            | Self::Closed
            | Self::Broken(_)
            | Self::SubscriptionClosed => DisconnectReason::Closed,
            Self::NoConnack
            | Self::NoSuback
            | Self::NoPingresp
            | Self::NoAcknowledgement
            | Self::NotWritten => DisconnectReason::Silent,
            Self::TooLarge { .. } => DisconnectReason::TooLarge,
            Self::NotMqtt(_) | Self::Protocol(_) | Self::Collision => DisconnectReason::Protocol,
            Self::InflightSlotsLeaked
            | Self::SubscribeRetry
            | Self::MessagesWaiting
            | Self::UnknownSubscription
            | Self::KeptSessionEnded
            | Self::VersionRetry
            | Self::CertificateRenewed
            | Self::HubChanged => DisconnectReason::Renewed,
        }
    }
}
