//! Labels: closed sets.

/// Value of the label `outcome` of `edge_plc_requests_total`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestOutcome {
    /// A whole and fitting answer.
    Ok,
    /// A Modbus exception.
    Refused,
    /// No answer in time.
    TimedOut,
    /// An answer that does not fit the request.
    Garbled,
    /// The connection broke.
    Disconnected,
}

/// Value of the label `reason` of `edge_samples_dropped_total`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum DropReason {
    /// The queue was full.
    Full,
    /// The broker answered with a bad reason code.
    Refused,
    /// The message is larger than the broker takes, or the broker closes the connection over it.
    TooLarge,
    /// The gateway stopped before the broker took it, and had no storage.
    Shutdown,
    /// The storage fails, and there was no room in memory.
    Storage,
    /// What was stored cannot be read any more.
    Corrupt,
    /// The configuration has no such tag any more.
    Unconfigured,
}

/// Value of the label `outcome` of `edge_mqtt_messages_total`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MessageOutcome {
    /// Acknowledged with a good reason code, or written when QoS is 0.
    Delivered,
    /// Acknowledged with a bad reason code.
    Refused,
    /// Unacknowledged when the connection broke; it is sent again.
    Interrupted,
}

macro_rules! labels {
    ($name:ident { $($variant:ident = $label:literal),+ $(,)? }) => {
        impl $name {
            /// Every variant, in the order of declaration.
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];

            /// Value of the metric label.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label),+
                }
            }
        }
    };
}

labels!(RequestOutcome {
    Ok = "ok",
    Refused = "refused",
    TimedOut = "timed_out",
    Garbled = "garbled",
    Disconnected = "disconnected",
});
labels!(DropReason {
    Full = "full",
    Refused = "refused",
    TooLarge = "too_large",
    Shutdown = "shutdown",
    Storage = "storage",
    Corrupt = "corrupt",
    Unconfigured = "unconfigured",
});
labels!(MessageOutcome {
    Delivered = "delivered",
    Refused = "refused",
    Interrupted = "interrupted",
});

impl DropReason {
    /// The reason with this label.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.label() == label)
    }
}
