//! Reason codes of MQTT 5.0, 2.4. Return codes of 3.1.1 are mapped to these.

use crate::model::UntrustedText;

pub(super) const SUCCESS: u8 = 0x00;
pub(super) const UNSPECIFIED_ERROR: u8 = 0x80;
pub(super) const UNSUPPORTED_VERSION: u8 = 0x84;
pub(super) const CLIENT_ID_NOT_VALID: u8 = 0x85;
pub(super) const BAD_USER_NAME_OR_PASSWORD: u8 = 0x86;
/// The access list of the broker forbids it.
pub const NOT_AUTHORIZED: u8 = 0x87;
pub(super) const SERVER_UNAVAILABLE: u8 = 0x88;
pub(super) const BANNED: u8 = 0x8A;
pub(super) const BAD_AUTHENTICATION_METHOD: u8 = 0x8C;
pub(super) const KEEP_ALIVE_TIMEOUT: u8 = 0x8D;
pub(super) const SESSION_TAKEN_OVER: u8 = 0x8E;
pub(super) const TOPIC_FILTER_INVALID: u8 = 0x8F;
pub(super) const TOPIC_NAME_INVALID: u8 = 0x90;
/// The packet is longer than the broker accepts.
pub const PACKET_TOO_LARGE: u8 = 0x95;
pub(super) const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
pub(super) const RETAIN_NOT_SUPPORTED: u8 = 0x9A;
pub(super) const QOS_NOT_SUPPORTED: u8 = 0x9B;
pub(super) const USE_ANOTHER_SERVER: u8 = 0x9C;
pub(super) const SERVER_MOVED: u8 = 0x9D;

/// A reason code with the broker's own explanations.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct BrokerReason {
    /// As it was sent: a return code of 3.1.1 in a CONNACK of 3.1.1.
    pub(super) code: u8,
    /// Reason string.
    pub(super) text: Option<UntrustedText>,
    /// Server reference.
    pub(super) server: Option<UntrustedText>,
}

impl BrokerReason {
    /// Returns a code without explanations.
    pub(super) const fn bare(code: u8) -> Self {
        Self { code, text: None, server: None }
    }
}

/// Returns whether the code means failure (MQTT 5.0, 2.4).
pub(super) const fn is_failure(code: u8) -> bool {
    code >= 0x80
}

/// Returns whether the code means that the broker rejected the credentials.
pub(super) const fn is_login_refused(code: u8) -> bool {
    matches!(code, BAD_USER_NAME_OR_PASSWORD | NOT_AUTHORIZED | BANNED | BAD_AUTHENTICATION_METHOD)
}

/// Returns whether the code says that the broker will never accept the message. Any other code of
/// failure may be different the next time: a quota, a rate limit, an overload.
pub(super) const fn is_final_for_message(code: u8) -> bool {
    matches!(code, NOT_AUTHORIZED | TOPIC_NAME_INVALID | PACKET_TOO_LARGE | PAYLOAD_FORMAT_INVALID)
}

/// Returns whether a DISCONNECT with this code may be due to a message of the gateway.
pub(super) const fn may_concern_message(code: u8) -> bool {
    matches!(code, 0x81 | 0x82 | RETAIN_NOT_SUPPORTED | QOS_NOT_SUPPORTED)
        || is_final_for_message(code)
}

/// Returns the code of MQTT 5 with the meaning of a CONNACK return code of 3.1.1 (3.2.2.3 there);
/// a higher number is a code of MQTT 5 already.
pub(super) const fn from_v3(code: u8) -> u8 {
    match code {
        1 => UNSUPPORTED_VERSION,
        2 => CLIENT_ID_NOT_VALID,
        3 => SERVER_UNAVAILABLE,
        4 => BAD_USER_NAME_OR_PASSWORD,
        5 => NOT_AUTHORIZED,
        other => other,
    }
}

/// Returns the standard's name of a code, in lower case.
pub(super) const fn name(code: u8) -> &'static str {
    match code {
        SUCCESS => "success",
        0x10 => "no matching subscribers",
        UNSPECIFIED_ERROR => "unspecified error",
        0x81 => "malformed packet",
        0x82 => "protocol error",
        0x83 => "implementation specific error",
        UNSUPPORTED_VERSION => "unsupported protocol version",
        CLIENT_ID_NOT_VALID => "client identifier not valid",
        BAD_USER_NAME_OR_PASSWORD => "bad user name or password",
        NOT_AUTHORIZED => "not authorized",
        SERVER_UNAVAILABLE => "server unavailable",
        0x89 => "server busy",
        BANNED => "banned",
        0x8B => "server shutting down",
        BAD_AUTHENTICATION_METHOD => "bad authentication method",
        0x8D => "keep alive timeout",
        SESSION_TAKEN_OVER => "session taken over",
        TOPIC_FILTER_INVALID => "topic filter invalid",
        TOPIC_NAME_INVALID => "topic name invalid",
        0x91 => "packet identifier in use",
        0x92 => "packet identifier not found",
        0x93 => "receive maximum exceeded",
        0x94 => "topic alias invalid",
        PACKET_TOO_LARGE => "packet too large",
        0x96 => "message rate too high",
        0x97 => "quota exceeded",
        0x98 => "administrative action",
        PAYLOAD_FORMAT_INVALID => "payload format invalid",
        RETAIN_NOT_SUPPORTED => "retain not supported",
        QOS_NOT_SUPPORTED => "QoS not supported",
        USE_ANOTHER_SERVER => "use another server",
        SERVER_MOVED => "server moved",
        0x9E => "shared subscriptions not supported",
        0x9F => "connection rate exceeded",
        0xA0 => "maximum connect time",
        0xA1 => "subscription identifiers not supported",
        0xA2 => "wildcard subscriptions not supported",
        _ => "unknown reason",
    }
}
