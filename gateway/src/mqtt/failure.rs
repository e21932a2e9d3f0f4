//! Why a session ended or was not established.

use std::io;

use super::reason_code;
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
    /// The connection was lost or closed.
    Closed,
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

    /// Returns the word for it in logs and tests.
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
    /// The broker refused the connection with this reason code.
    Connack { code: u8 },
    /// The broker closed the connection before it answered CONNECT.
    ClosedBeforeConnack,
    /// The broker sent DISCONNECT with this reason code.
    Disconnected { code: u8, text: Option<String> },
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
    Protocol(String),
    /// A packet id came up again while its earlier message was unacknowledged.
    Collision,
    /// Refused messages of QoS 2 have used up rumqttc's in-flight window.
    InflightSlotsLeaked,
    /// It is time to subscribe again after a message that was too large.
    SubscribeRetry,
    /// The tunnel uses another hub.
    HubChanged,
}

impl SessionFailure {
    /// Returns what the failure means while CONNECT is unanswered.
    pub(super) fn before_connack(self) -> Self {
        if matches!(self, Self::Closed | Self::Broken(_)) {
            Self::ClosedBeforeConnack
        } else {
            self
        }
    }

    /// Returns whether nothing has come back from the broker, so that a tunnel may be the cause.
    pub(super) const fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::NoConnack
                | Self::NoSuback
                | Self::Broken(_)
                | Self::NoPingresp
                | Self::NoAcknowledgement
                | Self::NotWritten
        )
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
}
