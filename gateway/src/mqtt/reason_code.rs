//! Reason codes of MQTT 5.0, 2.4. Return codes of 3.1.1 are mapped to these.

pub(super) const SUCCESS: u8 = 0x00;
pub(super) const UNSUPPORTED_VERSION: u8 = 0x84;
pub(super) const CLIENT_ID_NOT_VALID: u8 = 0x85;
pub(super) const BAD_USER_NAME_OR_PASSWORD: u8 = 0x86;
pub(super) const NOT_AUTHORIZED: u8 = 0x87;
pub(super) const SERVER_UNAVAILABLE: u8 = 0x88;
pub(super) const BANNED: u8 = 0x8A;
pub(super) const BAD_AUTHENTICATION_METHOD: u8 = 0x8C;
pub(super) const SESSION_TAKEN_OVER: u8 = 0x8E;
pub(super) const TOPIC_FILTER_INVALID: u8 = 0x8F;
pub(super) const TOPIC_NAME_INVALID: u8 = 0x90;
pub(super) const PACKET_TOO_LARGE: u8 = 0x95;

/// Returns whether the code means failure (MQTT 5.0, 2.4).
pub(super) const fn is_failure(code: u8) -> bool {
    code >= 0x80
}

/// Returns whether the code means that the broker rejected the credentials.
pub(super) const fn is_login_refused(code: u8) -> bool {
    matches!(code, BAD_USER_NAME_OR_PASSWORD | NOT_AUTHORIZED | BANNED | BAD_AUTHENTICATION_METHOD)
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
        0x80 => "unspecified error",
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
        0x99 => "payload format invalid",
        0x9A => "retain not supported",
        0x9B => "QoS not supported",
        0x9C => "use another server",
        0x9D => "server moved",
        0x9E => "shared subscriptions not supported",
        0x9F => "connection rate exceeded",
        0xA0 => "maximum connect time",
        0xA1 => "subscription identifiers not supported",
        0xA2 => "wildcard subscriptions not supported",
        _ => "unknown reason",
    }
}
